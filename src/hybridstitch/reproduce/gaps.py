"""Differences of scores over the same prompts, and how a report shows them.

A difference whose 95 % interval holds zero is called not settled, whatever its sign.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from ..evaluate.scores import Scores
from ..measure.intervals import Interval, replicated
from .results import Results
from .scoring import named

COLUMNS = ("psnr", "lpips", "clip", "fd")
SCALE = {"clip": 100.0}


@dataclass(frozen=True, slots=True, eq=False)
class Gap:
    """A difference of scores, positive is better, with its replicates over resampled prompts."""

    value: float
    replicates: Any
    number: int

    @classmethod
    def between(cls, scores: Scores, other: Scores) -> "Gap":
        """By how much the first is better.

        Raises:
            ScoreError: they cannot be compared.
        """
        scores.ahead(other)
        sign = 1.0 if scores.better == "higher" else -1.0
        return cls(sign * (scores.value - other.value), sign * (scores.replicates - other.replicates), scores.number)

    @classmethod
    def average(cls, gaps: Sequence["Gap"]) -> "Gap":
        """The mean of several over the same prompts."""
        return cls(mean(g.value for g in gaps), np.mean([g.replicates for g in gaps], axis=0), gaps[0].number)

    def minus(self, other: "Gap") -> "Gap":
        """A difference of differences."""
        return Gap(self.value - other.value, self.replicates - other.replicates, self.number)

    @property
    def interval(self) -> Interval:
        """With its 95 % interval."""
        return replicated(self.value, self.replicates, self.number)


def gaps(results: Results, method: str, other: str) -> dict[str, Gap]:
    """By column by how much a method is better than another; empty where one of them is not scored."""
    mine, theirs = results.scores.get(method, {}), results.scores.get(other, {})
    found = {}
    for column in COLUMNS:
        a, b = named(mine, column), named(theirs, column)
        if a is not None and b is not None:
            found[column] = Gap.between(a, b)
    return found


def verdict(interval: Interval) -> str:
    """In words."""
    if interval.low > 0:
        return "yes"
    return "no, worse" if interval.high < 0 else "not settled"


def paired(results: Results, question: str, words: str, pairs: Sequence[tuple[str, str, str]]) -> str:
    """A section: a row for each pair, their mean, and the answer. Without pairs its head only."""
    head = f"{question}\n\n" + (f"{words}\n\n" if words else "")
    found = [
        (label, gaps(results, a, b), results.dense(a) - results.dense(b))
        for label, a, b in pairs
        if gaps(results, a, b)
    ]
    if not pairs:
        return head
    if not found:
        return ""
    whole = {c: Gap.average([g[c] for _, g, _ in found]) for c in found[0][1]}
    lines = [row(results, label, gap, more) for label, gap, more in found]
    total = row(results, "**all**", whole, mean(more for *_, more in found))
    return head + "\n".join([*heading(results, whole, True), *lines, total]) + answer(whole)


def heading(results: Results, columns: Mapping[str, Gap], timed: bool) -> list[str]:
    """The head of a table of differences."""
    names = [title(results, c) for c in columns] + (["time, dense steps"] if timed else [])
    return ["| row | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]


def row(results: Results, label: str, found: Mapping[str, Gap], more: float | None) -> str:
    """A row of one."""
    cells = [shown(gap.interval, SCALE.get(c, 1.0)) for c, gap in found.items()]
    cells += [] if more is None else [f"{more:+.2f}"]
    return f"| {label} | " + " | ".join(cells) + " |"


def answer(whole: Mapping[str, Gap]) -> str:
    """What a mean difference says, column by column."""
    words = {"psnr": "PSNR", "lpips": "LPIPS", "clip": "CLIP", "fd": "FD"}
    return "\n\n" + ", ".join(f"by {words[c]}: {verdict(gap.interval)}" for c, gap in whole.items()) + ".\n\n"


def title(results: Results, column: str) -> str:
    """A metric's name in a head."""
    scores = next(iter(results.scores.values()))
    score = named(scores, column)
    assert score is not None
    return score.metric + {"psnr": ", dB", "clip": " ×100"}.get(column, "")


def shown(interval: Interval, scale: float = 1.0) -> str:
    """A difference with its interval."""
    return f"{interval.mean * scale:+.3g} [{interval.low * scale:+.3g}, {interval.high * scale:+.3g}]"


def db(gap: Gap) -> str:
    """A difference with its interval, in a sentence."""
    return shown(gap.interval)
