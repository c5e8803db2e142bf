"""Rotary positions of some tokens, each row its own: rows are taken from the table of all."""

from typing import Any, cast

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

Table = tuple[Tensor, Tensor]  # cosines and sines, (length, width) each


def turned(tensor: Tensor, table: Table, positions: Tensor | None) -> Tensor:
    """Queries or keys at their positions.

    Args:
        tensor: (R, n, heads, width).
        table: of all tokens.
        positions: the table's rows of these tokens, (R, n); None for all, in order.

    Returns:
        (R, n, heads, width).
    """
    if positions is None:
        whole: Any = apply_rotary_emb(tensor, cast(Any, table), sequence_dim=1)
        return whole
    cos, sin = (entries[positions].unsqueeze(2) for entries in table)  # (R, n, 1, width)
    real, imaginary = tensor.unflatten(-1, (-1, 2)).unbind(-1)
    across = torch.stack([-imaginary, real], dim=-1).flatten(3)
    return (tensor.float() * cos + across.float() * sin).to(tensor.dtype)


def spun(tensor: Tensor, table: Tensor) -> Tensor:
    """Queries or keys at their positions, in complex numbers.

    Args:
        tensor: (R, n, heads, width).
        table: of these tokens, (n, width / 2) or each row's, (R, n, width / 2).

    Returns:
        (R, n, heads, width).
    """
    complex_ = torch.view_as_complex(tensor.float().unflatten(-1, (-1, 2))) * table.unsqueeze(-2)
    return torch.view_as_real(complex_).flatten(3).type_as(tensor)
