"""Replicas that answer for each other: what is asked about a request reaches the one that draws it.

Serve's proxy gives any request to any replica. A register says which replica took a request in; another one that is
asked about it (`/v1/requests/ID`) passes that on, by a door that each replica has on its node's own address.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp  # pyright: ignore[reportMissingImports]
import uvicorn
from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEPT = 4096  # requests whose place is known
ABOUT = "/v1/requests/"
SECONDS = 10.0  # for a sibling to answer


class Register:
    """Where requests are, by the ids that replicas know them by; one actor of the deployment."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._places: OrderedDict[str, str] = OrderedDict()

    def tell(self, key: str, place: str) -> None:
        """A replica took a request in."""
        self._places[key] = place
        if len(self._places) > KEPT:
            self._places.popitem(last=False)

    def find(self, key: str) -> str | None:
        """The address of the replica that took a request in; None where nobody says so."""
        return self._places.get(key)


class Siblings:
    """An ASGI application around that of a replica."""

    def __init__(self, app: ASGIApp, knows: Callable[[str], bool], register: Any, host: str) -> None:
        """Stand before a replica.

        Args:
            app: the replica's.
            knows: whether the replica knows a request.
            register: handle of the `Register`.
            host: this node's address in the cluster.
        """
        self._app, self._knows, self._register, self._host = app, knows, register, host
        self._door: asyncio.Task[None] | None = None
        self._here = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._open()
        key = scope["path"].removeprefix(ABOUT)
        if key != scope["path"] and not self._knows(key):
            there = None
            with suppress(RayError):  # the register may be on its way to another node
                there = await self._register.find.remote(key)
            if there not in (None, self._here) and await _passed_on(f"{there}{scope['path']}", scope, send):
                return
        headers = dict(scope["headers"])
        serves = headers.get(b"x-request-id", b"")  # the proxy's own id, which it adds to the answer as well
        own = headers.get(b"x-client-request-id", serves)
        scope["headers"] = [*scope["headers"], *([(b"x-client-request-id", own)] if own is serves else [])]
        if scope["method"] == "POST":
            self._register.tell.remote(own.decode("latin-1"), self._here)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = [pair for pair in message["headers"] if pair != (b"x-request-id", serves)]
                message = {**message, "headers": told}
            await send(message)

        await self._app(scope, receive, answer)

    def _open(self) -> None:
        """The door for siblings, from the first request on."""
        if self._door is None:
            listening = socket.create_server((self._host, 0))
            self._here = f"http://{self._host}:{listening.getsockname()[1]}"
            config = uvicorn.Config(self._app, lifespan="off", log_config=None, access_log=False, server_header=False)
            self._door = asyncio.get_running_loop().create_task(uvicorn.Server(config).serve(sockets=[listening]))


async def _passed_on(url: str, scope: Scope, send: Send) -> bool:
    """Let a sibling answer; False where it is gone."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(scope["method"], url, headers={**headers, "host": "localhost"}) as found,
        ):
            body, status = await found.read(), found.status
            kept = [(name.lower().encode(), value.encode()) for name, value in found.headers.items()]
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
    kept = [pair for pair in kept if pair[0] in (b"content-type", b"content-length", b"x-request-id", b"retry-after")]
    await send({"type": "http.response.start", "status": status, "headers": kept})
    await send({"type": "http.response.body", "body": body})
    return True
