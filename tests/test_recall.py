"""How near a prompt must be to a picture drawn before: as a recipe says it, and as a pair is measured for it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from hybridstitch.calibrate import recalling
from hybridstitch.calibrate.conditions import Conditions
from hybridstitch.cli import main
from hybridstitch.mini import opened, weights_dir
from hybridstitch.policies.levels import levels_of
from hybridstitch.recipe import Band, Recall, Recipe, RecipeError
from mini_folder import save
from serving import recipe

RECALL = Recall(
    clip="mini",
    policy="small",
    bands=(
        Band(similarity=0.5, step=10, level=0.8, kept=0.96, pairs=20),
        Band(similarity=0.8, step=30, level=0.4, kept=0.97, pairs=20),
    ),
)
LEVELS = [1 - step / 10 for step in range(10)]


@pytest.mark.parametrize(("similarity", "start"), [(0.49, 0), (0.5, 2), (0.79, 2), (0.8, 6), (1.0, 6)])
def test_the_nearer_a_picture_the_later_drawing_begins(similarity, start):
    assert RECALL.start(similarity, LEVELS) == start
    assert RECALL.start(similarity, LEVELS[:1]) == 0  # a run of one step begins with noise


def test_a_start_is_never_noised_less_than_was_measured():
    for steps in range(1, 60):
        levels = [1 - step / steps for step in range(steps)]
        for band in RECALL.bands:
            start = RECALL.start(band.similarity, levels)
            assert levels[start] >= band.level * (1 - 1e-6)
            assert start == steps - 1 or levels[start + 1] < band.level


def test_a_recipe_keeps_it_and_old_ones_have_none(tmp_path):
    old = Recipe.load(recipe(tmp_path / "old.json"))
    assert old.recall is None
    assert "recall" not in old.to_json()
    new = replace(old, recall=RECALL)
    new.save(tmp_path / "new.json")
    assert Recipe.load(tmp_path / "new.json") == new
    rest = json.loads((tmp_path / "new.json").read_text())
    del rest["recall"]
    assert rest == json.loads((tmp_path / "old.json").read_text())


@pytest.mark.parametrize(
    "bands",
    [
        [{"similarity": 0.5}],
        [{"similarity": float("nan"), "step": 1, "level": 0.5, "kept": 1.0, "pairs": 1}],
        [{"similarity": 0.5, "step": 1, "level": 0.0, "kept": 1.0, "pairs": 1}],
        [{"similarity": s, "step": 9 - k, "level": 0.5, "kept": 1.0, "pairs": 1} for k, s in enumerate((0.5, 0.6))],
        "many",
    ],
)
def test_what_no_calibration_wrote_is_refused(tmp_path, bands):
    data = Recipe.load(recipe(tmp_path / "recipe.json")).to_json()
    with pytest.raises(RecipeError, match="damaged"):
        Recipe.from_json({**data, "recall": {"clip": "mini", "policy": "small", "bands": bands}})


def test_levels_of_a_run_are_the_schedulers():
    static = FlowMatchEulerDiscreteScheduler(shift=3.0)
    ours = levels_of(static, 7, None, None)
    static.set_timesteps(7)
    assert ours == static.sigmas[:7].tolist()
    assert levels_of(static, 4, 5.0, None) == pytest.approx([5 * u / (1 + 4 * u) for u in (1, 0.75, 0.5, 0.25)])
    assert levels_of(static, 2, None, (1.0, 0.3)) == pytest.approx([1.0, 0.3])
    moving = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    assert levels_of(moving, 4, None, None) == [1, 0.75, 0.5, 0.25]


# --- measuring ---


class Shades:
    """A tower to which a picture's shade is an angle, and a prompt's number is one."""

    numerics = "shades"

    def features(self, pictures):
        angles = torch.tensor([float(picture[0, 0, 0]) for picture in pictures]).double() * np.pi / 512
        return torch.stack([angles.cos(), angles.sin()], 1)

    def text_features(self, prompts):
        angles = torch.tensor([float(prompt) for prompt in prompts]).double() * np.pi / 512
        return torch.stack([angles.cos(), angles.sin()], 1)


class Fading:
    """Draws the prompt's own shade from noise; drawing on leaves a share of the other picture, which grows with k."""

    def __init__(self, pipe, other, conditions, seed):
        self.steps = conditions.steps

    def large(self, prompt, place):
        return shade(float(prompt))

    def rest(self, prompt, picture, start, pair):
        share = start / self.steps
        return shade((1 - share) * float(prompt) + share * picture.getpixel((0, 0))[0])


def shade(value):
    return Image.new("RGB", (2, 2), (round(value), 0, 0))


class Nobody:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)


