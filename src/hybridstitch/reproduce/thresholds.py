"""Thresholds of another pair: those whose median switch steps are the ones the paper's latencies imply.

D of the large model's curve says nothing about later stages: it jumps when tokens change hands. So each row's stages
are calibrated one after the other, the D of stage k recorded along runs that entered it where τ_0 … τ_{k−1} say.
A run is recorded a little beyond its target and then repeats its last prediction, which costs nothing.

Where the hybrid stage's distances lie above those at which the large stage should end, thresholds that must not
increase cannot do both. Such a row ends stage 0 by its least share of steps (`min_large`) and says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import floor, inf
from statistics import median
from typing import Any, Self

from ..policies.methods import HybridStitch, Schedule, SRDiffusion, parse
from ..policies.policy import Policy, least_large
from ..policies.presets import TABLE_1, TABLE_3
from .implied import switches

PROMPTS = 6
SLACK = 0.16  # share of the steps recorded beyond a target
Curve = Sequence[float | None]  # D_0, D_1, … of one prompt
Record = Callable[[Sequence[Mapping[str, Policy]]], list[dict[str, Curve]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Policies of this pair.

    Attributes:
        policies: by row.
        targets: switch steps that the paper's latencies imply.
        reached: median switch steps over the calibration's prompts.
        prompts: how many.
    """

    policies: Mapping[str, Policy]
    targets: Mapping[str, tuple[int, ...]]
    reached: Mapping[str, tuple[float, ...]]
    prompts: int

    def to_json(self) -> dict[str, Any]:
        """For the folder; `from_json` reads it back."""
        return {
            "prompts": self.prompts,
            "rows": {
                name: {
                    "policy": str(policy),
                    "targets": self.targets[name],
                    "reached": self.reached[name],
                }
                for name, policy in self.policies.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        rows = data["rows"]
        return cls(
            policies={name: parse(row["policy"]) for name, row in rows.items()},
            targets={name: tuple(row["targets"]) for name, row in rows.items()},
            reached={name: tuple(row["reached"]) for name, row in rows.items()},
            prompts=data["prompts"],
        )


@dataclass(slots=True)
class _Row:
    """One row on its way.

    Attributes:
        policy: with the thresholds found so far.
        targets: T_1, T_2, …
        entries: per prompt the steps at which its stages began.
        timed: whether stage 0 ends by `min_large`.
    """

    policy: HybridStitch
    targets: tuple[int, ...]
    entries: list[list[int]]
    thresholds: list[float]
    timed: bool = False


def calibrate(steps: int, prompts: int, record: Record) -> Fitted:
    """Find the thresholds of every adaptive row.

    Args:
        steps: T.
        prompts: how many are recorded.
        record: draws policies by name, a mapping for each prompt, and gives the distances of each.
    """
    wanted = switches(steps)
    presets = {p.name: p.policy for p in (*TABLE_1, *TABLE_3) if isinstance(p.policy, HybridStitch)}
    end = _end(max(t for name in wanted for t in wanted[name][:1]), steps)
    large = Schedule(_program([("L", end)], steps))
    drawn = record([{"token": large, "norm": replace(large, reduction="norm")}] * prompts)
    token, norm = ([curves[kind] for curves in drawn] for kind in ("token", "norm"))

    threshold, entries = _choose(norm, [0] * prompts, wanted["sr-diffusion"][0], least_large(steps, 0.1), inf)
    policies: dict[str, Policy] = {"sr-diffusion": SRDiffusion(threshold=threshold)}
    reached = {"sr-diffusion": (median(entries),)}

    rows = {}
    for name, policy in presets.items():
        threshold, entries = _choose(token, [0] * prompts, wanted[name][0], least_large(steps, 0.1), inf)
        rows[name] = _Row(policy, wanted[name], [[e] for e in entries], [threshold])
    for stage in range(1, 1 + max(len(row.policy.masks) for row in rows.values())):
        members = {name: row for name, row in rows.items() if stage <= len(row.policy.masks)}
        _next_stage(members, stage, steps, record, token)
    for name, row in rows.items():
        least = (row.targets[0] - 0.5) / steps if row.timed else row.policy.min_large
        policies[name] = replace(row.policy, thresholds=tuple(row.thresholds), min_large=least)
        reached[name] = tuple(median(e) for e in zip(*row.entries, strict=True))
    return Fitted(policies=policies, targets=wanted, reached=reached, prompts=prompts)


def _next_stage(rows: Mapping[str, _Row], stage: int, steps: int, record: Record, large: Sequence[Curve]) -> None:
    """Find τ_stage of some rows."""
    curves = _recorded(rows, stage, steps, record)
    again = {}
    for name, row in rows.items():
        threshold, _ = _choose(curves[name], [e[-1] for e in row.entries], row.targets[stage], 0, inf)
        if stage == 1 and threshold > row.thresholds[0]:
            first = row.targets[0]
            row.timed, row.entries = True, [[first] for _ in row.entries]
            row.thresholds = [max(d for curve in large if (d := curve[first - 1]) is not None) * 1.01]
            again[name] = row
    curves |= _recorded(again, stage, steps, record)
    for name, row in rows.items():
        before = [e[-1] for e in row.entries]
        most = inf if row.timed and stage == 1 else row.thresholds[-1]
        threshold, entries = _choose(curves[name], before, row.targets[stage], 0, most)
        if threshold > row.thresholds[-1]:
            row.thresholds[-1] = threshold
        row.thresholds.append(threshold)
        row.entries = [[*found, e] for found, e in zip(row.entries, entries, strict=True)]


def _recorded(rows: Mapping[str, _Row], stage: int, steps: int, record: Record) -> dict[str, list[Curve]]:
    """Per row the distances of each prompt along a run that is in this stage from its entry on."""
    if not rows:
        return {}
    count = len(next(iter(rows.values())).entries)
    programs: list[dict[str, Policy]] = []
    for prompt in range(count):
        mine: dict[str, Policy] = {}
        for name, row in rows.items():
            entries = row.entries[prompt]
            end = _end(max(row.targets[stage], entries[-1] + 1), steps)
            words = ["L", *(f"@{mask:g}" for mask in row.policy.masks[:stage])]
            counts = [b - a for a, b in pairwise([0, *entries, end])]
            mine[name] = Schedule(_program(list(zip(words, counts, strict=True)), steps))
        programs.append(mine)
    drawn = record(programs)
    return {name: [curves[name] for curves in drawn] for name in rows}


def _program(parts: Sequence[tuple[str, int]], steps: int) -> str:
    """`L10 H15@0.3 -*` of ("L", 10), ("@0.3", 15)."""
    words = [f"L{count}" if word == "L" else f"H{count}{word}" for word, count in parts if count]
    drawn = sum(count for _, count in parts)
    return " ".join([*words, *(["-*"] if drawn < steps else [])])


def _end(target: int, steps: int) -> int:
    """The last step recorded for a target."""
    return min(steps, target + max(2, floor(SLACK * steps + 0.5)))


def _choose(
    curves: Sequence[Curve], entries: Sequence[int], target: int, least: int, most: float
) -> tuple[float, list[int]]:
    """The threshold whose median switch step is nearest to the target, and the switch steps it gives.

    Args:
        curves: D of each prompt.
        entries: the step at which each entered the stage.
        target: the switch step wanted.
        least: no switch before this step.
        most: the largest threshold allowed.
    """
    values = sorted({d for curve, entry in zip(curves, entries, strict=True) for d in curve[entry:] if d})
    middles = [(a + b) / 2 for a, b in pairwise(values)]
    if not values:  # every prompt entered at the end of its run
        return min(most, 1.0), [len(curve) for curve in curves]
    candidates = [t for t in (*middles, values[-1] * 1.01) if t <= most] or [min(most, values[-1])]

    def off(threshold: float) -> tuple[float, float]:
        found = [_crossing(c, e, threshold, least) for c, e in zip(curves, entries, strict=True)]
        return abs(median(found) - target), sum(abs(f - target) for f in found)

    best = min(candidates, key=off)
    best = float(f"{best:.4g}")  # as it is written
    return best, [_crossing(c, e, best, least) for c, e in zip(curves, entries, strict=True)]


def _crossing(curve: Curve, entry: int, threshold: float, least: int) -> int:
    """The step at which a stage entered at `entry` ends: the first i with D_{i−1} < τ; the end of the curve if none."""
    for step in range(max(entry + 1, least), len(curve)):
        distance = curve[step - 1]
        if distance is not None and distance < threshold:
            return step
    return len(curve)
