"""Where pictures are drawn: on this machine, or in a Ray cluster."""

import re
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..batch.copies import Copy
from ..batch.executor import Executor, local
from ..batch.work import Desk
from ..errors import nearest
from . import say
from .asked import BadInput
from .batch_input import devices_of
from .extras import install, missing

if TYPE_CHECKING:
    from ..batch.ray_crew import RayCrew

PLACES = ("here", "ray")

On = Annotated[str, typer.Option("--on", metavar="here | ray", help="This machine, or a Ray cluster.")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Address of the Ray cluster, HOST:PORT.", show_default="this machine's"),
]
NumWorkers = Annotated[
    int | None,
    typer.Option("--num-workers", min=1, help="Workers in the cluster.", show_default="as many as there is room for"),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option("--gpus-per-worker", min=0, help="GPUs of each worker.", show_default="1, or 0 on CPUs"),
]
Collect = Annotated[bool, typer.Option("--collect", help="Workers send pictures back; they need no shared folder.")]
CopyTo = Annotated[
    str | None,
    typer.Option(
        "--copy-to", metavar="URL", help="Keep a copy of the folder there: s3://…, or any other store of fsspec's."
    ),
]


def copy_at(url: str | None, out: Path) -> Copy | None:
    """The copy that is asked for.

    Raises:
        BadInput: the folder itself is an address.
        JobsError: nobody knows how to reach it.
    """
    if re.match(r"\w{2,}:/", str(out)):
        raise BadInput(f"--out {out} is an address; draw into a folder, and name the address with --copy-to")
    return None if url is None else Copy.at(url)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPlace:
    """Where a batch is drawn.

    Attributes:
        ray: in a Ray cluster.
        devices: of this machine, none for all there are; in a cluster the kind of all.
        address, num_workers, gpus_per_worker, collect: of a cluster, see `on_ray`.
    """

    ray: bool
    devices: Sequence[str]
    address: str | None = None
    num_workers: int | None = None
    gpus_per_worker: float = 0.0
    collect: bool = False

    @classmethod
    def of(
        cls, on: str, device: str | None, *, address: str | None, num_workers: int | None,
        gpus_per_worker: float | None, collect: bool = False, dry_run: bool = False,
    ) -> "WorkPlace":  # fmt: skip
        """Put the flags together.

        Raises:
            BadInput: they cannot be meant, or ray is not installed.
        """
        if on not in PLACES:
            raise BadInput(f"--on {on} was given; {nearest(on, PLACES)}")
        given = {
            "--address": address is not None, "--num-workers": num_workers is not None,
            "--gpus-per-worker": gpus_per_worker is not None, "--collect": collect,
        }  # fmt: skip
        if on == "here":
            flag = next((flag for flag, there in given.items() if there), None)
            if flag is not None:
                raise BadInput(f"{flag} is for a cluster: add --on ray")
            return cls(ray=False, devices=() if device is None else devices_of(device))
        if "ray" in missing("ray"):
            raise BadInput(f"--on ray needs ray, which is not installed: {install('ray')}")
        if dry_run:
            raise BadInput("--dry-run was given; it times pictures on this machine: leave --on ray out")
        if device is None:
            device = "cuda" if gpus_per_worker else devices_of(None)[0].partition(":")[0]
        if device not in ("cpu", "cuda"):
            raise BadInput(f"--device {device} was given; a cluster's workers are all of one kind: cpu or cuda")
        gpus = gpus_per_worker if gpus_per_worker is not None else float(device == "cuda")
        if (device == "cuda") != (gpus > 0):
            raise BadInput(f"--gpus-per-worker {gpus:g} was given with --device {device}; leave one of them out")
        return cls(
            ray=True, devices=[device], address=address, num_workers=num_workers, gpus_per_worker=gpus, collect=collect
        )

    def crew(self, desk: Callable[[], Any], *, device: str, folder: Path | None = None) -> "RayCrew[Any]":
        """Who works in the cluster for this process, which times what is timed.

        Args:
            desk: what a worker works at; can be pickled.
            device: of this process.
            folder: that workers have to see.

        Raises:
            BadInput: this process has no such device as the workers.
        """
        if device.partition(":")[0] != self.devices[0]:
            raise BadInput(
                f"the workers draw on {self.devices[0]} and this process on {device}, where all is timed; run the "
                f"command on a machine with {self.devices[0]}"
            )
        from ..batch.ray_crew import RayCrew
        from ..report.metadata import versions

        where = self.address or "this machine's cluster"
        say.line("note", f"workers of {where} draw; what is timed is timed by this process, on {socket.gethostname()}")
        return RayCrew(
            desk, versions(), folder=folder, address=self.address, workers=self.num_workers, gpus=self.gpus_per_worker
        )

    def executor(self, desks: Sequence[Desk], jobs: int) -> AbstractContextManager[Executor]:
        """Who draws.

        Args:
            desks: one a device.
            jobs: to draw; nobody is called for less work than there are workers.

        Raises:
            WorkError: as `on_ray`.
        """
        if not self.ray or not jobs:
            return nullcontext(local(desks[: max(jobs, 1)]))
        from ..batch.on_ray import on_ray

        desk = replace(desks[0], sends=self.collect)
        return on_ray(desk, address=self.address, workers=self.num_workers, gpus=self.gpus_per_worker, most=jobs)
