"""The miniature pair, opened: stock pipelines without T5 tokens."""

import inspect

import diffusers
import pytest
import torch

from hybridstitch import open_pair
from hybridstitch.errors import PairError, PolicyError, StitchWarning
from hybridstitch.mini import FOLDER, recipe_file
from hybridstitch.mini.opened import MINI_POLICY, is_mini, open_mini
from hybridstitch.mini.parts import TEXT_TOKENS
from hybridstitch.policies.methods import LargeOnly
from hybridstitch.recipe import Recipe
from mini_folder import save

KINDS = (
    diffusers.StableDiffusion3Pipeline,
    diffusers.StableDiffusion3Img2ImgPipeline,
    diffusers.StableDiffusion3InpaintPipeline,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("mini"))


def draw(pipe, **call):
    pipe.set_progress_bar_config(disable=True)
    arguments = {"num_inference_steps": 4, "height": 32, "width": 32, "guidance_scale": 4.0, "output_type": "np"}
    arguments["generator"] = torch.Generator().manual_seed(0)
    return pipe("a big dog on a meadow", **{**arguments, **call}).images


def text_tokens(pipe, **call):
    seen = []
    pipe.transformer.large.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["encoder_hidden_states"].shape[1]), with_kwargs=True
    )
    draw(pipe, **call)
    return set(seen)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_t5_token_reaches_the_transformer_by_default(folder, kind):
    pipe = open_mini("large", folder=folder, pipeline=kind)
    extra = {}
    if "image" in pipe.__call__.__signature__.parameters:
        extra = {"image": torch.zeros(1, 3, 32, 32), "strength": 1.0}
    if "mask_image" in pipe.__call__.__signature__.parameters:
        extra["mask_image"] = torch.ones(1, 1, 32, 32)
    assert text_tokens(pipe, **extra) == {TEXT_TOKENS}
    assert TEXT_TOKENS <= 32
    assert isinstance(pipe, kind)


def test_only_the_default_changes(folder):
    pipe = open_mini("large", folder=folder)
    assert text_tokens(pipe, max_sequence_length=5) == {TEXT_TOKENS + 5}
    ours = type(pipe).__call__.__signature__.parameters
    stock = inspect.signature(diffusers.StableDiffusion3Pipeline.__call__).parameters
    assert {name for name in stock if ours[name] != stock[name]} == {"max_sequence_length"}
    assert ours["max_sequence_length"].default == 0
    assert pipe.encode_prompt("a dog", None, None)[0].shape == (1, TEXT_TOKENS, 256)


def test_open_pair_opens_it(folder, monkeypatch):
    monkeypatch.setenv(FOLDER, str(folder))
    pipe = open_pair("mini")
    assert pipe.transformer.policy == MINI_POLICY
    assert pipe.dtype == torch.float32
    assert str(open_pair("mini", policy="small").transformer.policy) == "small"
    assert open_pair("mini", device_map="cpu", dtype=torch.bfloat16).transformer.large.dtype == torch.bfloat16
    with pytest.raises(PolicyError, match="there is no preset or policy 'smal'"):
        open_pair("mini", policy="smal")


def test_the_shipped_pair_brings_a_recipe_and_draws_by_it_without_a_calibration():
    file = recipe_file()
    assert file is not None
    recipe = Recipe.load(file)
    assert recipe.home.pair == "mini"
    pipe = open_pair("mini", speed=8)
    point = recipe.at(speed=8)
    assert str(pipe.transformer.policy) == point.policy
    assert pipe.transformer.call["num_inference_steps"] == point.steps
    assert abs(point.speed / 8 - 1) <= 0.05
    speeds = [one.speed for one in recipe.points]
    assert min(speeds) == 1.0
    assert max(speeds) > 16
    for speed in (1.5, 2, 3, 5, 12, 16):
        assert abs(recipe.at(speed=speed).speed / speed - 1) <= 0.05


def test_on_another_processor_the_shipped_recipe_says_that_its_speeds_are_another_s(monkeypatch):
    monkeypatch.setattr("hybridstitch.calibrate.conditions.device_name", lambda device: "Some Processor")
    with pytest.warns(StitchWarning, match="the device was .* now it is Some Processor with .*; measure again: `hyb"):
        open_pair("mini", speed=8)


def test_what_draws_by_default_is_level_with_the_recipe_s_best_at_its_speed():
    file = recipe_file()
    assert file is not None
    recipe = Recipe.load(file)
    speed = recipe.prices.seconds(LargeOnly(), 50) / recipe.prices.seconds(MINI_POLICY, 50)
    assert 2.8 < speed < 3.5
    skips = [one for one in recipe.trials if one.policy.startswith("skip") and abs(one.speed / speed - 1) < 0.1]
    assert max(one.closeness for one in skips) > recipe.at(speed=speed).closeness.mean - 0.005


def test_other_weights_have_no_recipe(folder, monkeypatch):
    monkeypatch.setenv(FOLDER, str(folder))
    assert recipe_file() is None


def test_a_saved_pair_is_a_stock_pipeline_that_loads_again(folder, tmp_path):
    pipe = open_mini("L2 S*", folder=folder)
    first = draw(pipe)
    pipe.save_pretrained(tmp_path)
    assert diffusers.DiffusionPipeline.load_config(tmp_path)["_class_name"] == "StableDiffusion3Pipeline"
    again = open_mini(folder=tmp_path)
    assert str(again.transformer.policy) == str(pipe.transformer.policy)
    assert (draw(again) == first).all()
    stock = open_pair(tmp_path, text_encoder_3=None, tokenizer_3=None)
    assert (draw(stock, max_sequence_length=0) == first).all()


def test_a_folder_says_whether_it_is_a_miniature(folder, tmp_path):
    assert is_mini(folder)
    assert not is_mini(tmp_path)


def test_without_weights_the_way_out_is_named(tmp_path):
    with pytest.raises(PairError, match=r"weights are not in .*; install hybridstitch again, or train them"):
        open_mini(folder=tmp_path)
    with pytest.raises(PairError, match="did you mean 'StableDiffusion3Pipeline'"):
        open_mini(folder=tmp_path, pipeline=diffusers.StableDiffusionPipeline)
