"""What the steps of a run did, kept on the device until somebody reads it: nothing here waits for it before that."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isnan, prod

import torch
from torch import Tensor

from ..errors import RunError
from ..policies.plan import Plan, large
from ..policies.trace import Step
from .call import Call
from .clock import seconds
from .guard import NOT_FINITE


@dataclass(slots=True)
class Drawn:
    """One step of all images.

    Attributes:
        plans: per image what was decided.
        tokens: per image the chosen tokens (K,), or None.
        calls: the transformer calls of the step, in order; guidance may need several.
        skipping: the call of skip-layer guidance, if there was one.
        sigma: σ_i, once the scheduler made the step.
        measured: (2, B), D and 1 where the output is finite; a tensor until read.
        overruled: per image why a guard lets the large model draw it instead; empty without a guard.
    """

    plans: list[Plan]
    tokens: list[Tensor | None]
    calls: list[Call] = field(default_factory=list)
    skipping: Call | None = None
    sigma: Tensor | float | None = None
    measured: Tensor | list[list[float]] | None = None
    overruled: list[str | None] = field(default_factory=list)

    @property
    def every_call(self) -> list[Call]:
        """All calls of the transformer."""
        return self.calls if self.skipping is None else [*self.calls, self.skipping]

    def overrule_broken(self, prediction: Tensor) -> bool:
        """Overrule the plans of images whose last call came out NaN or infinite; read on the host.

        Args:
            prediction: of the last call, (R, …), branches × images.

        Returns:
            whether there are any that the large model did not draw alone already.
        """
        finite = prediction.isfinite().flatten(1).all(1).view(-1, len(self.plans)).all(0).tolist()
        broken = [
            image
            for image, whole in enumerate(finite)
            if not whole and self.calls[-1].plans[image].strokes != (large(),)
        ]
        for image in broken:
            self.overruled[image] = self.calls[0].fallbacks[image] = NOT_FINITE
        return bool(broken)

    def distance(self, image: int) -> float | None:
        """D of one image, after `read`; None where there is none."""
        if not isinstance(self.measured, list) or isnan(self.measured[0][image]):
            return None
        return float(self.measured[0][image])

    def by_large(self, image: int) -> float | None:
        """Share of an image that the large model drew, see `Plan.by_large`."""
        return (self.calls[0].plans if self.calls else self.plans)[image].by_large

    def settle(self, images: int) -> None:
        """Correct the number of images after a step that drew all of them alike."""
        self.plans, self.tokens = self.plans[:1] * images, [None] * images
        self.overruled = self.overruled[:1] * images
        for call in self.calls:
            call.share(images)

    def release(self) -> None:
        """Let inputs and predictions go; plans and times stay."""
        for call in self.every_call:
            call.release()


def read(steps: Sequence[Drawn]) -> None:
    """Bring what was measured to the host, all of it in one copy.

    Args:
        steps: of a run, from the first.

    Raises:
        RunError: a step's output is not finite.
    """
    waiting = [(index, done, done.measured) for index, done in enumerate(steps) if isinstance(done.measured, Tensor)]
    if not waiting:
        return
    measured = torch.stack([tensor for _, _, tensor in waiting]).tolist()
    for (index, done, _), numbers in zip(waiting, measured, strict=True):
        done.measured = numbers
        for image, finite in enumerate(numbers[1]):
            if not finite:
                drew = done.calls[0].plans[image] if done.calls else done.plans[image]
                raise RunError(
                    f"step {index} of image {image}, drawn by {drew} (L large, S small), came out NaN or infinite; "
                    "try a wider dtype (fp16 overflows where bf16 does not), and each model alone (policies 'large' "
                    "and 'small') to see whose it is"
                )


def recorded(steps: Sequence[Drawn], tokens: int) -> tuple[Step, ...]:
    """Steps as plain data, after `read`; masks and noise levels in one copy each.

    Args:
        steps: of a run, from the first.
        tokens: N.
    """
    masks = iter(_lists([chosen for done in steps for chosen in done.tokens if chosen is not None]))
    levels = iter(_numbers([done.sigma for done in steps if done.sigma is not None]))
    rows = []
    for index, done in enumerate(steps):
        sigma = None if done.sigma is None else next(levels)
        chosen = [None if tensor is None else next(masks) for tensor in done.tokens]
        if done.calls:
            rows += [_row(index, image, done, sigma, chosen[image], tokens) for image in range(len(done.plans))]
    return tuple(rows)


def grid_of(grid: Tensor | tuple[int, ...], tokens: int | None) -> tuple[int, ...]:
    """How a picture's tokens lie, as a trace says it: in one row where conditions came along with them.

    Args:
        grid: of the latent's tokens.
        tokens: N that were drawn, or None where nothing was yet.
    """
    known = tuple(grid.tolist()) if isinstance(grid, Tensor) else grid
    return known if tokens in (None, prod(known)) else (tokens,)


def _row(index: int, image: int, done: Drawn, sigma: float | None, mask: tuple[int, ...] | None, tokens: int) -> Step:
    main = done.calls[0]
    count = main.plans[image].large_tokens(tokens)
    if mask is not None and 0 < count < tokens:
        count = len(mask)  # rounded by the engine
    spans = [span for call in done.every_call for span in call.spans]
    return Step(
        index=index,
        image=image,
        sigma=sigma,
        plan=done.plans[image],
        drawn=main.plans[image],
        distance=done.distance(image),
        seconds=sum(seconds(a, b) / len(images) for images, a, b in spans if image in images),
        large_tokens=count,
        mask=mask if mask is not None and len(mask) == count else None,
        fallback=main.fallbacks[image],
    )


def _lists(masks: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """Index tensors as tuples."""
    flat = torch.cat(list(masks)).tolist() if masks else []
    ends = [0]
    for mask in masks:
        ends.append(ends[-1] + len(mask))
    return [tuple(flat[a:b]) for a, b in pairwise(ends)]


def _numbers(values: Sequence[Tensor | float]) -> list[float]:
    """Scalars, on any device, as floats."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    if len(tensors) < len(values) or len({tensor.device for tensor in tensors}) > 1:
        return [float(value) for value in values]
    return torch.stack(tensors).tolist() if tensors else []
