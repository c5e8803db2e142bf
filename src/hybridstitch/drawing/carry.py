"""The small model's prediction, carried on from the last one instead of put in its place.

    v = p + follow·(s − s') − (1 − carry)·(p − s')

with p the last prediction, s what the small model draws now and s' what it drew last: p moves along with a share of
what changed in the small model's eyes, and gives up a share of its difference from them. carry = 0 and follow = 1 are
the small model as it is. Tokens that the large model drew keep what it knew, and lose it slowly. Where it drew all of
them since, nobody knows s', and s stands for it: v = carry·p + (1 − carry)·s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..families.rows import Rows
from ..policies.plan import Stroke


@dataclass(frozen=True, slots=True)
class Last:
    """What the small model drew last.

    Attributes:
        prediction: s', (R, …).
        rows: those of which the large model did not draw everything since.
    """

    prediction: Tensor
    rows: frozenset[int]

    def without(self, rows: Sequence[int]) -> "Last":
        """After the large model drew these rows whole, and the small one did not."""
        return Last(self.prediction, self.rows - {*rows})


def renewed(last: Last | None, drawn: Tensor, rows: Rows, total: int) -> Last:
    """What the small model drew last, now that it drew some rows again.

    Args:
        last: so far, or None.
        drawn: s, (len(rows), …).
        rows: whose.
        total: R.
    """
    if rows.whole:
        return Last(drawn, frozenset(rows.numbers))
    prediction = drawn.new_zeros(total, *drawn.shape[1:]) if last is None else last.prediction.clone()
    for there, here in rows.parts:
        prediction[there] = drawn[here]
    return Last(prediction, frozenset(rows.numbers) | (frozenset() if last is None else last.rows))


def carried(drawn: Tensor, rows: Rows, stroke: Stroke, previous: Tensor | None, last: Last | None) -> Tensor:
    """v of some rows, (len(rows), …), in memory of its own.

    Args:
        drawn: s, of the same shape.
        rows: whose, of R.
        stroke: with the shares.
        previous: p, (R, …), or None at the first step: v = s.
        last: s', or None where the small model did not draw yet.
    """
    if previous is None:
        return drawn.clone()
    before = rows.take(previous)
    known = frozenset() if last is None else last.rows & {*rows.numbers}
    if last is None or not known:
        return drawn.lerp(before, stroke.carry)
    if rows.whole and len(known) == len(rows):
        then = last.prediction
    else:
        then = drawn.clone()
        for place, number in enumerate(rows.numbers):
            if number in known:
                then[place] = last.prediction[number]
    return before + stroke.follow * (drawn - then) - (1 - stroke.carry) * (before - then)
