"""The devices, and the worker at each; one that dies is replaced, after a pause that grows where that does not help."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from .easel import PairOpener
from .logs import note
from .member import Member
from .meters import Meters
from .orders import About, Draw, Failed, Free, Noted, Opened, Refused, Stop
from .ticket import Ticket

OPENINGS = 3  # that may fail in a row
LONGEST_PAUSE_SECONDS = 30.0
OPENING_SECONDS = 30.0  # guessed, until one was timed


@dataclass(slots=True, eq=False)
class Station:
    """A device, the process at it, and what that draws.

    Attributes:
        device: its name; None for the best there is.
        member: the process.
        open: whether the pair is, and its device answers.
        tickets: being drawn.
        since: when the process began, or its pair was opened.
        failures: processes in a row that came to nothing; unopened: those of them that did not open the pair.
        given_up: whether nobody will sit here again.
    """

    device: str | None
    member: Member | None = None
    open: bool = False
    tickets: tuple[Ticket, ...] = ()
    since: float = field(default_factory=monotonic)
    failures: int = 0
    unopened: int = 0
    given_up: bool = False

    @property
    def remaining(self) -> float:
        """Predicted seconds of drawing still to come; its tickets are drawn in one call."""
        predicted = sum(ticket.predicted for ticket in self.tickets)
        drawn = monotonic() - min((ticket.begun or monotonic() for ticket in self.tickets), default=0.0)
        return max(predicted - drawn, 0.05 * predicted)

    @property
    def state(self) -> str:
        """In a word."""
        if self.given_up:
            return "given up"
        return "opening" if not self.open else "drawing" if self.tickets else "idle"


class Audience(Protocol):
    """Who is told what happens at the stations."""

    def opened(self, about: About) -> None:
        """A worker is ready."""
        ...

    def hear(self, station: Station, said: Any) -> None:
        """A worker says something of its orders."""
        ...

    def lost(self, tickets: Sequence[Ticket], how: str) -> None:
        """A worker ended over these."""
        ...

    def go_on(self) -> None:
        """Somebody may have become free."""
        ...


class Stations:
    """All of them.

    Attributes:
        refused: why the pair cannot be opened at all.
        closing: whether nobody is to be replaced any more.
        opening_seconds: what opening the pair takes.
    """

    def __init__(
        self,
        opener: PairOpener,
        devices: Sequence[str | None],
        audience: Audience,
        meters: Meters,
        stuck_seconds: float,
    ) -> None:
        """Prepare; `start` begins the workers.

        Args:
            opener: opens the pair.
            devices: one worker each; (None,) for all there are.
            audience: is told.
            meters: count.
            stuck_seconds: a worker that goes on so long after it was told to stop is ended.
        """
        self.refused: str | None = None
        self.closing = False
        self.opening_seconds = OPENING_SECONDS
        self._opener, self._audience, self._meters, self._stuck_seconds = opener, audience, meters, stuck_seconds
        self._all = [Station(device) for device in devices]
        self._spread = list(devices) == [None]
        self._opened_once = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def __iter__(self) -> Any:
        return iter(self._all)

    def start(self) -> None:
        """Begin a process at each device; to be called on the event loop's thread."""
        for station in self._all:
            self._begin(station)

    @property
    def ready(self) -> int:
        """How many have the pair open."""
        return sum(station.open for station in self._all)

    @property
    def alive(self) -> bool:
        """Whether somebody will draw some day."""
        return self.refused is None and not all(station.given_up for station in self._all)

    def seconds(self) -> list[float]:
        """Predicted, until each has drawn what it has in hand."""
        now = monotonic()
        return [
            s.remaining if s.open else max(self.opening_seconds - (now - s.since), 0.1)
            for s in self._all
            if not s.given_up
        ] or [self.opening_seconds]

    def give(self, station: Station, tickets: tuple[Ticket, ...]) -> None:
        """Let a worker draw."""
        assert station.member is not None
        station.tickets = tickets
        self._do(station.member.tell(Draw(tuple(ticket.order for ticket in tickets))))

    def stop(self, ticket: Ticket) -> None:
        """Let the worker that draws a ticket stop within one step; one that does not is ended."""
        station = next((s for s in self._all if ticket in s.tickets), None)
        if station is not None and station.member is not None:
            self._do(station.member.tell(Stop(ticket.order.id)))
            if all(other.over for other in station.tickets):
                check = self._check_stopped, station, station.member, ticket
                asyncio.get_running_loop().call_later(self._stuck_seconds, *check)

    async def close(self) -> None:
        """Let all workers go."""
        self.closing = True
        await asyncio.gather(*(station.member.close() for station in self._all if station.member is not None))

    def _begin(self, station: Station) -> None:
        if not self.closing:
            station.open, station.since = False, monotonic()
            hear: Callable[[Any], None] = lambda said: self._hear(station, said)  # noqa: E731
            station.member = Member(self._opener, station.device, hear, lambda how: self._lost(station, how))

    def _hear(self, station: Station, said: Any) -> None:
        match said:
            case Opened(about):
                self._opened(station, about)
            case Refused(message):
                note("the pair cannot be opened", logging.ERROR, device=station.device, message=message)
                station.given_up = not self._opened_once  # else another process tries
                if all(other.given_up for other in self._all):
                    self.refused = message
            case Noted(message):
                note(message, logging.WARNING, device=station.device)
            case Free():
                station.tickets, station.failures = (), 0
                self._audience.go_on()
            case _:
                if isinstance(said, Failed) and said.reason == "device":  # its process is about to end
                    station.open, station.since = False, monotonic()
                    self._meters.workers(self.ready)
                self._audience.hear(station, said)

    def _opened(self, station: Station, about: About) -> None:
        self.opening_seconds = monotonic() - station.since
        station.open, station.since, station.device = True, monotonic(), about.device
        note("a worker is ready", device=about.device, seconds=round(self.opening_seconds, 3), notes=about.notes)
        kind, _, number = about.device.partition(":")
        if self._spread and kind == "cuda":
            others = [Station(f"cuda:{k}") for k in range(about.devices) if k != int(number or 0)]
            self._all += others
            for other in others:
                self._begin(other)
        self._spread, self._opened_once = False, True
        self._meters.workers(self.ready)
        self._audience.opened(about)
        self._audience.go_on()

    def _lost(self, station: Station, how: str) -> None:
        """A process ended that was not to end."""
        note("a worker ended", logging.ERROR, device=station.device, how=how)
        tickets = station.tickets
        was_open = station.open or bool(tickets)
        station.open, station.tickets, station.failures = False, (), station.failures + 1
        self._meters.lost()
        self._meters.workers(self.ready)
        station.unopened = 0 if was_open else station.unopened + 1
        station.given_up = station.given_up or station.unopened >= OPENINGS
        self._audience.lost(tickets, how)
        if self.refused is None and not station.given_up:
            pause = min(2.0 ** (station.failures - 2), LONGEST_PAUSE_SECONDS) if station.failures > 1 else 0.0
            asyncio.get_running_loop().call_later(pause, self._begin, station)
        elif all(station.given_up for station in self._all):
            self.refused = (
                self.refused or f"the worker died ({how}) before it had opened the pair; is there memory enough?"
            )
        self._audience.go_on()

    def _check_stopped(self, station: Station, member: Member, ticket: Ticket) -> None:
        if station.member is member and ticket in station.tickets and all(t.over for t in station.tickets):
            note("a worker does not stop", logging.ERROR, device=station.device)
            member.kill()

    def _do(self, doing: Any) -> None:
        task = asyncio.ensure_future(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
