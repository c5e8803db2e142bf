"""`hybridstitch calibrate`: measure a pair once, then ask for a speed or a closeness instead of thresholds."""

import json
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..drawing.engine import Engine
from ..policies.methods import HybridStitch, LargeOnly
from ..report.layers import GUIDANCE, STEPS
from . import flags, say
from .asked import Asked, BadInput, writable
from .batch_place import Address, GpusPerWorker, NumWorkers, On, WorkPlace
from .calibrate_memory import calibrate_memory
from .opener import Opener
from .served import tell

if TYPE_CHECKING:
    from ..calibrate.compare import Comparer
    from ..recipe import Recipe

PICTURE, PAGE, STATE = ".png", ".html", ".state"  # beside the recipe


def calibrate(
    ctx: typer.Context,
    pair: flags.PairName = None,
    small: flags.Small = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="FILE", help="4 to 16 prompts, one a line.", show_default="eight built-in ones"
        ),
    ] = None,
    speed: flags.Speed = None,
    closeness: flags.Closeness = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            metavar="M",
            min=0,
            help="How long to search; ends earlier when nothing better is found.",
            show_default="6, or 2 with --speed or --closeness",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            help="Steps of the large model's picture that all others are compared with.",
            show_default=str(STEPS),
        ),
    ] = None,
    size: flags.Size = None,
    frames: flags.Frames = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", help="Guidance scale; 1 switches it off.", show_default=f"{GUIDANCE:g}"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first prompt's noise.")] = 0,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the recipe.")] = Path(
        "recipe.json"
    ),
    card: Annotated[
        Path | None,
        typer.Option("--card", metavar="DIR", help="Also write a folder with a model card, without weights."),
    ] = None,
    memory: Annotated[
        bool,
        typer.Option("--memory", help="Measure what `serve --remember` needs, and add it to the recipe at --out."),
    ] = False,
    remember_clip: flags.RememberClip = None,
    on: On = "here",
    address: Address = None,
    num_workers: NumWorkers = None,
    gpus_per_worker: GpusPerWorker = None,
    device: flags.Device = None,
    dtype: flags.Dtype = None,
    compile: flags.Compile = None,
    offload: flags.Offload = False,
    kv: flags.Kv = None,
    kv_host: flags.KvHost = False,
    as_json: flags.AsJson = False,
    debug: flags.Debug = False,
) -> None:
    """Measure a pair once, and then ask for a speed, or for a closeness to the large model's pictures.

    hybridstitch calibrate --pair LARGE SMALL --speed 1.8 --out recipe.json
    """
    from ..recipe import check_request

    engine = flags.engine_of(compile, offload, kv, kv_host)
    place = WorkPlace.of(on, device, address=address, num_workers=num_workers, gpus_per_worker=gpus_per_worker)
    check_request(speed=speed, closeness=closeness)
    if out.suffix != ".json":
        raise BadInput(f"--out {out} was given; a recipe is a .json file, its picture and page lie beside it")
    writable(out.parent)
    texts = None if prompts is None else _read(prompts)
    if memory:
        given = {
            "--speed": speed, "--closeness": closeness, "--minutes": minutes, "--card": card, "--steps": steps,
            "--guidance": guidance, "--size": size, "--frames": frames, "--on": place.ray or None,
        }  # fmt: skip
        for name, value in given.items():
            if value is not None:
                raise BadInput(f"--memory and {name} were given; --memory adds to a recipe that is there: leave it out")
        calibrate_memory(
            out, texts, pair=pair, small=small, clip=remember_clip, seed=seed, device=device, dtype=dtype,
            engine=engine, bar=_bar(), as_json=as_json,
        )  # fmt: skip
        return
    if remember_clip is not None:
        raise BadInput(f"--remember-clip {remember_clip} was given without --memory")
    asked = Asked.of(
        prompts=texts or ("a prompt",), pair=pair, small=small, policy="large",
        steps=STEPS if steps is None else steps, guidance=GUIDANCE if guidance is None else guidance,
        seed=seed, size=size, frames=frames, device=device, dtype=dtype,
    )  # fmt: skip
    say.hush()
    from .pairs import Pair

    named = Pair.of(asked.pair, asked.small)
    named.check_asked(())
    named.check_size(asked.size, asked.frames)
    if not place.ray:
        named.check_fits(asked, HybridStitch(), engine)  # masks are tried
    labelled = {f"prompt {place}": text for place, text in enumerate(texts or (), start=1)}
    named.check_text(labelled)
    state = out.with_name(f".{out.stem}{STATE}")
    if state.is_file() and not as_json:
        say.line("note", f"{state} holds an unfinished calibration; it is resumed if it has the same settings")
    recipe = _search(
        named,
        asked,
        texts,
        labelled,
        state,
        engine=engine,
        speed=speed,
        closeness=closeness,
        seed=seed,
        minutes=minutes,
        place=place,
    )
    command = shlex.join(["hybridstitch", *ctx.obj])
    from ..report.card import write_card
    from ..report.front import front_page, front_picture

    recipe.save(out)
    front_picture(recipe, out.with_suffix(PICTURE))
    front_page(recipe, out.with_suffix(PAGE), command=command)
    if card is not None:
        write_card(recipe, card, command=command)
    state.unlink(missing_ok=True)
    if as_json:
        served = recipe.served
        print(json.dumps({"recipe": str(out), "served": served and served.to_json(), **recipe.to_json()}))
    else:
        _tell(recipe, out, card)


