"""Workers anywhere in a Ray cluster: an actor that holds a pair at each seat, placed and watched over by Ray.

Only this file imports ray, and only who asks for it imports this file. An actor ends with its driver; where an actor or
its node is lost, a new one is placed, also when that takes until a node comes back. Before a pair is opened, a worker
makes sure that it has the driver's packages and sees its folder.
"""

import logging
import os
import re
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray  # pyright: ignore[reportMissingImports]
from ray.exceptions import (  # pyright: ignore[reportMissingImports]
    ObjectStoreFullError,
    OutOfDiskError,
    RayActorError,
    RayError,
    RayTaskError,
)

from ..disk.files import PART
from ..report.metadata import PACKAGES, versions
from .job import WorkError
from .seats import Seats, opened
from .work import AttemptGroup, Desk, DeviceLost, Outcome, Worker, WorkerDied

FULL_STORE = (
    "cannot send what it drew: the object store of its node is full, and so is the disk behind it; "
    "`ray start --object-store-memory BYTES` makes more room, and a shared folder, without --collect, needs none"
)
ANSWERS_SECONDS = 5  # an address
QUIET = {  # of a cluster that is begun here, nobody could look at these: a quarter of what it takes beside its workers
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
}
HOW_IT_DIED = (  # in Ray's words, and in ours
    (r"node has died|node was terminated|marked dead", "its node"),
    (r"preempt", "its node, which was preempted"),
    (r"OutOfMemory|memory pressure|low on memory", "Ray's memory monitor; the node had too little memory"),
    (r"Worker exit type: (\w+)", r"worker exit type \1"),
)


