"""One reproduction from beginning to end: prices, thresholds, pictures, times, scores, tables, figures, report.

Every part is kept as soon as it is there, and found again by the next call with the same folder.
"""

import errno
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..batch.crew import Crew
from ..disk import files as disk
from ..disk.lock import alone
from ..measure.price import Prices
from . import caches, config, figures, prices, report, scoring, tables, thresholds, timing, worth
from .drawing import Missing, draw_image
from .equipment import CrewOf, Equipment
from .equipment import crew_of as of_this_machine
from .methods import Method, needed, rows
from .progress import Lines
from .raw import Rows, append_rows, kept, read_rows, write_rows
from .recording import recorder
from .results import Results, read_times, saved
from .settings import ReproductionError, Settings
from .thresholds import Fitted

TABLES = ("table1", "table2", "table3")
FIGURES = ("fig1b", "fig2", "fig4", "fig5", "fig6", "fig7", "fig8")
TARGETS = (*TABLES, "steps", *FIGURES, "all")
OF_THE_PAIR = ("fig1b", "fig2", "fig7")  # what the two models are and cost, whoever draws


def reproduce(
    settings: Settings, target: str, *, command: Sequence[str], mixed: bool, tell: Lines,
    crew_of: CrewOf = of_this_machine,
) -> list[Path]:  # fmt: skip
    """Do what is missing for a target and write it.

    Args:
        settings: what is reproduced.
        target: one of `TARGETS`.
        command: the words of the command line.
        mixed: go on in a folder that other code began.
        tell: hears of progress.
        crew_of: who draws and scores; this process times.

    Returns:
        the files that were asked for.

    Raises:
        ReproductionError: the folder is of something else, or the disk is full; what is drawn is kept.
        BusyError: another reproduction works in the folder.
        HybridStitchError: something cannot be drawn.
    """
    with _disk(settings.out):
        config.refuse_strange(settings.out)
        settings.out.mkdir(parents=True, exist_ok=True)
        with alone(settings.out, "another reproduction"):
            about = config.begin(settings, command, mixed=mixed)
            with crew_of(settings) as crew:
                return _reproduce(crew, target, about, tell)


def _reproduce(crew: Crew[Equipment], target: str, about: dict[str, Any], tell: Lines) -> list[Path]:
    settings = crew.here.settings
    costs = _kept(settings, "costs.json", Prices, lambda: prices.measure(crew.here.pipe, settings), tell)
    chosen = None
    if settings.calibrate and target not in OF_THE_PAIR:
        count = min(thresholds.PROMPTS, settings.n)
        tell.note(f"thresholds of this pair, from {count} prompts")
        chosen = _kept(
            settings, "calibration.json", Fitted,
            lambda: thresholds.calibrate(settings.steps, count, recorder(crew)), tell,
        )  # fmt: skip
    policies = {} if chosen is None else chosen.policies
    every = rows(settings.steps, policies)
    wanted = _wanted(target, every)
    mine = needed(wanted, every) if wanted else ()
    if mine:
        _draw(crew, mine, costs, tell)
    if target in ("all", "fig5", *TABLES):
        timed = timing.timed(mine)
        tell.begin("timing", len(timed) * settings.latency_n)
        timing.time_all(crew.here, mine, every, costs, tell.done)
    results = Results(
        settings=settings, methods=every, policies=policies, prices=costs, rows=read_rows(settings),
        times=read_times(settings),
    )  # fmt: skip
    notes = [*_notes(about, chosen)]
    if target in ("all", "table1") and not caches.installed():
        notes.append("cache-dit is not installed, so its row is left out: pip install 'hybridstitch[cache]'.")
        tell.note(notes[-1])
    if target in ("all", "steps", "fig4", "fig6", *TABLES):
        results, missing = _score(crew, results, mine, tell)
        notes += missing
    found: list[Path] = []
    for table in (*TABLES, "steps"):
        if target in (table, "all"):
            tables.write(results, table, notes)
            found.append(settings.tables / f"{table}.md")
    for name, figure in figures.FIGURES:
        if target in (name, "all"):
            tell.note(f"drawing {name}")
            found += figure(results, crew)
    if target == "all":
        tell.note("the share of the difference inside masks")
        inside = saved(settings, "worth.json") or _keep(settings, "worth.json", worth.measure(crew))
        report.write(results, chosen, inside, notes)
        found.append(settings.out / "report.md")
    return found


