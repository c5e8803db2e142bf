"""What a reproduction says while it works."""

from collections.abc import Callable
from time import monotonic


class Lines:
    """Progress as lines, one at most every few seconds, with the time that is left."""

    def __init__(self, note: Callable[[str], None], every_seconds: float = 15.0) -> None:
        """Tell by a function that writes a line."""
        self.note = note
        self._every = every_seconds
        self._what, self._start, self._last = "", monotonic(), monotonic()

    def begin(self, what: str, total: int) -> None:
        """A part of the work begins."""
        self._what = what
        self._start = self._last = monotonic()
        if total:
            self.note(f"{what}: {total}")

    def done(self, count: int, total: int) -> None:
        """So much of it is done."""
        now = monotonic()
        if now - self._last < self._every and count < total:
            return
        self._last = now
        left = (now - self._start) / max(count, 1) * (total - count)
        self.note(f"{self._what}: {count} of {total}" + (f", about {left / 60:.0f} min left" if left > 30 else ""))
