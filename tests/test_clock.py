"""Seconds: a counter on the CPU; elsewhere events on the current stream, waited for only when they are read.

With --device cuda or mps the device's own time is compared with a stopwatch's.
"""

from time import perf_counter, sleep

import pytest
import torch

from hybridstitch.drawing.clock import mark, seconds, wait
from hybridstitch.measure.calls import _now
from small_models import generate, stitched


def work(device, times):
    much = torch.ones(512, 512, device=device)
    for _ in range(times):
        much = (much @ much).clamp(0, 1)
    return much


def test_a_pause_takes_as_long_as_it_does():
    start = mark(torch.device("cpu"))
    sleep(0.05)
    assert 0.05 <= seconds(start, mark(torch.device("cpu"))) < 5


def test_a_device_takes_as_long_as_a_stopwatch_says(device):
    work(device, 3)
    wait(device)
    watch, start = perf_counter(), mark(device)
    work(device, 50)
    end = mark(device)
    wait(device)
    stopped = perf_counter() - watch
    assert 0.2 * stopped < seconds(start, end) <= stopped * 1.05


def test_the_models_of_a_run_take_less_than_the_run(device):
    pipe = stitched("L3 H3@0.3 S2").to(device)
    generate(pipe)
    wait(device)
    watch = perf_counter()
    generate(pipe)
    wait(device)
    assert 0 < pipe.transformer.trace.seconds < perf_counter() - watch


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_no_device_is_timed_by_its_launches(kind):
    """Every accelerator is asked for its own time; torch says so where it is not there."""
    other = torch.device(kind)
    if torch.accelerator.is_available():
        pytest.skip("asks for accelerators that are not there")
    for ask in (mark, wait, _now):
        with pytest.raises(RuntimeError, match=r"(?i)accelerator|not linked with"):
            ask(other)


def test_a_mark_does_not_wait(device):
    if device.type == "cpu":
        pytest.skip("needs --device cuda or mps")
    work(device, 3)
    wait(device)
    watch, start = perf_counter(), mark(device)
    work(device, 2000)
    end = mark(device)
    launched = perf_counter() - watch
    assert seconds(start, end) > launched
