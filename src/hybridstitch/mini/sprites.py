"""Sprites of the world: one sheet of 64x64 RGBA glyphs, in the order of `words.OBJECTS`, cut and scaled
on demand.

`python -m hybridstitch.mini.sprites FONT` makes the sheet again from NotoColorEmoji.ttf (Debian:
fonts-noto-color-emoji). The glyphs are under the SIL Open Font License 1.1; see assets/OFL.txt.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .words import OBJECTS

ASSETS = Path(__file__).parent / "assets"
CELL = 64  # pixels a sprite
COLUMNS = 8
STRIKE = 109  # the one bitmap size in NotoColorEmoji


@cache
def _sheet() -> tuple[Image.Image, tuple[str, ...]]:
    with Image.open(ASSETS / "sprites.png") as image:
        sheet = image.convert("RGBA")
    return sheet, tuple(json.loads((ASSETS / "sprites.json").read_text())["objects"])


@cache
def sprite(name: str, pixels: int) -> Image.Image:
    """The RGBA glyph of an object, `pixels` x `pixels`. Treat it as read-only: it is cached."""
    sheet, names = _sheet()
    row, column = divmod(names.index(name), COLUMNS)
    cell = sheet.crop((column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL))
    return cell.resize((pixels, pixels), Image.Resampling.LANCZOS)


def glyph(font: ImageFont.FreeTypeFont, text: str) -> Image.Image:
    """One glyph, trimmed to its ink, centred in a CELL x CELL square."""
    canvas = Image.new("RGBA", (STRIKE * 2, STRIKE * 2))
    ImageDraw.Draw(canvas).text((STRIKE // 4, STRIKE // 4), text, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"the font has no glyph for {text!r}; use Debian's fonts-noto-color-emoji")
    ink = canvas.crop(box)
    side = max(ink.size)
    square = Image.new("RGBA", (side, side))
    square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    return square.resize((CELL, CELL), Image.Resampling.LANCZOS)


def make_sheet(font_path: str) -> None:
    """Draw every object of the world into assets/sprites.png and list them in assets/sprites.json."""
    font = ImageFont.truetype(font_path, STRIKE)
    rows = -(-len(OBJECTS) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for place, (text, _) in enumerate(OBJECTS.values()):
        row, column = divmod(place, COLUMNS)
        sheet.paste(glyph(font, text), (column * CELL, row * CELL))
    ASSETS.mkdir(exist_ok=True)
    sheet.save(ASSETS / "sprites.png", optimize=True)
    note = {"font": "Noto Color Emoji", "licence": "OFL-1.1", "cell": CELL, "columns": COLUMNS}
    (ASSETS / "sprites.json").write_text(json.dumps(note | {"objects": list(OBJECTS)}, indent=1) + "\n")


if __name__ == "__main__":
    make_sheet(sys.argv[1])