def _search(
    named: Any,
    asked: Asked,
    texts: tuple[str, ...] | None,
    labelled: dict[str, str],
    state: Path,
    *,
    engine: Engine,
    speed: float | None,
    closeness: float | None,
    seed: int,
    minutes: float | None,
    place: WorkPlace,
) -> "Recipe":
    """Open the pair and calibrate it, with a bar."""
    from ..calibrate import calibrate as search

    with _bar() as bar:
        task = bar.add_task("opening the pair", total=1.0)
        opener = Opener(named=named, policy=LargeOnly(), device=asked.device, dtype=asked.dtype, engine=engine)
        pipe = opener()
        *count, height, width = named.check_opened(pipe, asked.size, asked.frames, labelled)

        def on_progress(share: float, doing: str) -> None:
            bar.update(task, completed=share, description=doing)

        return search(
            pipe,
            texts,
            speed=speed,
            closeness=closeness,
            steps=asked.steps,
            guidance=asked.guidance,
            size=(width, height),
            frames=count[0] if count else None,
            seed=seed,
            minutes=minutes,
            state=state,
            on_progress=on_progress,
            crew_of=partial(_abroad, place, opener) if place.ray else None,
        )


def _bar() -> Progress:
    """Progress, where somebody sees it."""
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), TaskProgressColumn(),
        TimeElapsedColumn(), console=say.errors(), transient=True, disable=not say.errors().is_terminal,
    )  # fmt: skip


def _abroad(place: WorkPlace, opener: Opener, comparer: "Comparer") -> Any:
    """Who draws in a cluster."""
    far = opener.abroad(opener.named.models)
    return place.crew(partial(_comparer, far, replace(comparer, pipe=None)), device=opener.device)


def _comparer(opener: Opener, comparer: "Comparer") -> "Comparer":
    """The same with a pair of its own."""
    return replace(comparer, pipe=opener())


def _read(path: Path) -> tuple[str, ...]:
    """The prompts of a file: its lines, without empty ones.

    Raises:
        BadInput: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--prompts {path} cannot be read ({error}); give a text file with one prompt a line") from error
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise BadInput(f"--prompts {path} holds no prompt; write 4 to 16, one a line")
    return found


def _tell(recipe: "Recipe", out: Path, card: Path | None) -> None:
    """What was found, for people."""
    from ..recipe import RecipeError

    tell(recipe)
    console = say.out()
    console.print()
    try:
        served = recipe.at()
        console.print(Text.assemble(("served: ", "dim"), (served.name, "bold"), f", {served.speed:.2f}×"))
    except RecipeError as refusal:  # whole calls did not reach what was asked for; the recipe has the others
        console.print(Text.assemble(("served: ", "dim"), f"nothing; {refusal}"))
    console.print(Text.assemble(("recipe: ", "dim"), (str(out), "bold")))
    if card is not None:
        console.print(Text.assemble(("card: ", "dim"), str(card)))
    console.print(f"open this page: {out.with_suffix(PAGE)}")
