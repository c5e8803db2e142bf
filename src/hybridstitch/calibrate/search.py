"""The search: candidates draw prompts together, the better ones draw more prompts, the best are checked and timed.

What is drawn follows from the prices, the prompts, the seed and the recorded seconds of the parts that are over, so
that a search that is resumed, or repeated with recorded times, ends where it would have ended.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise

from .board import Board, Span
from .candidates import adaptive, beside, explored, near
from .choice import FIRST, around, beside_speed, has_speed, thirds, unbeaten, worth_two
from .evolution import Evolution, Room, narrow_from
from .filling import Filling
from .gaps import rivals
from .plans import Candidate
from .table import PLAIN, QUICK, Standing, best_by_kind, best_by_speed, pareto
from .timekeeper import Timekeeper
from .winners import TIMED

LATE = 0.4  # share of the time after which single noise levels are moved
KEPT, WANTED = 2, 6  # candidates of a span that draw a second prompt; times as many where one speed is wanted
GENERATION = 8  # references that a generation costs
HALF = 2  # candidates of a span that draw half of the prompts; of the quick ones as many draw all
PATIENCE, IDLE = 4, 0.25  # generations in a row that improve nothing, and the share of the time that they take
FILLINGS = (0.88, 0.883, 0.886)  # of gaps, by progress: what fills one may beat its neighbours, and so open another


@dataclass(slots=True)
class Search:
    """One search.

    Attributes:
        board: what was drawn.
        searched: prompts to search with, by index.
        checked: prompts to check with.
        time: seconds for all of it, what was measured before included.
    """

    board: Board
    searched: tuple[int, ...]
    checked: tuple[int, ...]
    time: float
    _tried: dict[Candidate, Standing] = field(default_factory=dict, init=False)
    _parts: Timekeeper = field(init=False)

    @property
    def room(self) -> Room:
        """Where plans are looked for."""
        return Room(self.board.comparer.pipe, self.board.prices, self.board.reference.steps, self.board.seconds)

    @property
    def _half(self) -> int:
        """Prompts that the better candidates draw."""
        return max(FIRST, (len(self.searched) + 1) // 2)

    def run(self, *, speed: float | None, closeness: float | None) -> tuple[list[Standing], list[Standing]]:
        """Search, and check the winners on the prompts kept back.

        Args:
            speed: wanted, or None.
            closeness: wanted, or None; without either the whole front is wanted.

        Returns:
            the winners over all prompts, slowest first, the reference among them; and everything tried, over the
            searched prompts.
        """
        self._parts = Timekeeper(self.board.state)
        with self.board.crew():
            first, half = self.searched[:FIRST], self.searched[: self._half]
            with self._parts.part("first"):
                self.board.draw_references(self.searched, 0.06)
                if self.room.masks:
                    self.board.shares(first)
                begun = self._screened([self.board.reference, *self._first(speed)], (), first, (0.1, 0.35), speed)
                if speed is None:
                    begun += self._screened(self._counts(begun), begun, first, (0.35, 0.4), speed)
                sides = self.board.evaluate(self._sides(speed), first, (0.4, 0.4))
                self._tried |= {row.candidate: row for row in sides}
            rows = [*self._evolved(begun, first, speed, closeness), *sides]
            if speed is None:
                rows = self._with_rivals(rows, first, (0.7, 0.7))
            for prompts, each, span in ((half, HALF, (0.7, 0.8)), (self.searched, 1, (0.8, 0.88))):
                kept = self._kept(rows, each, speed, closeness)
                with self._parts.part(f"{len(prompts)} prompts"):
                    drawn = self.board.evaluate([self.board.reference, *kept], prompts, span)
                self._tried |= {row.candidate: row for row in drawn}
                rows = drawn if speed is not None or closeness is not None else worth_two(drawn)
            if speed is None:
                rows = self._with_rivals(self._filled(rows), self.searched, (0.89, 0.9))
            winners = self._winners(rows, speed) if closeness is None else self._front(rows, None)
            self.board.evaluate([row.candidate for row in winners], self.checked, (0.9, 0.95))
        drawn = [self.board.row(row.candidate, (*self.searched, *self.checked)) for row in winners]
        return self._front(drawn, speed), list(self._tried.values())

    def _more(
        self, rows: Sequence[Standing], plans: Iterable[Candidate], prompts: Sequence[int], span: Span
    ) -> list[Standing]:
        """These rows, and those of more candidates over the same prompts."""
        known = {row.candidate for row in rows}
        found = self.board.evaluate([plan for plan in dict.fromkeys(plans) if plan not in known], prompts, span)
        self._tried |= {row.candidate: row for row in found}
        return [*rows, *found]

    def _winners(self, rows: Sequence[Standing], speed: float | None) -> list[Standing]:
        """The front of these rows, without those of `worth_two` that the large model replaces; see `_front`."""
        return self._front(worth_two(rows, speed), speed)

    def _front(self, rows: Sequence[Standing], speed: float | None) -> list[Standing]:
        """The front of these rows, or what of it has a wanted speed or lies beside it; and the reference."""
        front = [row for row in pareto(rows) if row.speed >= 1 or row.candidate == self.board.reference]
        if speed is None:
            return front
        kept = [row for row in front if row.candidate == self.board.reference]
        kept += [*beside_speed(front, speed), *pareto(row for row in rows if has_speed(row, speed))]
        return sorted({row.candidate: row for row in kept}.values(), key=lambda row: row.speed)

    def _with_rivals(self, rows: Sequence[Standing], prompts: Sequence[int], span: Span) -> list[Standing]:
        """These rows, and those of the large model alone at speeds of winners of both."""
        with self._parts.part(f"rivals on {len(prompts)} prompts"):
            return self._more(rows, rivals(self._winners(rows, None), rows, self.room.speed), prompts, span)

    def _filled(self, rows: Sequence[Standing]) -> list[Standing]:
        """These rows, and those of what fills gaps of their front: once, and again where there is as much time."""
        filling, took = Filling(self.board, self.room, self.searched, self._tried), 0.0
        for number, share in enumerate(FILLINGS):
            winners, before = self._winners(rows, None), self._parts.used
            if number and before + took + self._check(winners) >= self.time:
                break
            with self._parts.part(f"filling {number}"):
                rows = self._more(rows, filling.plans(winners, share), self.searched, (share, share + 0.003))
            took = self._parts.used - before
        return list(rows)

    def _first(self, speed: float | None) -> list[Candidate]:
        """What every search begins with."""
        steps = self.board.comparer.conditions.steps
        pairs = explored(steps, self.board.prices) if speed is None else near(speed, steps, self.board.prices)
        known = [plan for pair in (*pairs, *adaptive(steps)) if (plan := self.room.fitted(Candidate(*pair)))]
        counts = [] if speed is None else self.room.counts()
        return list(dict.fromkeys([*known, *self._inside([*self.room.first(), *counts], speed)]))

    def _counts(self, begun: Sequence[Standing]) -> list[Candidate]:
        """Counts of large steps beside those that are still kept, which nothing has drawn yet."""
        return [plan for plan in self._inside(self.room.counts_near(begun), None) if plan not in self._tried]

    def _inside(self, plans: Sequence[Candidate], speed: float | None) -> list[Candidate]:
        """Those whose speed is looked at."""
        spans = self.room.spans_of(speed)
        return [plan for plan in plans if self.room.span(plan) in spans]

    def _sides(self, speed: float | None) -> list[Candidate]:
        """What is drawn beside a wanted speed, which dismisses nothing that has the speed; see `beside_speed`."""
        pairs = [] if speed is None else beside(speed, self.board.comparer.conditions.steps, self.board.prices)
        return [plan for pair in pairs if (plan := self.room.fitted(Candidate(*pair)))]

    def _evolved(
        self, rows: Sequence[Standing], prompts: Sequence[int], speed: float | None, closeness: float | None
    ) -> list[Standing]:
        """Generations of plans, until the time is over or several in a row improved nothing."""
        known, idle, idled, took = list(rows), 0, 0.0, 0.0
        evolution = Evolution(self.room, self.room.spans_of(speed), f"{self.board.comparer.seed}")
        for number in count():
            late = self._parts.used >= LATE * self.time
            tired = idle >= PATIENCE and idled >= IDLE * self.time
            if tired or self._parts.used + took + self._rest(known, prompts, speed, closeness) >= self.time:
                break
            children = evolution.children(known, number, late=late, most=GENERATION * self.board.seconds)
            if not children:
                break
            share = 0.4 + 0.3 * self._parts.used / self.time
            before = self._parts.used
            with self._parts.part(f"generation {number}"):
                found = self._screened(children, known, prompts, (share, share), speed)
            took = self._parts.used - before
            idle, idled = (0, 0.0) if evolution.improved(known, found) else (idle + 1, idled + took)
            known += found
        return known

    def _rest(
        self, rows: Sequence[Standing], prompts: Sequence[int], speed: float | None, closeness: float | None
    ) -> float:
        """Seconds that the best will still take: further prompts, some fillers, at the pace so far; timed calls.

        Rather too many: the kept are more than will win.
        """
        kept = self._rows_kept(rows, 1, speed, closeness)
        left = HALF * (self._half - len(prompts)) + len(self.searched) - self._half
        left += len(self.searched) + len(self.checked)
        return self._drawing(kept, left) + self._check(kept)

    def _check(self, winners: Sequence[Standing]) -> float:
        """Seconds that the check of the winners will take, at the pace so far, and their timed calls."""
        once = sum(self.board.seconds / row.speed for row in winners)
        return self._drawing(winners, len(self.checked)) + max(2 * once, TIMED * self.time)

    def _drawing(self, rows: Sequence[Standing], prompts: int) -> float:
        """Seconds that these will take to draw so many prompts, at the pace so far."""
        done = sum(len(row.scores) / row.speed for row in self._tried.values() if row.candidate != self.board.reference)
        done += len(self.searched)  # pictures of the reference
        return self._parts.drawing / done * prompts * sum(1 / row.speed for row in rows)

    def _screened(
        self,
        candidates: Sequence[Candidate],
        known: Sequence[Standing],
        prompts: Sequence[int],
        span: Span,
        speed: float | None,
    ) -> list[Standing]:
        """Draw one prompt; all of those that are among the best of their span there, and of the reference.

        The best of all, of the large model alone, and of both: one prompt may be kind to one side.

        Args:
            candidates: to draw.
            known: rows of all prompts so far.
            prompts: to draw.
            span: of the progress.
            speed: wanted: then there is one span, and more of it are kept.
        """
        half = (span[0] + span[1]) / 2
        drawn = self.board.evaluate(candidates, prompts[:1], (span[0], half))
        before = [self.board.row(row.candidate, prompts[:1]) for row in known]
        each = KEPT if speed is None else WANTED * KEPT
        everybody = [row for row in (*before, *drawn) if row.speed > 1]
        sides = [[row for row in everybody if (row.kind in PLAIN) == plain] for plain in (True, False)]
        best = {row.candidate for rows in (everybody, *sides) for row in unbeaten(self._best(rows, each))}
        kept = [row.candidate for row in drawn if row.candidate in best or row.candidate == self.board.reference]
        found = self.board.evaluate(kept, prompts, (half, span[1]))
        self._tried |= {row.candidate: row for row in (*drawn, *found)}
        return found

    def _kept(
        self, rows: Sequence[Standing], each: int, speed: float | None, closeness: float | None
    ) -> list[Candidate]:
        """Which candidates draw more prompts."""
        kept = self._rows_kept(rows, each, speed, closeness)
        finer = [c for pair in pairwise(kept) for c in thirds(*pair)] if closeness is not None and each > 1 else []
        return list(dict.fromkeys([*(row.candidate for row in kept), *finer]))

    def _rows_kept(
        self, rows: Sequence[Standing], each: int, speed: float | None, closeness: float | None
    ) -> list[Standing]:
        if speed is not None:
            sides = beside_speed(pareto(rows), speed)
            rows = [row for row in rows if has_speed(row, speed)]
            return [*sorted(rows, key=lambda row: -row.closeness)[: 3 * each], *best_by_kind(rows).values(), *sides]
        rows = [row for row in rows if row.speed > 1]
        alone = [row for row in rows if row.kind in PLAIN]  # drawn on all prompts too: the rival to beat
        best = self._best(rows, each)
        quick = self._best([row for row in rows if row.speed >= QUICK], HALF)
        kept = unbeaten([*best, *(row for row in quick if row not in best)])
        kept += [row for row in unbeaten(self._best(alone, 1)) if row not in kept]
        return kept if closeness is None else around(kept, closeness)

    def _best(self, rows: Iterable[Standing], each: int) -> list[Standing]:
        """The closest of every span of speeds of this pair's."""
        return best_by_speed(rows, each, narrow_from(self.board.reference.steps))
