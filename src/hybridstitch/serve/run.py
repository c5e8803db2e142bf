"""The server, until it is told to stop: then it says that it is not ready, draws what it admitted, and ends."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn

from ..errors import ServeError
from . import logs
from .app import Server
from .settings import LOOPBACK

LOOK_SECONDS = 0.05


class _Draining(uvicorn.Server):
    """Uvicorn, whose end waits for the queue."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, a second one ends at once; an interruption ends at once, too."""
        if self._drain is not None or sig == signal.SIGINT:
            self._server.dispatch.draining = True
            super().handle_exit(sig, frame)
        else:
            self._drain = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        await self._server.dispatch.drain(self._server.settings.drain_seconds)
        self.should_exit = True  # uvicorn then waits for the last answers


def run(server: Server, on_listening: Callable[[str], None], on_ready: Callable[[str], None]) -> None:
    """Serve until a signal.

    Args:
        server: the application.
        on_listening: called with the address, once it answers.
        on_ready: called with it, once the pair is open.

    Raises:
        ServeError: the address is taken, or the pair cannot be opened.
    """
    logs.configure()
    settings = server.settings
    config = uvicorn.Config(
        server.app, host=settings.host, port=settings.port, log_config=None, access_log=False,
        timeout_graceful_shutdown=5, server_header=False,
    )  # fmt: skip
    try:
        listening = _bound(settings.host, settings.port)
    except OSError as error:
        raise ServeError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}); choose another --port"
        ) from error
    if settings.host not in LOOPBACK and settings.api_key is None:
        logs.note("anyone who reaches this address can use the server; set HYBRIDSTITCH_API_KEY", logging.WARNING)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{listening.getsockname()[1]}"
    uvicorn_server = _Draining(config, server)

    async def serve() -> None:
        watching = asyncio.ensure_future(
            _watch(server, uvicorn_server, lambda: on_listening(address), lambda: on_ready(address))
        )
        try:
            await uvicorn_server.serve(sockets=[listening])
        finally:
            watching.cancel()

    with suppress(KeyboardInterrupt):  # which uvicorn raises again once all is closed
        asyncio.run(serve())
    if server.dispatch.about is None and server.dispatch.stations.refused is not None:
        raise ServeError(server.dispatch.stations.refused)


async def _watch(
    server: Server, uvicorn_server: uvicorn.Server, on_listening: Callable[[], None], on_ready: Callable[[], None]
) -> None:
    """Say when the server answers and when the pair is open; end where it cannot be."""
    while not uvicorn_server.started:
        await asyncio.sleep(LOOK_SECONDS / 10)
    on_listening()
    while server.dispatch.about is None:
        if server.dispatch.stations.refused is not None:
            uvicorn_server.should_exit = True
            return
        await asyncio.sleep(LOOK_SECONDS)
    on_ready()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    return listening
