"""All jobs of a batch: each tried, those that failed tried again when all others had their turn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from .executor import Executor
from .job import Job
from .ledger import ManifestRow
from .work import Outcome, Task

TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What a run did.

    Attributes:
        done: rows of the pictures it drew, by id.
        failed: the last row of each job that failed every time, by id.
        hopeless: why it stopped before all jobs had their turn, or None.
    """

    done: Mapping[str, ManifestRow]
    failed: Mapping[str, ManifestRow]
    hopeless: str | None


def draw_all(jobs: Mapping[str, Job], executor: Executor, on_outcome: Callable[[Outcome], None]) -> BatchResult:
    """Do jobs, each at most `TRIES` times.

    Args:
        jobs: by id.
        executor: who does them; is closed at the end.
        on_outcome: called after every try.

    Raises:
        WorkError: as `Executor.map`.
    """
    done: dict[str, ManifestRow] = {}
    failed: dict[str, ManifestRow] = {}
    tasks = [Task(id=key, job=job) for key, job in jobs.items()]
    try:
        while tasks:
            again: list[Task] = []
            for outcome in executor.map(tasks):
                task, row = outcome.task, outcome.row
                on_outcome(outcome)
                if row.status == "done":
                    done[task.id] = row
                    failed.pop(task.id, None)
                    continue
                failed[task.id] = row
                if outcome.hopeless is not None:
                    return BatchResult(done=done, failed=failed, hopeless=outcome.hopeless)
                if task.attempt < TRIES:
                    again.append(replace(task, attempt=task.attempt + 1))
            tasks = again
    finally:
        executor.close()
    return BatchResult(done=done, failed=failed, hopeless=None)
