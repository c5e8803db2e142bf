"""A replica on Ray: the whole server over a pair; of several recipes, over those that requests asked for last.

A recipe's pair is opened when it is first asked for, which `ray.serve.multiplexed` counts. One too many is let go: its
server takes nothing more, answers what it has in hand, and then its workers end.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from ray import serve  # pyright: ignore[reportMissingImports]
from starlette.types import Message, Scope

from ..errors import ServeError
from . import logs
from .app import Server
from .errors import Refusal
from .passing import messages_of

LOOK_SECONDS = 0.05
ABOUT = "/v1/requests/"
TAKEN = "taken"  # the first word to the ingress: a replica has the request in hand


class Lodger:
    """A server in a replica, as long as it may stay.

    Attributes:
        server: the server.
        wanted: requests that hold it, so that it stays.
    """

    def __init__(self, server: Server) -> None:
        """Of a server that has not begun."""
        self.server, self.wanted = server, 0
        self._asked: set[asyncio.Task[None]] = set()  # these outlive the requests of clients that leave
        self.__del__ = self.leave  # Ray calls it; Python, which looks at classes, does not

    async def begin(self) -> None:
        """Open the pair.

        Raises:
            ServeError: it cannot be opened.
        """
        dispatch = self.server.dispatch
        dispatch.stations.start()
        while dispatch.about is None:
            if dispatch.stations.refused is not None:
                await self.leave()
                raise ServeError(dispatch.stations.refused)
            await asyncio.sleep(LOOK_SECONDS)

    async def leave(self) -> None:
        """Answer those who hold it, then end the workers; nobody takes hold of it from now on."""
        while self.wanted or self._asked:
            await asyncio.sleep(LOOK_SECONDS)
        await self.server.dispatch.stations.close()

    async def answer(self, scope: Scope, body: bytes) -> AsyncGenerator[Message, None]:
        """That a request was taken in, and what the application says to it; who listens no more has left.

        Args:
            scope: see ASGI.
            body: of the request, whole.
        """
        said: asyncio.Queue[Message | None] = asyncio.Queue()
        unread, left = [body], asyncio.Event()

        async def receive() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        def over(task: "asyncio.Task[None]") -> None:
            self._asked.discard(task)
            said.put_nowait(None)

        task = asyncio.create_task(self.server.app(scope, receive, said.put))
        self._asked.add(task)
        task.add_done_callback(over)
        try:
            yield {"type": TAKEN}
            while (message := await said.get()) is not None:
                yield message
        finally:
            left.set()


class Replica:
    """The deployment that draws."""

    async def __init__(self, makes: Mapping[str, Callable[[], Server]]) -> None:
        """In the process that Serve made for it, with the pair of the first recipe.

        Args:
            makes: by the names of the recipes, what makes their servers; can be pickled.

        Raises:
            ServeError: the first one's pair cannot be opened.
        """
        logs.configure()
        self._makes = makes
        self._lodgers: dict[str, Lodger] = {}  # the last one of each name, the latest at the end
        await self.lodger(next(iter(makes)))

    async def lodger(self, name: str) -> Lodger:
        """The server of a recipe, begun; in a `replica_of`, the one that is there.

        Raises:
            ServeError: its pair cannot be opened.
        """
        found = Lodger(self._makes[name]())
        await found.begin()
        self._lodgers.pop(name, None)
        self._lodgers[name] = found
        return found

    async def ask(self, scope: Scope, body: bytes, model: str | None) -> AsyncGenerator[Message, None]:
        """Answer a request: first that it was taken in, then messages of ASGI.

        Args:
            scope: see ASGI.
            body: of the request, whole.
            model: name of the recipe; None for any that is there.
        """
        try:
            async with self._held(model) as lodger, aclosing(lodger.answer(scope, body)) as answer:
                async for message in answer:
                    yield message
        except ServeError as error:
            for message in messages_of(Refusal(503, f"the pair of {model} cannot be opened: {error}", "dead")):
                yield message

    async def look(self, scope: Scope) -> list[Message]:
        """Answer who asks about a request, if it was taken in here; else nothing.

        Args:
            scope: see ASGI.
        """
        key = scope["path"].removeprefix(ABOUT)
        for lodger in self._lodgers.values():
            if lodger.server.dispatch.knows(key):
                return [said async for said in lodger.answer(scope, b"") if said["type"] != TAKEN]
        return []

    def check_health(self) -> None:
        """As Serve asks now and then; a replica that nobody will draw at any more is replaced.

        Raises:
            ServeError: it is such a one.
        """
        for lodger in self._lodgers.values():
            if not lodger.server.dispatch.stations.alive:
                raise ServeError(f"no worker is left: {lodger.server.dispatch.stations.refused}")

    @asynccontextmanager
    async def _held(self, name: str | None) -> AsyncGenerator[Lodger, None]:
        """A server that stays as long as the block; opened to the end also where the client leaves before.

        Raises:
            ServeError: its pair cannot be opened.
        """
        if name is None:
            yield [*self._lodgers.values()][-1]
            return
        taking = asyncio.ensure_future(self._take(name))
        try:
            yield await asyncio.shield(taking)
        finally:
            taking.add_done_callback(_let_go)

    async def _take(self, name: str) -> Lodger:
        """Take hold of a server as it is found, before it could be let go for another one."""
        found = await self.lodger(name)
        found.wanted += 1
        return found


def _let_go(taking: "asyncio.Future[Lodger]") -> None:
    if not taking.cancelled() and taking.exception() is None:
        taking.result().wanted -= 1


def replica_of(pairs: int) -> Any:
    """The class of replicas that hold so many pairs at once."""
    lodger = serve.multiplexed(max_num_models_per_replica=pairs)(Replica.lodger)
    return type("Replica", (Replica,), {"lodger": lodger})
