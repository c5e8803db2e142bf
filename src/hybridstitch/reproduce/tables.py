"""Tables 1-3 with their honest rows, the paper's figures beside them, and the table of step counts.

Each is written as Markdown, CSV and JSON. Scores are means with 95 % intervals over prompts; seconds are medians with
quartiles of the denoising loop; where a row was not timed its time is the cost model's, marked "≈".
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import mean, median, quantiles
from typing import Any

from ..disk import files as disk
from ..evaluate.scores import Scores
from ..measure.intervals import Interval
from .methods import Method
from .pareto import Contender, ahead, at_time, chances
from .results import Results
from .scoring import TITLES, named
from .timing import error

UNITS = {"clip": " ×100", "psnr": ", dB"}
ARROWS = {"higher": "↑", "lower": "↓"}
Line = dict[str, Any]


def members(results: Results, table: str) -> list[Method]:
    """The rows of a table, in order."""
    everything = results.methods
    if table == "table1":
        mine = {m.name for m in everything if m.group == "table1"}
        groups = [lambda m: m.group == "table1", lambda m: m.group == "rivals", lambda m: _matched(m, mine)]
    elif table == "table2":
        groups = [lambda m: m.name == "large" or _one_mask(m), lambda m: m.group in ("table2", "parts")]
    elif table == "table3":
        mine = {m.name for m in everything if m.group == "table3"}
        groups = [
            lambda m: m.name in ("large", "sr-diffusion") or _one_mask(m),
            lambda m: m.group == "table3",
            lambda m: _matched(m, mine),
        ]
    else:
        groups = [lambda m: m.group == "steps"]
    return [m for inside in groups for m in everything if inside(m) and results.of(m.name)]


def line(results: Results, method: Method) -> Line:
    """One row as plain data."""
    rows, scores = results.of(method.name), results.scores.get(method.name, {})
    cost = mean(float(r["cost"]) for r in rows)
    found: Line = {
        "method": method.name,
        "n": len(rows),
        "policy": f"{method.take} of {method.of}" if method.of is not None else rows[0]["policy"],
        "steps": mean(float(r["steps"]) for r in rows),
        "switches": [*map(median, results.switched(method.name))],
        "predicted_seconds": cost * results.prices.large,
        "dense_steps": cost,
    }
    for column in TITLES:
        score = named(scores, column)
        found[column] = None if score is None else _finite(score)
    taken = results.seconds(method.name)
    if taken:
        low, _, high = quantiles(taken, n=4) if len(taken) > 1 else taken * 3
        mine = [row for (name, _), row in results.times.items() if name == method.name]
        found |= {
            "seconds": median(taken),
            "quartiles": [low, high],
            "timed": len(taken),
            "total_seconds": median(results.seconds(method.name, "total_seconds")),
            "speedup": results.speedup(method.name),
            "predicted_seconds": median(float(row["predicted_seconds"]) for row in mine),
            "prediction_error": error(mine),
        }
    if method.paper is not None:
        p = method.paper
        found["paper"] = {
            "fid": p.fid, "clip": p.clip, "lpips": p.lpips, "seconds": p.latency_seconds, "speedup": p.speedup,
        }  # fmt: skip
    return found


def write(results: Results, table: str, notes: Sequence[str]) -> list[Line]:
    """Write a table and give its lines.

    Args:
        results: scored.
        table: "table1", "table2", "table3" or "steps".
        notes: sentences for below it.
    """
    lines = [line(results, method) for method in members(results, table)]
    text = steps_markdown(results) if table == "steps" else markdown(lines, results.scores)
    folder = results.settings.tables
    folder.mkdir(parents=True, exist_ok=True)
    below = "".join(f"\n{note}  " for note in notes)
    disk.keep(folder / f"{table}.md", f"{text}{below}\n".encode())
    disk.keep(folder / f"{table}.json", (json.dumps({"rows": lines, "notes": list(notes)}, indent=1) + "\n").encode())
    disk.keep(folder / f"{table}.csv", _flat(lines).encode())
    return lines


def markdown(lines: Sequence[Line], scores: Mapping[str, Mapping[str, Scores]]) -> str:
    """The table as a page shows it; columns that nothing fills are left out."""
    any_scores = next(iter(scores.values()), {})
    shown = [c for c in TITLES if any(found[c] is not None for found in lines)]
    heads = [_head(any_scores, c) for c in shown]
    head = ["method", *heads, "seconds (quartiles)", "end to end", "speedup", "predicted (error)", "switches"]
    head += ["paper: FID", "CLIP", "LPIPS", "seconds", "speedup"]
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for found in lines:
        cells = [found["method"], *(_interval(found[c], c) for c in shown)]
        if "seconds" in found:
            low, high = found["quartiles"]
            cells += [f"{found['seconds']:.3g} ({low:.3g}-{high:.3g})", f"{found['total_seconds']:.3g}"]
            cells += [f"{found['speedup']:.2f}"]
            cells += [f"{found['predicted_seconds']:.3g} ({found['prediction_error']:+.1%})"]
        else:
            cells += ["", "", "", f"≈ {found['predicted_seconds']:.3g}"]
        cells.append("/".join(f"{s:g}" for s in found["switches"][:4]) + ("…" if len(found["switches"]) > 4 else ""))
        paper = found.get("paper", {})
        cells += [
            "" if paper.get(k) is None else f"{paper[k]:g}" for k in ("fid", "clip", "lpips", "seconds", "speedup")
        ]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def steps_markdown(results: Results) -> str:
    """By step count and kind: time, scores, the chance of being on the front, and the lead over fewer steps."""
    columns = [c for c in ("psnr", "fd", "clip") if any(named(s, c) is not None for s in results.scores.values())]
    points = {c: points_of(results, c) for c in columns}
    on = {c: chances(points[c], fewer(points[c])) for c in columns}
    any_scores = next(iter(results.scores.values()), {})
    head = ["method", "dense steps of time"]
    for c in columns:
        head += [_head(any_scores, c), "on the front", "ahead of fewer steps at its time"]
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for method in members(results, "steps"):
        cells = [method.name, f"{results.dense(method.name):.2f}"]
        for c in columns:
            score = named(results.scores[method.name], c)
            lead = lead_over_fewer(results, method.name, points[c])
            shown = None if lead is None else [x * (100 if c == "clip" else 1) for x in lead[:3]]
            cells += [
                "" if score is None else _interval(_finite(score), c),
                f"{on[c][method.name]:.0%}",
                "" if shown is None else f"{shown[0]:+.3g} [{shown[1]:+.3g}, {shown[2]:+.3g}]",
            ]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def points_of(results: Results, column: str) -> dict[str, Contender]:
    """Every method of the step counts as a point of time and score; larger is better."""
    found = {}
    for method in members(results, "steps"):
        score = named(results.scores.get(method.name, {}), column)
        if score is not None:
            sign = 1.0 if score.better == "higher" else -1.0
            found[method.name] = Contender(
                time=results.dense(method.name), value=sign * score.value, replicates=sign * score.replicates
            )
    return found


def lead_over_fewer(results: Results, name: str, points: Mapping[str, Contender]) -> Interval | None:
    """How far a point is ahead of the large model with fewer steps at its time; None for the large model itself."""
    if name.startswith("large ") or name not in points:
        return None
    other = at_time(fewer(points), points[name].time)
    return None if other is None else ahead(points[name], other, results.settings.n)


def fewer(points: Mapping[str, Contender]) -> list[Contender]:
    """The large model at its step counts."""
    return [point for name, point in points.items() if name.startswith("large ")]


def _one_mask(method: Method) -> bool:
    return method.group == "table1" and method.name.startswith("hybridstitch")


def _matched(method: Method, names: set[str]) -> bool:
    return method.group == "matched" and method.of in names


def _head(scores: Mapping[str, Scores], column: str) -> str:
    score = named(scores, column)
    assert score is not None
    return f"{score.metric}{UNITS.get(column, '')} {ARROWS[score.better]}"


def _interval(values: Sequence[float | None] | None, column: str) -> str:
    if values is None:
        return ""
    scale = 100 if column == "clip" else 1
    middle, low, high = ("-" if v is None else f"{v * scale:.3g}" for v in values)
    return f"{middle} [{low}, {high}]"


def _finite(score: Scores) -> list[float | None]:
    """Value and interval; what two pictures cannot have (KID's replicates) is None, which JSON has a word for."""
    return [value if isfinite(value) else None for value in score.interval[:3]]


def _flat(lines: Sequence[Line]) -> str:
    """CSV: one cell a number."""
    flat = []
    for found in lines:
        row: dict[str, Any] = {}
        for key, value in found.items():
            if key in TITLES:
                row |= {key: "", f"{key}_low": "", f"{key}_high": ""}
                if value is not None:
                    row |= dict(zip((key, f"{key}_low", f"{key}_high"), value, strict=True))
            elif isinstance(value, Mapping):
                row |= {f"{key}_{k}": v for k, v in value.items()}
            else:
                row[key] = "/".join(map(str, value)) if isinstance(value, list) else value
        flat.append(row)
    columns = list(dict.fromkeys(key for row in flat for key in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
