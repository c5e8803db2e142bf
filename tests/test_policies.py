"""Policies: what they decide, that stages only rise, that strings round-trip, and what is refused."""

from dataclasses import fields, replace
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridstitch.errors import PolicyError
from hybridstitch.policies.methods import HybridStitch, LargeOnly, Schedule, SmallOnly, TStitch
from hybridstitch.policies.parse import POLICIES, parse
from hybridstitch.policies.plan import Plan, Region, Stroke, large, small
from hybridstitch.policies.policy import least_large, next_stage
from hybridstitch.policies.replay import Replay
from hybridstitch.policies.seen import Seen
from hybridstitch.policies.skip import Skip
from hybridstitch.policies.srdiffusion import SRDiffusion
from strategies import ANY, BY_POLICY, DISTANCES, MASKED, SRDIFFUSIONS, hybrids


def letters(policy, steps, distances=()):
    """What a policy decides for one image, as L, S, H, R and -, and its stages."""
    kinds = {(): "-", ("L",): "L", ("S",): "S", ("S", "L"): "H"}
    plans = decided(policy, steps, distances)
    drawn = ["R" if p.strokes and not p.strokes[0].region.everywhere else kinds[models(p)] for p in plans]
    return "".join(drawn), [p.stage for p in plans]


def models(plan):
    return tuple(stroke.model for stroke in plan.strokes)


def decided(policy, steps, distances=()):
    """Run `decide` over T steps; distance i is what step i came out with (None once they run out)."""
    distances = [*distances, *[None] * steps][:steps]
    plans, stage = [], 0
    for step in range(steps):
        seen = Seen(step=step, steps=steps, stage=stage, distances=tuple(distances[:step]), plans=tuple(plans))
        plans.append(policy.decide(seen))
        stage = plans[-1].stage
    return plans


# --- every policy and option ---


@given(ANY)
def test_a_policy_string_reads_back_to_the_policy(policy):
    assert parse(str(policy)) == policy
    assert hash(parse(str(policy))) == hash(policy)


def test_every_policy_and_option_is_searched():
    assert {*POLICIES.values()} == {*BY_POLICY}, "a policy is in POLICIES and in BY_POLICY of tests/strategies.py"
    assert {f.name for f in fields(HybridStitch)} == {*MASKED, "masks", "thresholds", "min_large", "patience"}
    assert {f.name for f in fields(Schedule)} == {*MASKED, "program"}


@given(st.one_of(hybrids(), SRDIFFUSIONS), DISTANCES, st.integers(3, 30))
def test_stages_only_rise_and_by_at_most_one_a_step(policy, distances, steps):
    stages = [plan.stage for plan in decided(policy, steps, distances)]
    assert stages[0] == 0
    assert all(b - a in (0, 1) for a, b in pairwise(stages))
    assert stages[: least_large(steps, policy.min_large)] == [0] * min(steps, least_large(steps, policy.min_large))


@given(hybrids(), DISTANCES, st.integers(3, 30))
def test_a_stage_rises_exactly_when_the_rule_says(policy, distances, steps):
    """SPEC §3 said once more, in another way: count the steps in a row below the stage's threshold."""
    distances = [*distances, *[None] * steps][:steps]
    plans = decided(policy, steps, distances)
    stage = 0
    for step in range(1, steps):
        run = 0
        while run < step and distances[step - 1 - run] is not None and stage < len(policy.thresholds):
            if distances[step - 1 - run] >= policy.thresholds[stage]:
                break
            run += 1
        drawn_enough = stage > 0 or step >= max(2, ceil(policy.min_large * steps))
        if stage < len(policy.thresholds) and run >= policy.patience and drawn_enough:
            stage += 1
        assert plans[step].stage == stage


@given(hybrids(), DISTANCES, st.integers(3, 30))
def test_stage_0_is_large_the_last_small_and_those_between_masked(policy, distances, steps):
    for plan in decided(policy, steps, distances):
        if plan.stage == 0:
            assert plan.strokes == (large(),)
        elif plan.stage > len(policy.masks):
            assert plan.strokes == (Stroke("S", carry=policy.carry, follow=policy.follow),)
        else:
            base, masked = plan.strokes
            assert base == Stroke("S", carry=policy.carry, follow=policy.follow)
            assert masked.region == Region(policy.masks[plan.stage - 1], frozen=not policy.update_mask)
            assert (masked.text, masked.branches) == (policy.text, policy.branches)
            assert masked.dense is not policy.masked_compute


