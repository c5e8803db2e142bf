"""What a worker draws with: an opened pair, and how it is opened; no torch."""

from collections.abc import Callable, Sequence
from typing import Protocol

from .orders import About, Order, Picture

OnStep = Callable[[Sequence[str]], None]  # ids of the orders that a step was drawn of
OnPartial = Callable[[str, int, bytes], None]


class Easel(Protocol):
    """An opened pair that carries orders out."""

    @property
    def about(self) -> About:
        """What it can draw."""
        ...

    def draw(self, orders: Sequence[Order], on_step: OnStep, on_partial: OnPartial) -> Sequence[Sequence[Picture]]:
        """Pictures of alike orders.

        Args:
            orders: one, or several that are alike.
            on_step: called after each step; what it raises ends the run.
            on_partial: called with each picture on the way.
        """
        ...

    def keep(self) -> Sequence[str]:
        """Remember what was drawn last and is to be; called once it was answered.

        Returns:
            what went wrong, for the log.
        """
        ...

    def rest(self) -> None:
        """Let go of memory that nothing needs, after a lack of it."""
        ...


class PairOpener(Protocol):
    """Opens a pair in a worker's process; can be pickled, without torch."""

    @property
    def modules(self) -> Sequence[str]:
        """What opening imports; done once for all workers where that can be."""
        ...

    def __call__(self, device: str | None) -> Easel:
        """Open it on a device, None for the best there is.

        Raises:
            HybridStitchError: it cannot be opened.
        """
        ...
