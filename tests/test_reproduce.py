"""`hybridstitch reproduce` on an untrained pair: every table and figure, resumed, refused, in one line each."""

import csv
import errno
import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from hybridstitch.cli import main
from hybridstitch.disk import files as disk
from hybridstitch.disk.lock import alone
from hybridstitch.measure.calls import call
from hybridstitch.mini import opened
from hybridstitch.mini.scenes import heldout_prompts
from hybridstitch.policies.methods import LargeOnly
from hybridstitch.reproduce import config
from hybridstitch.reproduce.methods import rows
from hybridstitch.reproduce.settings import Settings

STEPS, SIZE = 6, 32
ASK = ("--steps", str(STEPS), "--size", str(SIZE), "--latency-n", "1")


@pytest.fixture
def run(mini, monkeypatch, capsys):
    """Exit code, stdout and lines of stderr of `reproduce …`, drawn in this process."""
    monkeypatch.setenv(opened.FOLDER, str(mini))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)

    def command(*words):
        code = main(["reproduce", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err.splitlines()

    return command


@pytest.fixture(scope="module")
def whole(mini, tmp_path_factory):
    """The folder of `reproduce all`."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(opened.FOLDER, str(mini))
        assert main(["reproduce", "all", "--n", "2", *ASK, "--out", str(out)]) == 0
    return out


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copied")


def raw(folder):
    with (folder / "raw.csv").open(newline="", encoding="utf-8") as file:
        return {(row["method"], int(row["image"])): row for row in csv.DictReader(file)}


def strict(path):
    """A JSON file without NaN."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def written(folder):
    """Every picture with the time it was written."""
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.glob("pictures/*/*.png")}


# --- what is there ---


def test_all_draws_every_row_of_every_prompt(whole):
    names = {m.name for m in rows(STEPS, {})}
    found = raw(whole)
    assert set(found) == {(name, image) for name in names for image in range(2)}
    for (name, image), row in found.items():
        with Image.open(whole / "pictures" / folder(name) / f"{image:04}.png") as picture:
            assert hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest().startswith(row["pixels"]), name
        assert all(np.isfinite(float(row[c])) for c in ("cost", "psnr", "ssim", "lpips", "clip"))
    assert {row["psnr"] for (name, _), row in found.items() if name == "large"} == {"99"}


def folder(method):
    return Settings.picture(settings_for("."), method, 0).parent.name


def settings_for(out):
    from pathlib import Path

    return Settings(
        pair="mini", small=None, mini=True, open=opened.open_mini, models={}, prompts=tuple(heldout_prompts(2)),
        origin={}, latency_n=1, seed=0, steps=STEPS, guidance=4.0, size=(SIZE, SIZE), device="cpu", dtype="float32",
        calibrate=True, weights={}, real=None, out=Path(out),
    )  # fmt: skip


def test_a_row_is_the_picture_of_the_pipelines_own_call(whole, mini):
    pipe = opened.open_mini(folder=mini)
    pipe.set_progress_bar_config(disable=True)
    taken = call(pipe, policy=LargeOnly(), steps=STEPS, **settings_for(whole).call(1))
    with Image.open(whole / "pictures" / "large" / "0001.png") as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(taken.image))


def test_ablations_replay_the_stages_of_their_row(whole):
    found = raw(whole)
    for percent in (10, 20, 30, 40):
        base = f"hybridstitch-{percent}"
        for image in range(2):
            for kind in ("static", "full-large"):
                assert found[f"{base}-{kind}", image]["switches"] == found[base, image]["switches"]
            assert float(found[f"{base}-full-large", image]["cost"]) > float(found[f"{base}-no-mask", image]["cost"])


def test_tables_have_the_papers_figures_beside_every_row(whole):
    for table, papers in (("table1", 7), ("table2", 13), ("table3", 9)):
        lines = strict(whole / "tables" / f"{table}.json")["rows"]
        assert sum("paper" in line for line in lines) == papers
        assert all(line["n"] == 2 for line in lines)
        text = (whole / "tables" / f"{table}.md").read_text(encoding="utf-8")
        assert text.count("\n| ") == len(lines)  # a line each below the head
        with (whole / "tables" / f"{table}.csv").open(newline="", encoding="utf-8") as file:
            assert [row["method"] for row in csv.DictReader(file)] == [line["method"] for line in lines]
    one = {line["method"]: line for line in strict(whole / "tables" / "table1.json")["rows"]}
    assert one["large"]["speedup"] == 1
    assert one["hybridstitch-30"]["paper"]["speedup"] == 1.83
    assert {"fewer-steps at hybridstitch-30", "small", "region-adaptive", "flowblending"} <= set(one)
    assert one["sr-diffusion at hybridstitch-30"]["timed"] == 1


