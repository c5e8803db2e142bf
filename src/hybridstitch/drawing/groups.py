"""Images of a batch that want the same stroke, so that a model draws them together."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..policies.plan import Plan, Stroke

Tokens = Sequence[Tensor | None]  # per image the chosen tokens (K,), or None where its plan has no region


def groups(plans: Sequence[Plan], tokens: Tokens, position: int) -> list[tuple[Stroke, tuple[int, ...]]]:
    """Images whose plan has the same stroke at a position (explicit tokens count by their number only)."""
    found: dict[tuple[Stroke, int], list[int]] = {}
    for image, plan in enumerate(plans):
        if position < len(plan.strokes):
            stroke, chosen = plan.strokes[position], tokens[image]
            count = 0 if stroke.region.everywhere or chosen is None else len(chosen)
            if stroke.region.tokens is not None:
                stroke = replace(stroke, region=replace(stroke.region, tokens=()))
            found.setdefault((stroke, count), []).append(image)
    return [(stroke, tuple(images)) for (stroke, _), images in found.items()]


def stacked(tokens: Tokens, images: Sequence[int]) -> Tensor:
    """The chosen tokens of some images, (images, K)."""
    return torch.stack([chosen for image in images if (chosen := tokens[image]) is not None])
