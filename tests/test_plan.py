"""Plans: regions and their number of tokens, strokes, text, JSON."""

import json
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridstitch.policies.plan import Plan, Region, Stroke, large, small
from strategies import PLANS


@given(PLANS)
def test_a_plan_round_trips_through_json(plan):
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_defaults_are_left_out_of_json():
    assert Plan((small(), Stroke("L", Region(0.3), text="cached")), 1).to_json() == {
        "stage": 1,
        "strokes": [{"model": "S"}, {"model": "L", "region": {"ratio": 0.3}, "text": "cached"}],
    }


@given(st.floats(1e-6, 1.0), st.integers(1, 5000))
def test_a_share_of_the_tokens_is_rounded_and_never_empty(ratio, tokens):
    count = Region(ratio).count(tokens)
    assert count == min(max(floor(ratio * tokens + 0.5), 1), tokens)
    assert 1 <= count <= tokens


@pytest.mark.parametrize(("ratio", "tokens", "count"), [(0.3, 2304, 691), (0.1, 4, 1), (0.5, 5, 3), (1.0, 7, 7)])
def test_count(ratio, tokens, count):
    assert Region(ratio).count(tokens) == count


def test_named_tokens_are_counted_as_they_are():
    region = Region(0.3, tokens=(2, 5))
    assert region.count(100) == 2
    assert not region.everywhere
    assert not Region(1.0, tokens=()).everywhere


def test_a_dense_stroke_needs_no_keys_and_values():
    assert Stroke("L", Region(0.3)).masked
    assert not Stroke("L", Region(0.3), dense=True).masked
    assert not large().masked


@pytest.mark.parametrize(
    ("plan", "tokens", "text"),
    [
        (Plan((large(),)), 100, "L"),
        (Plan((small(),)), 0, "S"),
        (Plan(()), 0, "-"),
        (Plan((small(), Stroke("L", Region(0.3)))), 30, "S + L@0.3"),
        (Plan((Stroke("L", Region(0.125, tokens=(1, 2))),)), 2, "L@0.125"),
    ],
)
def test_what_the_large_model_adds_and_how_a_plan_reads(plan, tokens, text):
    assert plan.large_tokens(100) == tokens
    assert str(plan) == text