def test_each_band_goes_as_far_as_keeps_95_percent(monkeypatch):
    monkeypatch.setattr(recalling, "_Drawer", Fading)
    monkeypatch.setattr(recalling, "beside", lambda pipe, kind: None)
    conditions = Conditions(width=8, height=8, steps=10, guidance=4.0)
    prompts = [str(16 * k) for k in range(16)]  # to 240: far ones are at a right angle, nearly
    found = recalling.recall_of(Nobody(), Shades(), "shades", prompts, conditions=conditions)
    assert [band.similarity for band in found.bands] == sorted(band.similarity for band in found.bands)
    assert found.bands[-1].step == 9  # the same prompt, or one beside it
    monkeypatch.setattr(recalling, "NEAREST", 1.0)
    found = recalling.recall_of(Nobody(), Shades(), "shades", prompts, conditions=conditions)
    assert len({band.step for band in found.bands}) > 1
    assert all(band.kept >= 0.95 and band.pairs > 0 for band in found.bands)
    levels = levels_of(Nobody.scheduler, 10, None, None)
    assert [band.level for band in found.bands] == [levels[band.step] for band in found.bands]
    assert Recall.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_pair_is_measured_and_its_recipe_is_otherwise_as_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(opened.FOLDER, str(save(tmp_path / "mini")))
    file = recipe(tmp_path / "recipe.json")
    before = json.loads(file.read_text())
    (tmp_path / "prompts").write_text(
        "\n".join(
            f"a {size} dog on a {place}" for size in ("big", "small") for place in ("meadow", "beach", "table", "road")
        )
    )
    monkeypatch.setattr(recalling, "PAIRS", 2)
    monkeypatch.setattr(recalling, "KEPT", -9.0)  # of random pictures
    code = main(["calibrate", "--memory", "--out", str(file), "--prompts", str(tmp_path / "prompts"), "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    after = json.loads(file.read_text())
    recall = after.pop("recall")
    assert after == before
    assert json.loads(said.out.splitlines()[-1]) == {"recipe": str(file), **recall}
    assert recall["clip"] == "mini"
    assert recall["bands"]
    assert {band["step"] for band in recall["bands"]} == {5}  # of 6


def test_what_memory_cannot_be_measured_for_is_said_in_one_line(tmp_path, capsys):
    lacking = tmp_path / "none.json"
    for words, message in (
        (("--pair", "LARGE", "--small", "SMALL"), "--memory adds to a recipe, and there is none"),
        (("--speed", "2"), "--memory and --speed were given"),
        (("--steps", "8"), "--memory and --steps were given"),
        (("--guidance", "1"), "--memory and --guidance were given"),
        (("--size", "32"), "--memory and --size were given"),
        (("--frames", "9"), "--memory and --frames were given"),
    ):
        assert main(["calibrate", "--memory", "--out", str(lacking), *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["calibrate", "--remember-clip", "mini", "--out", str(lacking)]) == 2
    assert "without --memory" in capsys.readouterr().err


def test_memory_is_measured_here(tmp_path, capsys):
    pytest.importorskip("ray")
    assert main(["calibrate", "--memory", "--out", str(tmp_path / "none.json"), "--on", "ray"]) == 2
    assert "--memory and --on were given" in capsys.readouterr().err


def test_too_few_prompts_are_refused():
    with pytest.raises(RecipeError, match="give 8 to 64, some of them similar to each other"):
        recalling.recall_of(
            Nobody(), Shades(), "x", ["1"], conditions=Conditions(width=8, height=8, steps=4, guidance=4.0)
        )


# --- how a server is told ---


@pytest.mark.parametrize(
    ("recall", "words", "message"),
    [
        (None, ("--remember", "kept"), "the recipe does not say how similar an earlier picture must be to a prompt; "
                                       "`hybridstitch calibrate --memory --out recipe.json` measures it"),
        (RECALL, ("--remember", "kept", "--remember-clip", "some/clip"), "was measured with mini, whose"),
        (RECALL, ("--remember-clip", "mini"), "without --remember"),
        (RECALL, ("--remember", "recipe.json"), "pictures cannot be remembered in recipe.json"),
        (Recall(clip="mini", policy="small", bands=()), ("--remember", "kept"), "of this pair good enough to start"),
        (RECALL, ("--remember", "kept", "--remember-most", "0"), "remember_most=0 was given"),
    ],
)  # fmt: skip
def test_what_cannot_be_remembered_is_said_in_one_line(tmp_path, monkeypatch, capsys, recall, words, message):
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path / "recipe.json", recall)
    assert main(["serve", "--recipe", "recipe.json", *words]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert message in said[0]


def test_the_miniature_pairs_own_recipe_says_how_near():
    found = Recipe.load(weights_dir().with_name("recipe.json")).recall
    assert found is not None
    assert (found.clip, found.policy) == ("mini", "small")
    assert all(band.kept >= recalling.KEPT for band in found.bands)
