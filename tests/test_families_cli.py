"""Other families by the command line: files and what they remember, batches, calibration, memory, refusals."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import family_folders
import flux_models
from hybridstitch.calibrate import calibrate
from hybridstitch.cli import main
from hybridstitch.recipe import Recipe
from hybridstitch.report import picture
from seen import kept_bytes

PROMPT = "a big dog runs"
SHORT = {
    "flux": ("--size", "32x24", "--steps", "4"),
    "ltx": ("--size", "32x32", "--frames", "9", "--steps", "4"),
    "ltx-condition": ("--size", "32x32", "--frames", "9", "--steps", "4"),
    "wan": ("--size", "48x32", "--frames", "9", "--steps", "4"),
    "cogvideox": ("--size", "48x32", "--frames", "9", "--steps", "4", "--policy", "L2 S*"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Saved pairs, made as they are asked for."""
    made = {}

    def folder(name):
        if name not in made:
            policy = "L2 S*" if name == "cogvideox" else "L2 H1@0.3 S*"
            made[name] = family_folders.save(name, tmp_path_factory.mktemp(name), policy)
        return made[name]

    return folder


@pytest.fixture
def run(folders, monkeypatch, tmp_path, capsys):
    """Run a command of a pair with `--json` in an empty folder: the object."""
    monkeypatch.chdir(tmp_path)

    def command(name, *words):
        assert main([*map(str, words), "--pair", str(folders(name)), *SHORT[name], "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return command


@pytest.mark.parametrize("name", ["flux", "ltx-condition", "cogvideox"])
def test_what_is_drawn_says_how_and_is_drawn_again(run, folders, name, capsys):
    more = [] if name == "cogvideox" else ["--explain"]
    (image,) = run(name, "generate", PROMPT, "--seed", 3, *more)["images"]
    assert image["path"].endswith(".png" if name == "flux" else ".mp4")
    assert ("strip" in image) == bool(more)
    metadata = picture.read(image["path"])
    assert (metadata.prompt, metadata.seed, metadata.frames) == (PROMPT, 3, None if name == "flux" else 9)
    assert main(["generate", "--from", image["path"], "--pair", str(folders(name))]) == 0
    assert "the same pixels as" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["flux", "ltx"])
def test_keys_and_values_in_float8_are_remembered(run, folders, name, capsys):
    plain, small = (
        run(name, "generate", PROMPT, "--out", out, *more)["images"][0]["path"]
        for out, more in (("a", ()), ("b", ("--kv", "float8")))
    )
    assert picture.read(small).kv == "float8"
    assert picture.read(small).pixels != picture.read(plain).pixels
    assert main(["generate", "--from", small, "--pair", str(folders(name))]) == 0
    assert "the same pixels as" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["flux", "ltx"])
def test_a_batch_is_drawn_several_a_call_and_goes_on(run, name, tmp_path):
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("".join(json.dumps({"prompt": f"a {word} dog"}) + "\n" for word in ("big", "small", "cat")))
    words = ["batch", jobs, "--out", "out", "--images-per-call", 2, "--device", "cpu"]
    assert run(name, *words)["drawn"] == 3
    files = sorted((tmp_path / "out").glob("*.png"))
    digests = [picture.read(file).pixels for file in files]
    assert len(set(digests)) == 3
    files[0].unlink()
    assert run(name, *words)["drawn"] == 1
    assert [picture.read(file).pixels for file in files][1:] == digests[1:]
    alone = run(name, "generate", picture.read(files[1]).prompt, "--out", "alone")["images"][0]["path"]
    one, other = (np.asarray(Image.open(Path(path).with_suffix(".png")), int) for path in (alone, files[1]))
    assert np.abs(one - other).max() <= 1


@pytest.mark.parametrize("name", ["flux", "ltx", "cogvideox"])
def test_a_recipe_is_found_and_followed(run, folders, name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules[calibrate.__module__], "ROUNDS", 1)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a big dog\na small cat\nthe snow\na dog at night\n")
    asked = [*SHORT[name][: SHORT[name].index("--steps")], "--steps", "3"]
    words = ["calibrate", "--prompts", str(prompts), "--closeness", "0.01", "--minutes", "0", "--out", "recipe.json"]
    assert main([*words, "--pair", str(folders(name)), *asked]) == 0
    recipe = Recipe.load("recipe.json")
    assert bool(recipe.shares) == (name != "cogvideox")
    assert recipe.shares or not any("@" in trial.policy for trial in recipe.trials)
    assert (recipe.home.frames, recipe.home.steps) == (None if name == "flux" else 9, 3)
    said = " ".join(capsys.readouterr().out.split())
    assert ("This pair draws whole steps only" in said) == (name == "cogvideox")
    words = ["generate", PROMPT, "--recipe", "recipe.json", "--pair", str(folders(name)), "--json"]
    assert main(words) == 0
    path = json.loads(capsys.readouterr().out)["images"][0]["path"]
    assert picture.read(path).policy == recipe.at().policy


