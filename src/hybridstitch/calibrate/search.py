"""The search: candidates draw prompts together, the better ones draw more prompts, the best are checked and timed.

What is drawn follows from the prices, the prompts, the seed and the recorded seconds of the parts that are over, so
that a search that is resumed, or repeated with recorded times, ends where it would have ended.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from time import perf_counter

from ..batch.crew import Crew, processes
from ..measure.price import Prices
from ..policies.methods import LargeOnly
from ..recipe.file import NEAR
from ..recipe.point import between
from .candidates import adaptive, explored, near
from .compare import Comparer, Comparison, Grid, Score
from .conditions import Picture
from .evolution import Evolution, Room
from .plans import Candidate
from .state import State
from .table import PLAIN, Standing, best_by_kind, best_by_speed, pareto

FIRST = 2  # prompts that every candidate draws
CLEARLY = 0.01  # closeness by which a faster candidate must be ahead, after few prompts, for a slower one to be dropped
LATE = 0.4  # share of the time after which single noise levels are moved
KEPT, WANTED = 3, 4  # candidates of a span that draw a second prompt; times as many where one speed is wanted
GENERATION = 8  # references that a generation costs
PATIENCE = 4  # generations in a row that improve nothing
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
        time: seconds for all of it.
    """

    comparer: Comparer
    state: State
    searched: tuple[int, ...]
    checked: tuple[int, ...]
    on_progress: OnProgress
    time: float
    _crew: Crew[Comparer] | None = field(default=None, init=False)
    _tried: dict[Candidate, Standing] = field(default_factory=dict, init=False)
    _used: float = field(default=0.0, init=False)  # seconds, of the parts of this search that are over

    @property
    def prices(self) -> Prices:
        """Of this machine."""
        return self.comparer.prices

    @property
    def reference(self) -> Candidate:
        """The large model at T steps."""
        return Candidate(LargeOnly(), self.comparer.conditions.steps)

    @property
    def seconds(self) -> float:
        """Price of the reference."""
        return self.prices.seconds(self.reference.policy, self.reference.steps)

    @property
    def room(self) -> Room:
        """Where plans are looked for."""
        return Room(self.comparer.pipe, self.prices, self.seconds)

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
        members = processes(stitched.large.device) if stitched.engine.compile == "off" else 1
        with Crew(lambda: self.comparer, members) as self._crew:
            first, half = self.searched[:FIRST], self.searched[: max(FIRST, (len(self.searched) + 1) // 2)]
            with self._clock("first"):
                self._shares(first)
                begun = self._screened([self.reference, *self._first(speed)], (), first, (0.1, 0.4), speed)
            rows = self._evolved(begun, first, speed, closeness)
            for prompts, each, span in ((half, 2, (0.7, 0.8)), (self.searched, 1, (0.8, 0.9))):
                kept = self._kept(rows, each, speed, closeness)
                rows = self._evaluate([self.reference, *kept], prompts, span)
                self._tried |= {row.candidate: row for row in rows}
            winners = [row for row in pareto(rows) if row.speed >= 1 or row.candidate == self.reference]
            if speed is not None:
                winners = [w for w in winners if w.candidate == self.reference or _near(w, speed)]
            self._evaluate([row.candidate for row in winners], self.checked, (0.9, 0.95))
        everything = (*self.searched, *self.checked)
        return pareto(self.row(row.candidate, everything) for row in winners), list(self._tried.values())

    def row(self, candidate: Candidate, prompts: Iterable[int]) -> Standing:
        """What is known of a candidate over some prompts."""
        scores = [self.state.scores[prompt, candidate.steps, candidate.text] for prompt in prompts]
        return Standing.of(scores, self.comparer.conditions.steps, self.seconds)

    def _first(self, speed: float | None) -> list[Candidate]:
        """What every search begins with."""
        steps = self.comparer.conditions.steps
        pairs = explored(steps, self.prices) if speed is None else near(speed, steps, self.prices)
        spans = self.room.spans_of(speed)
        plans = [plan for plan in self.room.first(steps) if self.room.span(plan) in spans]
        return list(dict.fromkeys([*(Candidate(*pair) for pair in (*pairs, *adaptive(steps))), *plans]))

    def _evolved(
        self, rows: Sequence[Standing], prompts: Sequence[int], speed: float | None, closeness: float | None
    ) -> list[Standing]:
        """Generations of plans, until the time is over or several in a row improved nothing."""
        known, idle = list(rows), 0
        evolution = Evolution(self.room, self.room.spans_of(speed), f"{self.comparer.seed}")
        for number in count():
            late = self._used >= LATE * self.time
            if idle >= PATIENCE or self._used + self._rest(known, prompts, speed, closeness) >= self.time:
                break
            children = evolution.children(known, number, late=late, most=GENERATION * self.seconds)
            if not children:
                break
            share = 0.4 + 0.3 * self._used / self.time
            with self._clock(f"generation {number}"):
                found = self._screened(children, known, prompts, (share, share), speed)
            idle = 0 if evolution.improved(known, found) else idle + 1
            known += found
        return known

    def _rest(
        self, rows: Sequence[Standing], prompts: Sequence[int], speed: float | None, closeness: float | None
    ) -> float:
        """Seconds that further prompts of the best will take, and a timed call of each, at the pace so far."""
        done = sum(self.seconds / row.speed * len(row.scores) for row in self._tried.values())
        left = len(self.searched) + len(self.checked) - len(prompts) + 1
        return (
            self._used / done * left * sum(self.seconds / r.speed for r in self._rows_kept(rows, 1, speed, closeness))
        )

    def _screened(
        self,
        candidates: Sequence[Candidate],
        known: Sequence[Standing],
        prompts: Sequence[int],
        span: tuple[float, float],
        speed: float | None,
    ) -> list[Standing]:
        """Draw one prompt; of those that are among the best of their span there, and of the reference, all.

        Args:
            candidates: to draw.
            known: rows of all prompts so far.
            prompts: to draw.
            span: of the progress.
            speed: wanted: then there is one span, and more of it are kept.
        """
        half = (span[0] + span[1]) / 2
        drawn = self._evaluate(candidates, prompts[:1], (span[0], half))
        before = [self.row(row.candidate, prompts[:1]) for row in known]
        alone = [row for row in (*before, *drawn) if row.kind in PLAIN]
        each = KEPT if speed is None else WANTED * KEPT
        best = {row.candidate for rows in ((*before, *drawn), alone) for row in best_by_speed(rows, each)}
        kept = [row.candidate for row in drawn if row.candidate in best or row.candidate == self.reference]
        found = self._evaluate(kept, prompts, (half, span[1]))
        self._tried |= {row.candidate: row for row in (*drawn, *found)}
        return found

    def _kept(
        self, rows: Sequence[Standing], each: int, speed: float | None, closeness: float | None
    ) -> list[Candidate]:
        """Which candidates draw more prompts."""
        kept = self._rows_kept(rows, each, speed, closeness)
        finer = [c for pair in pairwise(kept) for c in _thirds(*pair)] if closeness is not None and each > 1 else []
        return list(dict.fromkeys([*(row.candidate for row in kept), *finer]))

    def _rows_kept(
        self, rows: Sequence[Standing], each: int, speed: float | None, closeness: float | None
    ) -> list[Standing]:
        if speed is not None:
            rows = [row for row in rows if _near(row, speed)]
            return [*sorted(rows, key=lambda row: -row.closeness)[: 3 * each], *best_by_kind(rows).values()]
        rows = [row for row in rows if row.speed > 1]
        alone = [row for row in rows if row.kind in PLAIN]  # drawn on all prompts too: the rival to beat
        kept = _unbeaten(best_by_speed(rows, each))
        kept += [row for row in _unbeaten(best_by_speed(alone, 1)) if row not in kept]
        return kept if closeness is None else _around(kept, closeness)

    def _evaluate(
        self, candidates: Sequence[Candidate], prompts: Sequence[int], span: tuple[float, float]
    ) -> list[Standing]:
        """Draw what is not drawn yet; the rows of all candidates over these prompts."""
        at_reference = [p for p in prompts if p not in self.state.references]
        comparisons = self._comparisons(candidates, prompts)
        steps = self.comparer.conditions.steps
        first = [one for one in comparisons if one.prompt in at_reference and one.grid == (steps, None, None)]
        done, total = 0.0, sum(self._weight(one) for one in comparisons) or 1.0
        for batch in (first, [one for one in comparisons if one not in first]):
            for one, scores, reference in self._do(batch):
                self.state.add_scores(scores, None if reference is None else (one.prompt, reference))
                done += self._weight(one)
                self.on_progress(span[0] + (span[1] - span[0]) * done / total, f"{len(candidates)} candidates")
        return [self.row(candidate, prompts) for candidate in candidates]

    def _comparisons(self, candidates: Sequence[Candidate], prompts: Sequence[int]) -> list[Comparison]:
        """Of what is not drawn yet, dearest first."""
        comparisons = []
        for prompt in prompts:
            grids: dict[Grid, list[str]] = {}
            if prompt not in self.state.references:
                grids[self.comparer.conditions.steps, None, None] = ["large"]
            for one in candidates:
                if (prompt, one.steps, one.text) not in self.state.scores:
                    texts = grids.setdefault((one.steps, one.shift, one.levels), [])
                    texts += [] if str(one.policy) in texts else [str(one.policy)]
            comparisons += [Comparison(prompt, grid[0], tuple(texts), *grid[1:]) for grid, texts in grids.items()]
        return sorted(comparisons, key=lambda one: -self._weight(one))

    def _weight(self, comparison: Comparison) -> float:
        """How long a comparison takes, roughly: a run of the large model, and half of one for each further policy."""
        return comparison.steps * (1 + 0.5 * (len(comparison.policies) - 1))

    @contextmanager
    def _clock(self, part: str) -> Iterator[None]:
        """Record how long a part of the search takes, once."""
        begin = perf_counter()
        yield
        if part not in self.state.spent:
            self.state.add_spent(part, perf_counter() - begin)
        self._used += self.state.spent[part]

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


def _thirds(slower: Standing, faster: Standing) -> list[Candidate]:
    """Two candidates between two rows of one make, where there are any."""
    if slower.shift != faster.shift or slower.levels or faster.levels:
        return []
    found = between((slower.policy, slower.steps), (faster.policy, faster.steps))
    thirds = dict.fromkeys(found[len(found) * k // 3] for k in (1, 2)) if found else {}
    return [Candidate(policy, steps, slower.shift) for policy, steps in thirds]


def _unbeaten(rows: Sequence[Standing]) -> list[Standing]:
    """Rows that no faster one is clearly closer than."""
    kept, best = [], -1.0
    for row in sorted(rows, key=lambda row: -row.speed):
        if row.closeness >= best - CLEARLY:
            kept.append(row)
        best = max(best, row.closeness)
    return kept[::-1]


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
