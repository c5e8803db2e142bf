"""What a served plan is compared with: for each rival candidates from slow to fast, at the same time as the plan.

Most rivals have one whole number that sets their time. A time between two of them is met by both: of each prompt the
scores are mixed so that the mean of their times is the plan's.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hybridstitch.calibrate.candidates import crowded
from hybridstitch.calibrate.compare import Score
from hybridstitch.calibrate.plans import Candidate
from hybridstitch.calibrate.table import PLAIN
from hybridstitch.policies.methods import HybridStitch, LargeOnly, Schedule, SmallOnly
from hybridstitch.policies.parse import parse
from hybridstitch.policies.presets import PRESETS, TABLE_1, TABLE_3
from hybridstitch.policies.skip import Skip
from hybridstitch.recipe import Recipe
from hybridstitch.reproduce.implied import shares

FACTORS = [part / 100 for part in range(1, 201)]
SAME = 0.01  # how far, in shares, two times may be apart and count as one


@dataclass(frozen=True, slots=True)
class Bracket:
    """Two candidates around a time, and the share of the second that meets it."""

    slower: Candidate
    faster: Candidate
    share: float

    def mixed(self, scores: Callable[[Candidate], Sequence[Score]], field: str) -> list[float]:
        """A score of each prompt that both drew, in order."""
        both = zip(scores(self.slower), scores(self.faster), strict=False)
        return [getattr(a, field) * (1 - self.share) + getattr(b, field) * self.share for a, b in both]


def rivals(recipe: Recipe, steps: int, cost: Callable[[Candidate], float]) -> dict[str, list[Candidate]]:
    """Of every rival candidates by price, dearest first.

    Args:
        recipe: whose search found the large model's best noise levels.
        steps: T of the reference.
        cost: seconds of a candidate.
    """
    found: dict[str, list[Candidate | None]] = {
        "fewer steps": [Candidate(LargeOnly(), count) for count in range(2, steps)],
        "fewer steps, searched levels": [*searched(recipe)],
        "skip": [Candidate(Skip(count, crowded(count, steps)), steps) for count in range(2, steps)],
        "small": [Candidate(SmallOnly(), count) for count in range(2, steps + 1)],
        "flowblending": [program(steps, (0.2, 0.65, 0.15), "LSL", f) for f in FACTORS],
        "region-adaptive": [Candidate(PRESETS["region-adaptive"].policy, count) for count in range(8, steps + 1)],
    }
    for preset in (*TABLE_1, *TABLE_3):
        if preset.name != "large":
            found[preset.name] = [row(preset.name, steps, factor) for factor in FACTORS]
    return {name: sorted(dict.fromkeys(filter(None, of)), key=lambda c: -cost(c)) for name, of in found.items()}


def searched(recipe: Recipe) -> list[Candidate]:
    """Plans of the large model alone that the search tried on most prompts: those that no faster one is closer than."""
    plain = [t for t in recipe.trials if t.kind in PLAIN]
    most = max(t.prompts for t in plain)
    kept, best = [], -1.0
    for trial in sorted((t for t in plain if t.prompts == most), key=lambda t: -t.speed):
        if trial.closeness > best:
            best = trial.closeness
            kept.append(Candidate(parse(trial.policy), trial.steps, trial.shift, trial.levels))
    return kept


def around(options: Sequence[Candidate], seconds: float, cost: Callable[[Candidate], float]) -> Bracket | None:
    """The two options around a time; None where none is as fast, or as slow.

    Args:
        options: dearest first.
        seconds: wanted.
        cost: of an option.
    """
    place = bisect_left(options, -seconds, key=lambda one: -cost(one))
    if not 0 < place < len(options):
        return None
    slower, faster = options[place - 1], options[place]
    for near in (faster, slower):
        if abs(cost(near) / seconds - 1) <= SAME:
            return Bracket(near, near, 0.0)
    return Bracket(slower, faster, (cost(slower) - seconds) / (cost(slower) - cost(faster)))


def fixed() -> Iterator[tuple[str, Candidate]]:
    """Presets with one price: they are compared at their own time."""
    for name, preset in PRESETS.items():
        if name.startswith("mini-") and not preset.policy.adaptive and preset.steps is not None:
            yield name, Candidate(preset.policy, preset.steps, preset.shift, preset.levels)


def row(name: str, steps: int, factor: float) -> Candidate | None:
    """A row of the paper as a program, its switches moved by one factor."""
    policy = PRESETS[name].policy
    base = name.removesuffix("-static").removesuffix("-full-large")
    switches = shares().get(base, (0.4,))
    if policy.name == "t-stitch":
        return program(steps, (switches[0], 1 - switches[0]), "SL", factor)
    parts = [b - a for a, b in pairwise((0.0, *switches, 1.0))]
    if not isinstance(policy, HybridStitch):
        return program(steps, parts, "LS", factor)
    words = ["L", *(f"H@{mask}" for mask in policy.masks), "S"]
    return program(
        steps, parts, words, factor, {"update_mask": policy.update_mask, "masked_compute": policy.masked_compute}
    )


def program(
    steps: int, parts: Sequence[float], words: Sequence[str], factor: float, options: Mapping[str, Any] | None = None
) -> Candidate | None:
    """Words for shares of the steps; all switches but an end of large steps are moved by one factor."""
    switches = [sum(parts[: place + 1]) * factor for place in range(len(parts) - 1)]
    if words == "LSL":  # both ends grow and shrink together
        switches = [parts[0] * factor, 1 - parts[2] * factor]
    ends = [0, *(min(round(share * steps), steps) for share in switches), steps]
    counts = [b - a for a, b in pairwise(ends)]
    if any(count < 0 for count in counts) or (words[0] == "L" and counts[0] < 2):
        return None
    said = [f"{w[0]}{count}{w[1:]}" for w, count in zip(words, counts, strict=True) if count]
    return Candidate(Schedule(" ".join(said), **(options or {})), steps) if len(said) > 1 else None
