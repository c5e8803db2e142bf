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
from .candidates import Candidate, adaptive, explored, near
from .compare import Comparer, Comparison, Score
from .conditions import Picture
from .state import State
from .table import Standing, best_by_kind, best_by_speed, pareto

FIRST = 2  # prompts that every candidate draws
SLACK = 0.03  # closeness by which a candidate may miss a request after the first prompts and still be tried on more
OnProgress = Callable[[float, str], None]  # share of the work that is done, and what is being done


@dataclass(slots=True)
class Search:
    """One search.

    Attributes:
        comparer: who draws.
        state: what was drawn.
        searched: prompts to search with, by index.
        checked: prompts to check with.
        on_progress: told after every comparison.
    """

    comparer: Comparer
    state: State
    searched: tuple[int, ...]
    checked: tuple[int, ...]
    on_progress: OnProgress
    _crew: Crew[Comparer] | None = field(default=None, init=False)

    @property
    def prices(self) -> Prices:
        """Of this machine."""
        return self.comparer.prices

    @property
    def reference(self) -> Candidate:
        """The large model at T steps."""
        return LargeOnly(), self.comparer.conditions.steps

    @property
    def seconds(self) -> float:
        """Price of the reference."""
        return self.prices.seconds(*self.reference)

    def run(self, *, speed: float | None, closeness: float | None) -> tuple[list[Standing], list[Standing]]:
        """Search, and check the winners on the prompts kept back.

        Args:
            speed: wanted, or None.
            closeness: wanted, or None; without either the whole front is wanted.

        Returns:
            the winners over all prompts, slowest first, the reference among them; and everything tried, over the
            searched prompts.
        """
        stitched = self.comparer.pipe.transformer
        count = processes(stitched.large.device) if stitched.engine.compile == "off" else 1
        with Crew(lambda: self.comparer, count) as self._crew:
            first, half = self.searched[:FIRST], self.searched[: max(FIRST, (len(self.searched) + 1) // 2)]
            self._shares(first)
            steps = self.comparer.conditions.steps
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

    def row(self, policy: Policy, steps: int, prompts: Iterable[int]) -> Standing:
        """What is known of a candidate over some prompts."""
        scores = [self.state.scores[prompt, steps, str(policy)] for prompt in prompts]
        return Standing.of(scores, self.comparer.conditions.steps, self.seconds)

    def _kept(
        self, rows: Sequence[Standing], each: int, speed: float | None, closeness: float | None
    ) -> list[Candidate]:
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
    ) -> list[Standing]:
        """Draw what is not drawn yet; the rows of all candidates over these prompts."""
        at_reference = [p for p in prompts if p not in self.state.references]
        comparisons = self._comparisons(candidates, prompts)
        steps = self.comparer.conditions.steps
        first = [one for one in comparisons if one.prompt in at_reference and one.steps == steps]
        done, total = 0.0, sum(self._weight(one) for one in comparisons) or 1.0
        for batch in (first, [one for one in comparisons if one not in first]):
            for one, scores, reference in self._do(batch):
                self.state.add_scores(scores, None if reference is None else (one.prompt, reference))
                done += self._weight(one)
                self.on_progress(span[0] + (span[1] - span[0]) * done / total, f"{len(candidates)} candidates")
        return [self.row(policy, steps, prompts) for policy, steps in candidates]

    def _comparisons(self, candidates: Sequence[Candidate], prompts: Sequence[int]) -> list[Comparison]:
        """Of what is not drawn yet, dearest first."""
        comparisons = []
        for prompt in prompts:
            by_steps: dict[int, list[str]] = {}
            if prompt not in self.state.references:
                by_steps[self.comparer.conditions.steps] = ["large"]
            for policy, steps in candidates:
                if (prompt, steps, str(policy)) not in self.state.scores:
                    texts = by_steps.setdefault(steps, [])
                    texts += [] if str(policy) in texts else [str(policy)]
            comparisons += [Comparison(prompt, steps, tuple(texts)) for steps, texts in by_steps.items()]
        return sorted(comparisons, key=lambda one: -self._weight(one))

    def _weight(self, comparison: Comparison) -> float:
        """How long a comparison takes, roughly: a run of the large model, and half of one for each further policy."""
        return comparison.steps * (1 + 0.5 * (len(comparison.policies) - 1))

    def _do(self, comparisons: Sequence[Comparison]) -> Iterator[tuple[Comparison, list[Score], Picture | None]]:
        assert self._crew is not None
        jobs = [(one, self.state.references.get(one.prompt)) for one in comparisons]
        for place, (scores, made) in self._crew.map(draw, jobs):
            yield comparisons[place], scores, made

    def _shares(self, prompts: Sequence[int]) -> None:
        assert self._crew is not None
        left = [prompt for prompt in prompts if prompt not in self.state.shares]
        for place, shares in self._crew.map(Comparer.shares, left):
            self.state.add_shares(left[place], shares)
            self.on_progress(0.08, "what masks are worth")


def _candidates(rows: Iterable[Standing]) -> list[Candidate]:
    return list({(str(row.policy), row.steps): (row.policy, row.steps) for row in rows}.values())


def _thirds(slower: Standing, faster: Standing) -> list[Candidate]:
    """Two candidates between two rows of one make, where there are any."""
    found = between((slower.policy, slower.steps), (faster.policy, faster.steps))
    return list(dict.fromkeys(found[len(found) * k // 3] for k in (1, 2))) if found else []


def _near(row: Standing, speed: float) -> bool:
    return abs(row.speed / speed - 1) <= NEAR


def _around(rows: Sequence[Standing], closeness: float) -> list[Standing]:
    """The fastest rows that may be close enough, slowest first: those that miss by little, and some that do not."""
    front = pareto(rows)
    enough = [row for row in front if row.closeness >= closeness]
    missing = [row for row in front if closeness - SLACK <= row.closeness < closeness]
    return [*enough[-6:], *missing[:2]]


def draw(comparer: Comparer, job: tuple[Comparison, Picture | None]) -> tuple[list[Score], Picture | None]:
    """Work of the crew: the scores of a comparison, and the reference's picture if this one drew it."""
    return comparer.draw(*job)
