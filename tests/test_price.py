"""Prices of whole calls, against sums made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridstitch.errors import PolicyError
from hybridstitch.measure.price import Prices, fixed_plans
from hybridstitch.policies.methods import HybridStitch, LargeOnly, Schedule, SmallOnly
from hybridstitch.policies.parse import parse
from hybridstitch.policies.plan import Plan, Region, Stroke, large, small

PRICES = Prices(
    call=0.5, step=0.01, large=1.0, small=0.2, masked={"fresh": (0.1, 1.0), "cached": (0.0, 1.0), "cond": (0.05, 0.5)}
)


@pytest.mark.parametrize(
    ("policy", "steps", "seconds"),
    [
        ("large", 10, 0.5 + 10 * 1.01),
        ("small", 10, 0.5 + 10 * 0.21),
        ("L4 S*", 10, 0.5 + 10 * 0.01 + 4 + 6 * 0.2),
        ("L4 H5@0.3 S*", 10, 0.5 + 0.1 + 4 + 5 * (0.2 + 0.4) + 0.2),
        ("schedule:program=L4 H5@0.3 S*,text=cached", 10, 0.5 + 0.1 + 4 + 5 * (0.2 + 0.3) + 0.2),
        ("schedule:program=L4 H5@0.3 S*,branches=cond", 10, 0.5 + 0.1 + 4 + 5 * (0.2 + 0.2) + 0.2),
        ("schedule:program=L4 H5@0.3 S*,masked-compute=false", 10, 0.5 + 0.1 + 4 + 5 * (0.2 + 1) + 0.2),
        ("L2 R5@0.3 -3", 10, 0.5 + 0.1 + 2 + 5 * 0.4),
    ],
)
def test_a_call_costs_its_strokes_its_steps_and_itself(policy, steps, seconds):
    assert PRICES.seconds(parse(policy), steps) == pytest.approx(seconds)


def test_s_and_h_are_in_dense_steps():
    assert PRICES.small_ratio == pytest.approx(0.2)
    assert PRICES.masked_ratio(0.3) == pytest.approx(0.4)
    assert PRICES.masked_ratio(0.3, "cond") == pytest.approx(0.2)


def test_an_adaptive_policy_is_priced_by_its_plans():
    with pytest.raises(PolicyError, match="only a trace has"):
        PRICES.seconds(HybridStitch(), 10)
    plans = fixed_plans(Schedule("L2 S*"), 10)
    assert PRICES.plans(plans) == pytest.approx(PRICES.seconds(Schedule("L2 S*"), 10))


def test_prices_survive_json():
    assert Prices.from_json(PRICES.to_json()) == PRICES
    assert Prices.from_json(PRICES.to_json()).seconds(LargeOnly(), 3) > PRICES.seconds(SmallOnly(), 3)


# --- fitted to strokes ---


def masked(ratio):
    return Stroke("L", Region(ratio))


@given(st.floats(0.1, 10), st.floats(0.01, 1), st.floats(0, 1), st.floats(0.1, 5))
def test_a_fit_is_exact_on_strokes_that_follow_the_model(dense, light, base, slope):
    strokes = [(large(), dense), (small(), light), (large(), dense)]
    strokes += [(masked(m), base + slope * m) for m in (0.1, 0.2, 0.4, 0.4)]
    model = Prices.fit(strokes)
    assert model.large == pytest.approx(dense)
    assert model.small == pytest.approx(light)
    for ratio in (0.05, 0.3, 0.9):
        assert model.stroke(masked(ratio)) == pytest.approx(base + slope * ratio)
    assert model.plans([Plan((small(), masked(0.3)), 1)]) == pytest.approx(light + base + slope * 0.3)


def test_one_mask_size_gives_a_line_through_the_origin():
    model = Prices.fit([(large(), 1.0), (small(), 0.2), (masked(0.2), 0.3), (masked(0.2), 0.5)])
    assert model.stroke(masked(0.1)) == pytest.approx(0.2)


def test_without_masked_strokes_eq_3_serves():
    assert Prices.fit([(large(), 2.0), (small(), 0.2)]).stroke(masked(0.3)) == pytest.approx(0.6)


def test_a_mask_computed_densely_costs_a_dense_step():
    model = Prices(large=1.0, small=0.25, masked={"fresh": (0.1, 1.0)})
    assert model.plans([Plan((small(), Stroke("L", Region(0.3), dense=True)), 1)]) == 1.25
    assert model.plans([Plan(())]) == 0


@pytest.mark.parametrize("strokes", [[], [(large(), 1.0)], [(small(), 1.0)], [(masked(0.3), 1.0), (small(), 1.0)]])
def test_a_fit_needs_both_models(strokes):
    with pytest.raises(ValueError, match=r"dense large and \d small steps were timed; at least one of each is needed"):
        Prices.fit(strokes)


def test_each_kind_of_masked_stroke_has_a_line_of_its_own():
    kinds = {"fresh": {}, "cached": {"text": "cached"}, "cond": {"branches": "cond"}}
    strokes = [(large(), 1.0), (small(), 0.2)]
    for base, changes in enumerate(kinds.values()):
        strokes += [(Stroke("L", Region(m), **changes), base + m) for m in (0.2, 0.4)]
    found = Prices.fit(strokes, call=0.5, step=0.1)
    assert {kind: pytest.approx(line) for kind, line in found.masked.items()} == dict(
        zip(kinds, ((0, 1), (1, 1), (2, 1)), strict=True)
    )
    assert (found.call, found.step) == (0.5, 0.1)


def test_a_kind_that_was_not_measured_costs_what_fresh_text_does():
    cached = Stroke("L", Region(0.5), text="cached")
    assert Prices(large=1.0, small=0.2, masked={"fresh": (0.1, 1.0)}).stroke(cached) == pytest.approx(0.6)
    assert Prices(large=1.0, small=0.2).stroke(cached) == pytest.approx(0.5)
