"""Settings laid over one another."""

from dataclasses import replace

import pytest

from hybridstitch.cli.asked import Asked
from hybridstitch.policies.methods import LargeOnly
from hybridstitch.policies.parse import parse
from hybridstitch.policies.presets import preset
from hybridstitch.report.layers import DEFAULTS, Layer, named, recorded
from hybridstitch.report.metadata import PictureError
from test_picture import DRAWN

FEW = preset("mini-few-4")


def test_the_upper_layer_goes_first_and_what_it_leaves_open_the_lower_decides():
    upper, lower = Layer(seed=0, negative=""), Layer(seed=5, negative="rain", steps=8)
    assert upper.over(lower) == Layer(seed=0, negative="", steps=8)
    assert Layer().over(lower) == lower == lower.over(Layer())


def test_three_layers_are_the_same_from_above_and_from_below():
    layers = (Layer(policy=FEW.policy, pair="a"), Layer(steps=7, shift=5.0, small="b"), Layer(steps=9, shift=2.0))
    above = layers[0].over(layers[1]).over(layers[2])
    assert above == Layer(policy=FEW.policy, pair="a", steps=7)  # neither b nor 5.0 was meant for it
    assert layers[0].over(layers[1].over(layers[2])) == above


def test_a_small_model_goes_with_the_pair_that_names_it():
    pair = Layer(pair="large", small="small")
    assert Layer(pair="mini").over(pair) == Layer(pair="mini")
    assert Layer(small="other").over(pair) == Layer(pair="large", small="other")


@pytest.mark.parametrize(
    ("upper", "shift"),
    [
        (Layer(seed=3), 5.0),
        (Layer(steps=7), 5.0),
        (Layer(policy=FEW.policy), 5.0),
        (Layer(steps=8), None),
        (Layer(policy=LargeOnly()), None),
        (Layer(policy=LargeOnly(), shift=2.0), 2.0),
    ],
)
def test_a_shift_goes_with_its_policy_and_steps(upper, shift):
    assert upper.over(named("mini-few-4")).shift == shift


def test_of_a_shift_and_free_levels_the_upper_layer_s_one_counts():
    free, shifted = Layer(levels=(1.0, 0.5)), Layer(shift=3.0)
    assert (free.over(shifted), shifted.over(free)) == (free, shifted)
    assert Layer(steps=3).over(replace(free, steps=2)).levels is None
    assert Layer(policy=LargeOnly(), seed=1).over(replace(free, policy=LargeOnly())).levels == (1.0, 0.5)


def test_only_a_name_on_the_command_line_is_a_preset():
    assert named("mini-few-4") == Layer(policy=FEW.policy, steps=7, shift=5.0)
    assert named(str(FEW.policy)) == Layer(policy=FEW.policy)
    assert named(None) == Layer()


def test_a_picture_s_layer_is_all_of_it():
    layer = recorded(DRAWN)
    assert layer.policy == parse(DRAWN.policy)
    assert (layer.prompts, layer.size, layer.shift) == ((DRAWN.prompt,), (128, 96), None)
    with pytest.raises(PictureError, match="policy cannot be read"):
        recorded(type(DRAWN).from_json({**DRAWN.to_json(), "policy": "hybridstitch-30"}))


def test_a_command_line_over_a_preset_over_a_recipe_over_the_defaults():
    recipe = Layer(pair="mini", policy=LargeOnly(), steps=12, guidance=3.0, size=(64, 32))
    asked = Asked.of(prompts=("a",), below=recipe, guidance=2.0, device="cpu")
    assert (asked.policy, asked.steps, asked.guidance, asked.size) == (LargeOnly(), 12, 2.0, (64, 32))
    asked = Asked.of(prompts=("a",), below=recipe, policy="mini-few-4", device="cpu")
    assert (asked.policy, asked.steps, asked.shift, asked.guidance) == (FEW.policy, 7, 5.0, 3.0)
    asked = Asked.of(prompts=("a",), device="cpu")
    assert (asked.policy, asked.steps, asked.pair) == (None, DEFAULTS.steps, DEFAULTS.pair)
