"""The server as two deployments of Ray Serve: an ingress, and replicas anywhere in a cluster.

The ingress gives a request to the replica with fewer in hand; there it is admitted, or refused with the seconds to
wait, as on one machine. Replicas come and go with the load; what one had in hand when it died is drawn by another.
"""

import hashlib
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from functools import partial
from threading import Event
from types import FrameType
from typing import Any

import ray  # pyright: ignore[reportMissingImports]
from ray import serve  # pyright: ignore[reportMissingImports]
from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # pyright: ignore[reportMissingImports]

from ..batch.on_ray import connected
from ..errors import ServeError, in_one_line
from .album import Album
from .app import Server
from .ingress import Ingress
from .replica import replica_of
from .settings import ServeSettings
from .shared_album import AlbumActor, SharedAlbum

NAME, SPACE = "hybridstitch", "serve"
LOOK_SECONDS = 0.05
ANSWER_SECONDS = 5.0  # for the last answers, once the replicas are gone
IN_HAND = 2  # requests of a replica, one drawn and one that waits, at which Serve keeps the number of replicas
WATCHING = 32  # requests that only look: health, metrics, where another one is


def deployment(
    makes: Mapping[str, Callable[[], Server]], settings: ServeSettings, *, replicas: int, gpus: float, pairs: int
) -> Any:
    """The application for `serve.run`.

    Args:
        makes: see `replica.Replica`.
        settings: of the server. What may wait there is the same in front of it: `max_waiting`.
        replicas: to begin with, and at most; without work all but one go.
        gpus: of each.
        pairs: that each holds at once, of several recipes.
    """
    in_hand = settings.max_waiting + WATCHING
    drawing: dict[str, Any] = {
        "name": "Replica",
        "ray_actor_options": {"num_cpus": 1, "num_gpus": gpus},
        "autoscaling_config": {
            "min_replicas": 1,
            "initial_replicas": replicas,
            "max_replicas": replicas,
            "target_ongoing_requests": IN_HAND,
        },
        "max_ongoing_requests": in_hand,  # it refuses by itself before that
        "max_queued_requests": settings.max_waiting,
        "graceful_shutdown_timeout_s": settings.drain_seconds,
        "graceful_shutdown_wait_loop_s": 0.1,
        "health_check_period_s": 2,
    }
    before: dict[str, Any] = {
        "name": "Ingress",
        "ray_actor_options": {"num_cpus": 0},
        "max_ongoing_requests": (replicas + 1) * in_hand,  # it refuses by itself before that
        "graceful_shutdown_timeout_s": settings.drain_seconds + ANSWER_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.1,
    }
    drawn = serve.deployment(**drawing)(replica_of(pairs)).bind(makes)
    return serve.deployment(**before)(serve.ingress()(Ingress)).bind(drawn, settings, tuple(makes))


@contextmanager
def shared(album: Album) -> Iterator[SharedAlbum]:
    """An album that all replicas ask, held by an actor on this node, where its folder is, as long as they are there.

    Raises:
        ServeError: it cannot be held.
    """
    host = ray.util.get_node_ip_address()
    wanted = SharedAlbum(album=album, host=host, port=_free(host, 0), key=secrets.token_hex(16))
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kind: Any = ray.remote(num_cpus=0, max_restarts=-1)(AlbumActor)
    name = f"{NAME}-album-{hashlib.sha256(repr(album).encode()).hexdigest()[:16]}"
    options = {"name": name, "namespace": SPACE, "lifetime": "detached", "get_if_exists": True}
    actor = kind.options(**options, scheduling_strategy=here).remote(wanted)
    try:
        try:
            found: Any = ray.get(actor.shared.remote())
        except RayError as error:
            raise ServeError(f"{album.folder} cannot be shared with the replicas: {in_one_line(error)}") from error
        yield found
    finally:
        with suppress(Exception):  # the cluster may be gone
            ray.kill(actor)


def run_on_ray(
    makes: Mapping[str, Callable[..., Server]], settings: ServeSettings, on_ready: Callable[[str], None], *,
    address: str | None, replicas: int, gpus: float, pairs: int, album: Album | None = None,
) -> None:  # fmt: skip
    """Serve until a signal; then no request is taken, and those in hand are drawn.

    Args:
        makes, settings, replicas, gpus, pairs: see `deployment`; with an album, called with `album=`, what shares it.
        on_ready: called with the address, once a replica has the pair open.
        address: of the cluster, see `on_ray`.
        album: pictures drawn before, in a folder of this machine; None where none are remembered.

    Raises:
        WorkError: no such cluster.
        ServeError: the address is taken, or the pair cannot be opened.
    """
    ended, out = Event(), sys.stdout

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with connected(address), ExitStack() as stack:
        port = _free(settings.host, settings.port)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        serve.start(http_options={"host": settings.host, "port": port})
        if album is not None:
            asked = stack.enter_context(shared(album))
            makes = {name: partial(make, album=asked) for name, make in makes.items()}
        try:
            app = deployment(makes, settings, replicas=replicas, gpus=gpus, pairs=pairs)
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
