"""Checkpoints that survive a kill: written beside, then renamed over; so there is always one whole file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state` to `path` at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    torch.save(state, fresh)
    os.replace(fresh, path)


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state at `path`, or None if there is none yet."""
    return torch.load(path, map_location=device, weights_only=True) if path.exists() else None
