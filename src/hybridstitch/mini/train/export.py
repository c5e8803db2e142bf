"""Trained parts as a diffusers folder in half precision: the stock pipeline, `small/` and `clip/` (the
judge: picture tower, and the matrix that joins both text encoders).
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionModelWithProjection


def export(
    pipe: StableDiffusion3Pipeline,
    small: SD3Transformer2DModel,
    tower: CLIPVisionModelWithProjection,
    join: Tensor,
    folder: Path,
) -> None:
    """Write everything to `folder` as fp16 safetensors. Halves the given parts in place."""
    pipe.to(torch.float16)
    pipe.save_pretrained(folder)
    small.half().save_pretrained(folder / "small")
    tower.half().save_pretrained(folder / "clip")
    save_file({"weight": join.detach().half().contiguous().cpu()}, folder / "clip/join.safetensors")
