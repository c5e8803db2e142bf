"""What was drawn so far, and what a comparison still needs: candidates draw prompts, several at once on a CPU.

What is drawn is kept as it is drawn, and nothing is drawn twice.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from ..batch.crew import Crew, LocalCrew, processes
from ..measure.price import Prices
from ..policies.methods import LargeOnly
from .compare import Comparer, Comparison, Grid, Score
from .conditions import Picture
from .plans import Candidate
from .state import State
from .table import Standing

OnProgress = Callable[[float, str], None]  # share of the work that is done, and what is being done
CrewOf = Callable[["Comparer"], AbstractContextManager[Crew["Comparer"]]]  # who draws for this one, which times
Span = tuple[float, float]  # of that share


@dataclass(slots=True)
class Board:
    """The results of one calibration.

    Attributes:
        comparer: who draws.
        state: what was drawn.
        on_progress: told after every comparison.
        crew_of: who draws; None is this machine.
    """

    comparer: Comparer
    state: State
    on_progress: OnProgress
    crew_of: CrewOf | None = None
    _crew: Crew[Comparer] | None = field(default=None, init=False)

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

    @contextmanager
    def crew(self) -> Iterator[None]:
        """Draw with all members until the end of the context."""
        with (self.crew_of or _here)(self.comparer) as self._crew:
            yield
        self._crew = None

    def row(self, candidate: Candidate, prompts: Iterable[int]) -> Standing:
        """What is known of a candidate over some prompts."""
        scores = [self.state.scores[prompt, candidate.steps, candidate.text] for prompt in prompts]
        return Standing.of(scores, self.comparer.conditions.steps, self.seconds)

    def evaluate(self, candidates: Sequence[Candidate], prompts: Sequence[int], span: Span) -> list[Standing]:
        """Draw what is not drawn yet; the rows of all candidates over these prompts.

        Args:
            candidates, prompts: to draw, all of them by all.
            span: of the progress.
        """
        self.draw_references(prompts, span[0])
        comparisons = self._comparisons(candidates, prompts)
        done, total = 0.0, sum(self._weight(one) for one in comparisons) or 1.0
        for one, scores, _ in self._do(comparisons):
            self.state.add_scores(scores, None)
            done += self._weight(one)
            self.on_progress(span[0] + (span[1] - span[0]) * done / total, f"{len(candidates)} candidates")
        return [self.row(candidate, prompts) for candidate in candidates]

    def draw_references(self, prompts: Sequence[int], share: float) -> None:
        """Draw the large model's pictures of prompts that have none yet; all else is compared with them.

        Args:
            prompts: to draw.
            share: of the progress.
        """
        steps = self.comparer.conditions.steps
        missing = [Comparison(prompt, steps, ("large",)) for prompt in prompts if prompt not in self.state.references]
        for one, scores, made in self._do(missing):
            assert made is not None
            self.state.add_scores(scores, (one.prompt, made))
            self.on_progress(share, "the large model's pictures")

    def shares(self, prompts: Sequence[int]) -> None:
        """Measure f(M) of these prompts."""
        assert self._crew is not None
        left = [prompt for prompt in prompts if prompt not in self.state.shares]
        for place, shares in self._crew.map(Comparer.shares, left):
            self.state.add_shares(left[place], shares)
            self.on_progress(0.08, "what masks are worth")

    def _comparisons(self, candidates: Sequence[Candidate], prompts: Sequence[int]) -> list[Comparison]:
        """Of what is not drawn yet, dearest first."""
        comparisons = []
        for prompt in prompts:
            grids: dict[Grid, list[str]] = {}
            for one in candidates:
                if (prompt, one.steps, one.text) not in self.state.scores:
                    texts = grids.setdefault((one.steps, one.shift, one.levels), [])
                    texts += [] if str(one.policy) in texts else [str(one.policy)]
            comparisons += [Comparison(prompt, grid[0], tuple(texts), *grid[1:]) for grid, texts in grids.items()]
        return sorted(comparisons, key=lambda one: -self._weight(one))

    def _weight(self, comparison: Comparison) -> float:
        """How long a comparison takes, roughly: a run of the large model, and half of one for each further policy."""
        return comparison.steps * (1 + 0.5 * (len(comparison.policies) - 1))

    def _do(self, comparisons: Sequence[Comparison]) -> Iterator[tuple[Comparison, list[Score], Picture | None]]:
        assert self._crew is not None
        jobs = [(one, self.state.references.get(one.prompt)) for one in comparisons]
        for place, (scores, made) in self._crew.map(draw, jobs):
            yield comparisons[place], scores, made


def draw(comparer: Comparer, job: tuple[Comparison, Picture | None]) -> tuple[list[Score], Picture | None]:
    """Work of the crew: the scores of a comparison, and the reference's picture if this one drew it."""
    return comparer.draw(*job)


def _here(comparer: Comparer) -> LocalCrew[Comparer]:
    """All cores of this machine."""
    stitched = comparer.pipe.transformer
    members = processes(stitched.large.device) if stitched.engine.compile == "off" else 1
    return LocalCrew(lambda: comparer, members)
