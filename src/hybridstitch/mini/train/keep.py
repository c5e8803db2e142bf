"""Checkpoints that survive a kill: there is always one whole file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...disk.files import being_kept


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state` to `path` at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with being_kept(path) as file:
        torch.save(state, file)


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state at `path`, or None if there is none yet."""
    return torch.load(path, map_location=device, weights_only=True) if path.exists() else None