def test_the_report_answers_every_question(whole):
    text = (whole / "report.md").read_text(encoding="utf-8")
    for question in (
        "Do per-step masks help?", "Does FullLarge gain nothing?", "Do more masks help?",
        "How much of the gain is the mask", "fewer steps, at the same time", "At which step count",
        "What agrees with the paper", "Does a cost model of strokes predict whole runs?", "Thresholds",
        "Why: f, h and s",
    ):  # fmt: skip
        assert question in text


def test_the_report_says_when_all_prompts_switched(whole):
    text = (whole / "report.md").read_text(encoding="utf-8")
    shown = text.partition("## Thresholds")[2].splitlines()
    line = next(line for line in shown if line.startswith("| hybridstitch-20-10 | "))
    found = [raw(whole)["hybridstitch-20-10", image]["switches"].split("/") for image in range(2)]
    ways = [[int(step) for step in way if step] for way in found]
    ways = [way + [STEPS] * (max(map(len, ways)) - len(way)) for way in ways]
    medians = [sum(steps) / 2 for steps in zip(*ways, strict=True)]
    cell = line.split(" | ")[3]
    assert [float(part.split(" ")[0]) for part in cell.split("/")] == medians


def test_the_folder_says_what_it_was_made_with(whole):
    about = strict(whole / "config.json")
    assert about["command"].startswith("hybridstitch reproduce all --n 2")
    assert about["commit"] == config.commit()
    assert about["hardware"]["device"] == "cpu"
    assert about["settings"]["steps"] == STEPS
    assert {"torch", "diffusers", "hybridstitch"} <= about["versions"].keys()
    assert strict(whole / "calibration.json")["rows"].keys() >= {"hybridstitch-30", "sr-diffusion"}
    assert strict(whole / "worth.json")["f"]["0.3"]["oracle"] >= strict(whole / "worth.json")["f"]["0.3"]["random"]


# --- resumed ---


def test_what_is_gone_damaged_or_cut_off_is_drawn_again_and_nothing_else(copied, run):
    before, rows_before = written(copied), raw(copied)
    (copied / "pictures" / "hybridstitch-10" / "0000.png").unlink()
    broken = copied / "pictures" / "hybridstitch-20" / "0001.png"
    broken.write_bytes(broken.read_bytes()[:100])
    cut = (copied / "raw.csv").read_bytes()
    (copied / "raw.csv").write_bytes(cut[:-30])  # the last line lost its end
    code, _, said = run("fig8", "--n", "2", *ASK, "--out", copied)
    assert code == 0
    assert any("0000.png is gone; it is drawn again" in line for line in said)
    assert any("0001.png is not what was drawn; it is drawn again" in line for line in said)
    after = written(copied)
    changed = {str(path) for path in before if after[path] != before[path]}
    assert changed == {f"pictures/{name}.png" for name in ("hybridstitch-10/0000", "hybridstitch-20/0001")}
    drawn = {key: row["pixels"] for key, row in raw(copied).items()}
    lost = {key: row["pixels"] for key, row in rows_before.items() if key not in drawn}
    assert len(lost) == 1  # of another table: asked for, it is drawn again
    assert drawn | lost == {key: row["pixels"] for key, row in rows_before.items()}


def test_a_larger_n_draws_only_the_new_prompts(copied, run):
    before = written(copied)
    code, *_ = run("fig8", "--n", "3", *ASK, "--out", copied)
    assert code == 0
    assert {path: time for path, time in written(copied).items() if path in before} == before
    assert {image for name, image in raw(copied) if name == "hybridstitch-30"} == {0, 1, 2}


# --- refused ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "7", "--size", "32"], "was begun with steps 6, now 7"),
        (["--steps", "6", "--size", "40"], "was begun with size"),
        ([*ASK[:4], "--seed", "5"], "was begun with seed 0, now 5"),
    ],
)
def test_a_folder_of_another_setting_is_refused(whole, run, words, said):
    code, _, lines = run("table1", "--n", "2", *words, "--out", whole)
    assert (code, len(lines)) == (2, 1)
    assert said in lines[0]
    assert "choose another --out" in lines[0]


