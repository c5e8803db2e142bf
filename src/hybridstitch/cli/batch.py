"""`hybridstitch batch`: many pictures into one folder, begun again where it was killed."""

import json
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from ..batch import folder, ledger, listing
from ..batch.drawing import BatchResult, draw_all
from ..batch.estimate import Estimate, Kind, Sample, earlier, predict, unknown
from ..batch.executor import local
from ..batch.job import BatchSetting, Job
from ..batch.work import Desk, Draw, Outcome, encode
from ..disk.lock import alone
from ..errors import StitchWarning
from ..policies.policy import Policy
from ..policies.presets import PRESETS, outside
from ..report.picture import versions
from . import flags, say
from .asked import Asked, BadInput, writable

if TYPE_CHECKING:
    from ..report.takes import Take
    from .pairs import Limits, Pair

SHOWN = 5  # failed jobs told of one by one
KINDS = 6  # kinds of pictures a dry run times

Jobs = Annotated[Path, typer.Argument(help="A list, .jsonl or .csv, or a captions file, .json.", show_default=False)]
Devices = Annotated[
    str | None,
    typer.Option("--device", help="One or several, as cuda:0,cuda:1; one process each.", show_default="all there are"),
]
Verify = Annotated[bool, typer.Option("--verify", help="Hash every picture that is there; draw damaged ones again.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Predict time and disk; write nothing.")]
Sampled = Annotated[int | None, typer.Option("--n", help="Images of a captions file.", show_default="all")]
CaptionsSeed = Annotated[int, typer.Option("--captions-seed", help="Of the sample of a captions file.")]


