"""Scores that an earlier run drew: pixels do not depend on the clock, so they need not be drawn again."""

import csv
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from hybridstitch.calibrate.compare import Score
from hybridstitch.calibrate.plans import Candidate
from hybridstitch.policies.parse import parse


def known(path: Path, prompts: Collection[int], cost: Callable[[Candidate], float]) -> Iterator[Score]:
    """Of these prompts, what does not decide as it draws; distances are not known.

    Args:
        path: raw.csv of that run.
        prompts: by number.
        cost: seconds of a candidate, now.
    """
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            one = plan(row["plan"], int(row["steps"]))
            if int(row["prompt"]) in prompts and not one.policy.adaptive:
                yield Score(
                    prompt=int(row["prompt"]),
                    steps=one.steps,
                    policy=str(one.policy),
                    closeness=float(row["closeness"]),
                    psnr=float(row["psnr"]),
                    seconds=cost(one),
                    distances=(),
                    shift=one.shift,
                    levels=one.levels,
                )


def plan(text: str, steps: int) -> Candidate:
    """A candidate by its `text`."""
    policy, _, noise = text.partition(" at ")
    if noise.startswith("shift "):
        return Candidate(parse(policy), steps, float(noise.removeprefix("shift ")))
    return Candidate(parse(policy), steps, None, tuple(map(float, noise.split("/"))) if noise else None)
