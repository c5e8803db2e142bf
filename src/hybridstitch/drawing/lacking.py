"""What a plan builds on: without keys and values or a prediction of the last step, the large model draws all."""

from torch import Tensor

from ..policies.plan import Plan
from .call import Call
from .kv import KVCache

NO_MEMORY = "no keys and values of the previous step: large model, dense"
NO_PREDICTION = "no previous prediction to repeat: large model, dense"


def lacking(
    plan: Plan, call: Call, image: int, cache: KVCache, previous: Tensor | None, step: int, length: int
) -> str | None:
    """What a plan builds on and is missing, or None: then the large model draws everywhere."""
    if call.first is not None and any(stroke.branches == "cond" for stroke in plan.strokes):
        first = call.first.fallbacks[image]
        if first is not None:
            return first
    for stroke in plan.strokes:
        if call.passes(stroke):
            continue
        rows = call.rows([image], stroke.branches)
        if stroke.masked and not cache.follows(rows.numbers, step, length):
            return NO_MEMORY
    covered = bool(plan.strokes) and plan.strokes[0].region.everywhere
    return None if covered or previous is not None else NO_PREDICTION