def test_a_folder_of_another_commit_is_refused_unless_mixed(copied, run):
    about = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    about |= {"commit": "0123456789ab", "code": "0123456789abcdef"}
    (copied / "config.json").write_text(json.dumps(about), encoding="utf-8")
    code, _, lines = run("fig8", "--n", "2", *ASK, "--out", copied)
    assert (code, len(lines)) == (2, 1)
    assert "was begun by commit 0123456789ab" in lines[0]
    assert "--mixed" in lines[0]
    assert run("table3", "--n", "2", *ASK, "--out", copied, "--mixed")[0] == 0
    assert strict(copied / "config.json")["commits_before"] == ["0123456789ab"]
    assert "(begun at 0123456789ab)" in (copied / "tables" / "table3.md").read_text(encoding="utf-8")


def test_a_folder_that_another_process_draws_into_is_left_as_it_is(copied, run):
    half = copied / f".raw.csv.1{disk.PART}"  # being written by the other one
    half.write_text("method,image")
    before = (copied / "config.json").read_bytes()
    with alone(copied, "this test"):
        code, _, lines = run("fig8", "--n", "2", *ASK, "--out", copied)
    assert (code, len(lines)) == (2, 1)
    assert "another reproduction is drawing into" in lines[0]
    assert half.read_text() == "method,image"
    assert (copied / "config.json").read_bytes() == before


def test_a_strange_folder_is_refused_without_a_lock(tmp_path, run):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert run("fig8", "--n", "1", *ASK, "--out", tmp_path)[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_config_and_a_folder_of_something_else_are_refused(tmp_path, run):
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    code, _, lines = run("fig8", "--n", "1", *ASK, "--out", tmp_path)
    assert (code, len(lines)) == (2, 1)
    assert "config.json is damaged" in lines[0]
    (tmp_path / "config.json").unlink()
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    code, _, lines = run("fig8", "--n", "1", *ASK, "--out", tmp_path)
    assert (code, len(lines)) == (2, 1)
    assert "has files but no config.json" in lines[0]


def test_a_full_disk_is_one_line_and_what_is_drawn_stays(copied, run, monkeypatch):
    pour = disk.pour

    def full(file, data):
        if bytes(data[:4]) == b"\x89PNG":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        pour(file, data)

    for path in copied.glob("pictures/large/0001.png"):
        path.unlink()
    monkeypatch.setattr(disk, "pour", full)
    code, _, lines = run("fig8", "--n", "2", *ASK, "--out", copied)
    assert code == 2
    assert f"the disk of {copied} is full; what is drawn is kept" in lines[-1]
    assert ("large", 0) in raw(copied)
    assert not list(copied.glob("pictures/*/.*"))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, run):
    (tmp_path / "file").write_text("", encoding="utf-8")
    code, _, lines = run("fig8", "--n", "1", *ASK, "--out", tmp_path / "file" / "inside")
    assert (code, len(lines)) == (2, 1)
    assert "cannot be written" in lines[0]


CAPTIONS = {"annotations": [{"id": 5, "image_id": 1, "caption": "a big dog"}]}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("gone.json", None, "there is no file"),
        ("bad.json", "{", "is not JSON"),
        ("other.json", '{"images": []}', "is no captions file"),
        ("instances.json", '{"annotations": [{"id": 1}]}', "annotation 0 is no caption"),
        ("empty.json", '{"annotations": []}', "has captions of 0 images"),
        ("few.json", json.dumps(CAPTIONS), "has captions of 1 images"),
        ("empty.jsonl", "", "holds no job"),
        ("few.jsonl", '{"prompt": "a big dog"}', "holds 1 prompts, 2 are needed"),
        ("blank.csv", "prompt\n\n", "holds no job"),
        ("prompts.txt", "a big dog", "is no list of jobs"),
    ],
)
def test_prompts_that_cannot_be_read_are_one_line(tmp_path, run, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    code, _, lines = run("fig8", "--n", "2", *ASK, "--prompts", tmp_path / name, "--out", tmp_path / "out")
    assert (code, len(lines)) == (2, 1)
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tabel1"], "did you mean 'table1'?"),
        (["table1", "--n", "0"], "at least one prompt"),
        (["table1", "--n", "2", "--latency-n", "3"], "between 1 and --n 2"),
        (["table1", "--steps", "5"], "need at least 6"),
        (["table1", "--weights", "lpip=x"], "did you mean 'lpips'?"),
        (["table1", "--weights", "inception=/nowhere.pth"], "there is no file /nowhere.pth"),
        (["table1", "--real", "/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path, run, words, said):
    code, _, lines = run(*words, "--out", tmp_path / "out")
    assert (code, len(lines)) == (2, 1)
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


def test_two_hub_ids_need_prompts(tmp_path, run):
    code, _, lines = run("table1", "--pair", "a/large", "a/small", "--out", tmp_path / "out")
    assert (code, len(lines)) == (2, 1)
    assert "--prompts is missing" in lines[0]