# --- each policy ---


def test_one_model():
    assert letters(LargeOnly(), 3) == ("LLL", [0, 0, 0])
    assert letters(SmallOnly(), 3) == ("SSS", [0, 0, 0])


def test_skip_draws_as_many_steps_as_it_says_and_the_first():
    assert letters(Skip(5, 1.0), 10) == ("L-L-L-L-L-", [0] * 10)
    assert letters(Skip(5, 2.0), 10)[0] == "LLL-L-L---"  # 10·(i/5)² = 0, .4, 1.6, 3.6, 6.4; two fell on step 0
    for steps in (4, 7, 50):
        for count in (1, 3, 4, 30, 60):
            for early in (1.0, 1.25, 4.0):
                drawn = letters(Skip(count, early), steps)[0]
                assert (drawn[0], drawn.count("L")) == ("L", min(count, steps))


@pytest.mark.parametrize(("steps", "small_steps"), [(50, 20), (5, 2), (4, 2), (3, 1), (1, 0)])
def test_t_stitch_rounds_its_share_to_the_nearest_step(steps, small_steps):
    drawn, stages = letters(TStitch(), steps)
    assert drawn == "S" * small_steps + "L" * (steps - small_steps)
    assert stages == [0] * small_steps + [1] * (steps - small_steps)


def test_sr_diffusion_switches_once_below_its_threshold():
    assert letters(SRDiffusion(threshold=0.5), 6, [None, 0.6, 0.5, 0.4])[0] == "LLLLSS"
    assert SRDiffusion().measured == ("denoised", "norm")


def test_sr_diffusion_switches_where_its_distance_hardly_falls_any_more():
    """tanh 2 − tanh 1 = .20, tanh 1.1 − tanh 1.09 = .004; a rise, or no fall at all, is no sign of rest."""
    policy = SRDiffusion(threshold=0.01, criterion="drop", signal="prediction")
    assert letters(policy, 7, [None, 2.0, 1.0, 1.0, 1.1, 1.09])[0] == "LLLLLLS"
    assert letters(policy, 6, [None, 1.0, 0.999, 0.1, 0.05])[0] == "LLLSSS"
    assert letters(replace(policy, min_large=0.8), 6, [None, 1.0, 0.999, 0.1, 0.0999])[0] == "LLLLLS"
    assert letters(policy, 5, [None, None, 0.5, None])[0] == "LLLLL"
    assert policy.measured == ("prediction", "norm")


def test_hybrid_stitch_passes_every_stage_even_below_the_last_threshold():
    """The paper: below τ_1 while still in the first stage, the second is not skipped."""
    policy = HybridStitch(masks=(0.3,), thresholds=(0.3, 0.25))
    assert letters(policy, 6, [None, 0.1, 0.1, 0.1]) == ("LLHSSS", [0, 0, 1, 2, 2, 2])


def test_several_masks_shrink_stage_by_stage():
    policy = HybridStitch(masks=(0.4, 0.3, 0.1), thresholds=(0.6, 0.5, 0.3, 0.2))
    ratios = [
        p.strokes[-1].region.ratio for p in decided(policy, 6, [None, 0.1, 0.1, 0.1, 0.1, 0.1]) if len(p.strokes) > 1
    ]
    assert ratios == [0.4, 0.3, 0.1]


def test_patience_wants_steps_in_a_row():
    policy = HybridStitch(thresholds=(0.5, 0.3), patience=2)
    assert letters(policy, 8, [None, 0.4, 0.6, 0.4, 0.4, 0.6, 0.2, 0.2])[0] == "LLLLLHHH"


def test_a_missing_distance_is_not_below():
    assert letters(HybridStitch(), 5, [None, None, None, 0.1])[0] == "LLLLH"


@pytest.mark.parametrize(("steps", "share", "least"), [(50, 0.1, 5), (11, 0.1, 2), (50, 0, 2), (8, 1, 8), (21, 0.1, 3)])
def test_stage_0_lasts_at_least(steps, share, least):
    assert least_large(steps, share) == least
    seen = Seen(step=least - 1, steps=steps, stage=0, distances=(0.0,) * (least - 1))
    assert next_stage(seen, (1.0,), share) == 0


