"""What whole calls take: the pipeline's own call, warm, methods interleaved prompt by prompt in this one process.

The order turns with each prompt, so that no method always follows the same other. Strokes are timed in short calls
before each, and a prompt's calls are predicted from all of them: the machine's pace moves within a minute. Rivals of
every row at its time are many and are strokes all the same: timed are those of one row, the others' times are the cost
model's, whose error the timed rows tell.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from ..measure.calls import TracedCall, call
from ..measure.price import Prices
from ..policies.methods import Schedule
from . import caches, lines
from .caches import Cached
from .equipment import Equipment
from .lines import CsvRow
from .methods import Method, resolve
from .prices import loop_prices, stopwatch_of
from .results import read_times
from .settings import TIMED

MATCHED_TO = "hybridstitch-30"  # the paper's fastest row
GROUPS = ("table1", "table2", "table3", "rivals")


def timed(methods: Iterable[Method]) -> tuple[Method, ...]:
    """Those of some rows that are timed."""
    return tuple(m for m in methods if m.group in GROUPS or (m.group == "matched" and m.of == MATCHED_TO))


def time_all(
    equipment: Equipment, methods: Sequence[Method], every: Sequence[Method], prices: Prices,
    on_call: Callable[[int, int], None],
) -> None:  # fmt: skip
    """Time methods on the first `latency_n` prompts and write latency.csv; prompts that were timed are left.

    Where one is missing, those that were timed before are timed again with it: speeds compare calls that took turns.

    Args:
        equipment: this process's.
        methods: with those they take something of.
        every: all there are.
        prices: of strokes.
        on_call: called after each call with how many are done, and how many there are.
    """
    settings = equipment.settings
    wanted = timed(methods)
    there = read_times(settings)
    if not settings.latency.is_file():
        lines.write(settings.latency, TIMED, [])
    todo = [i for i in range(settings.latency_n) if any((m.name, i) not in there for m in wanted)]
    if todo:
        names = {m.name for m in wanted} | {name for name, _ in there}
        wanted = timed(m for m in every if m.name in names)
        warm_up(equipment)
    for place, image in enumerate(todo):
        stopwatch = stopwatch_of(equipment.pipe, settings)
        taken: dict[str, TracedCall | Cached] = {}
        for method in ordered(wanted, image):
            stopwatch.round()
            taken[method.name] = _call(equipment, method, image, taken, prices)
            on_call(place * len(wanted) + len(taken), len(todo) * len(wanted))
        now = loop_prices(stopwatch)
        lines.append(settings.latency, TIMED, [_row(m.name, image, taken[m.name], now) for m in wanted])


def _call(
    equipment: Equipment, method: Method, image: int, before: Mapping[str, TracedCall | Cached], prices: Prices
) -> TracedCall | Cached:
    """Draw a method's picture; it may take something of those drawn before."""
    if method.take == "cache-dit":
        return caches.call(equipment.pipe, steps=method.steps, **equipment.settings.call(image))
    traces = {name: one.trace for name, one in before.items() if isinstance(one, TracedCall)}
    steps, policy = resolve(method, image, traces, prices)
    return call(equipment.pipe, policy=policy, steps=steps, **equipment.settings.call(image))


def _row(name: str, image: int, taken: TracedCall | Cached, now: Prices) -> CsvRow:
    """A row of latency.csv."""
    predicted = taken.dense_steps * now.large if isinstance(taken, Cached) else now.plans(taken.trace.plans()[0])
    return {
        "method": name,
        "image": str(image),
        "denoising_seconds": f"{taken.denoising_seconds:.6f}",
        "total_seconds": f"{taken.total_seconds:.6f}",
        "predicted_seconds": f"{predicted:.6f}",
    }


def warm_up(equipment: Equipment) -> None:
    """A few steps of every kind, twice, so that no first use is timed."""
    for text in ("fresh", "cached"):
        for _ in range(2):
            call(equipment.pipe, policy=Schedule("L L H@0.3 S", text=text), steps=4, **equipment.settings.call(0))


def ordered(methods: Sequence[Method], turn: int) -> list[Method]:
    """The methods, beginning elsewhere each turn; those that take something of another row behind the others."""
    own = [m for m in methods if m.of is None]
    takers = [m for m in methods if m.of is not None]
    return [*_turned(own, turn), *_turned(takers, turn)]


def _turned(methods: list[Method], turn: int) -> list[Method]:
    first = turn % max(len(methods), 1)
    return [*methods[first:], *methods[:first]]


def error(rows: Sequence[CsvRow]) -> float:
    """Predicted over measured seconds, minus 1: the median over prompts, each predicted from strokes of its minute."""
    return median(float(r["predicted_seconds"]) / float(r["denoising_seconds"]) for r in rows) - 1
