"""Where a batch is drawn: on this machine, or in a Ray cluster."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from ..batch.executor import Executor, local
from ..batch.work import Desk
from ..errors import nearest
from .asked import BadInput
from .batch_input import devices_of
from .extras import install, missing

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
Collect = Annotated[bool, typer.Option("--collect", help="Workers send pictures back, as they do not see the folder.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkPlace:
    """Where a batch is drawn.

    Attributes:
        ray: in a Ray cluster.
        devices: of this machine; in a cluster the kind of all.
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
        gpus_per_worker: float | None, collect: bool, dry_run: bool,
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
                raise BadInput(f"{flag} was given; it is of a cluster: add --on ray")
            return cls(ray=False, devices=devices_of(device))
        if missing("ray"):
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
