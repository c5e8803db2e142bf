"""What a calibration found, said plainly: which kind of policy serves best at which speed, and why."""

from collections.abc import Mapping, Sequence
from operator import itemgetter

from ..measure.intervals import Interval, student_interval
from ..measure.price import Prices
from ..policies.latency import break_even
from ..policies.skip import Skip
from ..recipe.file import AS_CLOSE, NEAR
from ..recipe.point import named
from .gaps import alone_as_close, closeness_between
from .table import BOTH, PLAIN, Standing, best_by_kind, pareto

NAMES = {
    "fewer steps": "the large model with fewer steps",
    "small": "the small model alone",
    "whole steps": "both models in turn (SRDiffusion, T-Stitch)",
    "region mask": "a region mask",
}
MASK = "0.3"
NEARBY = 0.08  # shares by which speeds differ that are compared
LEAST = 0.00005  # closeness that is told


def verdict(
    winners: Sequence[Standing],
    tried: Sequence[Standing],
    prices: Prices,
    shares: Mapping[str, float],
    *,
    speed: float | None,
    closeness: float | None,
) -> tuple[str, ...]:
    """Sentences.

    Args:
        winners: the front.
        tried: everything, each over the prompts it drew.
        prices: of the machine.
        shares: f(M) by M; nothing where no mask can be drawn.
        speed, closeness: what was asked for.
    """
    said = []
    if speed is not None:
        said.append(_at(f"{speed:g} times", [row for row in tried if abs(row.speed / speed - 1) <= 0.05]))
    else:
        said += _stretches(winners, tried)
        masks = [row for row in winners if row.kind == "region mask"]
        if not masks and shares:
            said.append("A region mask is nowhere on the front.")
        behind = [row for row in tried if row.kind == "region mask" and row.speed < 3]
        if behind:
            best = max(behind, key=lambda row: row.closeness)
            said.append(_at(f"{best.speed:.2f} times", [r for r in tried if abs(r.speed / best.speed - 1) <= NEARBY]))
    if closeness is not None:
        serving = [row for row in winners if row.interval.low >= closeness]
        fastest = max(serving, key=lambda row: row.speed)
        if fastest.kind == "large":
            said.append(f"Nothing faster than the large model is surely {closeness:g} close to it.")
        else:
            said.append(f"{NAMES[fastest.kind].capitalize()} is {closeness:g} close at {fastest.speed:.2f} times.")
    return (*filter(None, said), numbers(prices, shares))


def numbers(prices: Prices, shares: Mapping[str, float]) -> str:
    """f, h and s, and what follows from them for a hybrid step against whole large steps."""
    s = prices.small_ratio
    if not shares:
        return f"A small step costs s = {s:.2f} of a large one. This pair draws whole steps only, no masks."
    f, found = shares[MASK], []
    for kind, text in (("fresh", "fresh text"), ("cached", "cached text")):
        h = prices.masked_ratio(float(MASK), kind)
        needed = break_even(h, s)
        pays = "so it pays" if f > needed else "it does not"
        found.append(f"h = {h:.2f} with {text} asks for f > {needed:.2f}, {pays}")
    return (
        f"A small step costs s = {s:.2f} of a large one; a mask of {100 * float(MASK):g} % holds f = {f:.2f} of the "
        "difference between the models. Against whole large steps among as many small ones (SRDiffusion): "
        f"{'; '.join(found)}. Fewer steps need no such numbers: they are measured."
    )


def who(row: Standing) -> str:
    """Who draws a row, in words."""
    words = {word[0] for word in row.candidate.words or ()}
    if row.kind == "fewer steps" and (isinstance(row.policy, Skip) or "-" in words):
        return "the large model with fewer steps, predictions repeated in between,"
    if row.kind == "region mask" and "R" in words and not words & {"S", "H"}:
        return "the large model, on a region mask between its steps,"
    return NAMES.get(row.kind, row.kind)


def _who(rows: Sequence[Standing]) -> str:
    """Who draws a stretch of rows of one kind."""
    names = {*map(who, rows)}
    return (
        names.pop() if len(names) == 1 else "the large model with fewer steps, in some plans with predictions repeated,"
    )


