"""How fast the winners really are: whole calls of them and of the reference, in turn.

Machines change their pace from one second to the next, by more than a speed may be off. So a call's seconds are told at
the pace of the prices: divided by how much longer than priced its dense steps of the large model took. (The price of a
mask may itself be off, which a whole call is to show.) All of them together, not the median one: a call is a sum, and
the longer it is, the more of the slow steps it has, that a median leaves out.
"""

from collections.abc import Mapping, Sequence
from statistics import median

from ..measure.price import Prices
from ..policies.trace import Trace
from ..recipe.file import DELIVERED
from .board import Board
from .table import QUICK, Standing

TURNS, MOST_TURNS = 3, 15
TIMED = 0.1  # share of the time that more turns may take


def turns_of(seconds: float, time: float) -> tuple[int, int]:
    """Turns that time all winners, and turns at most; more where calls are short, whose times scatter most.

    Args:
        seconds: of one turn.
        time: of the calibration.
    """
    found = min(int(TIMED * time / seconds), MOST_TURNS)
    return (found, found) if found >= TURNS else (1, TURNS)


def time_winners(board: Board, winners: Sequence[Standing], least: int, most: int = TURNS) -> None:
    """Record what turns need and nothing has recorded yet.

    Args:
        board: draws, and keeps the times.
        winners: the reference among them.
        least: turns that time all of them; later ones time the reference, those that take little, and those whose times
            stray and do not agree.
        most: turns.
    """
    comparer = board.comparer
    for turn in range(most):
        for winner in winners:
            always = turn < least or winner.kind == "large" or winner.speed >= QUICK
            if turn not in _times(board, winner) and (always or _strays(board, winner, turn)):
                noise = {"shift": winner.shift, "levels": winner.levels}
                taken = comparer.conditions.draw(
                    comparer.pipe, comparer.prompts[0], winner.policy, winner.steps, comparer.seed, **noise
                )
                told = taken.total_seconds / pace(taken.trace, comparer.prices)
                board.state.add_time(winner.steps, winner.candidate.text, turn, told)
        board.on_progress(0.95 + 0.05 * (turn + 1) / most, "the speed of whole calls")


def measured_speed(board: Board, winner: Standing, before: int = MOST_TURNS) -> float:
    """Median seconds of the reference over those of a winner.

    Args:
        board: keeps the times.
        winner: timed at least once, as the reference was.
        before: of turns before this one.
    """
    reference = board.state.timed[board.comparer.conditions.steps, "large"]
    return _median(reference, before) / _median(_times(board, winner), before)


def pace(trace: Trace, prices: Prices) -> float:
    """How much longer than priced the steps of a call took: the large model's dense ones, if it drew any."""
    drawn = [step for step in trace.of(0) if step.drawn.strokes]
    dense = [step for step in drawn if all(stroke.model == "L" and not stroke.masked for stroke in step.drawn.strokes)]
    priced = sum(prices.stroke(stroke) for step in dense or drawn for stroke in step.drawn.strokes)
    return sum(step.seconds for step in dense or drawn) / priced


def _strays(board: Board, winner: Standing, turn: int) -> bool:
    """Whether the turns before this one, and no later ones, tell another speed than priced, and do not agree on it."""
    if abs(measured_speed(board, winner, turn) / winner.speed - 1) <= DELIVERED / 2:
        return False
    told = [seconds for before, seconds in _times(board, winner).items() if before < turn]
    return len(told) == 1 or max(told) / min(told) > 1 + DELIVERED / 2


def _times(board: Board, winner: Standing) -> Mapping[int, float]:
    return board.state.timed.get((winner.steps, winner.candidate.text), {})


def _median(times: Mapping[int, float], before: int) -> float:
    return median(seconds for turn, seconds in times.items() if turn < before)
