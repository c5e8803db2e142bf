"""Prices of whole calls, against sums made by hand."""

import pytest

from hybridstitch.errors import PolicyError
from hybridstitch.measure.price import Prices, fixed_plans
from hybridstitch.policies.methods import HybridStitch, LargeOnly, Schedule, SmallOnly, parse

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
    with pytest.raises(PolicyError, match="only its trace tells"):
        PRICES.seconds(HybridStitch(), 10)
    plans = fixed_plans(Schedule("L2 S*"), 10)
    assert PRICES.plans(plans) == pytest.approx(PRICES.seconds(Schedule("L2 S*"), 10))


def test_prices_survive_json():
    assert Prices.from_json(PRICES.to_json()) == PRICES
    assert Prices.from_json(PRICES.to_json()).seconds(LargeOnly(), 3) > PRICES.seconds(SmallOnly(), 3)
