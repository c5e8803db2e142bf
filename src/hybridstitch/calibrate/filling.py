"""What fills gaps of a front: candidates of speeds that lie between two winners; see `gaps`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .board import Board
from .choice import FIRST, has_speed, worth_two
from .evolution import Room
from .gaps import alike, edited, fillers, speeds_between
from .plans import Candidate
from .table import Standing


@dataclass(slots=True)
class Filling:
    """What is known when gaps are filled.

    Attributes:
        board: draws.
        room: of the plans.
        searched: prompts that what fills a gap draws.
        tried: everything so far, and what is tried here.
    """

    board: Board
    room: Room
    searched: Sequence[int]
    tried: dict[Candidate, Standing]

    def plans(self, winners: Sequence[Standing], share: float) -> list[Candidate]:
        """What might serve speeds that lie between the winners.

        Args:
            winners: slowest first.
            share: of the progress.
        """
        found: list[Candidate] = []
        bare: list[list[Candidate]] = []  # what is tried for each speed that nothing is known for
        for slower, faster, speed in speeds_between(winners, self.room.slowest):
            between = fillers(slower, faster, speed, self.room.speed)
            made = [plan for plan in between if self._fits(plan, slower, faster)][:1]
            made += [plan for plan in self.known(slower, faster, speed) if not self.drawn(plan)]
            found += made
            if not made:
                near = edited(slower, faster, speed, self.room.speed)
                bare.append([plan for plan in near if self._fits(plan, slower, faster)])
        tried = self.board.evaluate(
            list(dict.fromkeys(plan for plans in bare for plan in plans)), self.searched[:FIRST], (share, share)
        )
        self.tried |= {row.candidate: row for row in tried}
        for plans in filter(None, bare):
            found.append(max(plans, key=lambda plan: self.tried[plan].closeness))
        return found

    def known(self, slower: Standing, faster: Standing, speed: float) -> list[Candidate]:
        """The two of about a speed that were closest on the first prompts, which all of them drew; see `worth_two`."""
        rows = [replace(r, scores=r.scores[:FIRST]) for r in self.tried.values() if len(r.scores) >= FIRST]
        near = [r for r in worth_two(rows) if has_speed(r, speed) and slower.speed < r.speed < faster.speed]
        return [row.candidate for row in sorted(near, key=lambda row: -row.closeness)[:2]]

    def drawn(self, plan: Candidate) -> bool:
        """Whether it, or its like, drew all searched prompts, and so fills no gap that is still there."""
        whole = [row.candidate for row in self.tried.values() if len(row.scores) >= len(self.searched)]
        return plan in whole or any(alike(plan, other, self.room.speed) for other in whole)

    def _fits(self, plan: Candidate, slower: Standing, faster: Standing) -> bool:
        """Whether the pair can draw it as it is, it lies in the gap, and nothing like it was found wanting."""
        inside = slower.speed < self.room.speed(plan) < faster.speed
        return inside and self.room.fitted(plan) == plan and not self.drawn(plan)
