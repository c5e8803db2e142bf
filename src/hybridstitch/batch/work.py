"""One job done: draw, keep the picture, write its row. An error becomes a row, never a raised batch."""

import errno
import hashlib
import io
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL.PngImagePlugin import PngInfo

from ..disk import files as disk
from ..report.picture import CHUNK, Recipe, pixel_digest, trace_digest
from .folder import name_of
from .job import BatchSetting, Job
from .ledger import Ledger, ManifestRow

if TYPE_CHECKING:
    from PIL import Image

    from ..report.takes import Take

Draw = Callable[[Job], "Take"]
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no further picture can be kept either


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A job to do now.

    Attributes:
        id, job: what.
        attempt: 1, or more after an error.
    """

    id: str
    job: Job
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a task.

    Attributes:
        task: what was to do.
        row: as in the manifest.
        hopeless: why no other task can succeed now, or None.
    """

    task: Task
    row: ManifestRow
    hopeless: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A place to work, as it is sent to a process.

    Attributes:
        out: the folder.
        setting: of all jobs.
        device: of this desk.
        open: opens the pair on a device and gives what draws; can be pickled.
    """

    out: Path
    setting: BatchSetting
    device: str
    open: Callable[[str], Draw]

    def worker(self) -> "Worker":
        """Somebody at this desk, with the pair opened."""
        return Worker(self, self.open(self.device))

    def recipe(self, job: Job, take: "Take") -> Recipe:
        """How a picture was drawn."""
        return Recipe(
            prompt=job.prompt,
            negative=job.negative,
            pair=self.setting.pair,
            small=self.setting.small,
            models=self.setting.models,
            policy=take.trace.policy,
            seed=job.seed,
            steps=job.steps,
            width=job.width,
            height=job.height,
            guidance=job.guidance,
            device=self.setting.device,
            dtype=self.setting.dtype,
            versions=self.setting.versions,
            trace=trace_digest(take.trace),
            pixels=pixel_digest(take.image),
        )

    def error(self, task: Task, kind: str, message: str) -> ManifestRow:
        """The row of a try that failed."""
        return ManifestRow(
            id=task.id, status="error", job=task.job.to_json(), setting=self.setting.digest, attempts=task.attempt,
            error_class=kind, message=message, device=self.device,
        )  # fmt: skip


class Worker:
    """Does one task after the other, and keeps a shard of the manifest."""

    def __init__(self, desk: Desk, draw: Draw) -> None:
        """At a desk, with what draws."""
        self.desk = desk
        self.draw = draw
        self.ledger = Ledger(desk.out)

    def do(self, task: Task) -> Outcome:
        """Draw a picture, or say why not."""
        hopeless = None
        try:
            row = self._draw(task)
        except Exception as error:  # whatever it is, the other jobs are not to blame
            first = " ".join(str(error).split()) or "no message"
            if isinstance(error, OSError) and error.errno in FULL:
                first = hopeless = f"{self.desk.out} takes no more pictures ({os.strerror(error.errno)})"
            row = self.desk.error(task, type(error).__name__, first)
            with suppress(OSError):  # a full disk takes no row either; the caller still hears of it
                self.ledger.add(row)
        return Outcome(task=task, row=row, hopeless=hopeless)

    def _draw(self, task: Task) -> ManifestRow:
        desk, job = self.desk, task.job
        take = self.draw(job)
        data = encode(take.image, desk.recipe(job, take))
        disk.keep(desk.out / name_of(task.id), data)
        row = ManifestRow(
            id=task.id, status="done", job=job.to_json(), setting=desk.setting.digest, attempts=task.attempt,
            file=name_of(task.id), file_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(),
            seconds=take.seconds, denoise_seconds=take.trace.seconds, device=desk.device,
            flags=take.trace.flags if job.policy.adaptive else (),
        )  # fmt: skip
        self.ledger.add(row)
        return row


def encode(image: "Image.Image", recipe: Recipe) -> bytes:
    """A PNG that says how it was drawn, as `picture.write` writes it."""
    info = PngInfo()
    info.add_text("parameters", recipe.parameters)
    info.add_text(CHUNK, json.dumps(recipe.to_json(), ensure_ascii=True))
    file = io.BytesIO()
    image.save(file, format="PNG", pnginfo=info)
    return file.getvalue()
