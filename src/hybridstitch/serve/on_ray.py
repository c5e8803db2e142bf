"""The server as a deployment of Ray Serve: replicas anywhere in a cluster, each the whole application over one pair.

Serve's proxy gives a request to the replica with fewer in hand; there it is admitted, or refused with the seconds to
wait, as on one machine. Replicas come and go with the load. One that dies costs the requests it had in hand; the proxy
answers them with an error, and sends what comes next elsewhere.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from threading import Event
from types import FrameType
from typing import Any

import ray  # pyright: ignore[reportMissingImports]
from ray import serve  # pyright: ignore[reportMissingImports]
from starlette.types import Message, Receive, Scope, Send

from ..batch.on_ray import connected
from ..errors import ServeError
from . import logs
from .app import Server
from .settings import ServeSettings
from .siblings import Register, Siblings

NAME, REGISTER = "hybridstitch", "hybridstitch-register"
LOOK_SECONDS = 0.05
IN_HAND = 2  # requests of a replica, one drawn and one that waits, at which Serve keeps the number of replicas
WATCHING = 32  # requests that only look: health, metrics, where another one is


class Whole:
    """A server as an ASGI application that has begun only when its pair is open."""

    def __init__(self, server: Server) -> None:
        """Around a server."""
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def opened(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self._opened()
            await send(message)

        await self._server.app(scope, receive, opened if scope["type"] == "lifespan" else send)

    async def _opened(self) -> None:
        dispatch = self._server.dispatch
        while dispatch.about is None:
            if dispatch.stations.refused is not None:
                raise ServeError(dispatch.stations.refused)
            await asyncio.sleep(LOOK_SECONDS)


class Replica:
    """One server of the deployment."""

    def __init__(self, make: Callable[[], Server], register: Any) -> None:
        """In the process that Serve made for it.

        Args:
            make: makes the server; can be pickled.
            register: handle of the `siblings.Register` of all replicas.
        """
        logs.configure()
        self._server, self._register = make(), register

    def __serve_build_asgi_app__(self) -> Siblings:
        """As Serve asks for it."""
        knows = self._server.dispatch.tickets.__contains__
        return Siblings(Whole(self._server), knows, self._register, ray.util.get_node_ip_address())

    def check_health(self) -> None:
        """As Serve asks now and then; a replica that nobody will draw at any more is replaced.

        Raises:
            ServeError: it is such a one.
        """
        if not self._server.dispatch.stations.alive:
            raise ServeError(f"no worker is left: {self._server.dispatch.stations.refused}")


def deployment(make: Callable[[], Server], settings: ServeSettings, *, replicas: int, gpus: float) -> Any:
    """The application for `serve.run`.

    Args:
        make: makes the server of a replica; can be pickled.
        settings: of the server. What may wait there is the same in front of it: `max_waiting`.
        replicas: to begin with, and at most; without work all but one go.
        gpus: of each.
    """
    options: dict[str, Any] = {
        "name": NAME,
        "ray_actor_options": {"num_cpus": 1, "num_gpus": gpus},
        "autoscaling_config": {
            "min_replicas": 1,
            "initial_replicas": replicas,
            "max_replicas": replicas,
            "target_ongoing_requests": IN_HAND,
        },
        "max_ongoing_requests": settings.max_waiting + WATCHING,  # it refuses by itself before that
        "max_queued_requests": settings.max_waiting,
        "graceful_shutdown_timeout_s": settings.drain_seconds,
        "graceful_shutdown_wait_loop_s": 0.1,
        "health_check_period_s": 2,
    }
    kind: Any = ray.remote(num_cpus=0, max_restarts=-1)(Register)  # outlives this process, as the replicas do
    register = kind.options(name=REGISTER, namespace="serve", lifetime="detached", get_if_exists=True).remote()
    return serve.deployment(**options)(serve.ingress()(Replica)).bind(make, register)


def run_on_ray(
    make: Callable[[], Server], settings: ServeSettings, on_ready: Callable[[str], None], *,
    address: str | None, replicas: int, gpus: float,
) -> None:  # fmt: skip
    """Serve until a signal; then no request is taken, and those in hand are drawn.

    Args:
        make, settings, replicas, gpus: see `deployment`.
        on_ready: called with the address, once a replica has the pair open.
        address: of the cluster, see `on_ray`.

    Raises:
        WorkError: no such cluster.
        ServeError: the address is taken, or the pair cannot be opened.
    """
    ended, out = Event(), sys.stdout

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with connected(address):
        port = _free(settings.host, settings.port)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        serve.start(http_options={"host": settings.host, "port": port})
        try:
            app = deployment(make, settings, replicas=replicas, gpus=gpus)
            try:
                serve.run(app, name=NAME, route_prefix="/")
            except RuntimeError as error:
                why = " ".join(str(error).split())
                raise ServeError(f"no replica could open the pair: {why}") from error
            with redirect_stdout(out):
                on_ready(f"http://{settings.host}:{port}")
            while not ended.wait(LOOK_SECONDS):  # a signal is heard between two looks
                pass
        finally:
            with suppress(Exception):  # the cluster may be gone
                serve.delete(NAME)
                ray.kill(ray.get_actor(REGISTER, "serve"))
            serve.shutdown()


def _free(host: str, port: int) -> int:
    """The port, or for 0 one that is free.

    Raises:
        ServeError: somebody listens there.
    """
    try:
        with socket.create_server((host, port)) as listening:
            return listening.getsockname()[1]
    except OSError as error:
        raise ServeError(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port") from error