def _wanted(target: str, every: Sequence[Method]) -> list[Method]:
    """The rows whose pictures a target shows."""
    one = {m.name for m in every if m.group == "table1"}
    three = {m.name for m in every if m.group == "table3"}
    hybrid = {name for name in one if name.startswith("hybridstitch")}
    inside: dict[str, Callable[[Method], bool]] = {
        "table1": lambda m: m.group in ("table1", "rivals") or (m.group == "matched" and m.of in one),
        "table2": lambda m: m.group in ("table2", "parts") or m.name in hybrid,
        "table3": lambda m: m.name in hybrid | three | {"sr-diffusion"} or (m.group == "matched" and m.of in three),
        "steps": lambda m: m.group == "steps",
        "fig4": lambda m: m.name in one,
        "fig5": lambda m: m.name in one,
        "fig6": lambda m: m.group in ("table1", "variants") or m.name.startswith("large "),
        "fig8": lambda m: m.name in hybrid | {"sr-diffusion"},
        "all": lambda m: True,
    }
    return [m for m in every if target in inside and inside[target](m)]


def _draw(crew: Crew[Equipment], methods: Sequence[Method], costs: Prices, tell: Lines) -> None:
    """Draw what is missing of some rows; raw.csv grows with each prompt."""
    settings = crew.here.settings
    names = [m.name for m in methods]
    there, wrong = kept(settings, read_rows(settings), names)
    for sentence in wrong[:5]:
        tell.note(sentence)
    if len(wrong) > 5:
        tell.note(f"and {len(wrong) - 5} more pictures are drawn again")
    write_rows(settings, _sorted(there, methods))
    tasks = []
    for image in range(settings.n):
        missing = frozenset(name for name in names if (name, image) not in there)
        if missing:
            tasks.append(Missing(image=image, methods=tuple(methods), names=missing, prices=costs))
    tell.begin("drawing prompts", len(tasks))
    for done, (_, drawn) in enumerate(crew.map(draw_image, tasks), start=1):
        append_rows(settings, drawn)
        tell.done(done, len(tasks))


def _score(
    crew: Crew[Equipment], results: Results, methods: Sequence[Method], tell: Lines
) -> tuple[Results, list[str]]:
    """Score rows and fill raw.csv's last columns."""
    settings = results.settings
    for note in crew.here.scorer.notes:
        tell.note(note)
    tell.begin("scoring methods", len(methods))
    scores = scoring.score_all(crew, results.rows, methods, tell.done)
    filled = scoring.filled(results.rows, scores)
    write_rows(settings, _sorted(filled, results.methods))
    done = Results(
        settings=settings, methods=results.methods, policies=results.policies, prices=results.prices, rows=filled,
        times=results.times, scores=scores,
    )  # fmt: skip
    one = next(iter(scores.values()))
    said = [f"{s.metric}: {s.numerics}" + (f"; against {s.references}" if s.references else "") for s in one.values()]
    said += [s.note for s in one.values() if s.note]
    return done, [*crew.here.scorer.notes, *dict.fromkeys(said)]


def _notes(about: dict[str, Any], chosen: Fitted | None) -> Iterator[str]:
    """What stands below every table."""
    hardware, prompts = about["hardware"], about["prompts"]
    before = about.get("commits_before", [])
    begun = f" (begun at {', '.join(before)})" if before else ""
    yield f"`{about['command']}` at commit {about['commit']}{begun} on {hardware['name']}, {hardware['cores']} cores."
    yield f"{prompts['n']} prompts ({prompts['source']}), {about['latency_n']} of them timed, methods interleaved."
    if chosen is not None:
        yield (
            "Thresholds were chosen for this pair: the median switch steps that the paper's latencies imply, on "
            f"{chosen.prompts} prompts."
        )


def _sorted(found: Rows, methods: Sequence[Method]) -> Rows:
    order = {m.name: place for place, m in enumerate(methods)}
    keys = sorted(found, key=lambda key: (order.get(key[0], len(order)), key))
    return {key: found[key] for key in keys}


def _kept(settings: Settings, name: str, kind: Any, make: Callable[[], Any], tell: Lines) -> Any:
    """What a file of the folder holds, made first if it is not there."""
    try:
        before = saved(settings, name)
        if before is not None:
            return kind.from_json(before)
    except (ValueError, KeyError, TypeError) as error:
        tell.note(f"{settings.out / name} is damaged ({error}); it is made again")
    made = make()
    _keep(settings, name, made.to_json())
    return made


def _keep(settings: Settings, name: str, data: Any) -> Any:
    disk.keep(settings.out / name, (json.dumps(data, indent=1) + "\n").encode())
    return data


@contextmanager
def _disk(out: Path) -> Iterator[None]:
    """A full or locked disk in one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ReproductionError(
                f"the disk of {out} is full; what is drawn is kept: make room and run the same command again"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            where = error.filename or out
            raise ReproductionError(f"{where} cannot be written ({error.strerror}); choose another --out") from error
        raise
