"""The manifest: what became of each try of each job, one JSON row a line.

Each worker writes a shard of its own, DIR/manifest/<time>-<random>.jsonl, and never one that is there. A kill may tear
the last line of a shard; such a line says nothing, and nothing is ever written behind it.
"""

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..disk import files as disk
from .job import JobsError

FOLDER = "manifest"


def now() -> str:
    """This moment, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One try of one job.

    Attributes:
        id: of the job.
        status: "done" or "error".
        job: what was to be drawn.
        setting: `BatchSetting.digest`.
        attempts: tries so far in that run, this one included.
        file, file_bytes, sha256: the picture's name, size and hash; None after an error.
        seconds: from the prompt to the picture; None where it was found, not drawn.
        denoise_seconds: of the models' steps.
        flags: what a user should know of an adaptive run, see `Trace.flags`.
        error_class, message: what went wrong.
        device: that drew it.
        at: when the row was written, UTC.
    """

    id: str
    status: str
    job: Mapping[str, Any]
    setting: str
    attempts: int = 1
    file: str | None = None
    file_bytes: int | None = None
    sha256: str | None = None
    seconds: float | None = None
    denoise_seconds: float | None = None
    flags: Sequence[str] = ()
    error_class: str | None = None
    message: str | None = None
    device: str = ""
    at: str = field(default_factory=now)

    def line(self) -> bytes:
        """One line of a shard."""
        shown = {key: value for key, value in asdict(self).items() if value is not None and value != ()}
        return json.dumps(shown, ensure_ascii=True).encode() + b"\n"


class Ledger:
    """A shard being written, made at its first row."""

    def __init__(self, out: Path) -> None:
        """A shard below `out`."""
        self.folder = out / FOLDER
        self._file: int | None = None

    def add(self, row: ManifestRow) -> None:
        """Write a row, to the disk.

        Raises:
            OSError: it could not be written; the next row begins another shard, behind no torn line.
        """
        try:
            if self._file is None:
                self._file = self._begin()
            disk.append(self._file, row.line())
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """End the shard."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _begin(self) -> int:
        self.folder.mkdir(exist_ok=True)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}.jsonl"
        file = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        disk.settle_folder(self.folder)
        return file


def read(out: Path) -> tuple[list[ManifestRow], int]:
    """All rows below a folder, shard by shard, and how many lines are damaged (a torn last one is not counted).

    Raises:
        JobsError: a shard cannot be read.
    """
    known = {f.name for f in fields(ManifestRow)}
    rows: list[ManifestRow] = []
    damaged = 0
    for shard in sorted((out / FOLDER).glob("*.jsonl")):
        try:
            *lines, _torn = shard.read_bytes().split(b"\n")
        except OSError as error:
            raise JobsError(f"{shard} cannot be read ({error.strerror}); fix its permissions, or remove it") from error
        for line in filter(None, lines):
            try:
                row = json.loads(line)
                rows.append(ManifestRow(**{key: value for key, value in row.items() if key in known}))
            except (ValueError, TypeError, AttributeError):
                damaged += 1
    return rows, damaged