def test_a_schedule_s_letters():
    policy = Schedule("L2 H@0.3 R2@0.25 -2 S*")
    assert letters(policy, 9) == ("LLHRR--SS", [0, 0, 1, 2, 2, 3, 3, 4, 4])
    hybrid, refresh = decided(policy, 9)[2:4]
    assert hybrid.strokes == (small(), Stroke("L", Region(0.3)))
    assert refresh.strokes == (Stroke("L", Region(0.25)),)


@pytest.mark.parametrize(
    ("policy", "can_mask"),
    [
        (LargeOnly(), False),
        (TStitch(), False),
        (SRDiffusion(), False),
        (HybridStitch(), True),
        (Schedule("L4 S*"), False),
        (Schedule("L4 H@0.3 S*"), True),
        (Replay(((Plan((large(),)),),)), False),
        (Replay(((Plan((small(), Stroke("L", Region(0.3)))),),)), True),
    ],
)
def test_only_masks_need_keys_and_values(policy, can_mask):
    assert policy.can_mask is can_mask


def test_a_replay_draws_what_it_was_given():
    plans = ((Plan((large(),)), Plan((small(),), 1)), (Plan((small(),)), Plan(())))
    policy = Replay(plans)
    policy.check(2)
    for image in (0, 1):
        for step in (0, 1):
            seen = Seen(step=step, steps=2, stage=0, distances=(), image=image)
            assert policy.decide(seen) == plans[image][step]
    assert str(policy) == "replay of 2 image(s)"


# --- strings ---


def test_defaults_are_left_out_of_a_string():
    assert str(HybridStitch()) == "hybrid-stitch"
    assert str(HybridStitch(masks=(0.4, 0.3), thresholds=(0.6, 0.5, 0.3), text="cached")) == (
        "hybrid-stitch:text=cached,masks=0.4/0.3,thresholds=0.6/0.5/0.3"
    )
    assert str(Schedule("L20% S*", update_mask=False)) == "schedule:update-mask=false,program=L20% S*"
    assert str(TStitch(0.25)) == "t-stitch:ratio=0.25"


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("hybrid-stitch:masks=0.3,thresholds=0.5/0.3", HybridStitch(masks=(0.3,), thresholds=(0.5, 0.3))),
        (" hybrid-stitch: masks = 0.2 , update_mask=False ", HybridStitch(masks=(0.2,), update_mask=False)),
        ("L10 H15@0.3 S25", Schedule("L10 H15@0.3 S25")),
        ("S*", Schedule("S*")),
        ("sr-diffusion:threshold=0.01", SRDiffusion(threshold=0.01)),
        (
            "sr-diffusion:criterion=drop,signal=prediction,threshold=0.01",
            SRDiffusion(criterion="drop", signal="prediction", threshold=0.01),
        ),
    ],
)
def test_parse(text, policy):
    assert parse(text) == policy


# --- what is refused: what was found, and the way out ---

