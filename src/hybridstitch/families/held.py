"""How keys and values are held: as they are, or in float8 with a scale for each token and head.

    held    float8 e4m3 of x / s,  s = max |x| / 448,  the two bytes of s (float16) behind the head's numbers

A memory in float8 is one tensor of bytes, (R, length, heads, width + 2), so that rows and tokens are sliced, copied and
scattered as in any other.
"""

import torch
from torch import Tensor

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0  # of e4m3
SCALE = 2  # bytes


def room(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, *, pinned: bool = False) -> Tensor:
    """Memory, not filled.

    Args:
        shape: (R, length, heads, width).
        dtype: `FLOAT8`, or as the numbers are.
        device: where.
        pinned: in memory of the host that is never paged out.
    """
    if dtype == FLOAT8:
        shape, dtype = (*shape[:-1], shape[-1] + SCALE), torch.uint8
    return torch.empty(shape, dtype=dtype, device=device, pin_memory=pinned)


def held(numbers: Tensor, memory: Tensor) -> Tensor:
    """Keys or values as a memory holds them."""
    if memory.dtype != torch.uint8:
        return numbers.to(memory.dtype)
    scale = (numbers.abs().amax(-1, keepdim=True) / LARGEST).clamp_min(2**-14).half()
    small = (numbers / scale.to(numbers.dtype)).clamp(-LARGEST, LARGEST).to(FLOAT8)
    return torch.cat([small.view(torch.uint8), scale.view(torch.uint8)], dim=-1)


def told(memory: Tensor, dtype: torch.dtype) -> Tensor:
    """What a memory holds, as numbers."""
    if memory.dtype != torch.uint8:
        return memory.to(dtype)
    scale = memory[..., -SCALE:].contiguous().view(torch.float16)
    return memory[..., :-SCALE].view(FLOAT8).to(dtype) * scale.to(dtype)
