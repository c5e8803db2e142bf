"""What a model's name stands for: whole files, remembered; and what earlier releases recorded is recognised."""

import json
import os
from dataclasses import replace

import pytest

from hybridstitch.calibrate.conditions import Conditions, home_of
from hybridstitch.cli import main
from hybridstitch.cli.pairs import Pair
from hybridstitch.mini import opened
from hybridstitch.opening import check_recipe
from hybridstitch.report import identity as module
from hybridstitch.report.identity import ends_of, identity, is_here, known_as
from hybridstitch.reproduce.config import models_in
from mini_folder import save
from test_recipe import RECIPE


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(5 * module.EDGE))
    (folder / "config.json").write_text("{}")
    return folder


def put(path, place, byte):
    with path.open("r+b") as file:
        file.seek(place)
        file.write(byte)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "spiece.model"])
def test_every_byte_counts_wherever_it_lies(folder, name):
    (folder / name).write_bytes(bytes(5 * module.EDGE))
    before = identity(str(folder))
    assert before.startswith("content ")
    put(folder / name, 5 * module.EDGE // 2, b"1")
    assert identity(str(folder)) != before


def test_what_no_model_is_read_from_does_not_count(folder):
    before = identity(str(folder))
    (folder / "README.md").write_text("words")
    (folder / "picture.png").write_bytes(b"0")
    assert identity(str(folder)) == before


def test_large_files_are_remembered_until_they_change(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "LARGE", 1000)
    first = identity(str(folder))
    rows = json.loads((tmp_path / "cache/hybridstitch/digests.json").read_text())
    assert list(rows) == [str((folder / "model.safetensors").resolve())]  # the configuration is small
    with monkeypatch.context() as patch:
        patch.setattr(module, "_sha256", lambda path: pytest.fail("hashed again") if "json" not in path.name else "0")
        identity(str(folder))
    put(folder / "model.safetensors", 5, b"1")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert identity(str(folder)) != first


@pytest.mark.parametrize("damage", ["", "[]", '{"%s": 3}', '{"%s": [1]}'])
def test_a_damaged_or_forbidden_cache_is_none(folder, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(module, "LARGE", 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = identity(str(folder))
    cache = tmp_path / "hybridstitch" / "digests.json"
    cache.write_text(damage.replace("%s", str((folder / "model.safetensors").resolve())))
    assert identity(str(folder)) == before
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "config.json"))  # no folder
    assert identity(str(folder)) == before


def test_an_earlier_record_is_kept_where_it_holds_and_replaced_where_not(folder):
    record = f"files {ends_of(folder)[:16]}"
    assert known_as(str(folder), record) == record
    assert known_as(str(folder), None) == known_as(str(folder), "unknown") == identity(str(folder))
    put(folder / "model.safetensors", 0, b"1")
    assert known_as(str(folder), record) == identity(str(folder))


def test_the_digest_of_earlier_releases_is_what_they_made(folder):
    """Of commit 9ecec03, over this very folder."""
    assert ends_of(folder)[:16] == "caa39a2611d874f9"


def test_names_that_are_on_this_machine(folder):
    assert is_here(str(folder))
    for name in ("nobody/has-this", "nobody", "a\0b", "x" * 5000):
        assert not is_here(name)


def test_a_batch_begun_by_an_earlier_release_goes_on(tmp_path, monkeypatch, capsys):
    mini = save(tmp_path / "mini")
    monkeypatch.setenv(opened.FOLDER, str(mini))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.csv").write_text("prompt,seed\na big dog,1\na small cat,2\n")
    words = ["batch", "jobs.csv", "--steps", "3", "--size", "16", "--policy", "large"]
    with monkeypatch.context() as before:  # its identity was this one
        before.setattr(module, "identity", lambda source: f"files {ends_of(tmp_path / source)[:16]}")
        assert main(words) == 0
    models = json.loads((tmp_path / "out/batch.json").read_text())["setting"]["models"]
    assert models["large"].startswith("files ")
    capsys.readouterr()
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "0 drawn" in out
    assert "2 were there" in out
    assert err == ""
    weights = mini / "vae" / "diffusion_pytorch_model.safetensors"
    put(weights, weights.stat().st_size - 2, b"1")
    assert main(words) == 0  # other models, other pictures
    assert "2 drawn" in capsys.readouterr().out


@pytest.mark.filterwarnings("error")
def test_a_recipe_of_an_earlier_release_holds(tmp_path):
    folder = save(tmp_path / "mini")
    pipe = opened.open_mini("large", folder=folder)
    home = home_of(pipe, Conditions(width=128, height=128, steps=50, guidance=4.0))
    assert home.models["large"].startswith("content ")
    check_recipe(pipe, replace(RECIPE, home=replace(home, models={"large": f"files {ends_of(folder)[:16]}"})))


def test_a_reproduction_of_an_earlier_release_goes_on_under_its_names(tmp_path):
    folder = save(tmp_path / "mini")
    recorded = {"large": f"files {ends_of(folder)[:16]}"}
    assert models_in(tmp_path) == {}
    (tmp_path / "config.json").write_text(json.dumps({"settings": {"models": recorded}}))
    pair = Pair(large=str(folder), small=None, folder=folder, mini=True)
    assert pair.known_as(models_in(tmp_path)) == recorded
    (tmp_path / "config.json").write_text('{"settings": [{"models": 1}]}')
    assert pair.known_as(models_in(tmp_path)) == pair.models
