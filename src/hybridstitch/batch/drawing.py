"""All jobs of a batch: each tried, those that failed tried again when all others had their turn.

Jobs that one call of a pipeline can draw are put together, if asked for; what comes back is tried alone.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .executor import Executor
from .job import Job
from .ledger import ManifestRow
from .work import Attempt, AttemptGroup, Outcome

TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What a run did.

    Attributes:
        done: rows of the pictures it drew, by id.
        failed: the last row of each job that failed every time, by id.
        hopeless: why it stopped before all jobs had their turn, which the last one that failed says; or None.
    """

    done: Mapping[str, ManifestRow]
    failed: Mapping[str, ManifestRow]
    hopeless: str | None


def draw_all(
    jobs: Mapping[str, Job], executor: Executor, on_outcome: Callable[[Outcome], None], *, images_per_call: int = 1
) -> BatchResult:
    """Do jobs, each at most `TRIES` times.

    Args:
        jobs: by id.
        executor: who does them; is closed at the end.
        on_outcome: called after every try.
        images_per_call: drawn together at most.

    Raises:
        WorkError: as `Executor.map`.
    """
    done: dict[str, ManifestRow] = {}
    failed: dict[str, ManifestRow] = {}
    groups: Iterable[AttemptGroup] = together((Attempt(id=key, job=job) for key, job in jobs.items()), images_per_call)
    try:
        while groups:
            again: list[AttemptGroup] = []
            for outcome in executor.map(groups):
                attempt, row = outcome.attempt, outcome.row
                on_outcome(outcome)
                failed.pop(attempt.id, None)
                if row.status == "done":
                    done[attempt.id] = row
                    continue
                failed[attempt.id] = row
                if outcome.hopeless is not None:
                    return BatchResult(done=done, failed=failed, hopeless=outcome.hopeless)
                if outcome.spared and attempt.spared + 1 < TRIES:
                    again.append((replace(attempt, spared=attempt.spared + 1),))
                elif not outcome.spared and attempt.number < TRIES:
                    again.append((replace(attempt, number=attempt.number + 1),))
            groups = again
    finally:
        executor.close()
    return BatchResult(done=done, failed=failed, hopeless=None)


def together(attempts: Iterable[Attempt], most: int) -> list[AttemptGroup]:
    """Attempts that one call can draw, `most` at a time, in the order in which groups are full."""
    groups: list[AttemptGroup] = []
    begun: dict[Any, list[Attempt]] = {}
    for attempt in attempts:
        kind = alike(attempt.job)
        begun.setdefault(kind, []).append(attempt)
        if len(begun[kind]) == most:
            groups.append(begun.pop(kind))
    return [*groups, *begun.values()]


def alike(job: Job) -> Any:
    """What jobs drawn in one call share; prompts, negative prompts and seeds are their own."""
    return job.width, job.height, job.frames, job.fps, job.steps, job.guidance, job.policy, job.shift, job.levels
