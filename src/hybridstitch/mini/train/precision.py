"""In which dtype matrices are multiplied while a part trains: the faster one here.

bfloat16 products are six times as fast as float32 on a CPU with AMX, and fifty times slower on one without.
"""

from __future__ import annotations

from time import perf_counter

import torch

SHAPE = (512, 384, 1536)  # rows, and a layer's width in and out, of the large model's feed-forward
ROUNDS = 3
CHOICES = (torch.float32, torch.bfloat16)


@torch.inference_mode(mode=False)
def fastest(device: torch.device, rounds: int = ROUNDS) -> torch.dtype:
    """The dtype with which a layer's forward and backward pass takes less time; both take turns, best round each.

    Args:
        device: where it is measured.
        rounds: of each.
    """
    rows, before, after = SHAPE
    given = torch.ones(rows, before, device=device)
    weight = torch.ones(after, before, device=device, requires_grad=True)
    taken: dict[torch.dtype, list[float]] = {dtype: [] for dtype in CHOICES}
    for _ in range(rounds + 1):  # the first warms up
        for dtype in CHOICES:
            _wait(device)
            start = perf_counter()
            with multiplied_in(dtype, device):
                torch.nn.functional.linear(given, weight).float().square().mean().backward()
            _wait(device)
            taken[dtype].append(perf_counter() - start)
    return min(CHOICES, key=lambda dtype: min(taken[dtype][1:]))


def multiplied_in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """A block in which matrices are multiplied in one of `CHOICES`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
