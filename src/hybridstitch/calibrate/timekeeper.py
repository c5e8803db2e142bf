"""How long the parts of a calibration took: each timed once and recorded, so that one that is resumed decides alike.

A part that was interrupted counts for as long as the rest of it took.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from .state import State

PRICES = "prices"  # the part before a search


@dataclass(slots=True)
class Timekeeper:
    """The time so far.

    Attributes:
        state: keeps what parts took.
        drawing: seconds of the parts of the search that are over.
    """

    state: State
    drawing: float = 0.0

    @property
    def used(self) -> float:
        """Seconds of all parts that are over."""
        return self.state.spent.get(PRICES, 0.0) + self.drawing

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of the search, unless that was recorded."""
        begin = perf_counter()
        yield
        if name not in self.state.spent:
            self.state.add_spent(name, perf_counter() - begin)
        self.drawing += self.state.spent[name]