@contextmanager
def on_ray(desk: Desk, *, address: str | None, workers: int | None, gpus: float, most: int) -> Iterator[Seats]:
    """An executor in a cluster.

    Args:
        desk: of every worker; `device` is its kind.
        address: of the cluster; None is the one that runs here, or else a new one on this machine.
        workers: how many; None is as many as there is room for now.
        gpus: of each worker.
        most: workers that there is work for.

    Raises:
        WorkError: no such cluster, or nobody has room in it.
    """
    desk = replace(desk, out=desk.out.absolute())
    mark = desk.out / f".{uuid.uuid4().hex}{PART}"  # what workers see of the folder
    with connected(address):
        count = workers if workers is not None else room(gpus)
        mark.touch()
        try:
            seats = Seats([RaySeat(desk, mark.name, gpus) for _ in range(min(count, most))], desk.out)
            yield seats
        finally:
            mark.unlink(missing_ok=True)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """The cluster at an address, quiet; see `on_ray`.

    Raises:
        WorkError: it is not there, or does not speak with this Ray.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address not in (None, "auto", "local"):
        _check_answers(address)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with open(os.devnull, "w") as silence, redirect_stdout(silence):  # Ray tells of lost nodes there
        try:
            # of a cluster that is begun here; one that is there keeps its dashboard
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:
            ray.shutdown()  # of what was begun
            where = "this machine" if address is None else address
            raise WorkError(f"cannot work on Ray at {where}: {' '.join(str(error).split())}") from error
        try:
            yield
        finally:
            ray.shutdown()


class WorkerActor:
    """A worker, as the actor that holds it."""

    def __init__(self, desk: Desk, mark: str) -> None:
        """At a desk; the pair is opened by the first group."""
        self._desk, self._mark = desk, mark
        self._worker: Worker | None = None

    def do(self, group: AttemptGroup) -> list[Outcome]:
        """See `Worker.do`.

        Raises:
            WorkError: this is no place to draw, or the pair cannot be opened.
        """
        if self._worker is None:
            check_place(self._desk, self._mark)
            self._worker = opened(self._desk)
        return self._worker.do(group)


def check_place(desk: Desk, mark: str) -> None:
    """Refuse a place whose pictures would be others, or which nobody would see.

    Args:
        desk: as the driver made it.
        mark: a file that the driver made in the folder.

    Raises:
        WorkError: says what differs.
    """
    check_versions(desk.setting.versions)
    if not desk.sends:
        check_folder(desk.out, mark, ", or say --collect")


def check_versions(wanted: Mapping[str, str]) -> None:
    """Refuse a place with other packages than the driver's.

    Raises:
        WorkError: says which.
    """
    here = versions()
    apart = [f"{name} {here[name]}, not {wanted[name]}" for name in PACKAGES if here[name] != wanted.get(name)]
    if apart:
        raise WorkError(f"runs on {socket.gethostname()} with {'; '.join(apart)}; install what the driver has")


def check_folder(folder: Path, mark: str, otherwise: str = "") -> None:
    """Refuse a place that does not see the driver's folder.

    Args:
        folder: the driver's.
        mark: a file that the driver made there.
        otherwise: another way out than a shared one.

    Raises:
        WorkError: it does not.
    """
    if not (folder / mark).is_file():
        raise WorkError(
            f"does not see the folder {folder} of the driver from {socket.gethostname()}; name a shared one{otherwise}"
        )


class RaySeat:
    """A seat anywhere in the cluster."""

    volatile = True

    def __init__(self, desk: Desk, mark: str, gpus: float) -> None:
        """An actor at a desk, as soon as there is room.

        Args:
            desk: the desk.
            mark: see `check_place`.
            gpus: that the actor takes.
        """
        self.desk = desk
        kind: Any = ray.remote(num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD")(WorkerActor)
        self._place = lambda: kind.remote(desk, mark)
        self._actor = self._place()

    def submit(self, group: AttemptGroup) -> "Future[list[Outcome]]":
        """See `Seat`."""
        return self._actor.do.remote(group).future()

    def outcomes(self, future: "Future[list[Outcome]]") -> list[Outcome]:
        """See `Seat`."""
        try:
            return future.result()
        except RayActorError as error:
            said = str(error)
            if "creation task" in said or "failed to import" in said:
                raise WorkError(f"cannot begin: {said.strip().splitlines()[-1]}") from error
            raise WorkerDied(_how(said, type(error).__name__)) from error
        except (ObjectStoreFullError, OutOfDiskError) as error:
            raise WorkError(FULL_STORE) from error
        except RayTaskError as error:
            if isinstance(error.cause, WorkError | DeviceLost):
                raise error.cause from None
            if isinstance(error.cause, ObjectStoreFullError | OutOfDiskError):
                raise WorkError(FULL_STORE) from error
            raise WorkError(f"cannot send what it drew: {str(error).strip().splitlines()[-1]}") from error
        except RayError as error:
            raise WorkError(f"cannot be reached: {' '.join(str(error).split())}") from error

    def renew(self) -> None:
        """See `Seat`."""
        self.close()
        self._actor = self._place()

    def close(self) -> None:
        """See `Seat`."""
        ray.kill(self._actor)


def _how(said: str, otherwise: str) -> str:
    for pattern, how in HOW_IT_DIED:
        found = re.search(pattern, said)
        if found is not None:
            return found.expand(how)
    return otherwise


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes, and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), ANSWERS_SECONDS):
            pass
    except (OSError, ValueError) as error:
        raise WorkError(
            f"there is no Ray cluster at {address} ({error}); `ray start --head` prints the address of one, "
            "and without --address a cluster of this machine is used"
        ) from error


def room(gpus: float) -> int:
    """Workers that the nodes have room for.

    Raises:
        WorkError: none.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    count = sum(int(min(node.get("CPU", 0), node.get("GPU", 0) / gpus if gpus else sys.maxsize)) for node in nodes)
    if not count:
        most = max((node.get("GPU", 0) for node in nodes), default=0)
        raise WorkError(
            f"no node of the cluster has room for a worker with 1 CPU and {gpus:g} GPUs; of {len(nodes)} nodes none "
            f"has more than {most:g} GPUs. --num-workers N waits until nodes join"
        )
    return count
