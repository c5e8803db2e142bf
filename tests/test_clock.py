"""Seconds: a counter on the CPU; on a GPU events on the current stream, waited for only when they are read."""

import pytest
import torch

from hybridstitch.drawing.clock import mark, seconds


def test_seconds_of_the_cpu():
    start = mark(torch.device("cpu"))
    assert 0 <= seconds(start, mark(torch.device("cpu"))) < 60


class Event:
    """Stands in for a CUDA event: notes what is asked of it."""

    def __init__(self, enable_timing):
        assert enable_timing
        self.asked = []

    def record(self, stream):
        self.asked.append(("record", stream))

    def synchronize(self):
        self.asked.append("synchronize")

    def elapsed_time(self, end):
        return 1500.0  # milliseconds


def test_events_are_recorded_at_once_and_waited_for_when_read(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    start, end = mark(torch.device("cuda", 0)), mark(torch.device("cuda", 0))
    assert start.asked == end.asked == [("record", "stream of cuda:0")]
    assert seconds(start, end) == 1.5
    assert end.asked[-1] == "synchronize"
    assert "synchronize" not in start.asked


def test_seconds_of_a_gpu(device):
    if device.type != "cuda":
        pytest.skip("needs --device cuda")
    start = mark(device)
    torch.ones(1000, 1000, device=device) @ torch.ones(1000, 1000, device=device)
    assert seconds(start, mark(device)) > 0
