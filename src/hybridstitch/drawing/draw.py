"""A plan becomes tensors: images that want the same stroke are drawn together, strokes are laid over each other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..families.family import bare
from ..families.rows import Rows
from ..policies.plan import Plan, Stroke, large
from .call import Call, Models
from .canvas import Canvas
from .carry import carried, renewed
from .clock import mark
from .groups import Tokens, groups, stacked
from .kv import KVCache
from .lacking import lacking


def draw(
    call: Call,
    plans: Sequence[Plan],
    tokens: Tokens,
    models: Models,
    cache: KVCache,
    *,
    previous: Tensor | None,
    step: int,
    keep: bool,
    pictured: int,
    overruled: Sequence[str | None] = (),
) -> Tensor:
    """Carry out one step's plans, one per image.

    Args:
        call: the inputs; its `plans`, `fallbacks`, `spans`, `prediction` and `last` are filled in.
        plans: what was decided.
        tokens: see `Tokens`.
        models: the pair.
        cache: keys and values of this call's rows; read and written.
        previous: the last step's prediction of the same call, or None.
        step: the step.
        keep: keep the keys and values of dense large strokes.
        pictured: N; what a call has behind them is of reference pictures, and drawn along with any other token.
        overruled: per image why the large model draws everywhere instead, see `guard`; empty for none.

    Returns:
        the prediction, of the latent's shape.
    """
    length = models.large.keys(call.inputs)
    if previous is not None and len(previous) != len(call.latent):
        previous = None
    call.plans, call.fallbacks = [], []
    for image, plan in enumerate(plans):
        why = overruled[image] if overruled else None
        why = why or lacking(plan, call, image, cache, previous, step, length)
        call.plans.append(plan if why is None else Plan((large(),), plan.stage))
        call.fallbacks.append(why)
    canvas = Canvas(models.large.layout, previous)
    for position in range(max(len(plan.strokes) for plan in call.plans)):
        for stroke, images in groups(call.plans, tokens, position):
            rows = call.rows(images, stroke.branches if stroke.masked else "both")
            chosen = None if stroke.region.everywhere else stacked(tokens, images)
            if call.passes(stroke):
                continue
            before = canvas.copied() if stroke.masked and stroke.branches == "cond" and call.branches == 1 else None
            start = mark(call.latent.device)
            if stroke.model == "S":
                drawn = _small(stroke, rows, call, models, previous)
            elif stroke.masked and chosen is not None:
                drawn = _masked(stroke, rows, chosen, call, models, cache, step, pictured)
            else:
                drawn = _large(rows, call, models, cache, step=step, keep=keep, length=length)
                if call.last is not None and position == 0:
                    call.last = call.last.without(rows.numbers)
            call.spans.append((images, start, mark(call.latent.device)))
            canvas.lay(drawn, rows, chosen)
            if before is not None:
                assert canvas.value is not None
                call.shift = canvas.value - before if call.shift is None else call.shift + canvas.value - before
    if call.first is not None and call.first.shift is not None:
        canvas.shift(call.first.shift)
    assert canvas.value is not None
    call.prediction = canvas.value
    return canvas.value


def _small(stroke: Stroke, rows: Rows, call: Call, models: Models, previous: Tensor | None) -> Tensor:
    """The small model, with the last prediction carried on if the stroke says so."""
    drawn = bare(models.small(**call.take(rows, "S"), return_dict=False))
    if not stroke.carries:
        return drawn
    before, call.last = call.last, renewed(call.last, drawn, rows, len(call.latent))
    return carried(drawn, rows, stroke, previous, before)


def _masked(
    stroke: Stroke, rows: Rows, chosen: Tensor, call: Call, models: Models, cache: KVCache, step: int, pictured: int
) -> Tensor:
    """The large model on the chosen tokens, (images, K)."""
    every = chosen.repeat(len(rows) // len(chosen), 1)  # (rows, K): one mask for all branches
    total = models.large.layout.count(call.latent)
    if total > pictured:
        references = torch.arange(pictured, total, device=every.device).expand(len(every), -1)
        every = torch.cat([every, references], dim=1)
    drawn = models.large.masked(
        call.take(rows), every, cache.layers, rows, text=stroke.text, host=models.engine.kv_host
    )
    cache.stamp(rows.numbers, step)
    return drawn


def _large(rows: Rows, call: Call, models: Models, cache: KVCache, *, step: int, keep: bool, length: int) -> Tensor:
    """The large model on every token, its keys and values kept if masks may follow."""
    if keep and not cache.fits(length):
        cache.hold(models.room(call.inputs))
    whole = any(call.fallbacks[image] for image in rows.images)
    drawn, kept = models.large.dense(call.take(rows), memory=cache.layers if keep else None, rows=rows, whole=whole)
    cache.stamp(rows.numbers, step if kept else None)
    return drawn
