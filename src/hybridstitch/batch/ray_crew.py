"""A crew anywhere in a Ray cluster: an actor with a desk of its own for each member; see `crew`.

Ray begins an actor that is lost anew and does its task again, also where that waits for a node, `AGAIN` times at most.
Members need the folder that work writes to.
"""

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any, Generic, Self

import ray  # pyright: ignore[reportMissingImports]
from ray.exceptions import RayError, RayTaskError  # pyright: ignore[reportMissingImports]

from ..disk.files import PART
from ..errors import RunError
from .on_ray import check_folder, check_versions, connected, room
from .pool import Place

AGAIN = 3


class RayCrew(Generic[Place]):
    """Members in a cluster; see `crew.Crew`."""

    def __init__(
        self, desk: Callable[[], Place], versions: Mapping[str, str], *, folder: Path | None = None,
        address: str | None = None, workers: int | None = None, gpus: float = 0.0,
    ) -> None:  # fmt: skip
        """A crew; its members are placed as the context begins.

        Args:
            desk: makes what a member works at; can be pickled.
            versions: that members have to have, see `metadata.versions`.
            folder: that they have to see, where work writes; is there.
            address, workers, gpus: see `on_ray.on_ray`.
        """
        self._desk, self._here, self._versions = desk, cache(desk), versions
        self._mark = None if folder is None else folder.absolute() / f".{uuid.uuid4().hex}{PART}"
        self._address, self._workers, self._gpus = address, workers, gpus
        self._members: list[Any] = []
        self._idle: list[Any] = []
        self._coming: dict[Any, Any] = {}  # members by the future that tells of their place
        self._open = ExitStack()

    @property
    def here(self) -> Place:
        """See `crew.Crew`."""
        return self._here()

    def __enter__(self) -> Self:
        """Place the members.

        Raises:
            WorkError: no such cluster, or nobody has room in it.
        """
        with ExitStack() as opened:
            opened.enter_context(connected(self._address))
            count = room(self._gpus) if self._workers is None else self._workers
            if self._mark is not None:
                self._mark.touch()
                opened.callback(self._mark.unlink, missing_ok=True)
            options = {"num_cpus": 1, "num_gpus": self._gpus, "scheduling_strategy": "SPREAD"}
            kind: Any = ray.remote(**options, max_restarts=-1, max_task_retries=AGAIN)(MemberActor)
            place = partial(kind.remote, self._desk, self._versions, self._mark)
            self._members = [place() for _ in range(count)]
            self._coming = {member.arrive.remote(): member for member in self._members}
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the members go, in the middle of a task too."""
        for member in self._members:
            ray.kill(member)
        self._open.close()

    def map(self, work: Callable[[Place, Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """See `crew.Crew`."""
        waiting = deque(enumerate(tasks))
        busy: dict[Any, tuple[Any, int]] = {}
        try:
            while waiting or busy:
                while waiting and self._idle:
                    place, task = waiting.popleft()
                    member = self._idle.pop()
                    busy[member.do.remote(work, task)] = member, place
                (ready, *_), _ = ray.wait([*busy, *self._coming])
                if ready in busy:
                    member, place = busy.pop(ready)
                    self._idle.append(member)
                    yield place, ray.get(ready)
                else:
                    ray.get(ready)
                    self._idle.append(self._coming.pop(ready))
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else RunError(str(error)) from error
        except RayError as error:
            raise RunError(
                f"a worker was lost {AGAIN + 1} times over one task ({' '.join(str(error).split())[:300]}); what was "
                "done is kept: run the command again"
            ) from error
        finally:
            for future, (member, _) in busy.items():  # after an error nobody waits for them
                ray.cancel(future)
                self._coming[member.arrive.remote()] = member


class MemberActor:
    """A member, as the actor that holds its desk."""

    def __init__(self, desk: Callable[[], Any], versions: Mapping[str, str], mark: Path | None) -> None:
        """Nothing is opened before the first task."""
        self._desk, self._versions, self._mark = desk, versions, mark
        self._place: Any = None

    def arrive(self) -> None:
        """Look around.

        Raises:
            WorkError: this is no place to work.
        """
        check_versions(self._versions)
        if self._mark is not None:
            check_folder(self._mark.parent, self._mark.name)

    def do(self, work: Callable[[Any, Any], Any], task: Any) -> Any:
        """Do a task; the first one after a loss looks around again."""
        if self._place is None:
            self.arrive()
            self._place = self._desk()
        return work(self._place, task)