@pytest.mark.parametrize("name", ["flux", "ltx"])
def test_memory_is_what_a_run_keeps(run, folders, name, monkeypatch, capsys):
    pipe = family_folders.stitched(name, "L2 H1@0.3 S*")
    kept = kept_bytes(monkeypatch, pipe)
    run(name, "generate", PROMPT)
    size = SHORT[name][: SHORT[name].index("--steps")]
    assert main(["doctor", "--pair", str(folders(name)), *size, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["memory"]
    assert told["keys and values"] == sum(kept)
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [tensor for part in modules for tensor in part.state_dict().values()]
    assert sum(told["weights"].values()) == sum({t.data_ptr(): t.nbytes for t in tensors}.values())  # some are tied


def test_of_a_pair_that_draws_whole_steps_the_weights_are_told(folders, capsys):
    words = ["doctor", "--pair", str(folders("cogvideox")), "--size", "48x32", "--frames", "9"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["memory"]
    assert told["total"] == sum(told["weights"].values()) > 0
    assert (told["keys and values"], told["activations of a step"]) == (0, None)
    assert main(words) == 0
    assert "not counted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        (
            "flux",
            ["--size", "30x24"],
            "--size 30x24 was given; this pair draws multiples of 4 pixels (VAE × patch): 32",
        ),
        ("flux", ["--frames", "9"], "--frames 9 was given; this pair draws pictures: leave --frames out"),
        (
            "flux",
            ["--negative", "snow"],
            "FluxPipeline draws with guidance that is an input of its model, and hears of",
        ),
        ("ltx", ["--size", "30x32"], "--size 30x32 was given; this pair draws multiples of"),
        ("ltx", ["--frames", "10"], "--frames 10 was given; this pair draws one more than multiples of 4 frames: 9 is"),
        (
            "cogvideox",
            ["--policy", "L2 H1@0.3 S*"],
            "with CogVideoXTransformer3DModel each step is drawn by one model; use a program",
        ),
        ("cogvideox", ["--policy", "hybrid-stitch"], "hybrid-stitch uses masks, and with CogVideoXTransf"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_loaded(folders, name, words, said, capsys, monkeypatch):
    monkeypatch.setattr("hybridstitch.cli.pairs.open_pair", lambda *a, **k: pytest.fail("was loaded"))
    code = 1 if "--policy" in words else 2
    assert main(["generate", PROMPT, "--pair", str(folders(name)), *SHORT[name], *words]) == code
    error = capsys.readouterr().err
    assert said in " ".join(error.split())
    assert "Traceback" not in error


def test_a_batch_with_a_negative_prompt_that_nobody_hears_is_refused(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hybridstitch.cli.pairs.open_pair", lambda *a, **k: pytest.fail("was loaded"))
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps({"prompt": "a big dog", "negative": "snow"}) + "\n")
    words = ["--pair", str(folders("flux")), *SHORT["flux"], "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["batch", str(jobs), *words]) == 2
    assert "hears of no negative prompt: leave it out" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["flux", "ltx", "wan"])
def test_two_plain_folders_are_a_pair(name, tmp_path, capsys):
    for which in ("large", "small"):
        pipe = family_folders.MADE[name]()
        if which == "small":
            pipe.register_modules(transformer=family_folders.small(name))
        pipe.save_pretrained(tmp_path / which)
    words = ["--pair", str(tmp_path / "large"), str(tmp_path / "small"), *SHORT[name], "--policy", "L2 H1@0.3 S*"]
    assert main(["generate", PROMPT, *words, "--out", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [step["drawn"]["strokes"][0]["model"] for step in told["trace"][0]["records"]] == ["L", "L", "S", "S"]
    metadata = picture.read(told["images"][0]["path"])
    assert (metadata.pair, metadata.small) == (str(tmp_path / "large"), str(tmp_path / "small"))
    assert main(["doctor", *words[:3], *SHORT[name][: SHORT[name].index("--steps")], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["memory"]["keys and values"] > 0


def test_a_small_folder_with_text_encoders_of_its_own(tmp_path, capsys):
    """Both are told each prompt in their own words; what those weigh is told before."""
    family_folders.flux().save_pretrained(tmp_path / "large")
    small = flux_models.small(text_width=16)
    family_folders.flux(16, transformer=small).save_pretrained(tmp_path / "small")
    words = ["--pair", str(tmp_path / "large"), str(tmp_path / "small")]
    drawn = []
    for prompt in (PROMPT, "a small cat sleeps"):
        asked = [*words, *SHORT["flux"], "--policy", "small", "--out", str(tmp_path / "out"), "--json"]
        assert main(["generate", prompt, *asked]) == 0
        drawn.append(picture.read(json.loads(capsys.readouterr().out)["images"][0]["path"]).pixels)
    assert drawn[0] != drawn[1]
    assert main(["doctor", *words, "--size", "32x24", "--json"]) == 0
    weights = json.loads(capsys.readouterr().out)["memory"]["weights"]
    assert weights["small, text_encoder_2"] < weights["text_encoder_2"]


def test_a_small_pair_of_another_family_is_refused_by_its_name(tmp_path, capsys):
    for name in ("flux", "ltx"):
        family_folders.MADE[name]().save_pretrained(tmp_path / name)
    words = ["--pair", str(tmp_path / "flux"), str(tmp_path / "ltx"), *SHORT["flux"], "--policy", "L2 S*"]
    assert main(["generate", PROMPT, *words, "--out", str(tmp_path / "out")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the small model is LTXVideoTransformer3DModel, the large one FluxTransformer2DModel; give two of a" in said
