"""`hybridstitch reproduce`: the paper's tables and figures on any pair that draws pictures, from one command."""

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import nearest
from ..policies.presets import PAPER
from . import flags, say
from .asked import Asked, BadInput, writable
from .batch_place import Address, GpusPerWorker, NumWorkers, On, WorkPlace
from .opener import Opener

if TYPE_CHECKING:
    from ..reproduce.settings import Settings

CPU_N, GPU_N, LATENCY_N = 96, 512, 16
WEIGHTS = ("inception", "clip", "lpips")

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET",
        help="table1, table2, table3, steps, fig1b, fig2, fig4, fig5, fig6, fig7, fig8 or all.",
        show_default=False,
    ),
]
PromptsFile = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="A captions file (.json) or a list (.jsonl, .csv).",
                 show_default="held-out scenes, for mini"),
]  # fmt: skip
Number = Annotated[
    int | None,
    typer.Option("--n", help="Prompts, and pictures of each method.", show_default="96 on a CPU, 512 on a GPU"),
]
LatencyNumber = Annotated[
    int | None, typer.Option("--latency-n", help="Prompts that are timed.", show_default="a quarter of n, at most 16")
]
Calibrate = Annotated[
    bool | None,
    typer.Option(
        "--calibrate/--no-calibrate",
        help="Choose thresholds for this pair, or take the paper's.",
        show_default="calibrate, except for the paper's pair",
    ),
]
Real = Annotated[Path | None, typer.Option("--real", metavar="DIR", help="Real pictures, for FID and KID.")]
Weights = Annotated[
    list[str] | None,
    typer.Option("--weights", metavar="NAME=PATH", help="Weights file of a score: inception, clip or lpips.",
                 show_default="downloaded"),
]  # fmt: skip
Mixed = Annotated[bool, typer.Option("--mixed", help="Continue a folder that another commit began.")]


