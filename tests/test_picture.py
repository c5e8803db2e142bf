"""Pictures that say how they were drawn."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from hybridstitch.errors import HybridStitchError
from hybridstitch.policies.plan import Plan, large
from hybridstitch.policies.trace import Step, Trace
from hybridstitch.report import metadata, picture
from hybridstitch.report.identity import identity
from hybridstitch.report.metadata import Metadata, PictureError, differences

DRAWN = Metadata(
    prompt="a big dog, smiling\n犬 on a meadow",
    negative="rain",
    pair="mini",
    models={"large": "files 0123"},
    policy="hybrid-stitch:masks=0.3,thresholds=0.1/0.05",
    seed=2**40,
    steps=50,
    width=128,
    height=96,
    guidance=4.5,
    device="cpu",
    dtype="float32",
    versions={"hybridstitch": "0.1.0", "torch": "2.13.0"},
    trace="ab" * 32,
    pixels="cd" * 32,
    scheduler="FlowMatchEulerDiscreteScheduler",
)


def test_a_recipe_comes_back_from_the_file(tmp_path):
    picture.write(Image.new("RGB", (8, 8)), tmp_path / "a.png", DRAWN)
    assert picture.read(tmp_path / "a.png") == DRAWN
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]  # nothing half-written is left


def test_free_levels_come_back_from_the_file_and_files_without_them_say_nothing_of_them(tmp_path):
    levels = replace(DRAWN, steps=3, levels=(1.0, 0.7123456789012345, 0.1), shift=None)
    picture.write(Image.new("RGB", (4, 4)), tmp_path / "a.png", levels)
    assert picture.read(tmp_path / "a.png") == levels
    assert "Noise levels: 1 0.712346 0.1" in levels.parameters
    assert "levels" not in replace(levels, levels=None).to_json()


def test_a_file_of_before_names_no_scheduler_and_another_one_is_told():
    before = replace(DRAWN, scheduler=None)
    assert "scheduler" not in before.to_json()
    assert "Sampler" not in before.parameters
    assert not differences(before, DRAWN)
    now = replace(DRAWN, scheduler="UniPCMultistepScheduler")
    assert differences(DRAWN, now) == ("scheduler FlowMatchEulerDiscreteScheduler, now UniPCMultistepScheduler",)
    with pytest.raises(PictureError, match="is damaged: its scheduler is 3"):
        Metadata.from_json({**DRAWN.to_json(), "scheduler": 3})


def test_what_masks_kept_comes_back_and_files_of_before_say_nothing_of_it(tmp_path):
    rounded = replace(DRAWN, kv="float8")
    picture.write(Image.new("RGB", (4, 4)), tmp_path / "a.png", rounded)
    assert picture.read(tmp_path / "a.png") == rounded
    assert "kv" not in DRAWN.to_json()
    with pytest.raises(PictureError, match="is damaged: its kv is 'int3'"):
        Metadata.from_json({**rounded.to_json(), "kv": "int3"})


def test_other_tools_find_the_parameters_they_know(tmp_path):
    picture.write(Image.new("RGB", (8, 8)), tmp_path / "a.png", DRAWN)
    with Image.open(tmp_path / "a.png") as image:
        lines = image.info["parameters"].splitlines()
    assert lines[:3] == ["a big dog, smiling", "犬 on a meadow", "Negative prompt: rain"]
    assert lines[3].startswith(
        "Steps: 50, Sampler: FlowMatchEulerDiscrete, CFG scale: 4.5, Seed: 1099511627776, Size: 128x96,"
    )
    assert 'Policy: "hybrid-stitch:masks=0.3,thresholds=0.1/0.05"' in lines[3]


def test_without_a_recipe_there_is_no_text(tmp_path):
    picture.write(Image.new("RGB", (8, 8)), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert not image.info


def text_chunk(path, text):
    info = picture.PngInfo()
    info.add_text(picture.CHUNK, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no 'hybridstitch' text chunk"),
        ("{", "is damaged"),
        ("[]", "holds no metadata"),
        (json.dumps({"version": 99}), "has version 99, this release reads version 1"),
        (json.dumps({"version": 1, "prompt": "a"}), "is incomplete"),
    ],
)
def test_a_file_without_a_recipe_is_refused(tmp_path, text, message):
    path = tmp_path / "a.png"
    text_chunk(path, text) if text is not None else Image.new("RGB", (8, 8)).save(path)
    with pytest.raises(PictureError, match=message):
        picture.read(path)


def test_what_is_no_picture_is_refused(tmp_path):
    with pytest.raises(PictureError, match="there is no file"):
        picture.read(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(PictureError, match="cannot be read as a picture"):
        picture.read(tmp_path / "text.png")
    assert issubclass(PictureError, HybridStitchError)


def test_the_trace_digest_leaves_seconds_out():
    step = Step(
        index=0, image=0, sigma=1.0, plan=Plan((large(),)), drawn=Plan((large(),)), distance=0.5, seconds=1.0,
        large_tokens=4,
    )  # fmt: skip
    trace = Trace(policy="large", steps=1, images=1, grid=(2, 2), records=(step,))
    slower = replace(trace, records=(replace(step, seconds=2.0),))
    other = replace(trace, records=(replace(step, distance=0.25),))
    assert metadata.trace_digest(slower) == metadata.trace_digest(trace) != metadata.trace_digest(other)


def test_identity_changes_with_the_files(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"1" * 10)
    before = identity(str(tmp_path))
    assert before == identity(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"2" * 10)
    assert identity(str(tmp_path)) != before
    assert identity("nobody/has-this") == "unknown"


def test_differences_name_what_changed():
    now = replace(DRAWN, versions={**DRAWN.versions, "torch": "2.14.0"}, models={"large": "files 4567"})
    assert metadata.differences(DRAWN, DRAWN) == ()
    assert metadata.differences(DRAWN, now) == (
        "torch 2.13.0, now 2.14.0",
        "model large files 0123, now files 4567",
    )
