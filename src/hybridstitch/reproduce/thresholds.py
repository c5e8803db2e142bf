"""Thresholds of another pair: those whose median switch steps are the ones the paper's latencies imply.

D of the large model's curve says nothing about later stages: it jumps when tokens change hands. So each row's stages
are calibrated one after the other, the D of stage k recorded along runs that entered it where τ_0 … τ_{k−1} say.
A run is recorded a little beyond its target and then repeats its last prediction, which costs nothing. Thresholds must
not rise from stage to stage: each is fitted below the one before, and what still rises is repaired when all are.

Where the hybrid stage's distances lie above those at which the large stage should end, thresholds that must not
increase cannot do both. Such a row ends stage 0 by its least share of steps (`min_large`) and says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import floor, inf
from statistics import median
from typing import Any, Self

from ..policies.methods import HybridStitch, Schedule
from ..policies.parse import parse
from ..policies.policy import Policy, least_large
from ..policies.presets import TABLE_1, TABLE_3
from ..policies.srdiffusion import SRDiffusion
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stages:
    """A row whose first stages are fitted.

    Attributes:
        policy: as printed.
        targets: T_1, T_2, …
        thresholds: τ_0, τ_1, … as fitted, one after the other; they may rise.
        entries: T_1, T_2, … of every prompt.
        timed: whether stage 0 ends by `min_large`.
    """

    policy: HybridStitch
    targets: tuple[int, ...]
    thresholds: tuple[float, ...]
    entries: tuple[Sequence[int], ...]
    timed: bool = False

    def chosen(self, curves: Sequence[Curve], most: float) -> tuple[float, list[int]]:
        """The next stage's threshold and switch steps."""
        return _choose(curves, self.entries[-1], self.targets[len(self.thresholds)], 0, most)

    def then(self, curves: Sequence[Curve]) -> "_Stages":
        """With the next stage fitted to what was recorded of it."""
        most = inf if self.timed and len(self.thresholds) == 1 else self.thresholds[-1]
        threshold, entries = self.chosen(curves, most)
        return replace(self, thresholds=(*self.thresholds, threshold), entries=(*self.entries, entries))

    def by_share(self, large: Sequence[Curve]) -> "_Stages":
        """With stage 0 alone, ended by its share of steps: its threshold lies above all distances there."""
        first = self.targets[0]
        above = max(d for curve in large if (d := curve[first - 1]) is not None) * 1.01
        return replace(self, thresholds=(above,), entries=([first] * len(large),), timed=True)

    def repaired(self, steps: int) -> HybridStitch:
        """The policy, its thresholds lifted where a later one is larger: they must not rise."""
        falling = tuple(accumulate(reversed(self.thresholds), max))[::-1]
        least = (self.targets[0] - 0.5) / steps if self.timed else self.policy.min_large
        return replace(self.policy, thresholds=falling, min_large=least)


def calibrate(steps: int, prompts: int, record: Record) -> Fitted:
    """Find the thresholds of every adaptive row.

    Args:
        steps: T.
        prompts: how many are recorded.
        record: draws policies by name, a mapping for each prompt, and gives the distances of each.
    """
    wanted = switches(steps)
    end = _end(max(t for name in wanted for t in wanted[name][:1]), steps)
    large = Schedule(_program([("L", end)], steps))
    drawn = record([{"token": large, "norm": replace(large, reduction="norm")}] * prompts)
    token, norm = ([curves[kind] for curves in drawn] for kind in ("token", "norm"))
    begin = [0] * prompts

    threshold, entries = _choose(norm, begin, wanted["sr-diffusion"][0], least_large(steps, 0.1), inf)
    policies: dict[str, Policy] = {"sr-diffusion": SRDiffusion(threshold=threshold)}
    reached = {"sr-diffusion": (median(entries),)}

    rows: dict[str, _Stages] = {}
    for preset in (*TABLE_1, *TABLE_3):
        if isinstance(preset.policy, HybridStitch):
            targets = wanted[preset.name]
            threshold, entries = _choose(token, begin, targets[0], least_large(steps, 0.1), inf)
            rows[preset.name] = _Stages(
                policy=preset.policy, targets=targets, thresholds=(threshold,), entries=(entries,)
            )
    for stage in range(1, 1 + max(len(row.policy.masks) for row in rows.values())):
        members = {name: row for name, row in rows.items() if stage <= len(row.policy.masks)}
        curves = _recorded(members, steps, record)
        if stage == 1:
            rising = [name for name, row in members.items() if row.chosen(curves[name], inf)[0] > row.thresholds[0]]
            again = {name: rows[name].by_share(token) for name in rising}
            curves |= _recorded(again, steps, record)
            members |= again
        rows |= {name: row.then(curves[name]) for name, row in members.items()}
    policies |= {name: row.repaired(steps) for name, row in rows.items()}
    reached |= {name: tuple(map(median, row.entries)) for name, row in rows.items()}
    return Fitted(policies=policies, targets=wanted, reached=reached, prompts=prompts)


def _recorded(rows: Mapping[str, _Stages], steps: int, record: Record) -> dict[str, list[Curve]]:
    """Per row the distances of each prompt along a run that is in the next stage from its entry on."""
    if not rows:
        return {}
    programs: list[dict[str, Policy]] = []
    for prompt in range(len(next(iter(rows.values())).entries[0])):
        mine: dict[str, Policy] = {}
        for name, row in rows.items():
            entries = [found[prompt] for found in row.entries]
            end = _end(max(row.targets[len(entries)], entries[-1] + 1), steps)
            words = ["L", *(f"@{mask:g}" for mask in row.policy.masks[: len(entries)])]
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
