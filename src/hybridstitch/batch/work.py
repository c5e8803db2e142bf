"""Jobs done: draw, keep the pictures, write their rows. An error becomes a row, never a raised batch."""

import errno
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..disk import files as disk
from ..errors import HybridStitchError, in_one_line
from ..report.clip import encode_clip
from ..report.metadata import Metadata, drawn
from ..report.picture import encode
from .copies import Copy
from .folder import file_of, name_of
from .job import BatchSetting, Job
from .ledger import Ledger, ManifestRow

if TYPE_CHECKING:
    from ..report.takes import Take

Draw = Callable[[Sequence[Job]], "Sequence[Take]"]  # jobs that are alike, in one call
AttemptGroup = Sequence["Attempt"]  # drawn together
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no further picture can be kept either


class DeviceLost(HybridStitchError, RuntimeError):
    """A device that answers nothing any more, until the process that uses it has ended."""


class WorkerDied(HybridStitchError, RuntimeError):
    """A process that was killed while it drew; says how it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A job to do now.

    Attributes:
        id, job: what.
        number: 1, or more after an error.
        spared: tries before this one that failed for another reason than the job.
    """

    id: str
    job: Job
    number: int = 1
    spared: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an attempt.

    Attributes:
        attempt: what was to do.
        row: as in the manifest.
        files: by name what is still to be kept, and the row after it; None where that is done.
        spared: whether it failed for another reason than the job, and costs it no try.
        hopeless: why no other job can succeed now, or None.
    """

    attempt: Attempt
    row: ManifestRow
    files: Mapping[str, bytes] | None = None
    spared: bool = False
    hopeless: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A place to work, as it is sent to a process.

    Attributes:
        out: the folder.
        setting: of all jobs.
        device: of this desk.
        open: opens the pair on a device and gives what draws; can be pickled.
        modules: what opening imports; done once for all processes of a machine where that can be.
        sends: whether pictures and rows are handed back to the caller, who keeps them, as the folder is not in reach.
        copy: where pictures go as soon as they are kept, too.
    """

    out: Path
    setting: BatchSetting
    device: str
    open: Callable[[str], Draw]
    modules: tuple[str, ...] = ()
    sends: bool = False
    copy: Copy | None = None

    def worker(self) -> "Worker":
        """Somebody at this desk, with the pair opened."""
        return Worker(self, self.open(self.device))

    def recipe(self, job: Job, take: "Take", clip: str | None = None) -> Metadata:
        """How a picture was drawn, or a video, whose file's SHA-256 is `clip`."""
        return Metadata(
            prompt=job.prompt,
            negative=job.negative,
            pair=self.setting.pair,
            small=self.setting.small,
            models=self.setting.models,
            seed=job.seed,
            steps=job.steps,
            width=job.width,
            height=job.height,
            guidance=job.guidance,
            shift=job.shift,
            levels=job.levels,
            device=self.setting.device,
            dtype=self.setting.dtype,
            versions=self.setting.versions,
            frames=job.frames,
            fps=job.fps,
            clip=clip,
            kv=self.setting.kv,
            **drawn(take),
        )

    def error(self, attempt: Attempt, error: BaseException) -> ManifestRow:
        """The row of a try that failed."""
        return ManifestRow(
            id=attempt.id, status="error", job=attempt.job.to_json(), setting=self.setting.digest,
            attempts=attempt.number, error_class=type(error).__name__, message=in_one_line(error), device=self.device,
        )  # fmt: skip


