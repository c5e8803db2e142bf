"""The rows: what the paper's tables compare, and the rivals that an honest table needs.

A method draws by a policy of its own, or takes something of another row, image by image:

    static, full-large, no-mask    the recorded stages of that row with one thing changed
    fewer-steps, sr-diffusion, t-stitch    that row's time: k large steps, alone or before or after small ones

k is whole and the time x (in dense steps) is not. k = ⌊x + u⌋ with u = image·φ mod 1 rounds up as often as it must, so
that totals agree and no image waits for another.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Literal

from ..errors import PolicyError
from ..measure.price import Prices
from ..policies.methods import HybridStitch, LargeOnly, Schedule, SmallOnly, TStitch
from ..policies.plan import Plan, Region
from ..policies.policy import Policy
from ..policies.presets import RIVALS, TABLE_1, TABLE_2, TABLE_3, PaperRow
from ..policies.replay import Replay
from ..policies.trace import Trace
from . import caches
from .implied import shares
from .prices import dense
from .variants import variants

Take = Literal["static", "full-large", "no-mask", "fewer-steps", "sr-diffusion", "t-stitch", "cache-dit"]
Group = Literal["table1", "table2", "table3", "rivals", "matched", "parts", "steps", "variants"]

STEP_COUNTS = (6, 8, 10, 14, 20, 28, 50)
FEW = (2, 3, 4, 5)  # further step counts of the large model, for times below its six steps
GOLDEN = 0.6180339887498949
CHEAP = Schedule("L60% H*@0.15", text="cached")  # a small mask, late, with cached text: the best buy of SPEC §7


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A row.

    Attributes:
        name: as printed.
        group: which table it belongs to.
        steps: T; of "fewer-steps" the most.
        policy: its own; None where it takes another row's stages or time, and for cache-dit, which has none.
        of: that row.
        take: what it takes of it.
        paper: the paper's figures.
        source: where its numbers come from.
    """

    name: str
    group: Group
    steps: int
    policy: Policy | None = None
    of: str | None = None
    take: Take | None = None
    paper: PaperRow | None = None
    source: str = ""


def rows(steps: int, chosen: Mapping[str, Policy]) -> tuple[Method, ...]:
    """Every row of every table.

    Args:
        steps: T.
        chosen: policies with thresholds of this pair, by row; a row without one keeps the paper's.
    """
    around = (
        Method(name=name, group="variants", steps=steps, policy=policy, source="around its row of Table 1")
        for name, policy in variants(chosen).items()
    )
    return (*tables(steps, chosen), *rivals(steps), *matched(steps), *sweep(steps), *around)


def tables(steps: int, chosen: Mapping[str, Policy]) -> tuple[Method, ...]:
    """The paper's Tables 1-3. Table 2 replays the stages of Table 1, so that one thing differs."""
    found: list[Method] = []
    groups: tuple[tuple[Group, Sequence], ...] = (("table1", TABLE_1), ("table3", TABLE_3))
    for group, presets in groups:
        for preset in presets:
            found.append(
                Method(
                    name=preset.name, group=group, steps=steps, policy=chosen.get(preset.name, preset.policy),
                    paper=preset.paper, source=preset.source,
                )
            )  # fmt: skip
    for preset in TABLE_2:
        take: Take = "static" if preset.name.endswith("static") else "full-large"
        found.append(
            Method(
                name=preset.name, group="table2", steps=steps, of=preset.name.removesuffix(f"-{take}"), take=take,
                paper=preset.paper, source=f"{preset.source}; replays the stages of its row",
            )
        )  # fmt: skip
    return tuple(found)


