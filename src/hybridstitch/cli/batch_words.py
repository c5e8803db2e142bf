"""What `hybridstitch batch` says: of the folder it finds, of what it drew, and of what a dry run foresees."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import typer

from ..batch import folder, ledger
from ..batch.drawing import BatchResult
from ..batch.estimate import Estimate
from ..batch.job import Job
from ..batch.work import Desk
from . import say

SHOWN = 5  # failed jobs told of one by one


def tell_found(found: folder.Found, out: Path, apart: Sequence[str]) -> None:
    """What is amiss in a folder that is resumed."""
    if apart:
        say.line(
            "note",
            f"{out} was drawn in another setting ({'; '.join(apart)}); its pictures are kept beside the new ones",
        )
    if found.damaged_lines:
        say.warn(f"{found.damaged_lines} lines of {out / ledger.FOLDER} are damaged and were skipped")
    for place, (key, what) in enumerate(found.broken.items()):
        if place == SHOWN:
            say.warn(f"and {len(found.broken) - SHOWN} more pictures are drawn again")
            break
        say.warn(f"{out / folder.name_of(key)} {what}; it is drawn again")


def tell_result(
    jobs: Mapping[str, Job], before: folder.Found, drawn: BatchResult, *, out: Path, seconds: float, as_json: bool
) -> None:
    """The last lines, and the exit code."""
    missing = len(jobs) - len(before.done) - len(drawn.done) - len(drawn.failed)
    rows = {**before.done, **drawn.done, **drawn.failed}
    if as_json:
        result = {
            "out": str(out), "jobs": len(jobs), "there": len(before.done), "drawn": len(drawn.done),
            "failed": len(drawn.failed), "not_tried": missing, "seconds": seconds,
            "rows": [asdict(rows[key]) for key in jobs if key in rows],
        }  # fmt: skip
        print(json.dumps(result))
    else:
        parts = [f"{len(drawn.done)} drawn in {_span(seconds)}", f"{len(before.done)} were there"]
        parts += [f"{len(drawn.failed)} failed"] if drawn.failed else []
        parts += [f"{missing} not tried"] if missing else []
        say.out().print(f"{out}: {len(jobs)} pictures asked for, {', '.join(parts)}")
    flags = Counter(flag.partition(":")[0] for row in drawn.done.values() for flag in row.flags)
    for flag, count in flags.items():
        say.warn(f"{count} of {len(drawn.done)} pictures {flag}; the rows of {out / ledger.FOLDER} tell which")
    told = list(drawn.failed.values())
    for row in told[-1:] if drawn.hopeless else told[:SHOWN]:
        tries = f"{row.attempts} tries" if row.attempts > 1 else "1 try"
        say.line(
            "error", f"{row.job['prompt'][:60]!r}, seed {row.job['seed']}: {row.error_class}: {row.message} ({tries})"
        )
    if len(told) > SHOWN and not drawn.hopeless:
        say.line("error", f"and {len(told) - SHOWN} more; all of them are rows of {out / ledger.FOLDER}")
    if drawn.hopeless:
        full = told[-1].error_class == OSError.__name__
        way_out = "make room, and run the same command again" if full else "run the same command again"
        say.line("error", f"stopped early; what is drawn is kept: {way_out}")
    if told:
        raise typer.Exit(1)


def tell_estimate(estimate: Estimate, missing: int, *, jobs: int, desks: Sequence[Desk], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"jobs": jobs, "missing": missing, "devices": len(desks), **asdict(estimate)}))
        return
    devices = f"{len(desks)} devices" if len(desks) > 1 else desks[0].device
    text = (
        f"{missing} of {jobs} pictures to draw: about {_span(estimate.seconds)} on {devices}, {_mass(estimate.bytes)}"
    )
    if missing:
        text += f"; from {estimate.samples} timed pictures"
    if estimate.guessed:
        text += f", {estimate.guessed} jobs guessed from other kinds"
    say.out().print(text)
    place = next((p for p in (desks[0].out, *desks[0].out.absolute().parents) if p.is_dir()), Path())
    free = shutil.disk_usage(place).free
    if free < estimate.bytes:
        say.warn(f"{place} has room for {_mass(free)}")


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _mass(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
