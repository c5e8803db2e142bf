"""Noise levels: what is passed as `sigmas=` becomes the levels the scheduler steps through."""

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from hybridstitch.errors import SchedulerError
from hybridstitch.policies.levels import at_levels, check_levels, shifted, unshifted
from small_models import generate, stitched


@given(st.integers(1, 60), st.floats(0.2, 20), st.floats(0.5, 5))
def test_levels_fall_from_one_and_end_above_zero(steps, shift, own):
    levels = shifted(steps, shift, own=own)
    assert len(levels) == steps
    assert levels[0] == pytest.approx(1.0)
    assert all(a > b > 0 for a, b in pairwise(levels))


def test_the_scheduler_steps_through_the_levels_whatever_its_own_shift():
    for own in (1.0, 3.0):
        pipe = stitched("large")
        pipe.scheduler.set_shift(own)
        generate(pipe, steps=4, size=(16, 16), sigmas=shifted(4, 6.0, own=own))
        u = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
        torch.testing.assert_close(pipe.scheduler.sigmas, 6 * u / (1 + 5 * u))
        assert [step.sigma for step in pipe.transformer.trace.of(0)] == pytest.approx(
            (6 * u / (1 + 5 * u))[:4].tolist()
        )


@pytest.mark.parametrize(("steps", "shift"), [(0, 3.0), (4, 0.0), (4, -1.0)])
def test_what_gives_no_levels_is_refused(steps, shift):
    with pytest.raises(SchedulerError, match="must be positive"):
        shifted(steps, shift, own=1.0)


LEVELS = (1.0, 0.9, 0.35, 0.1)


@pytest.mark.parametrize("own", [1.0, 3.0])
def test_free_levels_are_the_levels_of_the_steps_whatever_the_scheduler_shifts(own):
    pipe = stitched("large")
    pipe.scheduler.set_shift(own)
    pipe.scheduler.register_to_config(shift=own)
    generate(pipe, steps=4, size=(16, 16), **at_levels(pipe.scheduler, 4, None, LEVELS))
    assert [step.sigma for step in pipe.transformer.trace.of(0)] == pytest.approx(list(LEVELS))


@given(st.integers(1, 60), st.floats(0.2, 20), st.floats(0.5, 5))
def test_a_shift_is_free_levels_too(steps, shift, own):
    levels = shifted(steps, shift, own=1.0)
    assert unshifted(levels, own=own) == pytest.approx(shifted(steps, shift, own=own))


@pytest.mark.parametrize(
    ("steps", "shift", "levels", "complaint"),
    [
        (4, 2.0, LEVELS, "give one"),
        (5, None, LEVELS, "4 noise levels were given for 5 steps"),
        (0, None, (), "0 noise levels"),
        (2, None, (0.5, 0.5), "fall from at most 1"),
        (2, None, (1.1, 0.5), "fall from at most 1"),
        (2, None, (1.0, 0.0), "stay above 0"),
        (2, None, (float("nan"), 0.5), "fall from"),
        (2, -1.0, None, "above 0"),
    ],
)
def test_levels_that_no_run_can_have_are_refused(steps, shift, levels, complaint):
    with pytest.raises(SchedulerError, match=complaint):
        check_levels(steps, shift, levels)


def test_a_scheduler_without_given_levels_says_so():
    with pytest.raises(SchedulerError, match="DDIMScheduler is given no noise levels"):
        at_levels(DDIMScheduler(), 4, 3.0, None)
    assert at_levels(DDIMScheduler(), 4, None, None) == {}
