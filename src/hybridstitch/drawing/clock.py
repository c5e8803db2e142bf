"""Seconds that models take, read at the end: on a GPU by events, so that no step waits for another."""

from time import perf_counter

import torch

Mark = float | torch.cuda.Event


def mark(device: torch.device) -> Mark:
    """Now, on the device's own time line."""
    if device.type != "cuda":
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def seconds(start: Mark, end: Mark) -> float:
    """Time between two marks; waits for the second one."""
    if isinstance(start, float) and isinstance(end, float):
        return end - start
    assert isinstance(start, torch.cuda.Event)
    assert isinstance(end, torch.cuda.Event)
    end.synchronize()
    return start.elapsed_time(end) / 1000