def rivals(steps: int) -> tuple[Method, ...]:
    """Rows that the paper leaves out."""
    whole = max(2, floor(0.2 * steps + 0.5))
    turns = " ".join(["-", "L"] * ((steps - whole) // 2) + ["-"] * ((steps - whole) % 2))
    own = {p.name: (p.policy, p.source) for p in RIVALS}
    own["step-repetition"] = (
        Schedule(f"L{whole} {turns}".strip()),
        "the large model, every other step after the first fifth repeats the last prediction",
    )
    own["hybridstitch-15-cached"] = (CHEAP, "a small mask, late, with cached text; the shares are ours")
    found = [
        Method(name=name, group="rivals", steps=steps, policy=_fitting(policy, steps), source=source)
        for name, (policy, source) in own.items()
    ]
    if caches.installed():
        found.append(Method(name="cache-dit", group="rivals", steps=steps, take="cache-dit", source=caches.SOURCE))
    return tuple(found)


def matched(steps: int) -> tuple[Method, ...]:
    """For each row of Tables 1 and 3 its rivals at equal time; for those of one mask the row without it."""
    adaptive = [p.name for p in (*TABLE_1, *TABLE_3) if isinstance(p.policy, HybridStitch)]
    found: list[Method] = []
    for name in ("t-stitch", "sr-diffusion", *adaptive):
        kinds: tuple[Take, ...] = ("fewer-steps", "sr-diffusion", "t-stitch") if name in adaptive else ("fewer-steps",)
        found += [
            Method(name=f"{kind} at {name}", group="matched", steps=steps, of=name, take=kind, source="equal time")
            for kind in kinds
        ]
    found += [
        Method(
            name=f"{name}-no-mask", group="parts", steps=steps, of=name, take="no-mask",
            source="the stages of its row, without the masked strokes",
        )
        for name in adaptive[:4]
    ]  # fmt: skip
    return tuple(found)


def sweep(steps: int) -> tuple[Method, ...]:
    """Every kind of method at every step count, as programs: thresholds belong to one step count."""
    first, second = shares()["hybridstitch-30"]
    found: list[Method] = []
    for count in [c for c in STEP_COUNTS if c <= steps]:
        large = max(2, floor(first * count + 0.5))
        masked = max(1, floor(second * count + 0.5) - large)
        whole = max(2, floor(second * count + 0.5))
        policies: dict[str, Policy] = {
            "large": LargeOnly(),
            "small": SmallOnly(),
            "t-stitch": TStitch(0.4),
            "sr-diffusion": Schedule(f"L{whole} S*"),
            "flowblending": Schedule("L20% S* L15%"),
            "hybridstitch-30": Schedule(f"L{large} H{masked}@0.3 S*"),
            "hybridstitch-15-cached": _fitting(CHEAP, count),
        }
        found += [
            Method(name=f"{name} {count} steps", group="steps", steps=count, policy=policy)
            for name, policy in policies.items()
        ]
    found += [
        Method(name=f"large {count} steps", group="steps", steps=count, policy=LargeOnly())
        for count in FEW
        if count < steps
    ]
    return tuple(found)


def resolve(method: Method, image: int, drawn: Mapping[str, Trace], prices: Prices) -> tuple[int, Policy]:
    """T and policy of a method for one image.

    Args:
        method: the row.
        image: 0 … n−1.
        drawn: traces of the rows that others take something of, of this image.
        prices: of strokes on this machine.
    """
    if method.policy is not None:
        return method.steps, method.policy
    assert method.of is not None
    if method.take in ("static", "full-large", "no-mask"):
        return method.steps, Replay((tuple(changed(plan, method.take) for plan in drawn[method.of].plans()[0]),))
    # every step costs the price of a step; k large ones replace small ones
    extra = image * GOLDEN % 1
    step, small = prices.step / prices.large, prices.small_ratio
    total, steps = dense(prices, drawn[method.of].plans()[0]), method.steps
    if method.take == "fewer-steps":
        count = floor(total / (1 + step) + extra)
        return min(max(count, 1), steps), LargeOnly()
    k = floor((total - steps * (small + step)) / (1 - small) + extra)
    k = min(max(k, 0), steps)
    if method.take == "t-stitch":
        return steps, Schedule(f"S{steps - k} L{k}" if 0 < k < steps else ("L*" if k else "S*"))
    return steps, Schedule(f"L{k} S*" if k else "S*")


def changed(plan: Plan, take: Take) -> Plan:
    """A recorded step with one thing changed.

    Args:
        plan: what was drawn.
        take: "static" keeps the mask of the stage's first step, "full-large" computes all tokens, "no-mask" leaves
            the masked stroke out.
    """
    if take == "no-mask":
        return replace(plan, strokes=tuple(s for s in plan.strokes if s.region.everywhere))
    if take == "static":
        strokes = (
            s if s.region.everywhere else replace(s, region=Region(s.region.ratio, frozen=True)) for s in plan.strokes
        )
    else:
        strokes = (s if s.region.everywhere else replace(s, dense=True) for s in plan.strokes)
    return replace(plan, strokes=tuple(strokes))


def needed(methods: Iterable[Method], every: Sequence[Method]) -> tuple[Method, ...]:
    """Methods with the rows they take something of, and the large model, which all are compared to."""
    wanted = {m.name for m in methods}
    wanted |= {m.of for m in methods if m.of is not None} | {"large"}
    return tuple(m for m in every if m.name in wanted)


def _fitting(policy: Policy, steps: int) -> Policy:
    """A rival's policy; where a program in shares leaves too few steps before its first mask, it begins with two."""
    try:
        policy.check(steps)
    except PolicyError:
        assert isinstance(policy, Schedule)
        if "R" in policy.program:
            return replace(policy, program="L L R*@0.5")
        return replace(policy, program="L L H*@0.15")
    return policy
