"""`hybridstitch batch`: many pictures into one folder, begun again where it was killed."""

import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from ..batch import folder, imagefolder, ledger, listing
from ..batch.copies import Copy
from ..batch.drawing import BatchResult, draw_all
from ..batch.executor import Executor
from ..batch.job import BatchSetting, Job
from ..batch.work import Desk, Outcome
from ..disk import files as disk
from ..disk.lock import alone
from ..report.metadata import versions
from . import flags, say
from .asked import Asked, BadInput, writable
from .batch_input import check, devices_of, engine_for, limits_of
from .batch_place import Address, Collect, CopyTo, GpusPerWorker, NumWorkers, On, WorkPlace, copy_at
from .batch_studio import MODULES, JobStudio, estimate
from .batch_words import tell_estimate, tell_found, tell_result
from .served import Served

Jobs = Annotated[
    Path, typer.Argument(help="A list, .jsonl, .csv or .parquet, or a captions file, .json.", show_default=False)
]
Devices = Annotated[
    str | None,
    typer.Option("--device", help="One or several, as cuda:0,cuda:1; one process each.", show_default="all there are"),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Check the hash of every existing picture; draw damaged ones again.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Predict time and disk; write nothing.")]
Sampled = Annotated[int | None, typer.Option("--n", help="How many images of a captions file.", show_default="all")]
CaptionsSeed = Annotated[
    int, typer.Option("--captions-seed", help="Seed by which images of a captions file are chosen.")
]


def batch(
    jobs: Jobs,
    pair: flags.PairName = None,
    small: flags.Small = None,
    policy: flags.PolicyName = None,
    recipe_file: flags.RecipeFile = None,
    speed: flags.Speed = None,
    closeness: flags.Closeness = None,
    seed: flags.Seed = None,
    steps: flags.Steps = None,
    size: flags.Size = None,
    frames: flags.Frames = None,
    fps: flags.Fps = None,
    guidance: flags.Guidance = None,
    negative: flags.Negative = None,
    n: Sampled = None,
    captions_seed: CaptionsSeed = 0,
    out: flags.Out = Path("out"),
    copy_to: CopyTo = None,
    on: On = "here",
    address: Address = None,
    num_workers: NumWorkers = None,
    gpus_per_worker: GpusPerWorker = None,
    collect: Collect = False,
    device: Devices = None,
    dtype: flags.Dtype = None,
    compile: flags.Compile = None,
    offload: flags.Offload = False,
    kv: flags.Kv = None,
    kv_host: flags.KvHost = False,
    images_per_call: flags.ImagesPerCall = 1,
    verify: Verify = False,
    dry_run: DryRun = False,
    as_json: flags.AsJson = False,
    debug: flags.Debug = False,
) -> None:
    """Draw a list of jobs into a folder; the same command resumes it.

    hybridstitch batch jobs.jsonl --out pictures
    """
    place = WorkPlace.of(
        on, device, address=address, num_workers=num_workers, gpus_per_worker=gpus_per_worker, collect=collect,
        dry_run=dry_run,
    )  # fmt: skip
    devices, copy = place.devices or devices_of(None), copy_at(copy_to, out)
    served = Served.of(
        recipe_file, speed=speed, closeness=closeness, policy=policy, source=None, pair=pair, small=small
    )
    if served is not None:
        served.warn_of(pair=pair, steps=steps, guidance=guidance, size=size, frames=frames)
    asked, *_ = [
        Asked.of(
            prompts=("-",), below=None if served is None else served.layer, negative=negative, pair=pair, small=small,
            policy=policy, seed=seed, steps=steps, guidance=guidance, size=size, frames=frames, fps=fps, device=name,
            dtype=dtype, kv=kv, elsewhere=place.ray,
        )
        for name in devices
    ]  # fmt: skip
    engine = engine_for(devices, flags.engine_of(compile, offload, asked.kv, kv_host))
    say.hush()
    from .pairs import Pair

    named = Pair.of(asked.pair, asked.small)
    limits = limits_of(named)
    if fps is not None and not limits.video:
        raise BadInput(f"--fps {fps:g} was given; this pair draws pictures: leave --fps out")
    *count, height, width = limits.check(asked.size, asked.frames)
    defaults = listing.Defaults(
        negative=asked.negative, seed=asked.seed, size=(width, height), frames=count[0] if count else None,
        fps=asked.fps if count else None, steps=asked.steps, guidance=asked.guidance,
        policy=asked.policy or named.policy, shift=asked.shift, levels=asked.levels,
    )  # fmt: skip
    if not place.ray:
        named.check_fits(asked, defaults.policy, engine, images=images_per_call)
    found = listing.read(jobs, defaults, n=n, captions_seed=captions_seed)
    check(found.jobs, named, limits)
    setting = BatchSetting(
        pair=asked.pair, small=asked.small, models=named.known_as(folder.models_in(out)),
        device=devices[0].partition(":")[0], dtype=asked.dtype, versions=versions(), kv=asked.kv,
    )  # fmt: skip
    by_id = {setting.id_of(job): job for job in found.jobs}
    twice = len(found.jobs) - len(by_id)
    if twice:
        say.line("note", f"{twice} of {len(found.jobs)} jobs repeat another job; each picture is drawn once")
    studio = JobStudio(
        named=named.from_anywhere(), policy=defaults.policy, dtype=asked.dtype, engine=engine, served=served,
        models=setting.models if place.ray else None,
    )  # fmt: skip
    desks = [Desk(out=out, setting=setting, device=name, open=studio, copy=copy, modules=MODULES) for name in devices]
    if dry_run:
        there = set() if copy is None else copy.sizes().keys()
        left = {key: job for key, job in by_id.items() if folder.file_of(key, job) not in there}
        tell_estimate(*estimate(left, desks, images_per_call), jobs=len(by_id), desks=desks, as_json=as_json)
        return
    with alone(writable(out), "another batch"):
        if copy is not None:
            _fetch(copy, out, by_id)
        before = folder.look(out, by_id, setting, verify=verify)
        tell_found(before, out, folder.apart(out, setting))
        folder.begin(out, by_id, setting, found.origin, before)
        if copy is not None:
            copy.send(out, folder.LISTS)  # whoever cannot write there hears of it before anything is drawn
        start = perf_counter()
        missing = {key: job for key, job in by_id.items() if key not in before.done}
        with place.executor(desks, len(missing)) as executor:
            drawn = _draw(missing, executor, images_per_call)
        disk.sweep(out)  # behind whoever was slow, and let go
        if drawn.hopeless is None:
            imagefolder.describe(out, by_id, {**before.done, **drawn.done})
        if copy is not None:
            finished = [path.relative_to(out).as_posix() for path in folder.files(out, by_id)]
            copy.catch_up(out, [name for name in finished if name != imagefolder.NAME])
            copy.send(out, [imagefolder.NAME] if drawn.hopeless is None else [])  # of any content it may be as long
    tell_result(by_id, before, drawn, out=out, seconds=perf_counter() - start, as_json=as_json)


def _fetch(copy: Copy, out: Path, jobs: Mapping[str, Job]) -> None:
    """What is at the address and not in the folder."""
    pictures = {name for key, job in jobs.items() for name in (folder.name_of(key), folder.file_of(key, job))}
    fetched = copy.fetch(out, lambda name: name in pictures or name.startswith(f"{ledger.FOLDER}/"))
    if fetched:
        say.line("note", f"{fetched} files were fetched from {copy.url}")


def _draw(jobs: Mapping[str, Job], executor: Executor, images_per_call: int) -> BatchResult:
    """Draw, with a bar on a terminal."""
    console = Console(file=sys.stderr)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("pictures"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("opening the pair", total=len(jobs))
        done = failed = 0

        def on_outcome(outcome: Outcome) -> None:
            nonlocal done, failed
            done += outcome.row.status == "done"
            failed += outcome.row.status != "done"
            text = f"drawing, {failed} tries failed" if failed else "drawing"
            bar.update(task, description=text, completed=done)

        return draw_all(jobs, executor, on_outcome, images_per_call=images_per_call)