REFUSED = [
    ("hibrid-stitch", "there is no policy 'hibrid-stitch'; did you mean 'hybrid-stitch'?"),
    ("tstitch:ratio=0.5", "there is no policy 'tstitch'; did you mean 't-stitch'?"),
    ("qqq", f"there is no policy 'qqq'; known: {', '.join(sorted(POLICIES))}"),
    ("", "there is no policy ''; known: "),
    ("hybrid-stitch:mask=0.3", "policy 'hybrid-stitch' has no option 'mask'; did you mean 'masks'?"),
    ("t-stitch:ration=0.3", "policy 't-stitch' has no option 'ration'; did you mean 'ratio'?"),
    ("large:masks=0.3", "policy 'large' has no option 'masks'; it has none"),
    ("schedule", "policy 'schedule' needs program: schedule:program=…"),
    ("schedule:text=cached", "policy 'schedule' needs program"),
    ("hybrid-stitch:text=cashed", "text='cashed' was given; did you mean 'cached'?"),
    ("hybrid-stitch:branches=cnd", "branches='cnd' was given; did you mean 'cond'?"),
    ("sr-diffusion:reduction=elementwize", "did you mean 'elementwise'?"),
    ("sr-diffusion:criterion=dropp", "did you mean 'drop'?"),
    ("sr-diffusion:signal=x", "signal='x' was given; known: denoised, latent, prediction"),
    ("hybrid-stitch:update-mask=maybe", "update_mask='maybe' cannot be read; write true or false"),
    (
        "hybrid-stitch:masks=a/b",
        "masks='a/b' cannot be read; write true or false, a number, or numbers separated by '/'",
    ),
    ("hybrid-stitch:patience=1.5", "patience='1.5' cannot be read"),
    ("hybrid-stitch:masks=0,thresholds=0.5/0.3", "a mask of 0.0 was given; a mask is a share of the tokens above 0"),
    ("hybrid-stitch:masks=30", "a mask of 30.0 was given; a mask is a share of the tokens above 0 and at most 1 (30 %"),
    ("hybrid-stitch:masks=-0.1", "a mask of -0.1 was given"),
    ("hybrid-stitch:masks=nan", "a mask of nan was given"),
    ("hybrid-stitch:masks=0.3/0.4,thresholds=0.5/0.4/0.3", "masks=0.3/0.4 was given; at least one mask is needed and"),
    ("hybrid-stitch:masks=0.3/0.3,thresholds=0.5/0.4/0.3", "each must be smaller than the one before (Eq. 8), as in"),
    ("hybrid-stitch:thresholds=0.5", "1 threshold(s) were given, 2 are needed: one per mask and one for stage 0"),
    ("hybrid-stitch:thresholds=0.5/0.4/0.3", "3 threshold(s) were given, 2 are needed"),
    ("hybrid-stitch:thresholds=0.5/nan", "thresholds=0.5/nan was given; thresholds are positive finite distances"),
    ("hybrid-stitch:thresholds=inf/0.3", "thresholds=inf/0.3 was given; thresholds are positive finite distances"),
    ("hybrid-stitch:thresholds=0.3/0", "thresholds=0.3/0.0 was given; thresholds are positive finite distances"),
    ("hybrid-stitch:thresholds=0.3/0.5", "thresholds=0.3/0.5 was given; they must not increase, or a later stage"),
    ("hybrid-stitch:min-large=10", "min_large=10.0 was given; it is a share of the steps, 0 to 1"),
    ("hybrid-stitch:patience=0", "patience=0 was given; at least one step is needed to decide"),
    ("hybrid-stitch:carry=1.5", "carry=1.5 was given; it is a share of the last difference, 0 (carry nothing) to 1"),
    ("schedule:carry=nan,program=L4", "carry=nan was given; it is a share of the last difference"),
    ("hybrid-stitch:follow=-1", "follow=-1.0 was given; it is a share of the small model's change, 0 to 1 (all of it)"),
    ("sr-diffusion:threshold=nan", "thresholds=nan was given; thresholds are positive finite distances"),
    ("t-stitch:ratio=40", "ratio=40.0 was given; T-Stitch's ratio is a share of the steps, 0 to 1"),
    ("t-stitch:ratio=nan", "ratio=nan was given"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED, ids=[text or "nothing" for text, _ in REFUSED])
def test_what_cannot_be_meant_is_refused(text, says):
    with pytest.raises(PolicyError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("masks", [(), [0.3], 0.3, ("0.3",)])
def test_masks_are_a_tuple_of_numbers(masks):
    with pytest.raises(PolicyError, match=r"masks=.* was given; .*(\(0\.3,\)|0\.4/0\.3)"):
        HybridStitch(masks=masks)


@pytest.mark.parametrize("thresholds", [[0.5, 0.3], 0.5, None])
def test_thresholds_are_a_tuple_of_numbers(thresholds):
    with pytest.raises(PolicyError, match=r"thresholds=.* was given; write a tuple of numbers"):
        HybridStitch(thresholds=thresholds)


@pytest.mark.parametrize("policy", [HybridStitch(), SRDiffusion()])
def test_an_adaptive_policy_needs_three_steps(policy):
    policy.check(3)
    with pytest.raises(
        PolicyError, match=r"needs at least 3 of them, this run has 2; ask for more steps, or use a prog"
    ):
        policy.check(2)


def test_a_replay_wants_the_recorded_steps_and_images():
    policy = Replay(((Plan((large(),)),) * 2,))
    with pytest.raises(
        PolicyError, match=r"the trace has 2 steps for image 0, this run has 3; replay with the recorded"
    ):
        policy.check(3)
    with pytest.raises(
        PolicyError, match=r"the trace has 1 image\(s\), this run has image 1; replay with the recorded"
    ):
        policy.decide(Seen(step=0, steps=2, stage=0, distances=(), image=1))


def test_a_policy_is_a_value():
    policy = HybridStitch()
    with pytest.raises(AttributeError):
        policy.masks = (0.4,)
    assert replace(policy, text="cached") == HybridStitch(text="cached")
    with pytest.raises(TypeError):
        HybridStitch((0.3,))
