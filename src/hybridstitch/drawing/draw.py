"""A plan becomes tensors: images that want the same stroke are drawn together, strokes are laid over each other.

A call has R rows, branches × images, in the order the pipeline gives them ([u_1 … u_B, c_1 … c_B]), so that a stroke
for every image hands the very tensors of the pipeline to the model. The canvas (R, C, H, W) is put together before
guidance: `v = where(mask, v_L, v_S)` for each branch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..compat import fix_addresses
from ..families import Family, KeysValues
from ..policies.plan import Plan, Stroke, large
from .carry import Last, carried, renewed
from .clock import Mark, mark
from .engine import PLAIN, Engine
from .kv import KVCache, span

Inputs = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Models:
    """The two models of a pair.

    Attributes:
        large: the large one, through its family.
        small: the small one, or a compiled form of it.
        engine: how they are run.
        caches: keys and values that outlive a run, where compiled graphs know their addresses; None elsewhere.
    """

    large: Family
    small: Callable[..., Any]
    engine: Engine = PLAIN
    caches: dict[tuple[int, int], KVCache] | None = None

    def room(self, inputs: Inputs) -> KeysValues:
        """Memory for the keys and values of a call like this one, as the engine wants it."""
        return self._fixed(
            self.large.room(inputs, None if self.engine.kv == "same" else getattr(torch, self.engine.kv))
        )

    def part(self, cache: KVCache, rows: Sequence[int]) -> tuple[KeysValues, Tensor | None]:
        """See `KVCache.part`."""
        layers, index = cache.part(rows)
        return self._fixed(layers), index

    def _fixed(self, layers: KeysValues) -> KeysValues:
        if self.caches is not None:
            fix_addresses(tensor for pair in layers for tensor in pair)
        return layers


@dataclass(slots=True)
class Call:
    """One call of the transformer by the pipeline, and what became of it.

    Attributes:
        inputs: the transformer's keyword arguments, tensors of R rows.
        images: B.
        branches: R / B.
        last: what the small model drew last, where that is carried on; renewed with the prediction.
        prediction: what was drawn, (R, C, H, W).
        plans: per image what was carried out.
        fallbacks: per image why that is not what was decided.
        spans: (images, start, end) of each model call.
    """

    inputs: Inputs
    images: int
    branches: int
    last: Last | None = None
    prediction: Tensor | None = None
    plans: list[Plan] = field(default_factory=list)
    fallbacks: list[str | None] = field(default_factory=list)
    spans: list[tuple[tuple[int, ...], Mark, Mark]] = field(default_factory=list)

    @property
    def latent(self) -> Tensor:
        """The noisy latent, (R, C, H, W)."""
        return self.inputs["hidden_states"]

    def rows(self, images: Sequence[int], branches: str = "both") -> list[int]:
        """The rows of some images; only the last (conditional) branch for "cond"."""
        first = self.branches - 1 if branches == "cond" else 0
        return [b * self.images + image for b in range(first, self.branches) for image in images]

    def share(self, images: int) -> None:
        """Correct the number of images after a call that drew all of them alike."""
        self.branches = max(1, self.branches * self.images // images)
        self.images = images
        self.plans, self.fallbacks = self.plans[:1] * images, self.fallbacks[:1] * images
        self.spans = [(tuple(range(images)), start, end) for _, start, end in self.spans]

    def take(self, rows: Sequence[int]) -> Inputs:
        """The inputs of some rows; the pipeline's own tensors when these are all rows."""
        if len(rows) == self.images * self.branches:
            return self.inputs
        together = span(rows)
        index = None if together else torch.tensor(rows, device=self.latent.device)

        def some(value: Tensor) -> Tensor:
            return value[together] if index is None else value.index_select(0, index)

        return {
            name: some(value)
            if isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(self.latent)
            else value
            for name, value in self.inputs.items()
        }


