"""Step reuse: what is repeated and what never is, and a run that repeats is a run of fewer, larger steps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridstitch import HybridStitch, LargeOnly, Reuse, Schedule, SRDiffusion, stitch
from hybridstitch.errors import PolicyError
from hybridstitch.policies.parse import parse
from hybridstitch.policies.plan import Plan, large
from hybridstitch.policies.reuse import changes_a_step
from hybridstitch.policies.seen import Seen
from small_models import generate, pipeline
from small_models import small as small_model
from strategies import DISTANCES, FIT, reuses
from test_policies import decided, letters

HYBRID = HybridStitch(masks=(0.3,), thresholds=(0.2, 0.1))


def test_steps_are_repeated_while_the_change_passed_over_stays_below_the_bound():
    """D .02 a step: two repeated steps pass over .04, a third would pass over .06."""
    assert letters(Reuse(LargeOnly(), bound=0.05), 10, [None, 0.5, 0.1, 0.02])[0] == "LLLL--LLLL"
    assert letters(Reuse(LargeOnly(), bound=0.05, most=1), 7, [None, 0.5, 0.1, 0.02])[0] == "LLLL-LL"
    assert letters(Reuse(LargeOnly(), bound=0.05, first=3), 5, [None, 0.5, 0.01])[0] == "LLL--"


def test_the_change_over_a_gap_is_shared_among_its_steps():
    """After two repeated steps D .06 is .02 a step."""
    seen = [None, 0.5, 0.1, 0.02, 0.0, 0.0, 0.06, 0.0, 0.0, 0.3]
    policy = Reuse(LargeOnly(), bound=0.05)
    assert letters(policy, 11, seen)[0] == "LLLL--L--LL"
    plans = tuple(decided(policy, 10, seen))
    changes = changes_a_step(Seen(step=10, steps=20, stage=0, distances=tuple(seen), plans=plans))
    assert changes == pytest.approx((None, 0.5, 0.1, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.1))


def test_repeated_steps_do_not_end_a_stage():
    """Their D of 0 is below every threshold, their change a step is not."""
    drawn, stages = letters(Reuse(HYBRID, bound=10.0), 9, [None, 0.9, 0.9, 0.3, 0, 0, 0, 0])
    assert (drawn, stages) == ("LLLL----L", [0] * 9)


def test_the_first_steps_of_a_stage_and_masked_steps_are_drawn():
    drawn, stages = letters(Reuse(SRDiffusion(threshold=0.2), bound=0.5), 9, [None, 0.9, 0.9, 0.1, *[0.1] * 5])
    assert (drawn, stages) == ("LLLLSS---", [0] * 4 + [1] * 5)
    drawn, stages = letters(Reuse(Schedule("L6 H2@0.3 S*"), bound=10.0), 14, [None] + [0.1] * 13)
    assert drawn == "LLLL--HHSS----"
    assert stages == [0] * 6 + [1] * 2 + [2] * 6


def test_what_is_not_known_yet_is_drawn():
    """Steps to come are asked about before anything of them was seen, to learn whether the large model is over."""
    assert Reuse(LargeOnly(), bound=10.0).decide(Seen(step=6, steps=9, stage=0, distances=())) == Plan((large(),))


@given(reuses(FIT.values()), DISTANCES, st.integers(6, 30))
def test_only_whole_steps_are_reused_and_never_too_many(policy, distances, steps):
    inner, plans = policy.of, decided(policy, steps, distances)
    run = 0
    for step, plan in enumerate(plans):
        past = distances[:step] + [None] * (step - len(distances))
        seen = Seen(step=step, steps=steps, stage=plans[step - 1].stage if step else 0, distances=tuple(past))
        seen = Seen(**{f: getattr(seen, f) for f in ("step", "steps", "stage", "distances")}, plans=tuple(plans[:step]))
        asked = inner.decide(Seen(step=step, steps=steps, stage=seen.stage, distances=changes_a_step(seen)))
        if plan == asked:
            run = 0
            continue
        run += 1
        assert [stroke.region.everywhere for stroke in asked.strokes] == [True]
        assert (plan.strokes, plan.stage) == ((), asked.stage)
        assert step >= policy.first
        assert run <= policy.most
        assert plan.stage == plans[step - 1].stage == plans[step - 2].stage


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("reuse:of=large", Reuse(LargeOnly())),
        ("reuse:bound=0.1,of=hybrid-stitch:masks=0.3,thresholds=0.2/0.1", Reuse(HYBRID, bound=0.1)),
        ("reuse:most=2,of=L10 S40", Reuse(Schedule("L10 S40"), most=2)),
    ],
)
def test_as_text_the_wrapped_policy_comes_last(text, policy):
    assert parse(text) == policy
    assert parse(str(policy)) == policy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("reuse:bound=0.1", "it comes last: reuse:bound=0.1,of="),
        ("reuse", "needs a policy to reuse"),
        ("reuse:bound=0,of=large", "positive"),
        ("reuse:most=0,of=large", "at least 1 step in a row"),
        ("reuse:first=1,of=large", "2 drawn"),
        ("reuse:bond=0.1,of=large", "did you mean 'bound'"),
        ("reuse:of=larg", "did you mean 'large'"),
        ("reuse:of=reuse:of=large", "reuse of reuse"),
        ("reuse:of=hybrid-stitch:signal=latent", "signal=denoised"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, says):
    with pytest.raises(PolicyError, match=says):
        parse(text)


def test_a_run_that_repeats_is_a_run_of_fewer_steps_and_its_trace_says_so():
    """Repeating is one longer Euler step: the large model at the same noise levels, without those passed over."""
    pipe = pipeline()
    stitch(pipe, small_model(), Reuse(LargeOnly(), bound=1e6, most=2, first=2))
    reused = generate(pipe, steps=8)
    trace = pipe.transformer.trace
    assert "".join(str(step.drawn) for step in trace.of(0)) == "LL--L--L"
    assert [step.distance for step in trace.of(0)][2:4] == pytest.approx([0.0, 0.0], abs=1e-5)
    assert [step.large_tokens > 0 for step in trace.of(0)] == [True, True, False, False, True, False, False, True]
    sigmas = [step.sigma for step in trace.of(0) if step.large_tokens]
    pipe.transformer.policy = LargeOnly()
    pipe.scheduler.register_to_config(shift=1.0)
    pipe.scheduler.set_shift(1.0)
    fewer = generate(pipe, steps=4, sigmas=sigmas)
    torch.testing.assert_close(reused, fewer, rtol=0, atol=1e-4 * float(fewer.abs().max()))