def batch(
    jobs: Jobs,
    pair: flags.PairName = None,
    small: flags.Small = None,
    policy: flags.PolicyName = None,
    seed: flags.Seed = None,
    steps: flags.Steps = None,
    size: flags.Size = None,
    guidance: flags.Guidance = None,
    negative: flags.Negative = None,
    n: Sampled = None,
    captions_seed: CaptionsSeed = 0,
    out: flags.Out = Path("out"),
    device: Devices = None,
    dtype: flags.Dtype = None,
    verify: Verify = False,
    dry_run: DryRun = False,
    as_json: flags.AsJson = False,
    debug: flags.Debug = False,
) -> None:
    """Draw a list of jobs into a folder; run again, it goes on where it was stopped.

    hybridstitch batch jobs.jsonl --out pictures
    """
    devices = _devices(device)
    asked, *_ = [
        Asked.of(
            prompts=("-",), negative=negative, pair=pair, small=small, policy=policy, seed=seed,
            steps=steps, guidance=guidance, size=size, device=name, dtype=dtype,
        )
        for name in devices
    ]  # fmt: skip
    say.hush()
    from .pairs import Pair

    named = Pair.of(asked.pair, asked.small)
    limits = _limits(named)
    defaults = listing.Defaults(
        negative=asked.negative, seed=asked.seed, size=limits.check(asked.size), steps=asked.steps,
        guidance=asked.guidance, policy=asked.policy or named.policy,
    )  # fmt: skip
    found = listing.read(jobs, defaults, n=n, captions_seed=captions_seed)
    _check(found.jobs, named, limits)
    setting = BatchSetting(
        pair=asked.pair, small=asked.small, models=named.models, device=devices[0].partition(":")[0],
        dtype=asked.dtype, versions=versions(),
    )  # fmt: skip
    by_id = {setting.id_of(job): job for job in found.jobs}
    twice = len(found.jobs) - len(by_id)
    if twice:
        say.line("note", f"{twice} of {len(found.jobs)} jobs ask for a picture that another asks for; it is drawn once")
    studio = Studio(named=named, policy=defaults.policy, dtype=asked.dtype)
    desks = [Desk(out=out, setting=setting, device=name, open=studio) for name in devices]
    if dry_run:
        _tell_estimate(*_estimate(by_id, desks), jobs=len(by_id), desks=desks, as_json=as_json)
        return
    with alone(writable(out), "another batch"):
        before = folder.look(out, by_id, setting, verify=verify)
        _tell_found(before, out, folder.apart(out, setting))
        folder.begin(out, by_id, setting, found.origin, before)
        start = perf_counter()
        drawn = _draw({key: job for key, job in by_id.items() if key not in before.done}, desks)
    _close(by_id, before, drawn, out=out, seconds=perf_counter() - start, as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Studio:
    """Opens the pair on a device; can be sent to a process.

    Attributes:
        named: the pair.
        policy: it is opened with; every job brings its own.
        dtype: of the models.
    """

    named: "Pair"
    policy: Policy
    dtype: str

    def __call__(self, device: str) -> Draw:
        """What draws there."""
        say.hush()
        from .artist import Artist

        with say.plain_warnings():  # a process of its own has not made them plain yet
            pipe = self.named.open(self.policy, device=device, dtype=self.dtype)

        def draw(job: Job) -> "Take":
            size = (job.width, job.height)
            if self.named.folder is None:  # its tokenizer was not known before
                self.named.check_opened(pipe, size, {"the prompt": job.prompt, "the negative prompt": job.negative})
            artist = Artist(
                pipe=pipe, policy=job.policy, negative=job.negative, steps=job.steps, guidance=job.guidance, size=size
            )
            with say.plain_warnings():
                warnings.simplefilter("ignore", StitchWarning)  # its row says it
                return artist.draw(job.prompt, job.seed)

        return draw


def _devices(text: str | None) -> list[str]:
    """The devices to work on, all of one kind."""
    import torch

    if text is None:
        return [f"cuda:{place}" for place in range(torch.cuda.device_count())] or ["cpu"]
    names = [name.strip() for name in text.split(",")]
    kinds = {name.partition(":")[0] for name in names}
    if len(kinds) > 1:
        raise BadInput(f"--device {text} was given; a batch is drawn on one kind of device, as their pixels differ")
    return names


def _limits(named: "Pair") -> "Limits":
    """What a pair can draw; of hub ids the configurations are fetched, which also settles their revisions."""
    from .pairs import Limits

    limits = named.limits()
    if limits is not None:
        return limits
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if named.small is not None and not Path(named.small).is_dir():
            hf_hub_download(named.small, "model_index.json")
        _, vae, transformer = (
            json.loads(Path(hf_hub_download(named.large, file)).read_text(encoding="utf-8"))
            for file in ("model_index.json", "vae/config.json", "transformer/config.json")
        )
    except (OSError, HfHubHTTPError) as error:
        first = str(error).strip().splitlines()[0]
        raise BadInput(
            f"--pair {named.large} {named.small}: not all of it is in the cache or on the hub ({first})"
        ) from error
    return Limits.of(vae, transformer)


def _check(jobs: Sequence[Job], named: "Pair", limits: "Limits") -> None:
    """Refuse sizes and texts that the pair cannot draw."""
    for size in dict.fromkeys((job.width, job.height) for job in jobs):
        try:
            limits.check(size)
        except BadInput as error:
            raise BadInput(str(error).replace("--size", "size", 1)) from error
    texts = {f"the prompt of job {place}": job.prompt for place, job in enumerate(jobs, start=1)}
    texts |= {f"the negative prompt of job {place}": job.negative for place, job in enumerate(jobs, start=1)}
    named.check_text(texts)
    for sentence in _outside(jobs, named):
        say.warn(sentence)
    if named.mini:
        from ..mini.scenes import unknown_words

        words = sorted({word for text in texts.values() for word, _ in unknown_words(text)})
        if words:
            more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
            say.warn(f"the miniature world does not know {', '.join(map(repr, words[:SHOWN]))}{more}")


def _outside(jobs: Sequence[Job], named: "Pair") -> list[str]:
    """Where jobs leave the setting that a preset's thresholds were chosen in."""
    kinds = dict.fromkeys((job.policy, job.height, job.width, job.steps, job.guidance) for job in jobs)
    found: dict[str, None] = {}
    for policy, height, width, steps, guidance in kinds:
        preset = next((p for p in PRESETS.values() if p.made_for is not None and p.policy == policy), None)
        if preset is not None:
            size = (height, width)
            leaves = outside(preset, large=named.large, small=named.small, size=size, steps=steps, guidance=guidance)
            found |= dict.fromkeys([" ".join(leaves)] if leaves else [])
    return list(found)[:SHOWN]


def _tell_found(found: folder.Found, out: Path, apart: Sequence[str]) -> None:
    """What is amiss in a folder that is resumed."""
    if apart:
        say.line("note", f"{out} was drawn in another setting ({'; '.join(apart)}); its pictures stay, as others")
    if found.damaged_lines:
        say.warn(f"{found.damaged_lines} lines of {out / ledger.FOLDER} are damaged and were skipped")
    for place, (key, what) in enumerate(found.broken.items()):
        if place == SHOWN:
            say.warn(f"and {len(found.broken) - SHOWN} more pictures are drawn again")
            break
        say.warn(f"{out / folder.name_of(key)} {what}; it is drawn again")


def _draw(jobs: Mapping[str, Job], desks: Sequence[Desk]) -> BatchResult:
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

        return draw_all(jobs, local(desks[: max(len(jobs), 1)]), on_outcome)


def _close(
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
    for row in told[: 1 if drawn.hopeless else SHOWN]:
        tries = f"{row.attempts} tries" if row.attempts > 1 else "1 try"
        say.line(
            "error", f"{row.job['prompt'][:60]!r}, seed {row.job['seed']}: {row.error_class}: {row.message} ({tries})"
        )
    if len(told) > SHOWN and not drawn.hopeless:
        say.line("error", f"and {len(told) - SHOWN} more; all of them are rows of {out / ledger.FOLDER}")
    if drawn.hopeless:
        say.line("error", "stopped early; what is drawn is kept: make room, and run the same command again")
    if told:
        raise typer.Exit(1)


def _estimate(jobs: Mapping[str, Job], desks: Sequence[Desk]) -> tuple[Estimate, int]:
    """What the missing pictures will take, and how many they are; kinds never drawn are timed here."""
    desk = desks[0]
    there = folder.look(desk.out, jobs, desk.setting, verify=False)
    missing = [job for key, job in jobs.items() if key not in there.done]
    samples = earlier(ledger.read(desk.out)[0], desk.setting.digest)
    new = unknown(missing, samples)[:KINDS]
    if new:
        from .artist import warm_up_program

        draw = desk.open(desk.device)
        for job in new:
            program = warm_up_program(job.policy)
            draw(replace(job, policy=program, steps=len(program.program.split())))
            take = draw(job)
            size = len(encode(take.image, desk.recipe(job, take)))
            samples.append(Sample(Kind.of(job.to_json()), take.seconds, size))
    return predict(missing, samples, len(desks)), len(missing)


def _tell_estimate(estimate: Estimate, missing: int, *, jobs: int, desks: Sequence[Desk], as_json: bool) -> None:
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