class Worker:
    """Does one call after the other, and keeps a shard of the manifest."""

    def __init__(self, desk: Desk, draw: Draw) -> None:
        """At a desk, with what draws."""
        self.desk = desk
        self.draw = draw
        self.ledger = Ledger(desk.out)

    def do(self, call: AttemptGroup) -> list[Outcome]:
        """Draw pictures in one call, or say why not; where that fails, one by one, so that a bad job costs only itself.

        Args:
            call: of jobs that are alike.

        Raises:
            DeviceLost: no other call can succeed in this process.
        """
        if len(call) > 1:
            try:
                takes = self.draw([attempt.job for attempt in call])
            except Exception as error:
                check_device(error)
            else:
                return [self._do(attempt, lambda take=take: take) for attempt, take in zip(call, takes, strict=True)]
        return [self._do(attempt, partial(self._alone, attempt.job)) for attempt in call]

    def _alone(self, job: Job) -> "Take":
        (take,) = self.draw([job])
        return take

    def _do(self, attempt: Attempt, draw: "Callable[[], Take]") -> Outcome:
        try:
            files, row = self._drawn(attempt, draw())
        except Exception as error:  # whatever it is, the other jobs are not to blame
            check_device(error)
            files, row = {}, self.desk.error(attempt, error)
        outcome = Outcome(attempt=attempt, row=row, files=files)
        return outcome if self.desk.sends else keep(outcome, self.desk, self.ledger)

    def _drawn(self, attempt: Attempt, take: "Take") -> tuple[dict[str, bytes], ManifestRow]:
        desk, job = self.desk, attempt.job
        file = file_of(attempt.id, job)
        if take.clip:
            data = encode_clip(take.clip, take.fps, Path(file).suffix)
            recipe = desk.recipe(job, take, hashlib.sha256(data).hexdigest())
            files = {file: data, name_of(attempt.id): encode(take.image, recipe)}
        else:
            data = encode(take.image, desk.recipe(job, take))
            files = {file: data}
        return files, ManifestRow(
            id=attempt.id, status="done", job=job.to_json(), setting=desk.setting.digest, attempts=attempt.number,
            file=file, file_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(),
            seconds=take.seconds, denoise_seconds=take.trace.seconds, device=desk.device,
            flags=take.trace.flags if job.policy.adaptive else (),
        )  # fmt: skip


def keep(outcome: Outcome, desk: Desk, ledger: Ledger) -> Outcome:
    """Write what was drawn, and then its row; an error of that becomes its row.

    Args:
        outcome: with files.
        desk: where it was drawn, or where it is kept.
        ledger: takes the row.
    """
    row, hopeless = outcome.row, None
    try:
        for name, data in (outcome.files or {}).items():
            disk.keep(desk.out / name, data)
        if row.status == "done":
            ledger.add(row)
            if desk.copy is not None:
                desk.copy.try_to_send(outcome.files or {})
    except OSError as error:
        if error.errno in FULL:
            hopeless = f"{desk.out} takes no more pictures ({os.strerror(error.errno)})"
            error = OSError(hopeless)
        row = desk.error(outcome.attempt, error)
    if row.status != "done":
        with suppress(OSError):  # a full disk takes no row either; the caller still hears of it
            ledger.add(row)
    return replace(outcome, row=row, files=None, hopeless=hopeless)


def lost(
    desk: Desk, ledger: Ledger, call: AttemptGroup, error: DeviceLost | WorkerDied, *, spared: bool = True,
    hopeless: str | None = None,
) -> list[Outcome]:  # fmt: skip
    """What became of a call whose worker can do nothing any more.

    Args:
        desk: where it was.
        ledger: takes the rows.
        call: what it had in hand.
        error: what became of the worker.
        spared, hopeless: see `Outcome`.
    """
    outcomes = []
    for attempt in call:
        row = desk.error(attempt, error)
        with suppress(OSError):
            ledger.add(row)
        outcomes.append(Outcome(attempt=attempt, row=row, spared=spared, hopeless=hopeless))
    return outcomes


def check_device(error: Exception) -> None:
    """CUDA's errors stick to the process they happen in, but for a lack of memory.

    Raises:
        DeviceLost: it is such an error.
    """
    import torch

    said = str(error)
    if (isinstance(error, torch.AcceleratorError) or "CUDA error:" in said) and "out of memory" not in said:
        raise DeviceLost(f"its device no longer responds ({said.splitlines()[0]})") from error
