"""Pictures of pages lead to themselves, so that a figure that is small on a phone opens in full size."""

import re
from typing import Any

PICTURE = re.compile(r'<img [^>]*\bsrc="([^"]+\.(?:png|svg))"[^>]*>')


def on_page_content(html: str, **_: Any) -> str:
    """Wrap each picture in a link to its file."""
    return PICTURE.sub(r'<a href="\1">\g<0></a>', html)
