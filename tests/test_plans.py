"""Plans that calibration searches: spelled, changed, priced, and drawn as they are written."""

import random
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from hypothesis import given
from hypothesis import strategies as st

from hybridstitch.calibrate.evolution import Evolution, Room
from hybridstitch.calibrate.gaps import fillers, speeds_between
from hybridstitch.calibrate.plans import (
    SHIFTS,
    WORDS,
    Candidate,
    changed,
    counts_beside,
    first,
    merged,
    planned,
    spelled,
    split,
)
from hybridstitch.calibrate.table import Standing, span_of
from hybridstitch.measure.lockstep import draw_together
from hybridstitch.measure.price import Prices
from hybridstitch.measure.start import prepare
from hybridstitch.policies.levels import at_levels
from hybridstitch.policies.methods import LargeOnly, Schedule, SmallOnly
from hybridstitch.policies.parse import parse
from hybridstitch.policies.program import short
from hybridstitch.policies.skip import Skip, drawn_steps
from hybridstitch.policies.srdiffusion import SRDiffusion
from hybridstitch.recipe import kind_of
from hybridstitch.recipe.between import variants
from small_models import stitched, worded

PRICES = Prices(call=0.2, step=0.01, large=1.0, small=0.15, masked={"fresh": (0.1, 1.0), "cached": (0.05, 1.0)})
REFERENCE = PRICES.seconds(LargeOnly(), 50)


@pytest.fixture(scope="module")
def pipe():
    return worded(stitched())


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30))
def test_a_program_is_its_words(words):
    assert spelled(short(words)) == words


@pytest.mark.parametrize("words", ["L", "L S R@0.3", "L - R@0.3 L", "L R@0.3", "- L L", "L S L -"])
def test_what_would_not_be_drawn_as_it_is_written_is_no_plan(words):
    assert planned(words.split(), 5.0) is None


def test_one_model_alone_is_its_own_policy_and_options_without_a_use_are_left_out():
    assert planned(["L"] * 3, None) == Candidate(LargeOnly(), 3)
    assert planned(["S"] * 3, 2.0) == Candidate(SmallOnly(), 3, 2.0)
    carried = Schedule("L S", text="cached", carry=0.95, follow=0.25)
    assert planned(["L", "L", "-", "L"], 5.0, like=carried).policy == Schedule("L2 - L")
    assert planned(["L", "L", "S"], 5.0, like=carried).policy.carry == 0.95


@pytest.mark.parametrize("steps", [4, 8, 50])
def test_a_search_begins_with_plans_that_can_be_drawn(steps):
    plans = list(first(steps))
    assert len(plans) == len({*plans})
    for plan in plans:
        plan.policy.check(plan.steps)
        assert len(plan.words) == plan.steps
        assert parse(str(plan.policy)) == plan.policy


def test_of_many_large_steps_a_third_of_the_counts_is_tried_first_and_the_rest_beside_what_is_kept():
    def counts(plans):
        return [plan.steps for plan in plans if plan.shift is None and plan.policy == LargeOnly()]

    assert counts(first(22)) == [*range(2, 9), 9, 12, 15, 18, 21]
    skips = [plan for plan in first(22) if isinstance(plan.policy, Skip)]
    assert [(plan.policy.large_steps, plan.steps) for plan in skips] == [
        (count - 1, count) for count in (*range(5, 9), 9, 12, 15, 18, 21)
    ]
    kept = [Candidate(LargeOnly(), 15), Candidate(LargeOnly(), 9, 3.0), Candidate(Skip(8, 1.5), 9)]
    assert counts(counts_beside(kept, 22)) == [13, 14, 15, 16, 17]
    assert counts(counts_beside([Candidate(Skip(20, 1.0), 21)], 22)) == [19, 20, 21]
    assert counts(counts_beside([Candidate(LargeOnly(), 7)], 22)) == [9]


@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_a_changed_plan_can_be_drawn(seed, plain, levels):
    dice, parents = random.Random(seed), [plan for plan in first(50) if not plain or kind(plan) == "fewer steps"]
    child = dice.choice(parents)
    for _ in range(8):
        child = changed(child, dice, plain=plain, levels=levels) or child
        child.policy.check(child.steps)
        assert parse(str(child.policy)) == child.policy
        assert not plain or kind(child) in ("fewer steps", "large")
        assert child.levels is None or (child.shift is None and len(child.levels) == child.steps)


