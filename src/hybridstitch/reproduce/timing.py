"""What whole calls take: the pipeline's own call, warm, methods interleaved prompt by prompt in this one process.

The order turns with each prompt, so that no method always follows the same other. Strokes are timed alone before each
prompt, so that what they predict is for the machine's pace of that minute. Rivals of every row at its time are
many and are strokes all the same: timed are those of one row, the others' times are the cost model's, whose error the
timed rows tell.
"""

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from ..policies import Schedule
from ..price import Prices
from ..trace import Trace
from . import caches, lines
from .calls import call
from .methods import Method, resolve
from .prices import measure
from .results import Row, read_times
from .settings import TIMED
from .studio import Studio

ROUNDS = 5
MATCHED_TO = "hybridstitch-30"  # the paper's fastest row
GROUPS = ("table1", "table2", "table3", "rivals")


def timed(methods: Iterable[Method]) -> tuple[Method, ...]:
    """Those of some rows that are timed."""
    return tuple(m for m in methods if m.group in GROUPS or (m.group == "matched" and m.of == MATCHED_TO))


def time_all(studio: Studio, methods: Sequence[Method], prices: Prices, on_call: Callable[[int, int], None]) -> None:
    """Time methods on the first `latency_n` prompts and write latency.csv; prompts that were timed are left.

    Args:
        studio: this process's.
        methods: with those they take something of.
        prices: of strokes.
        on_call: called after each call with how many are done, and how many there are.
    """
    settings = studio.settings
    wanted = timed(methods)
    there = read_times(settings)
    if not settings.latency.is_file():
        lines.write(settings.latency, TIMED, [])
    todo = [i for i in range(settings.latency_n) if any((m.name, i) not in there for m in wanted)]
    if todo:
        warm_up(studio)
    for place, image in enumerate(todo):
        rows = {}
        now = measure(studio.pipe, settings, repeats=ROUNDS)
        traces: dict[str, Trace] = {}
        for method in ordered(wanted, image):
            if method.take == "cache-dit":
                taken = caches.call(studio.pipe, settings, image=image, steps=method.steps)
                predicted = taken.dense_steps * now.large
            else:
                steps, policy = resolve(method, image, traces, prices)
                taken = call(studio.pipe, settings, image=image, policy=policy, steps=steps)
                traces[method.name] = taken.trace
                predicted = now.plans(taken.trace.plans()[0])
            rows[method.name] = {
                "method": method.name,
                "image": str(image),
                "denoising_seconds": f"{taken.denoising_seconds:.6f}",
                "total_seconds": f"{taken.total_seconds:.6f}",
                "predicted_seconds": f"{predicted:.6f}",
            }
            on_call(place * len(wanted) + len(rows), len(todo) * len(wanted))
        lines.append(settings.latency, TIMED, [rows[m.name] for m in wanted])


def warm_up(studio: Studio) -> None:
    """A few steps of every kind, twice, so that no first use is timed."""
    for text in ("fresh", "cached"):
        for _ in range(2):
            call(studio.pipe, studio.settings, image=0, policy=Schedule("L L H@0.3 S", text=text), steps=4)


def ordered(methods: Sequence[Method], turn: int) -> list[Method]:
    """The methods, beginning elsewhere each turn; those that take something of another row behind the others."""
    own = [m for m in methods if m.of is None]
    takers = [m for m in methods if m.of is not None]
    return [*_turned(own, turn), *_turned(takers, turn)]


def _turned(methods: list[Method], turn: int) -> list[Method]:
    first = turn % max(len(methods), 1)
    return [*methods[first:], *methods[:first]]


def error(rows: Sequence[Row]) -> float:
    """Predicted over measured median, minus 1."""
    measured, predicted = (median(float(r[c]) for r in rows) for c in ("denoising_seconds", "predicted_seconds"))
    return predicted / measured - 1