def draw(
    call: Call,
    plans: Sequence[Plan],
    tokens: Sequence[Tensor | None],
    models: Models,
    cache: KVCache,
    *,
    previous: Tensor | None,
    step: int,
    keep: bool,
    overruled: Sequence[str | None] = (),
) -> Tensor:
    """Carry out one step's plans, one per image.

    Args:
        call: the inputs; its `plans`, `fallbacks`, `spans`, `prediction` and `last` are filled in.
        plans: what was decided.
        tokens: per image the chosen tokens (K,), or None where the plan has no region.
        models: the pair.
        cache: keys and values of this call's rows; read and written.
        previous: the last step's prediction of the same call, or None.
        step: the step.
        keep: keep the keys and values of dense large strokes.
        overruled: per image why the large model draws everywhere instead, see `guard`; empty for none.

    Returns:
        the prediction, (R, C, H, W).
    """
    size = call.latent.shape[-2] * call.latent.shape[-1] // models.large.patch**2
    length = size + call.inputs["encoder_hidden_states"].shape[1]
    possible = [_possible(call, image, plan, cache, previous, step, length) for image, plan in enumerate(plans)]
    for image, why in enumerate(overruled):
        if why is not None:
            possible[image] = (Plan((large(),), plans[image].stage), why)
    call.plans, call.fallbacks = [plan for plan, _ in possible], [why for _, why in possible]
    canvas = previous
    fresh = False  # whether the canvas is ours to write on
    for position in range(max(len(plan.strokes) for plan in call.plans)):
        for stroke, images in _groups(call.plans, tokens, position):
            rows = call.rows(images, stroke.branches if stroke.masked else "both")
            start = mark(call.latent.device)
            if stroke.model == "S":
                drawn = models.small(**call.take(rows), return_dict=False)[0]
                if stroke.carries:
                    before, call.last = call.last, renewed(call.last, drawn, rows, len(call.latent))
                    drawn = carried(drawn, rows, stroke, previous, before)
            elif stroke.masked:
                chosen = torch.stack([t for image in images if (t := tokens[image]) is not None]).repeat(
                    len(rows) // len(images), 1
                )
                memory, index = models.part(cache, rows)
                drawn = models.large.masked(call.take(rows), chosen, memory, index, text=stroke.text)
                cache.stamp(rows, step)
            else:
                if keep and not cache.fits(length):
                    cache.hold(models.room(call.inputs))
                memory, index = models.part(cache, rows) if keep else ([], None)
                whole = any(call.fallbacks[image] for image in images)
                drawn, kept = models.large.dense(call.take(rows), keep=keep, memory=memory, rows=index, whole=whole)
                cache.stamp(rows, step if kept else None)
                if call.last is not None and position == 0:
                    call.last = call.last.without(rows)
            call.spans.append((images, start, mark(call.latent.device)))
            if stroke.region.everywhere and len(images) == call.images:
                canvas, fresh = drawn, True
                continue
            if not fresh:
                canvas, fresh = (
                    drawn.new_zeros(call.latent.shape[0], *drawn.shape[1:]) if canvas is None else canvas.clone(),
                    True,
                )
            assert canvas is not None
            inside = (
                None if stroke.region.everywhere else pixels([tokens[i] for i in images], drawn, models.large.patch)
            )
            _lay(canvas, drawn, inside, call, images, rows)
    assert canvas is not None
    call.prediction = canvas
    return canvas


