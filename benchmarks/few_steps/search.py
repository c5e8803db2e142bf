"""The search: the best candidates of each budget, changed in a place or two, over and over."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from time import perf_counter

from hybridstitch.measure.price import Prices

from .candidates import Candidate, large, possible, spelled
from .studio import Studio, at_time, dense_steps

SHIFTS = (3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
BUDGETS = (3, 4, 5, 6, 7)
RIVALS = tuple(range(2, 9))  # numbers of large steps
WORDS = ("L", "S", "R@0.15", "R@0.3", "R@0.45", "H@0.15", "H@0.3", "-")
FIRST = (  # where the search begins
    *("S L2 R@0.3 L", "S2 L2 R@0.3 L", "S L3 R@0.3 L", "S L2 R@0.3 L R@0.3 L", "S2 L4 R@0.3 L", "S2 L R@0.3 L R@0.3 L"),
    *("L2 H2@0.15 S2", "L3 H2@0.15 S", "L4 H2@0.15", "L4 H4@0.15", "L6 H2@0.15", "S L2 S L2 S L", "L3 S L3 R@0.3"),
    *("L3 - L - L", "L2 - L - L", "L4 - L2 - L", "L5 - L - L"),
    *("S L2 R@0.3 L R@0.3 R@0.15 L2", "L3 R@0.3 L R@0.3 L R@0.3"),
)


class Search:
    """Candidates that were drawn, and how close they came."""

    def __init__(self, studio: Studio, prices: Prices, folder: Path, screened: int, seed: int) -> None:
        """Read what an earlier search wrote, and draw the rivals.

        Args:
            studio: the search's prompts.
            prices: for the time of a candidate.
            folder: where search.csv is.
            screened: prompts every candidate is drawn on; the best of each budget are drawn on all.
            seed: of the mutations.
        """
        self.studio, self.prices, self.screened = studio, prices, screened
        self.file, self.random = folder / "search.csv", random.Random(seed)
        self.values: dict[Candidate, list[float]] = {}
        if self.file.is_file():
            with self.file.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    values = [float(v) for v in row["closeness_db"].split()]
                    self.values[Candidate(row["program"], float(row["shift"]))] = values
        self.add([large(n, shift) for n in RIVALS for shift in SHIFTS], screened)

    def add(self, candidates: Sequence[Candidate], prompts: int) -> None:
        """Draw candidates on the first `prompts` prompts, where that is still to do."""
        todo = [c for c in dict.fromkeys(candidates) if len(self.values.get(c, ())) < prompts]
        for had in sorted({len(self.values.get(c, ())) for c in todo}):
            group = [c for c in todo if len(self.values.get(c, ())) == had]
            for candidate, values in self.studio.closeness(group, range(had, prompts)).items():
                self.values[candidate] = [*self.values.get(candidate, []), *values]
        self.save()

    def save(self) -> None:
        """Write search.csv."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["program", "shift", "steps", "dense_steps", "prompts", "closeness_db"])
            for c, values in self.values.items():
                time = f"{dense_steps(c, self.prices):.4f}"
                writer.writerow([c.program, c.shift, c.steps, time, len(values), " ".join(f"{v:.3f}" for v in values)])

    def rivals(self, prompts: int) -> list[Candidate]:
        """For each number of large steps the plain candidate that comes closest over the first `prompts` prompts."""
        best: dict[int, Candidate] = {}
        for c, values in self.values.items():
            if c.plain and len(values) >= prompts:
                before = best.get(c.large_steps)
                if before is None or mean(values[:prompts]) > mean(self.values[before][:prompts]):
                    best[c.large_steps] = c
        return [best[steps] for steps in sorted(best)]

    def ahead(self, candidate: Candidate, prompts: int) -> float:
        """Decibels before the rivals at the same time, over the first `prompts` prompts."""
        curve = [(dense_steps(r, self.prices), mean(self.values[r][:prompts])) for r in self.rivals(prompts)]
        return mean(self.values[candidate][:prompts]) - at_time(curve, dense_steps(candidate, self.prices))

    def best(self, budget: float, count: int, prompts: int) -> list[Candidate]:
        """The stitched candidates furthest ahead that take at most `budget` dense steps, and less than .8 fewer."""
        inside = [
            c
            for c, values in self.values.items()
            if not c.plain and len(values) >= prompts and budget - 0.8 < dense_steps(c, self.prices) <= budget + 0.05
        ]
        curve = [(dense_steps(r, self.prices), mean(self.values[r][:prompts])) for r in self.rivals(prompts)]
        ahead = {c: mean(self.values[c][:prompts]) - at_time(curve, dense_steps(c, self.prices)) for c in inside}
        return sorted(inside, key=ahead.__getitem__, reverse=True)[:count]

    def mutant(self, budget: float) -> Candidate | None:
        """One of the best of a budget, changed in one or two places; None where nothing new and possible came out."""
        parents = self.best(budget, 6, self.screened) or [Candidate(spelled(FIRST[0]), 6.0)]
        for _ in range(60):
            child = self._changed(self.random.choice(parents), WORDS)
            fits = child not in self.values and possible(child) and not child.plain
            if fits and abs(dense_steps(child, self.prices) - budget) < 0.8:
                return child
        return None

    def plain_mutant(self, steps: int) -> Candidate | None:
        """The same for fewer large steps: their levels are searched as well."""
        drawn = [c for c, values in self.values.items() if c.plain and c.large_steps == steps]
        parents = sorted(drawn, key=lambda c: mean(self.values[c][: self.screened]), reverse=True)[:6]
        for _ in range(60):
            child = self._changed(self.random.choice(parents), ("L", "-"))
            if child not in self.values and possible(child) and child.plain and child.large_steps == steps:
                return child
        return None

    def _changed(self, parent: Candidate, words: Sequence[str]) -> Candidate:
        """A candidate with one or two words changed, put in or taken out, or another shift."""
        program, shift = parent.program.split(), parent.shift
        for _ in range(self.random.choice((1, 1, 2))):
            place, kind = self.random.randrange(len(program)), self.random.random()
            if kind < 0.2:
                shift = self.random.choice(SHIFTS)
            elif kind < 0.5:
                program[place] = self.random.choice(words)
            elif kind < 0.8:
                program.insert(place, self.random.choice(words))
            elif len(program) > 2:
                del program[place]
        return Candidate(" ".join(program), shift)

    def run(self, minutes: float) -> None:
        """Search until the time is over, then draw the best of each budget on all prompts."""
        until = perf_counter() + 60 * minutes
        first = [Candidate(spelled(program), shift) for program in FIRST for shift in (4.0, 6.0)]
        self.add([c for c in first if possible(c)], self.screened)
        while perf_counter() < until:
            stitched = [self.mutant(budget) for budget in BUDGETS for _ in range(3)]
            plain = [self.plain_mutant(steps) for steps in RIVALS]
            self.add([child for child in (*stitched, *plain) if child], self.screened)
            leaders = [(b, *self.best(b, 1, self.screened)) for b in BUDGETS]
            print(
                f"{len(self.values)} drawn",
                *(f"{b}: {c.name} +{self.ahead(c, self.screened):.2f}" for b, c in leaders),
                sep="  ",
                flush=True,
            )
        self.add(self.finalists(), len(self.studio.prompts))

    def finalists(self) -> list[Candidate]:
        """The best of each budget, and of each number of large steps alone."""
        stitched = [c for b in BUDGETS for c in self.best(b, 12, self.screened)]
        for steps in RIVALS:
            drawn = [c for c in self.values if c.plain and c.large_steps == steps]
            stitched += sorted(drawn, key=lambda c: mean(self.values[c][: self.screened]), reverse=True)[:5]
        return stitched
