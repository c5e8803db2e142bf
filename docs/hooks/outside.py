"""Links of pages to files beside docs/: the site holds a page of each such file, and lists folders that are linked to.

Markdown and notebooks become pages, other files a page with their text. So the links that work in the repository work
on the site, and the strict build finds dead ones.
"""

import json
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent.parent
LINK = re.compile(r"(?<=\]\()([^)\s#]*)(#[^)\s\"]*)?(?= \"|\))")
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
IN_NAV = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LOG.md", "examples/first_look.ipynb")
HIDDEN = "---\nsearch:\n  exclude: true\n---\n"
LANGUAGES = {".py": "python", ".yml": "yaml", ".toml": "toml"}


def on_files(files: Files, config: Any) -> Files:
    """Add a page of everything that pages link to and that is none yet."""
    waiting = [(f"docs/{file.src_uri}", file.content_string) for file in files.documentation_pages()]
    waiting.append(("mkdocs.yml", "".join(f"[]({name})" for name in IN_NAV)))
    while waiting:
        here, text = waiting.pop()
        for target in targets(here, text):
            path, uri = ROOT / target, site_uri(target)
            if not path.exists() or files.get_file_from_path(uri) is not None:
                continue
            content = page_of(path, target)
            files.append(File.generated(config, uri, content=content))
            if path.suffix == ".md":
                waiting.append((target, content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let a page's links lead to what stands for their targets."""
    uri: str = page.file.src_uri
    here = uri.removeprefix("repository/") if uri.startswith("repository/") else f"docs/{uri}"

    def lead(link: re.Match[str]) -> str:
        target = resolved(here, link[1])
        if target is None or not (ROOT / target).exists():
            return link[0]
        return posixpath.relpath(site_uri(target), posixpath.dirname(uri)) + (link[2] or "")

    return each_link(markdown, lead)


def targets(here: str, text: str) -> set[str]:
    """Paths in the repository that a page links to."""
    found: set[str] = set()

    def note(link: re.Match[str]) -> str:
        found.add(resolved(here, link[1]) or "")
        return link[0]

    each_link(text, note)
    return found - {""}


def each_link(text: str, change: Callable[[re.Match[str]], str]) -> str:
    """A page with its links changed; what stands in code blocks is left as it is."""
    lines, fence = [], ""
    for line in text.split("\n"):
        found = FENCE.match(line)
        if found is not None and (not fence or found[1].startswith(fence)):
            fence = "" if fence else found[1]
        lines.append(line if fence or found else LINK.sub(change, line))
    return "\n".join(lines)


def resolved(here: str, link: str) -> str | None:
    """The path in the repository that a link means; None for one that leads elsewhere or to the page itself."""
    if not link or ":" in link or link.startswith("/"):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    return None if path.startswith("..") else path


def site_uri(target: str) -> str:
    """Where the site has a file of the repository."""
    path = ROOT / target
    uri = target.removeprefix("docs/") if target.startswith("docs/") else f"repository/{target}"
    if path.is_dir():
        return f"{uri}/index.md"
    made = target.startswith("docs/") and path.suffix not in (".py", ".ipynb")
    return uri if made or path.suffix == ".md" else f"{uri}.md"


def page_of(path: Path, target: str) -> str:
    """A file or folder as Markdown."""
    if path.is_dir():
        listed = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
        return f"{HIDDEN}# {target}\n\n" + "\n".join(f"- [{name}]({name})" for name in listed if name != "index.md")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        return notebook(json.loads(text))
    return f"{HIDDEN}# {target}\n\n`````{LANGUAGES.get(path.suffix, 'text')}\n{text}`````\n"


def notebook(found: dict[str, Any]) -> str:
    """A notebook's cells, with their outputs."""
    parts = []
    for cell in found["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                parts.append(f"![output](data:image/png;base64,{''.join(data['image/png']).strip()})")
            elif "".join(data.get("text/plain", "")).strip():
                parts.append(f"```text\n{''.join(data['text/plain']).rstrip()}\n```")
    return "\n\n".join(parts) + "\n"
