"""One request on its way: from the queue to a worker to its answer."""

import asyncio
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Literal

from .orders import Failed, Finished, Order, Partial, Picture

State = Literal["waiting", "drawing", "done", "failed", "stopped"]
OVER = ("done", "failed", "stopped")


@dataclass(slots=True, eq=False)
class Early:
    """A request that waits for the pair to be opened once, before it can be admitted.

    Attributes:
        since: when it came, in `monotonic` seconds.
        stopped: set when nobody wants it any more.
    """

    since: float
    stopped: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A request that was admitted.

    Attributes:
        order: what to draw.
        deadline: when nobody wants it any more, in `monotonic` seconds.
        predicted: seconds of drawing.
        rungs: of a request that leaves its speed to the server, its orders, closest first.
        events: partial pictures, and at last what became of it.
        state: where it is.
        failure: why there is no picture.
        pictures: what was drawn.
        created, begun, ended: when, in `monotonic` seconds.
        steps: drawn so far, of all its pictures.
        tries: workers that died of it, or over it.
        sent: partial pictures told of.
        point: which of `rungs` the server chose.
        timer: of its deadline.
    """

    order: Order
    deadline: float
    predicted: float
    rungs: tuple[Order, ...] = ()
    events: "asyncio.Queue[Partial | Finished | Failed]" = field(default_factory=asyncio.Queue)
    state: State = "waiting"
    failure: Failed | None = None
    pictures: tuple[Picture, ...] = ()
    created: float = field(default_factory=monotonic)
    begun: float | None = None
    ended: float | None = None
    steps: int = 0
    tries: int = 0
    sent: int = 0
    point: int | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def over(self) -> bool:
        """Whether it was answered."""
        return self.state in OVER

    def partial(self, said: Partial) -> None:
        """A picture on its way; one that a worker before this one had told of is left out."""
        if said.index >= self.sent and not self.over:
            self.sent = said.index + 1
            self.events.put_nowait(said)

    def finish(self, said: Finished) -> None:
        """It was drawn."""
        if not self.over:
            self.pictures, self.state = said.pictures, "done"
            self._end(said)

    def fail(self, said: Failed) -> None:
        """It will not be drawn."""
        if not self.over:
            self.failure = said
            self.state = "stopped" if said.reason == "stopped" else "failed"
            self._end(said)

    def lighten(self, traces: bool) -> None:
        """Let go of what nobody asks for once it was answered.

        Args:
            traces: keep who drew what.
        """
        self.rungs, self.order = (), replace(self.order, edit=None)
        self.pictures = tuple(replace(picture, file=b"") for picture in self.pictures) if traces else ()

    def _end(self, said: Finished | Failed) -> None:
        self.ended = monotonic()
        if self.timer is not None:
            self.timer.cancel()
        self.events.put_nowait(said)
