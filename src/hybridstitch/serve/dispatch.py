"""Who waits, who draws, who is refused.

A request is admitted when the seconds it would wait, by the forecast, are few enough; else it is refused at once, with
the seconds after which it would not be. Workers take requests in order. What a worker had in hand when it died is drawn
again, once.
"""

import asyncio
import heapq
import logging
from collections import OrderedDict, deque
from collections.abc import Sequence
from time import monotonic
from typing import Any

from ..recipe import Recipe
from .easel import PairOpener
from .errors import ANSWERS, Refusal
from .forecast import Forecast, Priced
from .logs import note
from .meters import Meters
from .orders import About, Failed, Finished, Partial, Reason, StepDrawn
from .pace import choose
from .settings import ServeSettings
from .stations import Station, Stations
from .ticket import Early, Ticket

KEPT, KEPT_TRACES = 256, 32  # tickets that can still be asked for, and those of them with their traces
STOPPED = "it was stopped by DELETE /v1/requests"
TRIES = 2  # workers that may die over a request


class Dispatch:
    """The queue, and the workers that empty it.

    Attributes:
        about: what the pair is, None until it was opened once.
        forecast: of seconds, then.
        draining: whether the server is shutting down.
        tickets: by id, the last ones.
        waiting: in order.
        once: set when the pair was opened once, or will not be any more.
        early: requests that wait for that, by id, in order.
        stations: the workers.
    """

    def __init__(
        self,
        opener: PairOpener,
        devices: Sequence[str | None],
        settings: ServeSettings,
        meters: Meters,
        recipe: Recipe | None = None,
    ) -> None:
        """Prepare; `stations.start` begins the workers.

        Args:
            opener: opens the pair.
            devices: one worker each; (None,) for all there are.
            settings: of the server.
            meters: count.
            recipe: of the pair.
        """
        self.about: About | None = None
        self.forecast: Forecast | None = None
        self.draining = False
        self.tickets: OrderedDict[str, Ticket] = OrderedDict()
        self.waiting: deque[Ticket] = deque()
        self.once = asyncio.Event()
        self.early: dict[str, Early] = {}
        self.stations = Stations(opener, devices, self, meters, settings.stuck_seconds)
        self._settings, self._meters, self._recipe = settings, meters, recipe

    @property
    def ready(self) -> bool:
        """Whether a request would be drawn now."""
        return not self.draining and self.stations.ready > 0

    def wait_seconds(self, ahead: Sequence[Ticket]) -> float:
        """Predicted seconds until a worker has drawn what is ahead."""
        free = self.stations.seconds()
        heapq.heapify(free)
        for ticket in ahead:
            heapq.heappush(free, heapq.heappop(free) + ticket.predicted)
        return free[0]

    def place(self, ticket: Ticket) -> int:
        """How many requests are before this one, itself counted; 0 when it does not wait."""
        return self.waiting.index(ticket) + 1 if ticket in self.waiting else 0

    def knows(self, key: str) -> bool:
        """Whether a request with this id can be asked about."""
        return key in self.early or key in self.tickets

    def check_id(self, key: str) -> None:
        """Refuse an id that cannot be given to another request.

        Raises:
            Refusal: it is in use.
        """
        known = self.tickets.get(key)
        if key in self.early or (known is not None and not _may_come_again(known)):
            raise Refusal(409, f"a request {key} is known already; choose another id", "id_in_use", again=False)

    def admit(self, ticket: Ticket) -> None:
        """Take a request into the queue.

        Raises:
            Refusal: it would wait too long, or its id is in use.
        """
        self.check_id(ticket.order.id)
        if self.draining:
            raise Refusal(503, "the server is shutting down", "draining", retry_after=self.stations.opening_seconds)
        wait, left = self.wait_seconds(self.waiting), ticket.deadline - monotonic()
        if ticket.predicted > left:
            raise Refusal(
                422, f"drawing takes about {ticket.predicted:.1f} s and the timeout is {left:.1f} s; allow more, or "
                "ask for fewer steps or pictures, a smaller size or a higher speed", "timeout_too_short",
                param="timeout",
            )  # fmt: skip
        late = max(wait - self._settings.max_wait_seconds, wait + ticket.predicted - left)
        if late > 0 or len(self.waiting) >= self._settings.max_waiting:
            raise Refusal(
                429, f"{len(self.waiting)} requests wait, this one would begin in about {wait:.1f} s; try again later",
                "queue_full", retry_after=max(late, self.wait_seconds(())),
            )  # fmt: skip
        self._remember(ticket)
        self.waiting.append(ticket)
        late = "deadline", "its timeout passed"
        ticket.timer = asyncio.get_running_loop().call_later(left, self.give_up, ticket, *late)
        self.go_on()

    def give_up(self, ticket: Ticket, reason: Reason, message: str) -> None:
        """Nobody wants a request any more; the run stops within one step."""
        if ticket.over:
            return
        self._failed(ticket, Failed(ticket.order.id, reason, message))
        if ticket in self.waiting:
            self.waiting.remove(ticket)
            self.go_on()
        else:
            self.stations.stop(ticket)

    async def drain(self, seconds: float) -> None:
        """Draw what was admitted, for so long; the rest fails."""
        self.draining = True
        self.once.set()  # whoever waits for the pair to be opened hears of it
        end = monotonic() + seconds
        while monotonic() < end and any(not ticket.over for ticket in self.tickets.values()):
            await asyncio.sleep(0.02)
        for ticket in list(self.tickets.values()):
            self.give_up(ticket, "draining", "the server ended before this picture was drawn")

    # --- as `stations.Audience` ---

    def opened(self, about: About) -> None:
        """The pair is known from the first time on."""
        if self.about is None:
            self.about = about
            self.forecast = Forecast(Priced(about.prices, about.size[0] * about.size[1]), self._recipe)
            self.once.set()

    def hear(self, station: Station, said: Any) -> None:
        """A worker says something of an order."""
        ticket = self.tickets.get(said.id)
        if ticket is None or ticket.over:
            return
        match said:
            case StepDrawn(_, steps):
                ticket.steps = steps
            case Partial():
                ticket.partial(said)
            case Finished():
                ticket.finish(said)
                alone = len(station.tickets) == 1 and not any(picture.start for picture in said.pictures)
                if self.forecast is not None and ticket.begun is not None and alone:
                    self.forecast.learn(ticket.order, monotonic() - ticket.begun)
                self._meters.finished(ticket)
            case _:
                self._failed(ticket, said)

    def lost(self, tickets: Sequence[Ticket], how: str) -> None:
        """A worker died over these."""
        for ticket in reversed([ticket for ticket in tickets if not ticket.over]):
            ticket.tries += 1
            if ticket.tries < TRIES:
                ticket.state, ticket.begun, ticket.steps = "waiting", None, 0
                self.waiting.appendleft(ticket)
            else:
                self._failed(ticket, Failed(ticket.order.id, "died", f"two workers died over it, one with {how}"))

    def go_on(self) -> None:
        """Give idle workers what waits."""
        for station in self.stations:
            if station.open and not station.tickets and self.waiting:
                tickets = self._next()
                for ticket in tickets:
                    ticket.state, ticket.begun = "drawing", monotonic()
                    if self.forecast is not None:
                        ticket.order = self.forecast.spared(ticket.order)
                    self._meters.begun(ticket)
                self.stations.give(station, tickets)
        if not self.stations.alive:
            self.once.set()
            for ticket in list(self.waiting):
                self.give_up(ticket, "died", f"no worker is left: {self.stations.refused}")
        self._meters.queue(len(self.waiting), sum(len(station.tickets) for station in self.stations))

    def _next(self) -> tuple[Ticket, ...]:
        """The first that waits, and those that are drawn in one call with it where that pays."""
        if self._settings.target_seconds is not None and self.forecast is not None:
            choose(self.waiting, self.stations.seconds(), self.forecast, self._settings.target_seconds)
        first = self.waiting.popleft()
        found, pictures = [first], first.order.count
        most = self.about.together if self.about is not None else 1
        alike = None if first.tries else first.order.alike  # what a worker died over is drawn by itself
        for ticket in list(self.waiting):
            fits = pictures + ticket.order.count <= most
            if alike is not None and not ticket.tries and ticket.order.alike == alike and fits:
                self.waiting.remove(ticket)
                found.append(ticket)
                pictures += ticket.order.count
        return tuple(found)

    def _remember(self, ticket: Ticket) -> None:
        self.tickets[ticket.order.id] = ticket
        over = [key for key, old in self.tickets.items() if old.over]
        for key in over[: max(len(over) - KEPT_TRACES, 0)]:
            self.tickets[key].lighten(traces=False)
        for key in over[: max(len(over) - KEPT, 0)]:
            del self.tickets[key]

    def _failed(self, ticket: Ticket, said: Failed) -> None:
        ticket.fail(said)
        self._meters.failed(said.reason)
        if said.reason not in ("stopped", "request"):
            note("a request failed", logging.ERROR, id=said.id, reason=said.reason, message=said.message)


def _may_come_again(ticket: Ticket) -> bool:
    """Whether its client was told to send it again."""
    return ticket.failure is not None and ANSWERS[ticket.failure.reason][1]
