"""The quality guard: which steps the large model draws instead, how they are counted, and that nothing else changes."""

import math
from contextlib import contextmanager

import pytest
import torch

from hybridstitch.drawing.guard import NOT_FINITE, NOTHING_CHANGED, OUT_OF_RANGE, Guard
from hybridstitch.errors import RunError
from hybridstitch.policies.parse import parse
from hybridstitch.policies.trace import Trace
from small_models import generate, stitched

MASKED = "L2 H3@0.3 S3"


@contextmanager
def broken(model, call, rows=slice(None)):
    """A model one of whose calls, counted from 0, comes out NaN in some rows."""
    calls = 0

    def spoil(module, args, output):
        nonlocal calls
        calls += 1
        if calls - 1 == call:
            spoiled = output[0].clone()
            spoiled[rows] = math.nan
            return (spoiled, *output[1:])
        return output

    handle = model.register_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()


@pytest.fixture
def pipe():
    pipe = stitched(MASKED)
    pipe.transformer.guard = Guard()
    return pipe


@pytest.mark.parametrize("policy", [MASKED, "hybrid-stitch:thresholds=9/0.001"])
def test_a_guard_that_never_acts_changes_nothing(pipe, policy):
    pipe.transformer.policy = policy
    guarded = generate(pipe)
    assert pipe.transformer.trace.fallbacks == {}
    pipe.transformer.guard = None
    assert torch.equal(generate(pipe), guarded)


def test_a_broken_step_is_drawn_by_the_large_model_and_counted(pipe):
    pipe.transformer.policy = "L2 S6"
    with broken(pipe.transformer.small, 1):
        found = generate(pipe)
    trace = pipe.transformer.trace
    assert trace.fallbacks == {NOT_FINITE: 1}
    assert [str(step.drawn) for step in trace.of(0)] == ["L", "L", "S", "L", "S", "S", "S", "S"]
    assert f"fell back: {NOT_FINITE} (1 step(s))" in trace.summary()
    pipe.transformer.policy = "L2 S L S4"
    assert torch.equal(generate(pipe), found)


def test_keys_and_values_are_whole_after_a_broken_masked_step(pipe):
    with broken(pipe.transformer.small, 1):
        found = generate(pipe)
    trace = pipe.transformer.trace
    assert [str(step.drawn) for step in trace.of(0)] == ["L", "L", "S + L@0.3", "L", "S + L@0.3", "S", "S", "S"]
    assert found.isfinite().all()
    pipe.transformer.policy = "L2 H@0.3 L H@0.3 S3"
    assert torch.equal(generate(pipe), found)


def test_what_is_carried_along_outlives_a_broken_step(pipe):
    pipe.transformer.policy = "schedule:carry=0.9,program=L2 H3@0.3 S3"
    with broken(pipe.transformer.small, 1):
        found = generate(pipe)
    assert pipe.transformer.trace.fallbacks == {NOT_FINITE: 1}
    pipe.transformer.policy = "schedule:carry=0.9,program=L2 H@0.3 L H@0.3 S3"
    assert torch.equal(generate(pipe), found)


def test_only_the_broken_image_of_a_batch_falls_back(pipe):
    with broken(pipe.transformer.small, 0, rows=[1, 3]):  # u_1 and c_1 of [u_0, u_1, c_0, c_1]
        assert generate(pipe, images=2).isfinite().all()
    trace = pipe.transformer.trace
    assert [step.fallback for step in trace.of(0)] == [None] * 8
    assert [step.fallback for step in trace.of(1)] == [None, None, NOT_FINITE, *[None] * 5]


def test_without_a_guard_a_broken_step_is_an_error(pipe):
    pipe.transformer.guard = None
    with broken(pipe.transformer.small, 1), pytest.raises(RunError, match="NaN or infinite"):
        generate(pipe)


def test_a_large_model_that_is_broken_itself_is_an_error_under_a_guard_too(pipe):
    with broken(pipe.transformer.large, 1), pytest.raises(RunError, match="NaN or infinite"):
        generate(pipe)


def test_a_distance_out_of_its_band_lets_the_large_model_draw_the_next_step(pipe):
    generate(pipe)
    seen = [step.distance for step in pipe.transformer.trace.of(0)]
    bands = [None if d is None else (0.9 * d, 1.1 * d) for d in seen]
    pipe.transformer.guard = Guard(bands=tuple(bands), slack=1.0)
    generate(pipe)
    assert pipe.transformer.trace.fallbacks == {}
    bands[4] = (5 * seen[4], 6 * seen[4])
    pipe.transformer.guard = Guard(bands=tuple(bands), slack=2.0)
    generate(pipe)
    steps = pipe.transformer.trace.of(0)
    assert steps[5].fallback == OUT_OF_RANGE
    assert str(steps[5].drawn) == "L"
    assert str(steps[5].plan) == "S"


def test_a_band_has_slack_on_both_sides_and_none_where_nothing_was_seen():
    guard = Guard(bands=(None, (0.1, 0.4)), slack=2.0)
    assert not any(guard.out_of_range(1, d) for d in (0.05, 0.2, 0.8, None))
    assert all(guard.out_of_range(1, d) for d in (0.049, 0.81))
    assert not guard.out_of_range(0, 99.0)
    assert not guard.out_of_range(2, 99.0)


def test_a_band_of_repeated_predictions_is_none():
    guard = Guard(bands=((3.173e-08, 4.016e-08), (0.0, 0.0)), slack=2.0)
    assert not any(guard.out_of_range(step, distance) for step in (0, 1) for distance in (0.0, 1e-8, 1e-2))


def test_a_mask_over_tokens_that_were_all_overwritten_is_not_drawn(pipe):
    def overwrite(pipe, step, time, tensors):
        return {"latents": tensors["latents"] * 0.999}

    generate(pipe, callback_on_step_end=overwrite)
    assert pipe.transformer.trace.fallbacks == {NOTHING_CHANGED: 3}


def test_a_guarded_trace_is_saved_and_replayed(pipe, tmp_path):
    with broken(pipe.transformer.small, 1):
        generate(pipe)
    trace = pipe.transformer.trace
    trace.save(tmp_path / "trace.json")
    read = Trace.load(tmp_path / "trace.json")
    assert read.fallbacks == trace.fallbacks
    assert read.replay(parse(MASKED)) == (tuple(step.plan for step in trace.of(0)),)
