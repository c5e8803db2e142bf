"""The questions a reader has, answered from the data: report.md. Every difference is paired over the same prompts.

A difference whose 95 % interval holds zero is called not settled, whatever its sign.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from ..disk import files as disk
from ..policies.latency import break_even
from .gaps import SCALE, Gap, answer, db, gaps, heading, paired, row, shown, title, verdict
from .pareto import chances
from .results import Results, middle
from .tables import fewer, lead_over_fewer, line, members, points_of
from .thresholds import Fitted

ONE = ("hybridstitch-10", "hybridstitch-20", "hybridstitch-30", "hybridstitch-40")
SEVERAL = {
    "hybridstitch-20-10": ("hybridstitch-20", "hybridstitch-10"),
    "hybridstitch-30-10": ("hybridstitch-30", "hybridstitch-10"),
    "hybridstitch-40-30": ("hybridstitch-40", "hybridstitch-30"),
}


def write(results: Results, calibrated: Fitted | None, worth: Mapping[str, Any] | None, notes: Sequence[str]) -> str:
    """Write report.md; questions whose rows are not drawn are left out.

    Args:
        results: scored.
        calibrated: thresholds of this pair, or None where the paper's were used.
        worth: shares of the difference inside masks, see `worth.measure`.
        notes: sentences for its head.
    """
    settings = results.settings
    parts = [
        "# What the reproduction says\n",
        f"{settings.n} prompts, {settings.steps} steps, guidance {settings.guidance:g}, {settings.size[0]}×"
        f"{settings.size[1]} pixels, pair {settings.pair}. A difference is positive where the first named is better; "
        "in brackets its 95 % interval over prompts.\n",
        *(f"{note}  \n" for note in notes),
    ]
    sections: tuple[Callable[[Results], str], ...] = (
        static,
        full_large,
        several,
        halves,
        equal_time,
        by_steps,
        against_paper,
        predicted,
    )
    parts += [text for section in sections if (text := section(results))]
    parts += [thresholds(results, calibrated)] if calibrated is not None else []
    parts += [reasons(results, worth)] if worth is not None else []
    text = "\n".join(parts)
    disk.keep(settings.out / "report.md", text.encode())
    return text


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


def against_paper(results: Results) -> str:
    """What agrees with the paper and what does not."""
    lines = []

    def claim(words: str, found: Gap | None) -> None:
        if found is not None:
            answer = {"yes": "agrees", "no, worse": "**does not agree**"}.get(verdict(found.interval), "not settled")
            lines.append(f"| {words} | {shown(found.interval)} | {answer} |")

    def all_of(column: str, pairs: Sequence[tuple[str, str]]) -> Gap | None:
        found = [g[column] for a, b in pairs if column in (g := gaps(results, a, b))]
        return Gap.average(found) if found else None

    for column, words in (("lpips", "closer to the large picture, by LPIPS,"), ("fd", "of lower FID")):
        for rival in ("t-stitch", "sr-diffusion"):
            claim(f"HybridStitch is {words} than {rival} (Table 1)", all_of(column, [(n, rival) for n in ONE]))
    claim("the large model has the lowest FID (Table 1)", all_of("fd", [("large", n) for n in ONE]))
    claim("StaticMask raises FID (Table 2)", all_of("fd", [(n, f"{n}-static") for n in ONE]))
    claim("StaticMask raises LPIPS (Table 2)", all_of("lpips", [(n, f"{n}-static") for n in ONE]))
    claim("FullLarge lowers LPIPS (Table 2)", all_of("lpips", [(f"{n}-full-large", n) for n in ONE]))
    claim("FullLarge raises FID (Table 2)", all_of("fd", [(n, f"{n}-full-large") for n in ONE]))
    if not lines:
        return ""
    speeds = [
        f"{m.name} {found:.2f} (paper {m.paper.speedup:g})"
        for m in results.methods
        if m.paper is not None and m.name != "large" and (found := results.speedup(m.name)) is not None
    ]
    return "\n".join(
        [
            "## What agrees with the paper\n",
            "FID is FD-mini and LPIPS is LPIPS-mini on the miniature pair. Means over the four masks.\n"
            if results.settings.mini
            else "Means over the four masks.\n",
            "| the paper says | difference here | |",
            "|---|---|---|",
            *lines,
            "\nSpeedups: " + ", ".join(speeds) + ".\n" if speeds else "",
        ]
    )


def predicted(results: Results) -> str:
    """How far off the cost model is."""
    errors = {
        m.name: found["prediction_error"]
        for m in results.methods
        if results.of(m.name) and "prediction_error" in (found := line(results, m))
    }
    if not errors:
        return ""
    worst = max(errors, key=lambda name: abs(errors[name]))
    within = sum(abs(e) <= 0.05 for e in errors.values())
    return (
        "## Does a cost model of strokes predict whole runs?\n\n"
        f"{within} of {len(errors)} methods within 5 % of the measured median of the denoising loop; median error "
        f"{median(errors.values()):+.1%}, worst {errors[worst]:+.1%} ({worst}). "
        "Strokes were timed in short calls of their own.\n"
    )


def thresholds(results: Results, calibrated: Fitted) -> str:
    """Which thresholds were chosen, what they reach on their prompts, and on all."""
    out = [
        "## Thresholds\n",
        "The paper's thresholds belong to another pair. These give, as nearly as thresholds can, the median switch "
        f"steps that the paper's latencies imply, on {calibrated.prompts} prompts. Where the {results.settings.n} "
        "of this run are spread over many steps, their median may lie elsewhere; "
        f"{results.settings.steps} where a stage lasts to the end.\n",
        f"| row | switch steps wanted | reached | on all {results.settings.n} (quartiles) | policy |",
        "|---|---|---|---|---|",
    ]
    for name, policy in calibrated.policies.items():
        wanted, reached = ("/".join(f"{s:g}" for s in v) for v in (calibrated.targets[name], calibrated.reached[name]))
        everywhere = "/".join(map(middle, results.switched(name)))
        out.append(f"| {name} | {wanted} | {reached} | {everywhere} | `{policy}` |")
    return "\n".join([*out, ""])


def reasons(results: Results, worth: Mapping[str, Any]) -> str:
    """f, h and s: why a mask pays or does not."""
    p = results.prices
    out = [
        "## Why: f, h and s\n",
        f"A dense step takes {p.large * 1000:.0f} ms, a small one s = {p.small_ratio:.3f} of it. A hybrid step beats "
        f"the same time in whole large steps if the mask holds f > h / (1 − s) of ‖v_L − v_S‖². f is the mean over "
        f"steps {worth['first']} to {worth['last'] - 1} of {worth['prompts']} prompts on the large model's way.\n",
        "| mask | h fresh | h cached | needed f, fresh | cached | f of the policy's mask | best mask | random |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for ratio, found in worth["f"].items():
        fresh, cached = (p.masked_ratio(float(ratio), kind) for kind in ("fresh", "cached"))
        needed = [break_even(h, p.small_ratio) for h in (fresh, cached)]
        cells = [f"{v:.2f}" for v in (fresh, cached, *needed, *(found[k] for k in ("denoised", "oracle", "random")))]
        out.append(f"| {float(ratio):.0%} | " + " | ".join(cells) + " |")
    return "\n".join([*out, ""])
