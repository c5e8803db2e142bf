"""Strokes, steps and pictures are timed in short real calls: every round all of them, whatever is done in between."""

from time import sleep

import pytest

from hybridstitch import stitch, unstitch
from hybridstitch.drawing.guard import Guard
from hybridstitch.measure.calls import TracedCall, call
from hybridstitch.measure.price import Prices, fixed_plans
from hybridstitch.measure.timing import GUIDED, LARGE, SMALL, UNGUIDED, Stopwatch, masked, measure, trimmed
from hybridstitch.policies.methods import LargeOnly, Schedule
from hybridstitch.policies.plan import Region, Stroke
from hybridstitch.policies.trace import Step, Trace
from small_models import stitched, worded

SETTING = {"guidance": 4.0, "seed": 0, "width": 32, "height": 32}
HIDDEN = Prices(
    call=0.5, step=0.01, large=1.0, small=0.2, masked={"fresh": (0.1, 0.8), "cached": (0.0, 0.7), "cond": (0.05, 0.4)}
)


@pytest.fixture
def pipe():
    return worded(stitched())


def draws(pipe):
    return lambda policy, steps: call(pipe, "dog", policy, steps=steps, **SETTING)


def as_priced(policy, steps, slower=1.0):
    """A call that took what its strokes, steps and picture cost."""
    records = tuple(
        Step(
            index=index, image=0, sigma=None, plan=plan, drawn=plan, distance=None, large_tokens=0,
            seconds=slower * sum(map(HIDDEN.stroke, plan.strokes)),
        )
        for index, plan in enumerate(fixed_plans(policy, steps))
    )  # fmt: skip
    trace = Trace(policy=str(policy), steps=steps, images=1, grid=(8, 8), records=records)
    loop = trace.seconds + slower * steps * HIDDEN.step
    return TracedCall(image=None, denoising_seconds=loop, total_seconds=loop + slower * HIDDEN.call, trace=trace)


# --- one call ---


def test_a_call_draws_what_the_pipeline_draws_and_leaves_it_as_it_was(pipe):
    pipe.set_progress_bar_config(desc="mine")
    pipe.transformer.policy = Schedule("L2 S*")
    taken = call(pipe, "dog", LargeOnly(), steps=3, **SETTING)
    assert taken.trace.policy == "large"
    assert str(pipe.transformer.policy) == str(Schedule("L2 S*"))
    assert pipe._progress_bar_config == {"desc": "mine"}
    assert 0 < taken.trace.seconds < taken.denoising_seconds < taken.total_seconds
    assert taken.image.size == (32, 32)


def test_a_preset_and_a_guard_outlive_a_call(pipe):
    pipe.transformer.policy = "mini-few-3"
    before = pipe.transformer.call
    assert before["num_inference_steps"] == 6
    pipe.transformer.guard = Guard(bands=((0.1, 0.2),))
    call(pipe, "dog", LargeOnly(), steps=3, **SETTING)
    assert pipe.transformer.call == before
    assert pipe.transformer.guard == Guard(bands=((0.1, 0.2),))


def test_a_call_that_fails_leaves_the_pipeline_as_it_was(pipe):
    pipe.transformer.policy = Schedule("L2 S*")
    with pytest.raises(ValueError, match="divisible"):
        call(pipe, "dog", LargeOnly(), steps=3, **{**SETTING, "width": 33})
    assert str(pipe.transformer.policy) == str(Schedule("L2 S*"))
    assert not pipe.transformer._forward_pre_hooks


# --- rounds ---


def test_every_stroke_is_timed_in_every_round(pipe):
    ratios = (0.25, 0.5)
    stopwatch = Stopwatch(draws(pipe), GUIDED, ratios)
    cond = tuple(Stroke("L", Region(ratio), branches="cond") for ratio in ratios)
    fresh = tuple(Stroke("L", Region(ratio)) for ratio in ratios)
    cached = tuple(Stroke("L", Region(ratio), text="cached") for ratio in ratios)
    assert stopwatch.strokes == (LARGE, SMALL, *fresh, *cached, *cond)
    assert tuple(stopwatch.round()) == stopwatch.strokes
    prices = stopwatch.prices()
    assert tuple(prices.masked) == GUIDED
    assert min(prices.large, prices.small, prices.step, prices.call) > 0


def test_timing_goes_on_when_the_pipeline_drew_and_was_stitched_anew(pipe):
    stopwatch = Stopwatch(draws(pipe), UNGUIDED, (0.25,))
    model = pipe.transformer.small
    unstitch(pipe)
    stitch(pipe, model)
    assert tuple(stopwatch.round()) == stopwatch.strokes


def test_rounds_become_the_prices_that_calls_were_made_of():
    told = []
    found = measure(as_priced, GUIDED, rounds=3, on_round=told.append)
    assert told == [0, 1, 2, 3]
    assert (found.call, found.step, found.large, found.small) == pytest.approx((0.5, 0.01, 1.0, 0.2))
    assert {kind: pytest.approx(line) for kind, line in found.masked.items()} == HIDDEN.masked


def test_neither_the_first_round_nor_one_that_strays_counts():
    pace = [7.0]
    stopwatch = Stopwatch(lambda policy, steps: as_priced(policy, steps, pace[0]), GUIDED)
    for pace[0] in (1.0, 5.0, 1.0):
        stopwatch.round()
    found = stopwatch.prices()
    assert (found.call, found.step, found.large, found.small) == pytest.approx((0.5, 0.01, 1.0, 0.2))
    assert found.stroke(masked("cond", 0.3)) == pytest.approx(0.05 + 0.4 * 0.3)


def test_a_mean_without_what_strays():
    assert trimmed([1.0, 2.0]) == 1.5
    assert trimmed([1.0, 9.0, 2.0]) == 2.0
    assert trimmed([*range(20), 1000]) == pytest.approx(sum(range(2, 19)) / 17)


def test_what_is_slow_is_what_is_dear(pipe, monkeypatch):
    """The large model takes 30 ms more a step, the scheduler 20 ms more, and the text encoder 40 ms more a picture."""

    def slower(call, seconds):
        return lambda *args, **options: (sleep(seconds), call(*args, **options))[1]

    pipe.transformer.large.transformer_blocks[0].register_forward_pre_hook(lambda *_: sleep(0.03))
    monkeypatch.setattr(pipe.scheduler, "step", slower(pipe.scheduler.step, 0.02))
    monkeypatch.setattr(pipe, "encode_prompt", slower(pipe.encode_prompt, 0.04))
    found = measure(draws(pipe), UNGUIDED, rounds=3)
    assert found.large > found.small + 0.02
    assert found.stroke(masked("fresh", 0.3)) > 0.02
    assert found.step > 0.02
    assert found.call > 0.04
