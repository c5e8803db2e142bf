"""Time and disk of a batch before it is drawn, from pictures of the same kind that were timed.

A kind of job is its policy, steps, size and whether it is guided: within a kind an adaptive policy's pictures differ
by the steps it chooses, and the median stands for them. Kinds without a timed picture take the median seconds a
step·pixel and bytes a pixel of those that have one, and are counted as guessed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .job import Job
from .ledger import ManifestRow


@dataclass(frozen=True, slots=True)
class Kind:
    """Jobs that take about the same time."""

    policy: str
    steps: int
    width: int
    height: int
    guided: bool
    frames: int = 1

    @property
    def pixels(self) -> int:
        """Of all frames."""
        return self.width * self.height * self.frames

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> "Kind":
        """Of a job's JSON."""
        frames = job.get("frames") or 1
        return cls(job["policy"], job["steps"], job["width"], job["height"], job["guidance"] > 1, frames)


@dataclass(frozen=True, slots=True)
class Sample:
    """One timed picture: seconds from the prompt to the picture, and bytes of its file."""

    kind: Kind
    seconds: float
    file_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a batch will take.

    Attributes:
        seconds: on all devices at once, opening the pair left out.
        bytes: of all pictures.
        samples: timed pictures it rests on.
        guessed: jobs of kinds that none of them is of.
    """

    seconds: float
    bytes: int
    samples: int
    guessed: int


def earlier(rows: Iterable[ManifestRow], setting: str) -> list[Sample]:
    """Pictures drawn before in the same setting.

    Args:
        rows: of the manifest.
        setting: `BatchSetting.digest`.
    """
    return [
        Sample(Kind.of(row.job), row.seconds, row.file_bytes)
        for row in rows
        if row.status == "done" and row.setting == setting and row.seconds is not None and row.file_bytes is not None
    ]


def unknown(jobs: Iterable[Job], samples: Iterable[Sample]) -> list[Job]:
    """A job of each kind that no sample is of, in order."""
    known = {sample.kind for sample in samples}
    firsts: dict[Kind, Job] = {}
    for job in jobs:
        firsts.setdefault(Kind.of(job.to_json()), job)
    return [job for kind, job in firsts.items() if kind not in known]


def predict(jobs: Sequence[Job], samples: Sequence[Sample], devices: int) -> Estimate:
    """Time and disk of jobs.

    Args:
        jobs: still to draw.
        samples: at least one, unless there is no job.
        devices: that share the work.
    """
    kinds = [Kind.of(job.to_json()) for job in jobs]
    seconds = size = 0.0
    guessed = 0
    for kind, count in Counter(kinds).items():
        same = [sample for sample in samples if sample.kind == kind]
        guessed += 0 if same else count
        pixels = kind.pixels
        if same:
            seconds += count * median(s.seconds for s in same)
            size += count * median(s.file_bytes for s in same)
        else:
            area = [(s, s.kind.pixels) for s in samples]
            seconds += count * median(s.seconds / (a * s.kind.steps) for s, a in area) * pixels * kind.steps
            size += count * median(s.file_bytes / a for s, a in area) * pixels
    turns = max(devices, 1)
    return Estimate(
        seconds=seconds / min(turns, max(len(kinds), 1)), bytes=round(size), samples=len(samples), guessed=guessed
    )
