"""What a calibration has done so far, in one file of JSON lines, so that a killed one goes on where it stopped.

The first line says what is calibrated. A file of another calibration is put beside, under a name of its own, and taken
up again when that calibration goes on. A line that a kill cut short is done again. Times are lines too: with them
recorded, the same seed gives the same recipe.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..disk import files as disk
from ..disk.lock import LOCK, alone
from ..measure.price import Prices
from ..report.picture import encode
from .compare import Score
from .conditions import Picture

VERSION = 1
Key = tuple[int, int, str]  # prompt, steps, policy with its noise levels


@contextmanager
def state_of(path: Path | None, of: dict[str, Any]) -> Iterator["State"]:
    """The state of a calibration, nobody else calibrating in its folder.

    Args:
        path: of the file; None keeps nothing.
        of: what is calibrated, as a JSON object.

    Raises:
        BusyError: somebody else does.
    """
    if path is None:
        yield State(None, of)
        return
    with alone(path.parent, "another calibration"):
        try:
            yield State(path, of)
        finally:  # still held: a user's folder keeps the recipe only
            with suppress(OSError):
                (path.parent / LOCK).unlink()


class State:
    """Results by what they are of, kept in memory and, if there is a path, on the disk.

    Attributes:
        prices: of this machine, once measured.
        shares: f(M) by prompt.
        references: the large model's pictures by prompt.
        scores: by prompt, steps and policy.
        timed: seconds of real calls, at one pace of the machine, by steps and policy and the turn they were timed in.
        spent: wall seconds of the parts of the search that are over, by name.
    """

    def __init__(self, path: Path | None, of: dict[str, Any]) -> None:
        """Read what there is.

        Args:
            path: of the file; None keeps nothing.
            of: what is calibrated, as a JSON object.
        """
        self.prices: Prices | None = None
        self.shares: dict[int, dict[str, float]] = {}
        self.references: dict[int, Picture] = {}
        self.scores: dict[Key, Score] = {}
        self.timed: dict[tuple[int, str], dict[int, float]] = {}
        self.spent: dict[str, float] = {}
        self._path = path
        if path is None:
            return
        head = _line({"version": VERSION, "of": of})
        _claim(path, head)
        before = path.read_bytes() if path.is_file() else b""
        lines = _whole(before) or [head]
        if before != (whole := b"".join(lines)):
            disk.keep(path, whole)  # begun, or without the line that was cut short
        for line in lines[1:]:
            self._take(json.loads(line))

    def set_prices(self, prices: Prices) -> None:
        """The prices were measured."""
        self._keep({"prices": prices.to_json()})

    def add_shares(self, prompt: int, shares: dict[str, float]) -> None:
        """f(M) of a prompt was measured."""
        self._keep({"shares": [prompt, shares]})

    def add_scores(self, scores: list[Score], reference: tuple[int, Picture] | None) -> None:
        """A comparison was done.

        Args:
            scores: of it.
            reference: the prompt and the large model's picture of it, where this one drew it.
        """
        line: dict[str, Any] = {"scores": [score.to_json() for score in scores]}
        if reference is not None:
            png = encode(Image.fromarray(reference[1]))
            line["reference"] = [reference[0], base64.b64encode(png).decode()]
        self._keep(line)

    def add_time(self, steps: int, policy: str, turn: int, seconds: float) -> None:
        """A real call was timed in this turn."""
        self._keep({"timed": [steps, policy, seconds, turn]})

    def add_spent(self, part: str, seconds: float) -> None:
        """A part of the search is over."""
        self._keep({"spent": [part, seconds]})

    def _keep(self, data: dict[str, Any]) -> None:
        line = _line(data)
        self._take(json.loads(line))  # as it will be read
        if self._path is not None:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                disk.append(descriptor, line)
            finally:
                os.close(descriptor)

    def _take(self, line: dict[str, Any]) -> None:
        if "prices" in line:
            self.prices = Prices.from_json(line["prices"])
        if "shares" in line:
            self.shares[line["shares"][0]] = line["shares"][1]
        if "reference" in line:
            prompt, png = line["reference"]
            self.references[prompt] = np.array(Image.open(BytesIO(base64.b64decode(png))).convert("RGB"))
        for row in line.get("scores", ()):
            known = {f.name: row[f.name] for f in fields(Score) if f.name in row}
            levels = None if row.get("levels") is None else tuple(row["levels"])
            score = Score(**{**known, "distances": tuple(row["distances"]), "levels": levels})
            self.scores[score.prompt, score.steps, score.text] = score
        if "spent" in line:
            part, seconds = line["spent"]
            self.spent[part] = seconds
        if "timed" in line:
            steps, policy, seconds, *turn = line["timed"]
            found = self.timed.setdefault((steps, policy), {})
            found[turn[0] if turn else len(found)] = seconds  # files of release 0.1 name no turn: they are in order


def _claim(path: Path, head: bytes) -> None:
    """Put the state with this head, if there is one, under `path`, and another's under a name of its own."""
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            first = file.readline()
        if first != head:
            disk.rename(path, _beside(path, first))
    own = _beside(path, head)
    if own.is_file() and not path.is_file():
        disk.rename(own, path)


def _beside(path: Path, head: bytes) -> Path:
    """Where a state with this head waits while another one has `path`."""
    return path.with_name(f"{path.stem}-{hashlib.sha256(head).hexdigest()[:8]}{path.suffix}")


def _whole(data: bytes) -> list[bytes]:
    """The whole lines of a file, up to the first that is no JSON object."""
    found = []
    for line in data.splitlines(keepends=True):
        try:
            whole = line.endswith(b"\n") and isinstance(json.loads(line), dict)
        except ValueError:
            break
        if not whole:
            break
        found.append(line)
    return found


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"
