"""The command line: what it refuses and how, and the commands that draw nothing."""

import json
from importlib import import_module

import pytest

from hybridstitch import __version__
from hybridstitch.cli import main
from hybridstitch.cli.asked import BadInput
from hybridstitch.cli.generate import two_models
from hybridstitch.mini import opened
from hybridstitch.mini.scenes import Scene


@pytest.fixture
def run(mini, monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder: exit code, stdout, lines of stderr."""
    monkeypatch.setenv(opened.FOLDER, str(mini))
    monkeypatch.chdir(tmp_path)

    def command(*words):
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err.splitlines()

    return command


PROMPT = "a big dog on a meadow"
SHORT = ("--steps", "3", "--size", "16", "--policy", "large")
BAD = {
    "no prompt": ((), "no prompt was given"),
    "empty prompt": (("  ",), "prompt 1 of 1 is empty"),
    "second prompt empty": ((PROMPT, ""), "prompt 2 of 2 is empty"),
    "over-long prompt": (("dog " * 30,), "prompt 1 has 30 tokens and the text encoder takes 22; leave out 8"),
    "over-long negative": ((PROMPT, "--negative", "dog " * 23), "the negative prompt has 23 tokens"),
    "size no multiple": ((PROMPT, "--size", "100x60"), "draws multiples of 8 pixels (VAE × patch): 96x64 is near"),
    "size too large": ((PROMPT, "--size", "512"), "draws at most 128 pixels a side"),
    "size zero": ((PROMPT, "--size", "0"), "write pixels as WIDTHxHEIGHT"),
    "size no size": ((PROMPT, "--size", "big"), "--size 'big' was given"),
    "too few steps": ((PROMPT, "--steps", "2", "--policy", "hybrid-stitch"), "needs at least 3 of them"),
    "too few for its stages": (
        (PROMPT, "--steps", "2", "--policy", "hybridstitch"),
        "at least 3 of them, this run has",
    ),
    "no steps": ((PROMPT, "--steps", "0"), "--steps 0 was given"),
    "steps no number": ((PROMPT, "--steps", "many"), "Invalid value for '--steps'"),
    "no pictures": ((PROMPT, "--n", "0"), "--n 0 was given"),
    "negative seed": ((PROMPT, "--seed", "-1"), "--seed -1 was given"),
    "unknown policy": ((PROMPT, "--policy", "hybridstich-30"), "did you mean 'hybridstitch-30'?"),
    "program too long": ((PROMPT, "--policy", "L90"), "fills 90 steps, this run has 50"),
    "unknown device": ((PROMPT, "--device", "cudda"), "--device 'cudda' is no device; did you mean 'cuda'"),
    "absent device": ((PROMPT, "--device", "cuda:77"), "--device cuda:77 was given"),
    "unknown dtype": ((PROMPT, "--dtype", "float23"), "--dtype 'float23' was given"),
    "no folder": ((PROMPT, "--pair", "./nowhere"), "--pair ./nowhere is no folder"),
    "folder without a pair": ((PROMPT, "--pair", "."), "--pair . is not a pair: it has no model_index.json"),
    "one hub id": ((PROMPT, "--pair", "some/model"), "a pair is two: --pair some/model SMALL"),
    "mini and another": ((PROMPT, "--pair", "mini", "--small", "x"), "brings its small model"),
    "guidance no number": ((PROMPT, "--guidance", "nan"), "--guidance nan was given; a scale is a number"),
    "source is a folder": (("--from", "."), ". is a folder; name one of its PNGs"),
    "no source": (("--from", "none.png"), "there is no file none.png"),
    "unknown option": ((PROMPT, "--stepz", "3"), "--stepz"),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_line_and_code_2(run, words, message):
    code, out, err = run("generate", *words)
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert err[0].startswith("error: ")
    assert message in err[0]


def test_a_folder_that_cannot_be_written_to(run, tmp_path):
    (tmp_path / "file").touch()
    code, _, err = run("generate", PROMPT, "--out", "file")
    assert code == 2
    assert err == ["error: --out file cannot be written to (File exists); choose another folder"]


def test_a_pair_without_weights(run, monkeypatch, tmp_path):
    monkeypatch.setenv(opened.FOLDER, str(tmp_path / "none"))
    code, _, err = run("generate", PROMPT)
    assert code == 2
    assert "weights are not in" in err[0]


@pytest.mark.parametrize(
    ("index", "message"),
    [("not json", "model_index.json cannot be read"), ('{"unet": ["diffusers", "X"]}', "has no transformer")],
)
def test_a_folder_with_another_index(run, tmp_path, index, message):
    (tmp_path / "model_index.json").write_text(index)
    code, _, err = run("generate", PROMPT, "--pair", str(tmp_path))
    assert code == 2
    assert message in err[0]


def test_a_failure_is_one_line_and_code_1(run, mini, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("the disk is on fire\nand so is the rest")

    monkeypatch.setattr("hybridstitch.cli.pairs.open_mini", fail)
    code, _, err = run("generate", PROMPT)
    assert code == 1
    assert err == ["error: RuntimeError: the disk is on fire; --debug shows where"]
    code, _, err = run("generate", PROMPT, "--debug")
    assert code == 1
    assert any(line.startswith("Traceback") for line in err)


def test_an_interruption_is_code_130(run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("hybridstitch.cli.pairs.open_mini", interrupt)
    code, _, err = run("generate", PROMPT)
    assert (code, err) == (130, ["error: interrupted; the pictures drawn so far are saved"])


def test_two_names_after_pair():
    assert two_models(["a", "--pair", "big/one", "small/one"]) == ["a", "--pair", "big/one", "--small", "small/one"]
    for words in (["--pair", "mini", "a dog"], ["--pair", "big/one"], ["--", "--pair", "x", "y"]):
        assert two_models(words) == words


def test_help_and_version(run):
    code, out, _ = run()
    assert code == 0
    assert "generate" in out
    assert run("--version")[:2] == (0, f"hybridstitch {__version__}\n")
    for command in ("generate", "inspect", "policies", "scene", "doctor"):
        assert run(command, "--help")[0] == 0


def test_an_unknown_command(run):
    code, _, err = run("generat")
    assert code == 2
    assert "No such command 'generat'" in err[0]
    assert err[0].endswith("`hybridstitch --help` lists what there is")


def test_policies_lists_names_options_and_the_paper(run):
    code, out, _ = run("policies")
    assert code == 0
    for text in ("hybrid-stitch", "thresholds = 0.5/0.3", "hybridstitch-30", "1.83×", "t-stitch", "flowblending"):
        assert text in out
    found = json.loads(run("policies", "--json")[1])
    assert found["policies"]["t-stitch"] == {"ratio": "0.4"}
    assert found["presets"]["t-stitch"]["policy"] == "t-stitch"


def test_doctor_says_what_is_there(run):
    code, out, _ = run("doctor")
    assert code == 0
    for text in ("torch", "cores", "attention", "miniature pair: "):
        assert text in out
    assert {check["name"] for check in json.loads(run("doctor", "--json")[1])["checks"]} >= {"torch", "diffusers"}


def test_doctor_names_the_command_that_mends(run, monkeypatch, tmp_path):
    monkeypatch.setenv(opened.FOLDER, str(tmp_path / "none"))
    code, out, _ = run("doctor")
    assert code == 1
    assert "✗ miniature pair: model_index.json" in out
    assert "python -m hybridstitch.mini.train all" in out


def test_scene_draws_the_true_picture(run, tmp_path):
    from PIL import Image

    code, out, _ = run("scene", "a little kitten on the grass", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["caption"] == "a small cat on a meadow"
    drawn = Image.open(tmp_path / found["path"])
    assert drawn.tobytes() == Scene.parse("a small cat on a meadow").render().tobytes()


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("a big dgo on a meadow", "does not know 'dgo' (near: "),
        ("a big dog", "does not end with a background"),
        ("", "no caption was given"),
    ],
)
def test_scene_names_what_it_does_not_know(run, caption, message):
    code, _, err = run("scene", caption)
    assert code == 2
    assert message in err[0]


def test_scene_lists_words_and_examples(run):
    assert "sunflower" in run("scene", "--words")[1].split()
    assert len(run("scene", "--examples", "3")[1].splitlines()) == 3


def test_inspect_refuses_other_pictures(run, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    code, _, err = run("inspect", "other.png")
    assert code == 2
    assert "does not say how it was drawn" in err[0]


OPENED = {
    "generate": ((PROMPT,), "pairs", "Pair.open"),
    "calibrate": ((), "pairs", "Pair.open"),
    "batch": (("jobs.jsonl", "--device", "cpu"), "batch", "JobStudio"),
    "serve": ((), "serve", "ServeOpener"),
}


@pytest.mark.parametrize("command", OPENED)
def test_commands_that_draw_run_the_models_as_asked(command, run, tmp_path, monkeypatch):
    words, module, opens = OPENED[command]
    (tmp_path / "jobs.jsonl").write_text(json.dumps({"prompt": PROMPT}))

    def opened_with(*args, engine, **more):
        raise BadInput(f"opened with {engine}")

    place = import_module(f"hybridstitch.cli.{module}")  # its name in the package is the command's function
    *inside, last = opens.split(".")
    monkeypatch.setattr(getattr(place, inside[0]) if inside else place, last, opened_with)
    code, _, err = run(command, *words, "--kv", "float8", "--kv-host")
    assert code == 2
    assert "opened with kv=float8,kv-host=true" in err[-1]
