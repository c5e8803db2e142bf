"""`generate`, on an untrained pair: what it writes, says and reproduces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridstitch.cli import main
from hybridstitch.mini import opened
from hybridstitch.policies.parse import parse
from hybridstitch.policies.trace import Trace
from hybridstitch.report import metadata, picture
from hybridstitch.report.identity import ends_of

PROMPT = "a big dog on a meadow"
SHORT = ("--steps", "5", "--size", "32x16", "--policy", "L2 H2@0.3 S")


@pytest.fixture
def run(mini, monkeypatch, tmp_path, capsys):
    """Run `generate --json` in an empty folder: the object, lines of stderr."""
    monkeypatch.setenv(opened.FOLDER, str(mini))
    monkeypatch.chdir(tmp_path)

    def command(*words):
        assert main(["generate", *map(str, words), "--json"]) == 0
        said = capsys.readouterr()
        return json.loads(said.out), said.err.splitlines()

    return command


def pixels(path):
    return Image.open(path).tobytes()


def test_one_object_and_nothing_else(run, tmp_path):
    found, err = run(PROMPT, "a unicorn in the snow", *SHORT)
    assert err == []
    assert set(found) == {"images", "seconds", "speedup", "trace"}
    assert [image["path"] for image in found["images"]] == [
        "out/a-big-dog-on-a-meadow-0.png",
        "out/a-unicorn-in-the-snow-0.png",
    ]
    assert found["speedup"] is None
    assert found["seconds"] == sum(image["seconds"] for image in found["images"])
    assert str(Trace.from_json(found["trace"][0]).of(0)[2].drawn) == "S + L@0.3"
    assert Image.open(found["images"][0]["path"]).size == (32, 16)
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_lines_for_a_reader(run, capsys):
    assert main(["generate", PROMPT, *SHORT, "--compare"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 1
    assert out.startswith("out/a-big-dog-on-a-meadow-0.png  0.")
    assert "× as fast, PSNR " in out


def test_pictures_take_the_next_seeds_and_each_is_reproduced_alone(run):
    found, _ = run(PROMPT, *SHORT, "--n", 2, "--seed", 7)
    assert [image["seed"] for image in found["images"]] == [7, 8]
    alone, _ = run(PROMPT, *SHORT, "--seed", 8, "--out", "alone")
    assert pixels(alone["images"][0]["path"]) == pixels(found["images"][1]["path"])
    assert pixels(found["images"][0]["path"]) != pixels(found["images"][1]["path"])


def test_no_picture_is_overwritten(run):
    first, _ = run(PROMPT, *SHORT)
    second, _ = run(PROMPT, *SHORT)
    assert second["images"][0]["path"] == "out/a-big-dog-on-a-meadow-0-2.png"
    assert pixels(first["images"][0]["path"]) == pixels(second["images"][0]["path"])


def test_compare_draws_the_large_model_too(run):
    found, _ = run(PROMPT, *SHORT, "--compare")
    image = found["images"][0]
    assert image["speedup"] == found["speedup"] == image["large_seconds"] / image["seconds"]
    assert 0 < image["psnr"] < 100
    alone, _ = run(PROMPT, *SHORT[:-1], "large", "--out", "alone")
    assert pixels(image["large"]) == pixels(alone["images"][0]["path"])
    assert Image.open(image["beside"]).width > 2 * 384
    assert picture.read(image["large"]).policy == "large"


def test_comparing_the_large_model_with_itself(run):
    found, _ = run(PROMPT, *SHORT[:-1], "large", "--compare")
    assert found["images"][0]["psnr"] is None  # infinite


def test_explain_writes_a_strip_and_a_page_that_needs_no_network(run):
    found, _ = run(PROMPT, *SHORT, "--explain")
    assert Image.open(found["images"][0]["strip"]).width == 1560
    text = Path(found["report"]).read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert "generate &#39;a big dog on a meadow&#39;" in text
    assert text.count("data:image/png;base64,") == 3  # before, after, strip


@pytest.mark.parametrize("policy", ["hybrid-stitch:masks=0.4/0.2,thresholds=9/8/7", "L2 R2@0.3 S"])
def test_from_reproduces_bit_for_bit(run, policy):
    first, _ = run(
        PROMPT, "--steps", 5, "--size", 32, "--policy", policy, "--seed", 3, "--negative", "rain", "--guidance", 2.5
    )
    path = first["images"][0]["path"]
    again, err = run("--from", path)
    assert pixels(again["images"][0]["path"]) == pixels(path)
    assert f"note: the same pixels as {path}" in err
    before, after = picture.read(path), picture.read(again["images"][0]["path"])
    assert before == after
    assert before.policy == str(parse(policy))


def test_from_says_what_was_changed(run):
    path = run(PROMPT, *SHORT)[0]["images"][0]["path"]
    again, err = run("--from", path, "--seed", 5, "--policy", "large")
    assert picture.read(again["images"][0]["path"]).prompt == PROMPT
    assert err == [f"note: a variation of {path}: another policy, seed"]


@pytest.mark.parametrize(
    ("scheduler", "said"), [(None, "torch 1.0, now "), ("DDIMScheduler", "scheduler DDIMScheduler, now FlowMatchEuler")]
)
def test_from_says_when_versions_or_the_scheduler_differ(run, scheduler, said):
    path = run(PROMPT, *SHORT)[0]["images"][0]["path"]
    now = picture.read(path)
    versions = {**now.versions, "torch": "1.0"}
    old = {**now.to_json(), "versions": versions, "pixels": "0" * 64, "scheduler": scheduler}
    picture.write(Image.open(path), "old.png", metadata.Metadata.from_json(old))
    _, err = run("--from", "old.png")
    assert len(err) == 1
    assert err[0].startswith(f"warning: not the same pixels as old.png: {said}")


def test_no_metadata(run):
    path = run(PROMPT, *SHORT, "--no-metadata")[0]["images"][0]["path"]
    assert not Image.open(path).info
    assert main(["generate", "--from", path]) == 2


def test_words_outside_the_world_are_warned_of_and_drawn(run):
    found, err = run("a big dgo on a meadow", *SHORT)
    assert len(found["images"]) == 1
    assert err[0].startswith("warning: prompt 1: the miniature world does not know 'dgo'; near: dog")


def test_a_preset_away_from_home_is_warned_of(run):
    _, err = run(PROMPT, "--steps", 5, "--size", 32, "--policy", "hybridstitch-30")
    assert err[0].startswith(
        "warning: The thresholds of 'hybridstitch-30' were chosen where the large model is stabilityai/"
    )


def test_warnings_of_a_run_are_single_lines(run):
    _, err = run(PROMPT, "--steps", 5, "--size", 32, "--policy", "hybrid-stitch:thresholds=1e-9/1e-9")
    assert any(line.startswith("warning: never left the large model") for line in err)
    assert all(line.startswith("warning: ") for line in err)


def test_a_saved_pair_opens_with_its_policy(run, mini, tmp_path):
    opened.open_mini("L2 H2@0.3 S", folder=mini).save_pretrained(tmp_path / "saved")
    found, _ = run("--pair", "saved", PROMPT, *SHORT[:4])
    assert found["trace"][0]["policy"] == "schedule:program=L2 H2@0.3 S"
    mini_again, _ = run(PROMPT, *SHORT, "--out", "again")
    assert pixels(found["images"][0]["path"]) == pixels(mini_again["images"][0]["path"])


# --- `--from`, crossed with presets, the large model's picture and other releases' records ---


def shift(path):
    return picture.read(path).shift


def redrawn(run, path, *words):
    """The picture drawn again, and what was said."""
    found, err = run("--from", path, "--out", "again", *words)
    return found["images"][0]["path"], err


def test_a_preset_s_picture_comes_back_with_its_noise_levels(run):
    path = run(PROMPT, "--policy", "mini-few-4", "--size", 32)[0]["images"][0]["path"]
    assert (shift(path), picture.read(path).steps) == (5.0, 7)
    again, err = redrawn(run, path)
    assert err == [f"note: the same pixels as {path}"]
    assert pixels(again) == pixels(path)
    other, err = redrawn(run, path, "--seed", 3)
    assert (shift(other), err) == (5.0, [f"note: a variation of {path}: another seed"])


def test_the_large_model_s_picture_comes_back_though_large_is_also_a_preset(run):
    image = run(PROMPT, "--policy", "mini-few-4", "--size", 32, "--compare")[0]["images"][0]
    again, err = redrawn(run, image["large"])
    assert shift(again) == shift(image["large"]) == 5.0
    assert err == [f"note: the same pixels as {image['large']}"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--policy", "L2 H2@0.3 S3"), None),  # made for another program
        (("--policy", "large"), None),
        (("--policy", "S2 L R@0.3 R@0.15 L R@0.45"), None),  # the preset's caches its text
        (("--policy", "schedule:program=S2 L R@0.3 R@0.15 L R@0.45,text=cached"), 5.0),  # the same policy, written out
        (("--policy", "large", "--steps", "9"), None),
        (("--policy", "mini-few-3"), 4.0),  # brings its own steps and levels
        (("--steps", "7"), 5.0),
    ],
)
def test_noise_levels_go_with_the_policy_and_steps_they_were_made_for(run, words, expected):
    path = run(PROMPT, "--policy", "mini-few-4", "--size", 32)[0]["images"][0]["path"]
    again, err = redrawn(run, path, *words)
    assert shift(again) == expected
    assert ("shift" in err[-1]) == (expected != 5.0)


def test_a_preset_named_on_another_picture_brings_its_steps(run):
    path = run(PROMPT, *SHORT)[0]["images"][0]["path"]
    again, _ = redrawn(run, path, "--policy", "mini-few-4")
    assert (picture.read(again).steps, shift(again), picture.read(again).width) == (7, 5.0, 32)


@pytest.mark.parametrize("kind", ["", ".large", ".beside", ".strip"])
def test_none_of_a_picture_s_files_is_overwritten(run, kind):
    taken = Path(f"out/a-big-dog-on-a-meadow-0{kind}.png")
    taken.parent.mkdir()
    taken.write_text("mine")
    found, _ = run(PROMPT, *SHORT, "--compare", "--explain")
    image = found["images"][0]
    assert taken.read_text() == "mine"
    assert {image[name][:29] for name in ("path", "large", "beside", "strip")} == {"out/a-big-dog-on-a-meadow-0-2"}


def test_a_record_of_an_earlier_release_is_recognised(run, mini):
    path = run(PROMPT, *SHORT)[0]["images"][0]["path"]
    now = picture.read(path)
    assert now.models["large"].startswith("content ")
    for ends, reason in ((f"files {ends_of(mini)[:16]}", None), ("files 0123456789abcdef", "model large files 01")):
        old = {**now.to_json(), "models": {"large": ends}, "pixels": "0" * 64}
        picture.write(Image.open(path), "old.png", metadata.Metadata.from_json(old))
        _, err = redrawn(run, "old.png")
        assert (reason or "the same versions and models") in err[0]


# --- how the models are run ---


def test_several_pictures_of_a_prompt_are_drawn_in_one_call(run):
    alone, _ = run(PROMPT, "a unicorn in the snow", *SHORT, "--n", 3, "--out", "alone")
    found, _ = run(PROMPT, "a unicorn in the snow", *SHORT, "--n", 3, "--images-per-call", 2, "--compare")
    assert [image["seed"] for image in found["images"]] == [0, 1, 2] * 2
    for one, other in zip(alone["images"], found["images"], strict=True):
        assert Path(one["path"]).name == Path(other["path"]).name
        apart = np.subtract(Image.open(one["path"]), Image.open(other["path"]), dtype=int)
        assert abs(apart).max() <= 2  # rounding of another batch size
        assert picture.read(other["large"]).policy == "large"
    traces = [Trace.from_json(trace) for trace in found["trace"]]
    assert {(trace.images, trace.steps, len(trace.records)) for trace in traces} == {(1, 5, 5)}


def test_a_strip_follows_one_picture_at_a_time(run, capsys):
    assert main(["generate", PROMPT, *SHORT, "--explain", "--images-per-call", "2"]) == 2
    assert "--explain follows one picture at a time; leave --images-per-call 2 out" in capsys.readouterr().err


def test_an_engine_is_asked_for_and_refused_where_it_cannot_be_had(run, capsys):
    assert main(["generate", PROMPT, *SHORT, "--compile", "hole"]) == 2
    assert "--compile hole was given; did you mean 'whole'?" in capsys.readouterr().err
    assert main(["generate", PROMPT, *SHORT, "--offload"]) == 2
    assert "offload=True moves the large model off a GPU, the models are on cpu" in capsys.readouterr().err
    assert main(["generate", PROMPT, *SHORT, "--kv", "flot8"]) == 2
    assert "--kv flot8 was given; did you mean 'float8'?" in capsys.readouterr().err


def test_rounded_keys_and_values_come_back_from_a_picture_s_file(run):
    path = run(PROMPT, *SHORT, "--kv", "float8")[0]["images"][0]["path"]
    assert picture.read(path).kv == "float8"
    _, err = redrawn(run, path)
    assert err == [f"note: the same pixels as {path}"]
    other, err = redrawn(run, path, "--kv", "same")
    assert err == [f"note: a variation of {path}: another kv"]
    assert picture.read(other).kv is None
    assert pixels(other) == pixels(run(PROMPT, *SHORT)[0]["images"][0]["path"])


OF_OTHERS = ("matplotlib", "torchmetrics")
OF_OTHERS += tuple(f"hybridstitch.{name}" for name in ("mini.train", "reproduce.figures", "report.page", "report.film"))


def test_drawing_imports_nothing_of_figures_pages_and_training(mini, tmp_path):
    """What only `--explain`, `reproduce` and training need; jinja2 and scipy come with transformers all the same."""
    code = (
        "import sys\nfrom hybridstitch.cli import main\n"
        f"code = main(['generate', {PROMPT!r}, *{SHORT!r}, '--compare', '--json'])\n"
        f"print(code, [name for name in sys.modules if name.startswith({OF_OTHERS!r})], file=sys.stderr)"
    )
    env = {**os.environ, opened.FOLDER: str(mini)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "0 []"


def test_the_library_itself_is_imported_at_once():
    code = "import time; start = time.perf_counter(); import hybridstitch; print(time.perf_counter() - start)"
    seconds = min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    )
    assert seconds < 0.15