def draw_skipping(call: Call, main: Call, tokens: Sequence[Tensor | None], models: Models) -> Tensor:
    """Skip-layer guidance (SPEC §5): the large model without some layers where it drew this step, else no difference.

    Args:
        call: the second, conditional call (B rows), `skip_layers` among its inputs.
        main: the step's first call, drawn.
        tokens: per image the chosen tokens.
        models: the pair.

    Returns:
        `where(drawn by L this step, L(skip_layers), v_text)`, (B, C, H, W).
    """
    assert main.prediction is not None
    text = main.prediction[-call.images :]  # the conditional branch comes last
    images = tuple(i for i, plan in enumerate(main.plans) if any(s.model == "L" for s in plan.strokes))
    if not images:
        return text
    rows = call.rows(images)
    start = mark(call.latent.device)
    drawn, _ = models.large.dense(call.take(rows), keep=False)
    call.spans.append((images, start, mark(call.latent.device)))
    everywhere = [any(s.model == "L" and s.region.everywhere for s in main.plans[i].strokes) for i in images]
    if all(everywhere) and len(images) == call.images:
        return drawn
    skipped = text.clone()
    for position, (image, whole) in enumerate(zip(images, everywhere, strict=True)):
        if whole:
            skipped[image] = drawn[position]
        else:
            inside = pixels([tokens[image]], drawn[position, None], models.large.patch)
            skipped[image] = torch.where(inside[0], drawn[position], text[image])
    return skipped


def pixels(tokens: Sequence[Tensor | None], like: Tensor, patch: int) -> Tensor:
    """Where some tokens lie in the picture.

    Args:
        tokens: per image token indices (K,).
        like: (…, C, H, W) of the same picture.
        patch: p.

    Returns:
        (len(tokens), 1, H, W), bool.
    """
    height, width = like.shape[-2] // patch, like.shape[-1] // patch
    flat = torch.zeros(len(tokens), height * width, dtype=torch.bool, device=like.device)
    flat.scatter_(1, torch.stack([t for t in tokens if t is not None]), True)
    grid = flat.view(-1, 1, height, width)
    return grid.repeat_interleave(patch, -2).repeat_interleave(patch, -1)


def _possible(
    call: Call, image: int, plan: Plan, cache: KVCache, previous: Tensor | None, step: int, length: int
) -> tuple[Plan, str | None]:
    """The plan, or the large model everywhere where keys, values or a prediction it builds on are missing."""
    for stroke in plan.strokes:
        if stroke.masked and not cache.follows(call.rows([image], stroke.branches), step, length):
            return Plan((large(),), plan.stage), "no keys and values of the previous step: large model, dense"
    covered = bool(plan.strokes) and plan.strokes[0].region.everywhere
    if not covered and (previous is None or previous.shape[0] != call.latent.shape[0]):
        return Plan((large(),), plan.stage), "no previous prediction to repeat: large model, dense"
    return plan, None


def _groups(
    plans: Sequence[Plan], tokens: Sequence[Tensor | None], position: int
) -> list[tuple[Stroke, tuple[int, ...]]]:
    """Images whose plan has the same stroke at a position (explicit tokens count by their number only)."""
    groups: dict[tuple[Stroke, int], list[int]] = {}
    for image, plan in enumerate(plans):
        if position < len(plan.strokes):
            stroke, chosen = plan.strokes[position], tokens[image]
            count = 0 if stroke.region.everywhere or chosen is None else len(chosen)
            if stroke.region.tokens is not None:
                stroke = replace(stroke, region=replace(stroke.region, tokens=()))
            groups.setdefault((stroke, count), []).append(image)
    return [(stroke, tuple(images)) for (stroke, _), images in groups.items()]


def _lay(
    canvas: Tensor, drawn: Tensor, inside: Tensor | None, call: Call, images: Sequence[int], rows: Sequence[int]
) -> None:
    """Put what was drawn for some rows onto the canvas, inside the mask (None: everywhere)."""
    for position, image in enumerate(images):
        mine = call.rows([image])
        fresh = drawn[position :: len(images)]  # this image's branches, as many as were drawn
        if len(rows) < len(images) * call.branches:  # only the conditional branch: shift the others with it
            fresh = fresh + (canvas[mine] - canvas[mine[-1:]])
        canvas[mine] = fresh if inside is None else torch.where(inside[position], fresh, canvas[mine])
