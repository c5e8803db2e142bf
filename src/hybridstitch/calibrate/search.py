"""The search: candidates draw prompts together, the better ones draw more prompts, the best are checked and timed.

What is drawn follows from the prices, the prompts and the seed alone, never from the clock, so that a search that is
resumed, or repeated with recorded times, ends where it would have ended.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ..batch.crew import Crew, processes
from ..measure.price import Prices
from ..policies.methods import LargeOnly
from ..policies.policy import Policy
from ..recipe.file import NEAR
from ..recipe.point import between
from .call import Picture
from .candidates import Candidate, adaptive, explored, near
from .drawing import Score, Studio, Task
from .state import State
from .table import Row, best_by_kind, best_by_speed, pareto

FIRST = 2  # prompts that every candidate draws
SLACK = 0.03  # closeness by which a candidate may miss a request after the first prompts and still be tried on more
OnProgress = Callable[[float, str], None]  # share of the work that is done, and what is being done


@dataclass(slots=True)
class Search:
    """One search.

    Attributes:
        studio: who draws.
        state: what was drawn.
        searched: prompts to search with, by index.
        checked: prompts to check with.
        on_progress: told after every task.
    """

    studio: Studio
    state: State
    searched: tuple[int, ...]
    checked: tuple[int, ...]
    on_progress: OnProgress
    _crew: Crew[Studio] | None = field(default=None, init=False)

    @property
    def prices(self) -> Prices:
        """Of this machine."""
        return self.studio.prices

    @property
    def reference(self) -> Candidate:
        """The large model at T steps."""
        return LargeOnly(), self.studio.call.steps

    @property
    def seconds(self) -> float:
        """Price of the reference."""
        return self.prices.seconds(*self.reference)

    def run(self, *, speed: float | None, closeness: float | None) -> tuple[list[Row], list[Row]]:
        """Search, and check the winners on the prompts kept back.

        Args:
            speed: wanted, or None.
            closeness: wanted, or None; without either the whole front is wanted.

        Returns:
            the winners over all prompts, slowest first, the reference among them; and everything tried, over the
            searched prompts.
        """
        stitched = self.studio.pipe.transformer
        count = processes(stitched.large.device) if stitched.engine.compile == "off" else 1
        with Crew(lambda: self.studio, count) as self._crew:
            first, half = self.searched[:FIRST], self.searched[: max(FIRST, (len(self.searched) + 1) // 2)]
            self._shares(first)
            steps = self.studio.call.steps
            start = explored(steps, self.prices) if speed is None else near(speed, steps, self.prices)
            rows = self._evaluate([self.reference, *start, *adaptive(steps)], first, (0.1, 0.6))
            tried = {(str(row.policy), row.steps): row for row in rows}
            for prompts, each, span in ((half, 2, (0.6, 0.75)), (self.searched, 1, (0.75, 0.9))):
                kept = self._kept(rows, each, speed, closeness)
                rows = self._evaluate([self.reference, *kept], prompts, span)
                tried |= {(str(row.policy), row.steps): row for row in rows}
            winners = [row for row in pareto(rows) if row.speed >= 1 or (row.policy, row.steps) == self.reference]
            if speed is not None:
                winners = [w for w in winners if (w.policy, w.steps) == self.reference or _near(w, speed)]
            self._evaluate([(row.policy, row.steps) for row in winners], self.checked, (0.9, 0.95))
        everything = (*self.searched, *self.checked)
        return pareto(self.row(row.policy, row.steps, everything) for row in winners), list(tried.values())

    def row(self, policy: Policy, steps: int, prompts: Iterable[int]) -> Row:
        """What is known of a candidate over some prompts."""
        scores = [self.state.scores[prompt, steps, str(policy)] for prompt in prompts]
        return Row.of(scores, self.studio.call.steps, self.seconds)

    def _kept(self, rows: Sequence[Row], each: int, speed: float | None, closeness: float | None) -> list[Candidate]:
        """Which candidates draw more prompts."""
        if speed is not None:
            rows = [row for row in rows if _near(row, speed)]
            best = sorted(rows, key=lambda row: -row.closeness)[: 3 * each]
            kept = [*best, *best_by_kind(rows).values()]
        else:
            kept = best_by_speed([row for row in rows if row.speed > 1], each)
            if closeness is not None:
                kept = _around(kept, closeness)
                finer = [c for pair in pairwise(kept) for c in _thirds(*pair)]
                return [*((row.policy, row.steps) for row in kept), *finer] if each > 1 else _candidates(kept)
        return _candidates(kept)

    def _evaluate(
        self, candidates: Sequence[Candidate], prompts: Sequence[int], span: tuple[float, float]
    ) -> list[Row]:
        """Draw what is not drawn yet; the rows of all candidates over these prompts."""
        at_reference = [p for p in prompts if p not in self.state.references]
        tasks = self._tasks(candidates, prompts)
        first = [task for task in tasks if task.prompt in at_reference and task.steps == self.studio.call.steps]
        done, total = 0.0, sum(self._weight(task) for task in tasks) or 1.0
        for batch in (first, [task for task in tasks if task not in first]):
            for task, scores, reference in self._do(batch):
                self.state.add_scores(scores, None if reference is None else (task.prompt, reference))
                done += self._weight(task)
                self.on_progress(span[0] + (span[1] - span[0]) * done / total, f"{len(candidates)} candidates")
        return [self.row(policy, steps, prompts) for policy, steps in candidates]

    def _tasks(self, candidates: Sequence[Candidate], prompts: Sequence[int]) -> list[Task]:
        """Of what is not drawn yet, dearest first."""
        tasks = []
        for prompt in prompts:
            by_steps: dict[int, list[str]] = {}
            if prompt not in self.state.references:
                by_steps[self.studio.call.steps] = ["large"]
            for policy, steps in candidates:
                if (prompt, steps, str(policy)) not in self.state.scores:
                    texts = by_steps.setdefault(steps, [])
                    texts += [] if str(policy) in texts else [str(policy)]
            tasks += [Task(prompt, steps, tuple(texts)) for steps, texts in by_steps.items()]
        return sorted(tasks, key=lambda task: -self._weight(task))

    def _weight(self, task: Task) -> float:
        """How long a task takes, roughly: a run of the large model, and half of one for each further policy."""
        return task.steps * (1 + 0.5 * (len(task.policies) - 1))

    def _do(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Score], Picture | None]]:
        assert self._crew is not None
        jobs = [(task, self.state.references.get(task.prompt)) for task in tasks]
        for place, (scores, made) in self._crew.map(draw, jobs):
            yield tasks[place], scores, made

    def _shares(self, prompts: Sequence[int]) -> None:
        assert self._crew is not None
        left = [prompt for prompt in prompts if prompt not in self.state.shares]
        for place, shares in self._crew.map(Studio.shares, left):
            self.state.add_shares(left[place], shares)
            self.on_progress(0.08, "what masks are worth")


def _candidates(rows: Iterable[Row]) -> list[Candidate]:
    return list({(str(row.policy), row.steps): (row.policy, row.steps) for row in rows}.values())


def _thirds(slower: Row, faster: Row) -> list[Candidate]:
    """Two candidates between two rows of one make, where there are any."""
    found = between((slower.policy, slower.steps), (faster.policy, faster.steps))
    return list(dict.fromkeys(found[len(found) * k // 3] for k in (1, 2))) if found else []


def _near(row: Row, speed: float) -> bool:
    return abs(row.speed / speed - 1) <= NEAR


def _around(rows: Sequence[Row], closeness: float) -> list[Row]:
    """The fastest rows that may be close enough, slowest first: those that miss by little, and some that do not."""
    front = pareto(rows)
    enough = [row for row in front if row.closeness >= closeness]
    missing = [row for row in front if closeness - SLACK <= row.closeness < closeness]
    return [*enough[-6:], *missing[:2]]


def draw(studio: Studio, job: tuple[Task, Picture | None]) -> tuple[list[Score], Picture | None]:
    """Work of the crew: the scores of a task, and the reference's picture if this task drew it."""
    return studio.draw(*job)
