"""The pages: their Python runs, and their links lead somewhere. Console blocks are kept by docs/run_examples.py."""

import ast
import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WITH_PYTHON = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]  # CONTRIBUTING.md shows parts of files
BLOCK = re.compile(r"(?P<not_run><!-- not run: (?P<reason>[^\n]+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
CODE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """Some Python of a page; README.md is of real weights throughout, and not run."""

    page: Path
    line: int
    code: str
    run: bool


def blocks(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start("code")].count("\n") + 1, found["code"], found["not_run"] is None)
        for found in BLOCK.finditer(text)
    ]


def name(page):
    return page.relative_to(ROOT).as_posix()


def pages_of(pages):
    return [pytest.param(page, id=name(page)) for page in pages]


RUN = [page for page in WITH_PYTHON[1:] if any(block.run for block in blocks(page))]


@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
@pytest.mark.parametrize("page", pages_of(RUN))
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """All blocks of a page in order, in one namespace and an empty folder."""
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "page"}
    for block in blocks(page):
        if block.run:
            code = compile("\n" * (block.line - 1) + block.code, name(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()):
                exec(code, space)


@pytest.mark.parametrize("page", pages_of(page for page in WITH_PYTHON if blocks(page)))
def test_python_that_is_not_run_can_be_read_and_names_what_is_there(page):
    import hybridstitch

    for block in blocks(page):
        tree = ast.parse(block.code)
        names = [
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "hybridstitch"
        ]
        missing = [found for found in names if not hasattr(hybridstitch, found)]
        assert not missing, f"{name(page)}, line {block.line}: hybridstitch has no {missing}"


def test_all_files_that_name_the_version_name_the_same():
    """`make release` writes them together."""
    import hybridstitch

    version = hybridstitch.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == "Unreleased" or re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", newest[1])


@pytest.mark.parametrize("page", pages_of(PAGES))
def test_links_lead_to_files(page):
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    links = {link for link in LINK.findall(text) if ":" not in link}
    made = {"reference/commands.md", "reference/policies.md"}  # by docs/hooks/reference.py
    dead = {
        link
        for link in links
        if not (page.parent / link).exists()
        and (page.parent / link).resolve().relative_to(ROOT).as_posix().removeprefix("docs/") not in made
    }
    assert not dead
