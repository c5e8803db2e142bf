"""The questions that report.md asks of masks, stages and step counts: one function each, from the data to a section.

A section whose rows are not drawn is empty.
"""

from statistics import median

from .gaps import SCALE, Gap, answer, db, gaps, heading, paired, row, title
from .pareto import chances
from .results import Results
from .tables import fewer, lead_over_fewer, members, points_of

ONE = ("hybridstitch-10", "hybridstitch-20", "hybridstitch-30", "hybridstitch-40")
SEVERAL = {
    "hybridstitch-20-10": ("hybridstitch-20", "hybridstitch-10"),
    "hybridstitch-30-10": ("hybridstitch-30", "hybridstitch-10"),
    "hybridstitch-40-30": ("hybridstitch-40", "hybridstitch-30"),
}


def static(results: Results) -> str:
    """Do masks of each step help?"""
    return paired(
        results,
        "## Do per-step masks help?",
        "HybridStitch against StaticMask, which keeps the mask of its stage's first step; stages are those recorded.",
        [(name, name, f"{name}-static") for name in ONE],
    )


def full_large(results: Results) -> str:
    """Does FullLarge gain nothing?"""
    return paired(
        results,
        "## Does FullLarge gain nothing?",
        "FullLarge, which computes the large model whole in hybrid steps, against HybridStitch; stages are those "
        "recorded. Time is what it takes more.",
        [(name, f"{name}-full-large", name) for name in ONE],
    )


def several(results: Results) -> str:
    """Do more masks help?"""
    text = paired(
        results,
        "## Do more masks help?",
        "Rows differ in time, so each is first compared with SRDiffusion at its own time; shown is that lead of the "
        "row with two masks less the mean lead of the two rows with one of its masks.",
        [],
    )
    lines, every = [], {}
    for name, singles in SEVERAL.items():
        lead = gaps(results, name, f"sr-diffusion at {name}")
        others = [gaps(results, single, f"sr-diffusion at {single}") for single in singles]
        both = {c: lead[c].minus(Gap.average([o[c] for o in others])) for c in lead if all(c in o for o in others)}
        if both:
            lines.append(row(results, f"{name} less {' and '.join(singles)}", both, None))
            for c, gap in both.items():
                every.setdefault(c, []).append(gap)
    if not lines:
        return ""
    whole = {c: Gap.average(found) for c, found in every.items()}
    return (
        text
        + "\n".join([*heading(results, whole, False), *lines, row(results, "**all**", whole, None)])
        + answer(whole)
    )


def halves(results: Results) -> str:
    """How much is the mask, how much the earlier switch?"""
    out, parts = [], []
    for name in ONE:
        sooner, mask = gaps(results, f"{name}-no-mask", "sr-diffusion"), gaps(results, name, f"{name}-no-mask")
        whole = gaps(results, name, f"sr-diffusion at {name}")
        if "psnr" not in sooner or "psnr" not in whole:
            continue
        bare = results.dense(f"{name}-no-mask")
        saved, paid = results.dense("sr-diffusion") - bare, results.dense(name) - bare
        parts.append((sooner["psnr"], mask["psnr"], saved, paid))
        cells = [f"{saved:.2f}", db(sooner["psnr"]), f"{paid:.2f}", db(mask["psnr"]), db(whole["psnr"])]
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    if not out:
        return ""
    saved, paid = (median(part[k] for part in parts) for k in (2, 3))
    lost, regained = (db(Gap.average([part[k] for part in parts])) for k in (0, 1))
    return "\n".join(
        [
            "## How much of the gain is the mask, how much the earlier switch?\n",
            "From SRDiffusion to HybridStitch in two steps: its first switch without any mask, then the masked "
            "strokes. Time in dense steps, PSNR to the large picture in dB.\n",
            "| row | the earlier switch saves | and gives | masks cost | and give | lead at equal time |",
            "|---|---|---|---|---|---|",
            *out,
            f"\nThe earlier switch saves {saved:.1f} dense steps and moves PSNR by {lost}; masks take {paid:.1f} "
            f"of them back for {regained}. What time HybridStitch saves over SRDiffusion comes from the earlier "
            "switch; the mask pays part of it back for quality.\n",
        ]
    )


def equal_time(results: Results) -> str:
    """Is a region better than the same time in whole large steps?"""
    text = ""
    for kind, words in (
        ("sr-diffusion", "SRDiffusion at the same time: whole large steps, then small ones"),
        ("t-stitch", "T-Stitch at the same time"),
        ("fewer-steps", "the large model alone with fewer steps, at the same time"),
    ):
        text += paired(
            results,
            f"## HybridStitch against {words}",
            "",
            [(name, name, f"{kind} at {name}") for name in (*ONE, *SEVERAL)],
        )
    return text


def by_steps(results: Results) -> str:
    """At which step count does each method enter or leave the front?"""
    kinds = dict.fromkeys(m.name.rsplit(" ", 2)[0] for m in members(results, "steps"))
    counts = sorted({m.steps for m in members(results, "steps")})
    out: list[str] = []
    for column in ("psnr", "fd", "clip"):
        points = points_of(results, column)
        if not points:
            continue
        chance = chances(points, fewer(points))
        out += [
            f"\nBy {title(results, column)}: chance of being on the front; in brackets the lead over fewer steps of "
            "the large model at its time where it is settled.\n",
            "| method | " + " | ".join(f"{count} steps" for count in counts) + " |",
            "|" + "---|" * (len(counts) + 1),
        ]
        on: dict[str, list[int]] = {}
        for kind in kinds:
            cells = []
            for count in counts:
                name = f"{kind} {count} steps"
                if name not in points:
                    cells.append("")
                    continue
                lead = lead_over_fewer(results, name, points)
                cells.append(f"{chance[name]:.0%}")
                if lead is not None and lead.low * lead.high > 0:
                    cells[-1] += f" ({lead.mean * SCALE.get(column, 1):+.2g})"
                if chance[name] > 0.5:
                    on.setdefault(kind, []).append(count)
            out.append(f"| {kind} | " + " | ".join(cells) + " |")
        said = "; ".join(f"{kind} at {', '.join(map(str, found))}" for kind, found in on.items())
        out.append(f"\nMore likely on the front than not: {said or 'none'}.")
    if not out:
        return ""
    head = "## At which step count is each method on the front of time and quality?\n"
    rule = (
        "A point is on the front if none is better in no more time. The large model competes at every point's own "
        "time, between its step counts by interpolation."
    )
    return "\n".join([head, rule, *out, ""])
