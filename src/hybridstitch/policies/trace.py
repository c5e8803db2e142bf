"""What a run decided and measured: per step and image the plan, what was drawn, D (Eq. 9), tokens and seconds.

A trace is plain data. It saves to JSON, loads without torch, prints as a table, and `Trace.replay` asks a policy to
decide again from the recorded distances: the plans must be identical.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Self

from ..disk import files as disk
from ..errors import TraceError
from .plan import Plan, Region
from .seen import Decides, Seen

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of one image.

    Attributes:
        index: the step, 0 … T−1.
        image: the image's index in the batch.
        sigma: noise level of the latent that entered the step; None under schedulers without one.
        plan: what the policy decided.
        drawn: what was really drawn; differs from `plan` only where `fallback` says why.
        distance: D_i of Eq. 9 after this step; None where there is none.
        seconds: time the models took for this image (its share of a group's time).
        large_tokens: tokens of the picture that the large model drew.
        mask: those tokens' indices, ascending; None when it drew all or none.
        fallback: why `drawn` is not `plan`.
    """

    index: int
    image: int
    sigma: float | None
    plan: Plan
    drawn: Plan
    distance: float | None
    seconds: float
    large_tokens: int
    mask: tuple[int, ...] | None = None
    fallback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One run.

    Attributes:
        policy: the policy, as a string.
        steps: T, the planned number of steps (fewer are recorded after an interruption).
        images: B.
        grid: tokens along each axis of one image: rows and columns, of a video frames before them, of some one number.
        records: all steps of all images, in the order they ran.
        flags: what a user should know: "never left the large model", "left every stage at its first chance".
    """

    policy: str
    steps: int
    images: int
    grid: tuple[int, ...]
    records: tuple[Step, ...]
    flags: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """N, tokens of one image."""
        return prod(self.grid)

    @property
    def seconds(self) -> float:
        """Time the models took, all images together."""
        return sum(step.seconds for step in self.records)

    def of(self, image: int) -> tuple[Step, ...]:
        """The steps of one image, in order."""
        return tuple(step for step in self.records if step.image == image)

    def alone(self, image: int) -> Self:
        """The trace of one image by itself, as if it had been drawn alone; `noted` says its flags."""
        records = tuple(replace(step, image=0) for step in self.of(image))
        return replace(self, images=1, records=records, flags=())

    def plans(self, *, masks: bool = False) -> tuple[tuple[Plan, ...], ...]:
        """What was drawn, per image: ready for `methods.Replay`.

        Args:
            masks: name the recorded tokens instead of leaving the choice to the run.
        """
        return tuple(
            tuple(_with_mask(step) if masks else step.drawn for step in self.of(image)) for image in range(self.images)
        )

    def switches(self, image: int) -> tuple[int, ...]:
        """The steps at which an image entered stages 1, 2, …"""
        return tuple(b.index for a, b in pairwise(self.of(image)) if b.plan.stage > a.plan.stage)

    def replay(self, policy: Decides) -> tuple[tuple[Plan, ...], ...]:
        """Let a policy decide again from the recorded distances; needs no torch and draws nothing.

        Returns:
            per image the plans of the recorded steps. Equal to the recorded `plan`s when the policy is the run's.
        """
        decided = []
        for image in range(self.images):
            records, stage = self.of(image), 0
            plans: list[Plan] = []
            distances = tuple(step.distance for step in records)
            for index in range(len(records)):
                seen = Seen(
                    step=index,
                    steps=self.steps,
                    stage=stage,
                    distances=distances[:index],
                    image=image,
                    plans=tuple(plans),
                )
                plans.append(policy.decide(seen))
                stage = plans[-1].stage
            decided.append(tuple(plans))
        return tuple(decided)

    def notes(self, policy: Decides) -> tuple[str, ...]:
        """What a user of an adaptive policy should know: thresholds that never or always fire (SPEC §3).

        Args:
            policy: the run's.
        """
        of = getattr(policy, "of", policy)  # what a wrapper wraps
        if not getattr(of, "adaptive", False) or len(self.records) < self.steps * self.images:
            return ()
        zero = tuple(step if step.distance is None else replace(step, distance=0.0) for step in self.records)
        earliest = replace(self, records=zero).replay(policy)
        notes = []
        stuck = [image for image in range(self.images) if self.of(image)[-1].plan.stage == 0]
        if stuck:
            drawn = [s.distance for s in self.records if s.distance is not None and s.drawn.strokes]
            least = min(drawn, default=None)
            notes.append(
                f"never left the large model: image(s) {stuck}, smallest D {_number(least)}; raise the first threshold"
            )
        hasty = [
            image for image in range(self.images) if _stages(s.plan for s in self.of(image)) == _stages(earliest[image])
        ]
        if hasty:
            notes.append(
                f"left every stage at its first chance: image(s) {hasty}; the thresholds decide nothing here, lower "
                "them (the first steps change least under a shifted schedule)"
            )
        return tuple(notes)

    def noted(self, policy: Decides) -> Self:
        """The trace with its notes as flags.

        Args:
            policy: the run's.
        """
        return replace(self, flags=self.notes(policy))

    @property
    def fallbacks(self) -> dict[str, int]:
        """How many steps were not drawn as decided, by reason."""
        return dict(sorted(Counter(step.fallback for step in self.records if step.fallback is not None).items()))

    def summary(self) -> str:
        """A table: per image the stages with their steps, models, tokens, D and seconds."""
        lines = [f"{self.policy}: {self.images} image(s), {self.steps} steps, {self.tokens} tokens"]
        lines.append(
            f"{'image':>5} {'steps':>9} {'drew':<14} {'L tokens':>9} {'D first':>8} {'last':>8} {'seconds':>8}"
        )
        for image in range(self.images):
            for part in _stretches(self.of(image)):
                span = f"{part[0].index}-{part[-1].index}"
                share = sum(s.large_tokens for s in part) / (len(part) * self.tokens)
                lines.append(
                    f"{image:>5} {span:>9} {part[0].drawn!s:<14} {share:>9.0%} {_number(part[0].distance):>8} "
                    f"{_number(part[-1].distance):>8} {sum(s.seconds for s in part):>8.3f}"
                )
        lines += [f"fell back: {reason} ({count} step(s))" for reason, count in self.fallbacks.items()]
        lines += [f"note: {flag}" for flag in self.flags]
        return "\n".join(lines)

    def to_json(self, *, masks: bool = False) -> dict[str, Any]:
        """A JSON object that `Trace.from_json` reads back; masks only on request, they are long."""
        records = []
        for step in self.records:
            row = {f.name: getattr(step, f.name) for f in fields(step)}
            row["plan"], row["drawn"] = step.plan.to_json(), step.drawn.to_json()
            if not masks:
                del row["mask"]
            records.append(row)
        head = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "records"}
        return {"version": VERSION, **head, "records": records}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            TraceError: another version, or not a trace.
        """
        if data.get("version") != VERSION:
            raise TraceError(
                f"this trace has version {data.get('version')!r}, this release reads version {VERSION}; "
                "record it again, or install the release that wrote it"
            )
        try:
            records = tuple(
                Step(
                    **{
                        **row,
                        "plan": Plan.from_json(row["plan"]),
                        "drawn": Plan.from_json(row["drawn"]),
                        "mask": None if row.get("mask") is None else tuple(row["mask"]),
                    }
                )
                for row in data["records"]
            )
            return cls(
                policy=data["policy"],
                steps=data["steps"],
                images=data["images"],
                grid=tuple(map(int, data["grid"])),
                records=records,
                flags=tuple(data["flags"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TraceError(f"this is not a trace ({error}); write one with `trace.save(path)`") from error

    def save(self, path: str | Path, *, masks: bool = False) -> None:
        """Write the trace as JSON."""
        disk.keep(Path(path), json.dumps(self.to_json(masks=masks)).encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a saved trace.

        Raises:
            TraceError: the file is not JSON, not a trace, or of another version.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise TraceError(f"{path} is not JSON ({error}); write a trace with `trace.save(path)`") from error
        if not isinstance(data, dict):
            raise TraceError(f"{path} holds no trace; write one with `trace.save(path)`")
        return cls.from_json(data)


def _with_mask(step: Step) -> Plan:
    if step.mask is None:
        return step.drawn
    strokes = tuple(
        s if s.region.everywhere else replace(s, region=Region(s.region.ratio, tokens=step.mask))
        for s in step.drawn.strokes
    )
    return Plan(strokes, step.drawn.stage)


def _stretches(steps: Sequence[Step]) -> list[list[Step]]:
    """Consecutive steps that drew the same way."""
    parts: list[list[Step]] = []
    for step in steps:
        if parts and parts[-1][0].drawn == step.drawn:
            parts[-1].append(step)
        else:
            parts.append([step])
    return parts


def _stages(plans: Iterable[Plan]) -> tuple[int, ...]:
    return tuple(plan.stage for plan in plans)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