def reproduce(
    ctx: typer.Context,
    target: Target,
    pair: flags.PairName = None,
    small: flags.Small = None,
    prompts: PromptsFile = None,
    n: Number = None,
    latency_n: LatencyNumber = None,
    seed: flags.Seed = None,
    steps: flags.Steps = None,
    size: flags.Size = None,
    guidance: flags.Guidance = None,
    on: On = "here",
    address: Address = None,
    num_workers: NumWorkers = None,
    gpus_per_worker: GpusPerWorker = None,
    device: flags.Device = None,
    dtype: flags.Dtype = None,
    calibrate: Calibrate = None,
    real: Real = None,
    weights: Weights = None,
    mixed: Mixed = False,
    out: flags.Out = Path("reproduction"),
    debug: flags.Debug = False,
) -> None:
    """Draw, time and score the paper's tables and figures on any pair that draws pictures; the same command resumes it.

    hybridstitch reproduce all --pair mini --n 16 --out reproduction
    """
    from ..reproduce.command import TARGETS
    from ..reproduce.command import reproduce as carry_out
    from ..reproduce.equipment import crew_of as of_this_machine
    from ..reproduce.progress import Lines
    from ..reproduce.settings import Settings

    place = WorkPlace.of(on, device, address=address, num_workers=num_workers, gpus_per_worker=gpus_per_worker)
    if target not in TARGETS:
        raise BadInput(f"{target!r} was given; {nearest(target, TARGETS)}")
    asked = Asked.of(
        prompts=("-",), pair=pair, small=small, seed=seed, steps=steps, guidance=guidance, size=size,
        device=device, dtype=dtype,
    )  # fmt: skip
    if asked.steps < 6:
        raise BadInput(f"--steps {asked.steps} was given; the methods need at least 6")
    number = (CPU_N if asked.device == "cpu" else GPU_N) if n is None else n
    if number < 1:
        raise BadInput(f"--n {number} was given; at least one prompt is needed")
    timed = min(LATENCY_N, max(1, number // 4)) if latency_n is None else latency_n
    if not 1 <= timed <= number:
        raise BadInput(f"--latency-n {timed} was given; it is between 1 and --n {number}")
    say.hush()
    from ..reproduce.config import models_in
    from .batch_input import limits_of
    from .pairs import Pair

    named = Pair.of(asked.pair, asked.small)
    if prompts is None and not named.mini:
        raise BadInput("--prompts is missing: a captions file such as COCO's captions_val2014.json, or a list")
    limits = limits_of(named)
    if limits.video:
        raise BadInput(f"--pair {asked.pair} draws videos; the paper's tables and figures are of pictures")
    height, width = limits.check(asked.size or (PAPER.size if named.folder is None else None))
    pixels = (width, height)
    texts, origin = _prompts(prompts, asked, number, pixels)
    named.check_text({f"prompt {place}": text for place, text in enumerate(texts, start=1)})
    at_home = (named.large, named.small, pixels, asked.steps) == (PAPER.large, PAPER.small, PAPER.size, PAPER.steps)
    if real is not None and not real.is_dir():
        raise BadInput(f"--real {real}: there is no folder {real} with real pictures to compare with")
    models = named.known_as(models_in(out))
    settings = Settings(
        pair=asked.pair, small=asked.small, mini=named.mini, models=models,
        open=Opener(named=named, policy=named.policy, device=asked.device, dtype=asked.dtype),
        prompts=texts, origin=origin, latency_n=timed, seed=asked.seed, steps=asked.steps, guidance=asked.guidance,
        size=pixels, device=asked.device, dtype=asked.dtype, calibrate=not at_home if calibrate is None else calibrate,
        weights=_weights(weights or []), real=real, out=writable(out),
    )  # fmt: skip
    words = ["hybridstitch", *(ctx.obj or [])]
    tell = Lines(lambda text: say.line("note", text))
    crew_of = partial(_abroad, place) if place.ray else of_this_machine
    for path in carry_out(settings, target, command=[shlex.join(words)], mixed=mixed, tell=tell, crew_of=crew_of):
        say.out().print(str(path))


def _abroad(place: WorkPlace, settings: "Settings") -> Any:
    """Who draws and scores in a cluster."""
    from ..reproduce.equipment import Equipment

    opener: Any = settings.open
    far = replace(settings, open=opener.abroad(settings.models), out=settings.out.absolute())
    return place.crew(partial(Equipment, far), device=settings.device, folder=settings.out)


def _prompts(
    path: Path | None, asked: Asked, number: int, pixels: tuple[int, int]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """What to draw, and where it comes from.

    Raises:
        BadInput: there are fewer than `number`.
        JobsError: a file that cannot be read.
    """
    if path is None:
        from ..mini.scenes import heldout_prompts

        return tuple(heldout_prompts(number)), {"source": "held-out scenes of the miniature world"}
    from ..batch import listing
    from ..policies.methods import LargeOnly

    captions = path.suffix.lower() == ".json"
    defaults = listing.Defaults(
        negative="", seed=asked.seed, size=pixels, steps=asked.steps, guidance=asked.guidance, policy=LargeOnly()
    )
    found = listing.read(path, defaults, n=number if captions else None)
    if len(found.jobs) < number:
        raise BadInput(f"{path} holds {len(found.jobs)} prompts, {number} are needed; ask for fewer with --n")
    jobs = found.jobs[:number]
    origin = {"source": f"{path.name}, SHA-256 {found.origin['sha256'][:16]}"}
    ids = {"ids": [dict(job.source) for job in jobs]} if captions else {}
    return tuple(job.prompt for job in jobs), {**origin, **ids}


def _weights(given: list[str]) -> dict[str, str]:
    """Weights by name.

    Raises:
        BadInput: a name that is none, or a file that is not there.
    """
    found = {}
    for word in given:
        name, sign, path = word.partition("=")
        if not sign or name not in WEIGHTS:
            raise BadInput(f"--weights {word} was given; write NAME=PATH, where {nearest(name, WEIGHTS)}")
        if name != "clip" and not Path(path).is_file():  # CLIP may be a hub id
            raise BadInput(f"--weights {word}: there is no file {path}")
        found[name] = path
    return found
