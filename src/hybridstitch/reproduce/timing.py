"""What whole calls take: the pipeline's own call, warm, methods interleaved prompt by prompt in this one process.

The order turns with each prompt, so that no method always follows the same other. Strokes are timed alone before each
call, and a prompt's calls are predicted from all of them: the machine's pace moves within a minute. Rivals of every row
at its time are many and are strokes all the same: timed are those of one row, the others' times are the cost model's,
whose error the timed rows tell.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median

from ..measure.price import Prices
from ..policies.methods import Schedule
from . import caches, lines
from .caches import Cached
from .calls import Timed, call
from .methods import Method, resolve
from .prices import Meter
from .results import Row, read_times
from .settings import TIMED
from .studio import Studio

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
        meter = Meter(studio.pipe, settings)
        taken: dict[str, Timed | Cached] = {}
        for method in ordered(wanted, image):
            meter.round()
            taken[method.name] = _call(studio, method, image, taken, prices)
            on_call(place * len(wanted) + len(taken), len(todo) * len(wanted))
        now = meter.prices()
        lines.append(settings.latency, TIMED, [_row(m.name, image, taken[m.name], now) for m in wanted])


def _call(
    studio: Studio, method: Method, image: int, before: Mapping[str, Timed | Cached], prices: Prices
) -> Timed | Cached:
    """Draw a method's picture; it may take something of those drawn before."""
    if method.take == "cache-dit":
        return caches.call(studio.pipe, studio.settings, image=image, steps=method.steps)
    traces = {name: one.trace for name, one in before.items() if isinstance(one, Timed)}
    steps, policy = resolve(method, image, traces, prices)
    return call(studio.pipe, studio.settings, image=image, policy=policy, steps=steps)


def _row(name: str, image: int, taken: Timed | Cached, now: Prices) -> dict[str, str]:
    """A row of latency.csv."""
    predicted = taken.dense_steps * now.large if isinstance(taken, Cached) else now.plans(taken.trace.plans()[0])
    return {
        "method": name,
        "image": str(image),
        "denoising_seconds": f"{taken.denoising_seconds:.6f}",
        "total_seconds": f"{taken.total_seconds:.6f}",
        "predicted_seconds": f"{predicted:.6f}",
    }


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
    """Predicted over measured seconds, minus 1: the median over prompts, each predicted from strokes of its minute."""
    return median(float(r["predicted_seconds"]) / float(r["denoising_seconds"]) for r in rows) - 1
