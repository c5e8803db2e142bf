"""The notebook runs from top to bottom, and is kept with what it showed."""

import os
import runpy
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "first_look.ipynb"
MOST = 600_000  # bytes of the file, pictures included


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def shown(notebook):
    """What each cell shows, as kinds of data."""
    return [[sorted(output.get("data", ["text"])) for output in cell.get("outputs", ())] for cell in notebook.cells]


def test_it_has_ten_cells_and_is_kept_with_its_outputs(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(notebook.cells) == 10
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert (
        shown(notebook)[1::2]
        == [[["image/png", "text/plain"]]] * 2 + [[["text"]]] + [[["image/png", "text/plain"]]] * 2
    )
    assert NOTEBOOK.stat().st_size < MOST


@pytest.mark.slow
def test_it_runs(notebook, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    before = shown(notebook)
    assert shown(runpy.run_path(str(ROOT / "docs" / "run_notebook.py"))["run"](notebook)) == before
