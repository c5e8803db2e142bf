"""Seconds that models take, read at the end: on an accelerator by events, so that no step waits for another."""

from time import perf_counter

import torch

Mark = float | torch.Event


def mark(device: torch.device) -> Mark:
    """Now, on the device's own time line."""
    if device.type == "cpu":
        return perf_counter()
    event = torch.Event(device, enable_timing=True)
    event.record(torch.accelerator.current_stream(device))
    return event


def seconds(start: Mark, end: Mark) -> float:
    """Time between two marks of a device; waits for the second one."""
    if isinstance(start, float) and isinstance(end, float):
        return end - start
    assert isinstance(start, torch.Event)
    assert isinstance(end, torch.Event)
    end.synchronize()
    return start.elapsed_time(end) / 1000


def wait(device: torch.device) -> None:
    """Let the host wait until the device has done all it was asked for."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