def test_a_step_is_taken_as_two():
    parent = planned(["S", "S", "L"], None, (1.0, 0.8, 0.4))
    found = [(child.words, child.levels) for child in split(parent)]
    assert found == [
        (["S", "S", "S", "L"], (1.0, 0.9, 0.8, 0.4)),
        (["S", "S", "S", "L"], (1.0, 0.8, 0.6, 0.4)),
        (["S", "S", "L", "L"], (1.0, 0.8, 0.4, 0.2)),
    ]
    shifted = planned(["S", "-", "L"], 5.0)
    assert [child.words for child in split(shifted)] == [["S", "S", "L"], ["S", "L", "L"]]
    assert next(split(shifted)).levels[::2] == tuple(merged(shifted.words, 5.0)[1])
    assert not [*split(Candidate(LargeOnly(), 3)), *split(Candidate(SRDiffusion(threshold=0.1), 6, 5.0))]


def test_of_free_levels_the_words_are_changed_too():
    parent = Candidate(LargeOnly(), 2, None, (1.0, 0.7))
    dice = random.Random(0)
    children = [changed(parent, dice, plain=False, levels=True) for _ in range(200)]
    found = [child for child in children if child is not None]
    moved = [child for child in found if child.levels is not None]
    assert all(child.words == ["L", "L"] for child in moved)
    others = [child for child in found if child.levels is None]
    assert min(len(moved), len(others)) > 50
    assert {child.shift for child in others} == {None, *SHIFTS}
    assert len({child.text for child in others}) > 10


def kind(plan):
    return kind_of(plan.policy, plan.steps, 50)


def test_repeats_become_longer_steps_and_the_picture_stays(pipe):
    words = ["L", "S", "L", "-", "-", "L", "-", "S"]
    left, levels = merged(words, 5.0)
    before, after = planned(words, 5.0), planned(left, None, tuple(levels))
    assert (after.policy.program, after.steps) == ("L S L2 S", 5)

    def drawn(plan):
        noise = at_levels(pipe.scheduler, plan.steps, plan.shift, plan.levels)
        start = prepare(pipe, "abc", steps=plan.steps, guidance=4.0, seed=3, width=32, height=32, **noise)
        return draw_together(pipe, start, {"": plan.policy})[""].latent

    torch.testing.assert_close(drawn(after), drawn(before), atol=2e-3, rtol=0)


def row(plan):
    speed = REFERENCE / PRICES.seconds(plan.policy, plan.steps)
    return Standing(plan.policy, plan.steps, kind(plan), speed, (), plan.shift, plan.levels)


def test_generations_spend_the_same_on_every_span_and_repeat_themselves(pipe, monkeypatch):
    room = Room(pipe, PRICES, 50, REFERENCE)
    spans = room.spans_of(None)
    plans = [plan for plan in room.first() if room.span(plan) in spans]
    monkeypatch.setattr(Standing, "closeness", property(lambda self: -self.speed))
    rows = [row(plan) for plan in plans]
    for late in (False, True):
        evolutions = [Evolution(room, spans, "0") for _ in range(2)]
        each = [[e.children(rows, n, late=late, most=8 * REFERENCE) for n in (3, 4, 5)] for e in evolutions]
        one, other = ([child for generation in generations for child in generation] for generations in each)
        assert one == other
        assert len({*one}) == len(one) > 20
        assert not {*one} & {*plans}
        assert all(room.span(child) in spans for child in one)
        plain = sum(kind(child) == "fewer steps" for child in one)
        assert plain > len(one) / 5
        cost = [sum(room.cost(c) for c in one if (room.span(c) < 14) == slow) for slow in (True, False)]
        assert 0.2 < cost[0] / sum(cost) < 0.8


def test_a_wanted_speed_is_looked_for_around_it(pipe):
    room = Room(pipe, PRICES, 50, REFERENCE)
    assert {span_of(4.0)} <= {*room.spans_of(4.0)}
    assert len(room.spans_of(4.0)) <= 2


def test_without_given_levels_plans_keep_the_pipeline_s(pipe):
    before = pipe.scheduler
    pipe.scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    try:
        plans = Room(pipe, PRICES, 8, REFERENCE).first()
    finally:
        pipe.scheduler = before
    assert plans
    assert all(plan.shift is plan.levels is None for plan in plans)


# --- speeds between winners ---


def test_a_variant_of_skip_draws_as_late_a_step_as_its_source():
    found = dict.fromkeys(policy for policy, _ in variants(Skip(28), 50))
    assert [str(policy) for policy in found if policy.large_steps in (20, 24, 25)] == [
        "skip:large-steps=20", "skip:large-steps=24,early=1.2", "skip:large-steps=25"
    ]  # fmt: skip
    assert [policy.large_steps for policy in found] == [*range(2, 50)]
    late = [policy for policy in found if policy.large_steps > 22]
    assert {max(drawn_steps(policy, 50)) for policy in late} == {48, 49}
    assert max(drawn_steps(Skip(24), 50)) == 47
    assert Skip(25, 1.234) in [policy for policy, _ in variants(Skip(28, 1.234), 50)]


