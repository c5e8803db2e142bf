"""What was drawn, timed and scored, read from the folder: all that tables, figures and the report look at."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import median
from typing import Any

import numpy as np

from ..evaluate.scores import Scores
from ..measure.price import Prices
from ..policies.policy import Policy
from .lines import CsvRow
from .methods import Method
from .raw import Rows
from .settings import Settings


def middle(steps: Sequence[int]) -> str:
    """Median and quartiles as text, of at least one."""
    low, median_step, high = np.quantile(steps, (0.25, 0.5, 0.75))
    return f"{median_step:g} ({low:.0f}-{high:.0f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A result folder.

    Attributes:
        settings: what was asked for.
        methods: every row that can be drawn, in the order of the tables.
        policies: those with thresholds of this pair, by row; empty where the paper's are used.
        prices: of strokes on this machine.
        rows: of raw.csv, by (method, image).
        times: of latency.csv, by (method, image).
        scores: by method and metric; of the methods of the last command.
    """

    settings: Settings
    methods: Sequence[Method]
    policies: Mapping[str, Policy]
    prices: Prices
    rows: Rows
    times: Mapping[tuple[str, int], CsvRow]
    scores: Mapping[str, Mapping[str, Scores]] = field(default_factory=dict)

    def of(self, method: str) -> list[CsvRow]:
        """The rows of a method's n pictures, in order; empty where one is missing."""
        found = [self.rows.get((method, image)) for image in range(self.settings.n)]
        return [row for row in found if row is not None] if None not in found else []

    def values(self, method: str, column: str) -> list[float]:
        """A column of a method's rows as numbers."""
        return [float(row[column]) for row in self.of(method)]

    def switches(self, method: str) -> list[tuple[int, ...]]:
        """Per picture the steps at which stages began."""
        return [tuple(map(int, filter(None, row["switches"].split("/")))) for row in self.of(method)]

    def switched(self, method: str) -> list[tuple[int, ...]]:
        """Per switch the steps at which pictures made it, in order; T for those that never did."""
        return [*zip_longest(*self.switches(method), fillvalue=self.settings.steps)]

    def seconds(self, method: str, column: str = "denoising_seconds") -> list[float]:
        """Timed calls of a method, per prompt."""
        return [float(row[column]) for (name, _), row in sorted(self.times.items()) if name == method]

    def dense(self, method: str) -> float:
        """Mean time of the denoising loop by the cost model, in dense steps of the large model."""
        costs = self.values(method, "cost")
        return sum(costs) / len(costs)

    def speedup(self, method: str) -> float | None:
        """Median seconds of the large model's loop over those of this method's; None where nothing was timed."""
        large, mine = self.seconds("large"), self.seconds(method)
        return median(large) / median(mine) if large and mine else None


def read_times(settings: Settings) -> dict[tuple[str, int], CsvRow]:
    """The rows of latency.csv by (method, image); the last of twins counts."""
    import csv
    import io

    try:
        text = settings.latency.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    found: dict[tuple[str, int], CsvRow] = {}
    for row in csv.DictReader(io.StringIO(text, newline="")):
        if None not in row and all(row.values()):
            found[row["method"], int(row["image"])] = row
    return found


def saved(settings: Settings, name: str) -> Any:
    """What a JSON file of the folder holds, or None without one."""
    path = settings.out / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
