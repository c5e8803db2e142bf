"""Packages that are not installed with hybridstitch: each is in an extra, and its absence names the extra."""

import ast
import re
import sys
import tomllib
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from hybridstitch.cli import BAD_INPUT, FAILED, main
from hybridstitch.cli.extras import EXTRAS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BROUGHT = {"packaging": "transformers", "pydantic": "pydantic-settings", "starlette": "fastapi", "click": "typer"}
BROUGHT |= {
    "anyio": "fastapi",
    "fsspec": "torch",
    "aiohttp": "ray",
    "huggingface_hub": "diffusers",
    "tokenizers": "transformers",
    "PIL": "pillow",
}
SHOWN_OTHERWISE = {"torchao"}  # its error names it: it has to fit torch, so no extra pins it


def names(requirements):
    return {re.sub(r"[-_.]+", "-", Requirement(text).name).lower() for text in requirements}


def imported():
    """Packages that src imports anywhere, as import names."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"hybridstitch"}


def distribution(module):
    return BROUGHT.get(module, module).replace("_", "-").lower()


def test_what_is_imported_is_a_dependency_or_in_an_extra():
    known = names(PROJECT["dependencies"])
    extras = {name: names(listed) for name, listed in PROJECT["optional-dependencies"].items() if name != "dev"}
    known |= set().union(*extras.values())
    strange = {module for module in imported() - SHOWN_OTHERWISE if distribution(module) not in known}
    assert not strange


def test_doctor_knows_every_extra_and_what_is_in_it():
    extras = PROJECT["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"dev", "docs"}
    for extra, (_, modules) in EXTRAS.items():
        assert {module.replace("_", "-") for module in modules} == names(extras[extra]), extra


@pytest.fixture
def without(monkeypatch):
    """Call it with packages that shall not be there."""

    def hide(*modules):
        for module in modules:
            for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
                monkeypatch.delitem(sys.modules, name)
            monkeypatch.setitem(sys.modules, module, None)

    return hide


@pytest.mark.parametrize("module", EXTRAS["serve"][1])
def test_serve_names_its_extra(module, without, capsys):
    without(module)
    assert main(["serve", "--port", "0"]) == FAILED
    said = capsys.readouterr().err
    assert f"serving needs {module}, not installed here" in said
    assert "pip install 'hybridstitch[serve]'" in said


def test_a_cluster_names_its_extra(tmp_path, without, capsys):
    without("ray")
    assert main(["batch", str(tmp_path / "jobs.jsonl"), "--on", "ray"]) == BAD_INPUT
    assert "pip install 'hybridstitch[ray]'" in capsys.readouterr().err


def test_serving_on_a_cluster_names_its_extra(monkeypatch, capsys):
    ray = ModuleType("ray")  # without Ray Serve
    ray.__spec__ = ModuleSpec("ray", None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.serve", None)  # also where another test imported it
    monkeypatch.delitem(sys.modules, "hybridstitch.serve.on_ray", raising=False)
    assert main(["serve", "--port", "0", "--on", "ray"]) == FAILED
    said = capsys.readouterr().err
    assert said.startswith("error: serving on a cluster needs Ray Serve (")
    assert said.endswith("pip install 'hybridstitch[ray]'\n")


@pytest.mark.parametrize("module", EXTRAS["eval"][1])
def test_scores_name_their_extra(module, without):
    from hybridstitch.evaluate.paired import lpips
    from hybridstitch.evaluate.pictures import ScoreError
    from hybridstitch.evaluate.towers import Inception

    without(module)
    with pytest.raises(ScoreError, match=r"cannot be imported.*pip install 'hybridstitch\[eval\]'"):
        {"lpips": lpips, "torch_fidelity": Inception.load}[module]()


def test_videos_are_webp_without_their_extra(without):
    from hybridstitch.report.clip import ending

    without("av")
    assert ending() == ".webp"