def test_a_gap_is_filled_where_its_ends_are_too_far_apart():
    winners = [row(planned(words.split(), 5.0)) for words in ("L L L L L L", "L L L L L", "L L L")]
    gaps = speeds_between(winners, 2.0)
    speeds = [winners[0].speed, *(speed for *_, speed in gaps), winners[-1].speed]
    assert {(slower.speed, faster.speed) for slower, faster, _ in gaps} == {
        (winners[0].speed, winners[1].speed),
        (winners[1].speed, winners[2].speed),
    }
    assert all(fast / slow <= 1.081 for slow, fast in pairwise(sorted([*speeds, winners[1].speed])))
    assert not speeds_between(winners, 100.0)


def test_among_quick_plans_a_gap_is_narrower():
    ends = [row(planned(words.split(), 5.0)) for words in ("L S S L", "L L")]
    for speed, filled in ((3.0, 0), (8.0, 1)):
        slower, faster = (replace(end, speed=one) for end, one in zip(ends, (speed, 1.07 * speed), strict=True))
        assert len(speeds_between([slower, faster], 2.0)) == filled


def test_masks_are_resized_together_and_move_the_price():
    plan = planned(["S", "L", "R@0.45", "R@0.15", "L"], 5.0)
    found = list(variants(plan.policy, plan.steps))
    costs = [PRICES.seconds(*one) for one in found]
    assert costs == sorted(costs)
    assert costs[0] < 0.95 * PRICES.seconds(plan.policy, plan.steps) < costs[-1] / 1.05
    assert all(policy.text == "cached" and len(Candidate(policy, steps).words) == 5 for policy, steps in found)
    assert (plan.policy, 5) in [(replace(policy, program=short(spelled(policy.program))), n) for policy, n in found]
    assert not list(variants(Schedule("L S"), 2))


@pytest.mark.parametrize("count", [9, 10])
def test_between_two_counts_of_large_steps_one_in_the_middle_is_masked(count):
    found = [one for one in variants(LargeOnly(), 9) if one[1] == count]
    costs = [PRICES.seconds(*one) for one in found]
    assert costs == sorted(costs)
    assert PRICES.seconds(LargeOnly(), count - 1) < costs[0] < costs[-1] < PRICES.seconds(LargeOnly(), count)
    shape = {9: "L5 R@ L3", 10: "L5 R@ L4"}[count]
    assert {re.sub(r"@[\d.]+", "@", policy.program) for policy, _ in found} == {shape}
    assert not list(variants(LargeOnly(), 2))


def test_of_five_large_steps_and_fewer_the_last_one_is_masked():
    shapes = {re.sub(r"@[\d.]+", "@", policy.program) for policy, _ in variants(LargeOnly(), 5)}
    assert shapes == {"L4 R@", "L3 R@ L2"}
    assert {re.sub(r"@[\d.]+", "@", policy.program) for policy, _ in variants(LargeOnly(), 3)} == {"L2 R@", "L3 R@"}


def test_of_few_large_steps_with_repeats_one_between_two_large_ones_is_masked_too():
    found = [one for one in variants(Skip(9, 1.0), 10) if isinstance(one[0], Schedule)]
    assert {re.sub(r"@[\d.]+", "@", policy.program) for policy, _ in found} == {"L5 - L R@ L2"}
    assert all(steps == 10 for _, steps in found)
    assert all(PRICES.seconds(Skip(8), 10) < PRICES.seconds(*one) < PRICES.seconds(Skip(9), 10) for one in found)
    for none in (Skip(4, 1.0), Skip(30, 1.0)):  # no large step between two, or so many that one of them says little
        assert not any(isinstance(policy, Schedule) for policy, _ in variants(none, 40))


def test_fillers_have_the_wanted_speed():
    slower = row(planned(["S", "L", "R@0.45", "L", "R@0.45", "L"], 5.0))
    faster = row(planned(["S", "L", "R@0.3", "L"], 5.0))
    wanted = slower.speed * 1.1

    def speed_of(plan):
        return REFERENCE / PRICES.seconds(plan.policy, plan.steps)

    found = list(fillers(slower, faster, wanted, speed_of))
    assert found
    assert all(abs(speed_of(plan) / wanted - 1) <= 0.02 for plan in found)
    skips = [row(Candidate(Skip(count), 50)) for count in (20, 10)]
    wanted = Candidate(Skip(15), 50)
    assert set(fillers(*skips, speed_of(wanted), speed_of)) == {wanted}


def test_a_skip_is_a_program_too():
    words = Candidate(Skip(10, 1.5), 50).words
    assert (len(words), words.count("L"), words.count("-"), words[:2]) == (50, 10, 40, ["L", "-"])
