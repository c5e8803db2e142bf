"""Policies of speeds that lie between measured ones: other counts of the same words, other masks.

Whole words make prices that lie apart. `points_between` are the points of a speed, of two kinds: `between` mixes the
counts of two programs of one make; `variants` are one policy with another number of large steps, or with all its masks
smaller or larger, whose price moves with the tokens. Of large steps alone one in the middle is masked, which at the
same time is closer than a masked last one (LOG.md, 2026-11-30); and 17 of them less one are 17 of which one is
repeated, which on the whole is closer than 16 (LOG.md, 2026-11-29).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import exp, floor
from statistics import mean

from ..measure.price import Prices
from ..policies.methods import LargeOnly, Schedule, SmallOnly
from ..policies.parse import parse
from ..policies.policy import Policy
from ..policies.program import fill, segments, short
from ..policies.skip import Skip, drawn_steps
from .point import Point, kind_of

SMALLEST, LARGEST = 0.05, 0.9  # masks
COARSE = 25  # large steps up to which one of them is more than 4 % of the time
REACH = 1.25  # how many times as fast, or slow, as a point its variants may be
EDGE = 3  # so many steps come before a masked one, and from it on to the end: nearer to an end it costs closeness
EARLIER = (0.0, 0.05, 0.1)  # by which `Skip.early` is lowered for a late last step
FACTORS = tuple(exp(place / 50) for place in range(-35, 36))  # of masks: half as large to twice
Make = tuple[Policy, int | None]  # a policy with every count 1, and its step count where the counts do not give it


def points_between(points: Sequence[Point], prices: Prices, steps: int, speed: float) -> Iterator[Point]:
    """What lies between measured points: priced, and taken to be no closer than the next faster one is.

    Args:
        points: measured.
        prices: of the machine.
        steps: T of the reference.
        speed: wanted.
    """
    ordered = sorted(points, key=lambda p: p.speed)
    slower, faster = ([p for p in ordered if (p.speed < speed) == below] for below in (True, False))
    if not slower or not faster:
        return
    near = (slower[-1], faster[0])
    right = mean(p.speed / p.predicted for p in near)
    reference = prices.seconds(LargeOnly(), steps)
    for source, policy, count in _options(ordered, near, speed):
        if policy.can_mask and not prices.masked:  # of a pair whose steps are drawn whole
            continue
        yield replace(
            faster[0],
            policy=str(policy),
            steps=count,
            shift=source.shift,
            levels=source.levels,
            kind=kind_of(policy, count, steps),
            predicted=right * reference / prices.seconds(policy, count),
            measured=None,
            held_out=None,
            distances=(),
        )


def _options(points: Sequence[Point], near: Sequence[Point], speed: float) -> Iterator[tuple[Point, Policy, int]]:
    """Variants of the neighbours, and programs between two points of one make around a speed."""
    for point in near:
        if 1 / REACH <= point.speed / speed <= REACH:
            yield from ((point, *one) for one in variants(parse(point.policy), point.steps))
    makes: dict[tuple[*Make, float | None], list[Point]] = {}
    for point in points:
        found = make_of(parse(point.policy), point.steps) if point.levels is None else None
        if found is not None:
            makes.setdefault((*found[0], point.shift), []).append(point)
    for members in makes.values():
        for slower, faster in pairwise(members):
            if slower.speed < speed < faster.speed:
                ends = ((parse(slower.policy), slower.steps), (parse(faster.policy), faster.steps))
                yield from ((faster, *one) for one in between(*ends))


def between(slower: tuple[Policy, int], faster: tuple[Policy, int]) -> list[tuple[Policy, int]]:
    """Programs between two of the same make, from slow to fast: the counts of their segments, mixed.

    Args:
        slower, faster: policies with their step counts.

    Returns:
        policies with their step counts; none where the two are not of one make.
    """
    if isinstance(slower[0], LargeOnly) and isinstance(faster[0], LargeOnly):
        return [repeated(slower[1], count) for count in range(slower[1] - 1, faster[1], -1)]
    one, other = make_of(*slower), make_of(*faster)
    if one is None or other is None or one[0] != other[0]:
        return []
    many, few = one[1], other[1]
    parts = max(abs(a - b) for a, b in zip(many, few, strict=True))
    found: dict[tuple[int, ...], tuple[Policy, int]] = {}
    for part in range(1, parts):
        counts = tuple(floor(a + (b - a) * part / parts + 0.5) for a, b in zip(many, few, strict=True))
        if counts not in (many, few):
            found[counts] = _with_counts(one[0], counts)
    return list(found.values())


def repeated(steps: int, drawn: int) -> tuple[Policy, int]:
    """Steps of the large model, of which only so many are drawn, spread evenly."""
    return Skip(drawn, early=1.0), steps


def variants(policy: Policy, steps: int) -> Iterator[tuple[Policy, int]]:
    """With more or fewer large steps, with its masks resized, or, of few large steps, with one or one more masked.

    Args:
        policy: of a point.
        steps: T′.
    """
    if isinstance(policy, Skip):
        yield from ((_skipping(policy, count, steps), steps) for count in range(2, steps))
    if isinstance(policy, LargeOnly) and steps > 2:
        yield from _one_masked(["L"] * steps)
        yield from _one_masked(["L"] * (steps + 1))
    if isinstance(policy, Skip) and policy.large_steps <= COARSE:
        drawn = drawn_steps(policy, steps)
        yield from _one_masked(["L" if step in drawn else "-" for step in range(steps)])
    if isinstance(policy, Schedule) and any(s.ratio is not None for s in segments(policy.program)):
        counts = fill(policy.program, steps)
        for factor in FACTORS:
            yield replace(policy, program=_words(policy.program, counts, factor)), steps


def _one_masked(words: Sequence[str]) -> Iterator[tuple[Policy, int]]:
    """Large steps and repeats, one of them masked with masks of any size; none where there is no place for one."""
    place = _place(words)
    if place is not None:
        begin, end = short(words[:place]), short(words[place + 1 :])
        for factor in FACTORS:
            yield Schedule(f"{begin} R@{_mask(LARGEST / 2, factor)} {end}".strip(), text="cached"), len(words)


def _place(words: Sequence[str]) -> int | None:
    """Of the large step to mask: nearest to the middle, between two large ones, not near an end; else the last one."""
    inner = [k for k in range(EDGE, len(words) - EDGE + 1) if [*words[k - 1 : k + 2]] == ["L"] * 3]
    if inner:
        return min(inner, key=lambda k: (abs(k - len(words) / 2), -k))
    return len(words) - 1 if [*words[-2:]] == ["L", "L"] else None


def _skipping(policy: Skip, count: int, steps: int) -> Skip:
    """With another count, and a last drawn step that is no earlier, where closeness would fall at once."""
    last = max(drawn_steps(policy, steps))
    options = [replace(policy, large_steps=count, early=max(round(policy.early - lower, 6), 1.0)) for lower in EARLIER]
    return next((one for one in options if max(drawn_steps(one, steps)) >= last), options[0])


def make_of(policy: Policy, steps: int) -> tuple[Make, tuple[int, ...]] | None:
    """A policy's make and its counts; None where it has no counts.

    Args:
        policy: the policy.
        steps: T′.
    """
    if isinstance(policy, Skip):
        return (replace(policy, large_steps=1), steps), (policy.large_steps,)
    if isinstance(policy, LargeOnly | SmallOnly):
        return (policy, None), (steps,)
    if not isinstance(policy, Schedule):
        return None
    counts = fill(policy.program, steps)
    return (replace(policy, program=_words(policy.program, [1] * len(counts))), None), counts


def _with_counts(make: Make, counts: Sequence[int]) -> tuple[Policy, int]:
    """A make with other counts, and its step count."""
    policy, steps = make
    if isinstance(policy, Skip):
        assert steps is not None
        return replace(policy, large_steps=counts[0]), steps
    if isinstance(policy, Schedule):
        policy = replace(policy, program=_words(policy.program, counts))
    return policy, sum(counts)


def _words(program: str, counts: Sequence[int], factor: float = 1.0) -> str:
    """A program with other counts, its masks by a factor larger."""
    return " ".join(
        s.letter + (str(count) if count > 1 else "") + ("" if s.ratio is None else f"@{_mask(s.ratio, factor)}")
        for s, count in zip(segments(program), counts, strict=True)
    )


def _mask(ratio: float, factor: float) -> str:
    return f"{ratio:g}" if factor == 1 else f"{min(max(ratio * factor, SMALLEST), LARGEST):.3g}"