def ahead(row: Standing, tried: Sequence[Standing]) -> tuple[Standing, Interval] | None:
    """The closest plan of the large model alone that is as fast within 8 %, and how far a row is ahead of it.

    Args:
        row: of a front.
        tried: everything.

    Returns:
        None where nothing like it was drawn on three prompts of the row; else the rival, and the 99 % interval of the
        difference in closeness, prompt by prompt.
    """
    mine = {score.prompt: score.closeness for score in row.scores}
    rivals = [r for r in tried if r.kind in PLAIN and abs(r.speed / row.speed - 1) <= NEARBY and len(r.scores) > 2]
    if not rivals:
        return None
    rival = max(rivals, key=lambda r: r.closeness)
    gaps = [mine[score.prompt] - score.closeness for score in rival.scores if score.prompt in mine]
    return (rival, student_interval(gaps, confidence=0.99)) if len(gaps) > 2 else None


def _stretches(winners: Sequence[Standing], tried: Sequence[Standing]) -> list[str]:
    """Consecutive speeds at which one kind is on the front."""
    parts: list[list[Standing]] = []
    for row in winners:
        if row.kind == "large":
            continue
        if parts and (who(parts[-1][0]) == who(row) or parts[-1][0].kind == row.kind == "fewer steps"):
            parts[-1].append(row)
        else:
            parts.append([row])
    said = []
    for part in parts:
        first, last = part[0], part[-1]
        speeds = f"{first.speed:.2f}" if len(part) == 1 else f"{first.speed:.2f} to {last.speed:.2f}"
        both = _as_close_near(first.speed, last.speed, tried) if first.kind in PLAIN else ""
        said.append(
            f"At {speeds} times the large model's speed {_who(part)} {'serves' if both else 'is closest'} "
            f"({_points(first)}{'' if len(part) == 1 else f' to {_points(last)}'})."
        )
        said += [both] if both else []
        middle = part[len(part) // 2]
        found = None if middle.kind in PLAIN else ahead(middle, tried)
        if found is not None:
            rival, gap = found
            is_at = "ahead of" if gap.low > 0 else "behind" if gap.high < 0 else "level with"
            said.append(
                f"At {middle.speed:.2f} times it is {is_at} the large model alone ({_points(rival)}, "
                f"{rival.speed:.2f} times as fast): {gap.mean:+.3f} ({gap.low:+.3f} to {gap.high:+.3f} in 99 %)."
            )
    return said


def _as_close_near(low: float, high: float, tried: Sequence[Standing]) -> str:
    """Which plan of both models is ahead by most where the large one alone is about as close and serves; or nothing."""
    most = max(len(row.scores) for row in tried)
    whole = [row for row in tried if len(row.scores) == most]
    alone = pareto(row for row in whole if row.kind in PLAIN)
    near = [row for row in whole if row.kind in BOTH and low / (1 + NEAR) <= row.speed <= high * (1 + NEAR)]
    matched = [(row, ends) for row in near if (ends := alone_as_close(row, alone))]
    gaps = [(row.closeness - closeness_between(*ends, row.speed), row) for row, ends in matched]
    gap, row = max(gaps, key=itemgetter(0), default=(0.0, None))
    if row is None or gap < LEAST:
        return ""
    return (
        f"Plans of both models are about as close there: {_points(row)}, {row.speed:.2f} times as fast, is ahead by "
        f"{gap:.4f}, which is at most {100 * AS_CLOSE:g} % of what it lacks to closeness 1."
    )


def _at(where: str, rows: Sequence[Standing]) -> str:
    """The best of every kind at one speed."""
    best = sorted(best_by_kind(rows).values(), key=lambda row: -row.closeness)
    if not best:
        return ""
    told = ", ".join(f"{NAMES.get(row.kind, row.kind)} {_points(row)} over {len(row.scores)} prompts" for row in best)
    return f"At {where} the large model's speed: {told}."


def _points(row: Standing) -> str:
    return f"{row.closeness:.3f} with {named(str(row.policy), row.steps, row.shift, row.levels)}"
