"""report.md: a reader's questions, answered from the data. Every difference is paired over the same prompts.

A difference whose 95 % interval holds zero is called not settled, whatever its sign.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from ..disk import files as disk
from ..policies.latency import break_even
from .gaps import Gap, gaps, shown, verdict
from .questions import ONE, by_steps, equal_time, full_large, halves, several, static
from .results import Results, middle
from .tables import line
from .thresholds import Fitted


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
