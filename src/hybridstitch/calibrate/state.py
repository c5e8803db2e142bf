"""What a calibration has done so far, in one file of JSON lines, so that a killed one goes on where it stopped.

The first line says what is calibrated; a file of something else is begun anew. A line that a kill cut short is done
again. Times are lines too: with them recorded, the same seed gives the same recipe.
"""

import base64
import json
import os
from dataclasses import fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..measure.price import Prices
from ..report.picture import encode
from .call import Picture
from .drawing import Score

VERSION = 1
Key = tuple[int, int, str]  # prompt, steps, policy


class State:
    """Results by what they are of, kept in memory and, if there is a path, on the disk.

    Attributes:
        prices: of this machine, once measured.
        shares: f(M) by prompt.
        references: the large model's pictures by prompt.
        scores: by prompt, steps and policy.
        timed: seconds of real calls by steps and policy, at one pace of the machine.
        resumed: whether anything was found.
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
        self.timed: dict[tuple[int, str], list[float]] = {}
        self._path = path
        head = {"version": VERSION, "of": json.loads(json.dumps(of))}
        lines = _lines(path)
        self.resumed = bool(lines) and lines[0] == head and len(lines) > 1
        if path is None:
            return
        if not lines or lines[0] != head:
            path.write_text("", encoding="utf-8")
            self._append(head)
            return
        whole = "".join(json.dumps(line) + "\n" for line in lines)
        path.write_text(whole, encoding="utf-8")  # without the line that was cut short
        for line in lines[1:]:
            self._take(line)

    def set_prices(self, prices: Prices) -> None:
        """The prices were measured."""
        self._keep({"prices": prices.to_json()})

    def add_shares(self, prompt: int, shares: dict[str, float]) -> None:
        """f(M) of a prompt was measured."""
        self._keep({"shares": [prompt, shares]})

    def add_scores(self, scores: list[Score], reference: tuple[int, Picture] | None) -> None:
        """A task was done.

        Args:
            scores: of it.
            reference: the prompt and the large model's picture of it, where the task drew it.
        """
        line: dict[str, Any] = {"scores": [score.to_json() for score in scores]}
        if reference is not None:
            png = encode(Image.fromarray(reference[1]))
            line["reference"] = [reference[0], base64.b64encode(png).decode()]
        self._keep(line)

    def add_time(self, steps: int, policy: str, seconds: float) -> None:
        """A real call was timed."""
        self._keep({"timed": [steps, policy, seconds]})

    def _keep(self, line: dict[str, Any]) -> None:
        line = json.loads(json.dumps(line))  # as it will be read
        self._take(line)
        if self._path is not None:
            self._append(line)

    def _append(self, line: dict[str, Any]) -> None:
        assert self._path is not None
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _take(self, line: dict[str, Any]) -> None:
        if "prices" in line:
            self.prices = Prices.from_json(line["prices"])
        if "shares" in line:
            self.shares[line["shares"][0]] = line["shares"][1]
        if "reference" in line:
            prompt, png = line["reference"]
            self.references[prompt] = np.array(Image.open(BytesIO(base64.b64decode(png))).convert("RGB"))
        for row in line.get("scores", ()):
            known = {f.name: row[f.name] for f in fields(Score)}
            score = Score(**{**known, "distances": tuple(row["distances"])})
            self.scores[score.prompt, score.steps, score.policy] = score
        if "timed" in line:
            steps, policy, seconds = line["timed"]
            self.timed.setdefault((steps, policy), []).append(seconds)


def _lines(path: Path | None) -> list[dict[str, Any]]:
    """The whole lines of a file, up to the first that is none."""
    if path is None or not path.is_file():
        return []
    found = []
    for line in path.read_bytes().split(b"\n"):
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return [line for line in found if isinstance(line, dict)]
