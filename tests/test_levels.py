"""Noise levels: what is passed as `sigmas=` becomes the levels the scheduler steps through."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridstitch.errors import SchedulerError
from hybridstitch.policies.levels import shifted
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
