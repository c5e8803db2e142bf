"""What is worth trying: one model alone, programs whose price comes out at a wanted speed, and the paper's rows.

A candidate is a policy at a step count. For a speed v the budget is the large model's seconds at T steps divided by v.
Fewer steps spend it on T′ < T whole large steps, or on as many of the T steps, crowded towards the noise, with repeats
in between (`methods.Skip`); every other make (large then small, small then large, both ends large, a mask to the end,
a mask in the middle) has one free count, and that count spends the rest of the same budget, at T steps and at step
counts between T and T′.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from math import sqrt

from ..errors import PolicyError
from ..measure.price import Prices
from ..policies.methods import LargeOnly, Schedule, SmallOnly
from ..policies.policy import Policy
from ..policies.presets import TABLE_1
from ..policies.skip import Skip
from ..recipe.file import NEAR

FEWEST = 2  # steps of a run
SPEEDS = (1.3, 1.75, 2.4, 3.2, 4.2, 5.5, 7.0, 9.0, 12.0)  # looked at when no speed was asked for
STITCHED = (2.4, 5.5)  # at which of them both models are tried together; faster ones are left to `plans`
MASKS = ((0.15, "cached"), (0.3, "cached"), (0.15, "fresh"), (0.3, "fresh"))
FEW = 10  # steps up to which the length of a mask's segment is tried one by one
EARLY = (1.25, 1.5)  # how drawn steps crowd towards the noise among repeats, see `crowded`
ADAPTIVE_STEPS = 10  # below, an adaptive policy has no room to decide

Candidate = tuple[Policy, int]


def near(speed: float, steps: int, prices: Prices, *, wide: bool = True) -> list[Candidate]:
    """Fixed policies whose speed is `speed`, within 4 %.

    Args:
        speed: against `steps` steps of the large model.
        steps: T.
        prices: of the machine.
        wide: try every make at every step count; else only what differs enough to tell where to look.
    """
    budget = prices.seconds(LargeOnly(), steps) / speed
    found: dict[tuple[str, int], Candidate] = {}

    def offer(options: Sequence[Candidate]) -> None:
        """Take the option whose price is nearest; they are sorted by price."""
        place = bisect_left(options, budget, key=lambda option: prices.seconds(*option))
        around = options[max(place - 1, 0) : place + 1]
        if around:
            policy, count = min(around, key=lambda option: abs(prices.seconds(*option) - budget))
            if abs(prices.seconds(policy, count) / budget - 1) <= NEAR:
                found.setdefault((str(policy), count), (policy, count))

    few = range(min(FEWEST, steps), steps + 1)
    offer([(LargeOnly(), count) for count in few])
    offer([(SmallOnly(), count) for count in few])
    fewer = min(few, key=lambda count: abs(prices.seconds(LargeOnly(), count) / budget - 1))
    for early in EARLY if wide else (crowded(fewer, steps),):
        offer([(Skip(count, early), steps) for count in few])
    counts = {round(sqrt(steps * fewer))} | ({steps} if wide else set())
    if wide or steps <= FEW:
        counts |= {fewer + 1, fewer + 2}
    for count in sorted(c for c in counts if fewer < c <= steps):
        for make in _makes(count, wide):
            offer([(policy, count) for policy in map(make, range(count + 1)) if policy is not None])
    return list(found.values())


def beside(speed: float, steps: int, prices: Prices) -> list[Candidate]:
    """The large model alone, in fewer steps and with repeats, as near to a speed as can be outside what `near` finds.

    They serve the speed where whole calls take other times than priced.

    Args:
        speed, steps, prices: see `near`.
    """
    budget = prices.seconds(LargeOnly(), steps) / speed
    few, found = range(min(FEWEST, steps), steps), []
    makes: tuple[list[Candidate], ...] = (
        [(LargeOnly(), count) for count in few],
        [(Skip(count, crowded(count, steps)), steps) for count in few],
    )
    for options in makes:
        found += [one for one in options if prices.seconds(*one) < budget / (1 + NEAR)][-1:]
        found += [one for one in options if prices.seconds(*one) > budget * (1 + NEAR)][:1]
    return found


def crowded(count: int, steps: int) -> float:
    """`Skip.early` that serves best: more of it for a third of the steps or fewer, and for few (LOG.md).

    Args:
        count: large steps.
        steps: T.
    """
    return EARLY[count <= max(FEW, steps // 3)]


def explored(steps: int, prices: Prices) -> list[Candidate]:
    """What is tried when no speed was asked for: all of it, coarsely; up to `FEW` steps every count of both models.

    Prices of so few steps lie far apart: none might be near a speed of `SPEEDS`.
    """
    counts = range(FEWEST, steps) if steps <= FEW else ()
    found: dict[tuple[str, int], Candidate] = {
        (str(policy), count): (policy, count) for count in counts for policy in (LargeOnly(), SmallOnly())
    }
    for speed in SPEEDS:
        for policy, count in near(speed, steps, prices, wide=False):
            if speed in STITCHED or not isinstance(policy, Schedule):
                found.setdefault((str(policy), count), (policy, count))
    return list(found.values())


def adaptive(steps: int) -> list[Candidate]:
    """The paper's rows that decide as they draw, thresholds as printed."""
    if steps < ADAPTIVE_STEPS:
        return []
    return [(preset.policy, steps) for preset in TABLE_1 if preset.policy.adaptive]


Make = Callable[[int], Policy | None]  # from the free count, large steps, to a policy, or None where it has no meaning


def _makes(steps: int, wide: bool) -> Iterator[Make]:
    """Every make at a step count."""
    yield lambda a: _program(steps, f"L{a}", f"S{steps - a}")
    yield lambda a: _program(steps, f"S{steps - a}", f"L{a}")
    yield lambda a: _program(steps, f"L{a - a // 3}", f"S{steps - a}", f"L{a // 3}")
    middles = (1, 2, 4) if steps <= FEW else (round(0.3 * steps),)
    for ratio, text in MASKS if wide else MASKS[:2]:
        yield lambda a, m=ratio, t=text: _program(steps, f"L{a}", f"H{steps - a}@{m}", text=t)
        for middle in middles if wide or steps <= FEW else ():
            yield lambda a, m=ratio, t=text, b=middle: _program(
                steps, f"L{a}", f"H{b}@{m}", f"S{steps - a - b}", text=t
            )


def _program(steps: int, *words: str, **options: str) -> Policy | None:
    """A program, if all its counts are above 0 and it can be drawn."""
    if any(int(word[1:].partition("@")[0]) < 1 for word in words):
        return None
    policy = Schedule(" ".join(words), **options)  # pyright: ignore[reportArgumentType]
    try:
        policy.check(steps)
    except PolicyError:
        return None
    return policy
