"""Commands that draw nothing with a model: `inspect`, `policies`, `scene` and `doctor`."""

import json
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from ..pair.memory import gibibytes
from ..policies.options import write as option
from ..policies.parse import POLICIES
from ..policies.policy import Policy
from ..policies.presets import PRESETS
from ..report.picture import read, write
from . import flags, say
from .asked import Asked, BadInput, slug, writable
from .flags import AsJson, Debug, Out


def inspect(
    file: Annotated[Path, typer.Argument(help="A PNG that hybridstitch drew.", show_default=False)],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show how a picture was drawn."""
    metadata = read(file)
    if as_json:
        print(json.dumps(metadata.to_json()))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in metadata.to_json().items():
        if isinstance(value, dict):
            value = "\n".join(f"{key} {each}" for key, each in value.items())
        if value not in (None, ""):
            table.add_row(Text(name, "dim"), Text(say.visible(str(value)), overflow="fold"))
    say.out().print(table)


def policies(
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="FILE", help="List what this recipe serves instead.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List policies, their options and presets; with --recipe, what a recipe serves."""
    if recipe is not None:
        _served(recipe, as_json)
        return
    if as_json:
        kinds = {name: {f.name: _default(f) for f in fields(kind)} for name, kind in POLICIES.items()}
        named = {name: {"policy": str(p.policy), "source": p.source} for name, p in PRESETS.items()}
        print(json.dumps({"policies": kinds, "presets": named}))
        return
    console = say.out()
    console.print(Text("Policies", "bold"), Text("  --policy NAME:option=value,option=value", "dim"))
    table = _table("name", "what it does", "options and their defaults")
    for name, kind in POLICIES.items():
        what = (kind.__doc__ or "").split("\n")[0].rstrip(".")
        table.add_row(Text(name, "bold"), what, "\n".join(f"{_dashed(f)} = {_default(f)}" for f in _options(kind)))
    console.print(table)
    console.print(
        Text("\nPrograms", "bold"),
        Text("  --policy 'L10 H15@0.3 S25': 10 steps large, 15 small with large on 30 %, 25 small; * the rest", "dim"),
    )
    console.print(Text("\nPresets", "bold"), Text("  --policy NAME, figures as the paper prints them", "dim"))
    table = _table("name", "policy", "speed", "FID", "CLIP", "LPIPS", right=3)
    for name, preset in PRESETS.items():
        row = preset.paper
        numbers = ["", "", "", ""]
        if row is not None:
            numbers = [f"{row.speedup:.2f}×", f"{row.fid:.2f}", f"{row.clip:.2f}"]
            numbers.append("" if row.lpips is None else f"{row.lpips:.2f}")
        table.add_row(Text(name, "bold"), str(preset.policy), *numbers)
    console.print(table)


def _served(file: Path, as_json: bool) -> None:
    """The points of a calibration's recipe, and what was found."""
    from ..recipe import Recipe
    from .served import tell

    recipe = Recipe.load(file)
    if as_json:
        found = recipe.to_json()
        print(json.dumps({"points": found["points"], "verdict": found["verdict"]}))
        return
    tell(recipe)


def scene(
    caption: Annotated[str | None, typer.Argument(help="A caption for the miniature pair.", show_default=False)] = None,
    out: Out = Path("out"),
    words: Annotated[bool, typer.Option("--words", help="List every word that captions may use.")] = False,
    examples: Annotated[int, typer.Option("--examples", metavar="N", min=0, help="List captions to try.")] = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Render the true picture of a caption for the miniature pair, or say which word it does not know."""
    from ..mini.scenes import CaptionError, Scene, heldout_prompts
    from ..mini.words import vocabulary

    if words or examples:
        listed = list(vocabulary()) if words else heldout_prompts(examples)
        print(json.dumps(listed) if as_json else (" ".join if words else "\n".join)(listed))
        return
    if caption is None or not caption.strip():
        raise BadInput("no caption was given; `hybridstitch scene --examples 5` lists some")
    try:
        found = Scene.parse(caption)
    except CaptionError as error:
        raise BadInput(f"{error}; `hybridstitch scene --examples 5` lists captions it knows") from error
    path = writable(out) / f"{slug(caption)}.scene.png"
    write(found.render(), path)
    if as_json:
        print(json.dumps({"path": str(path), "caption": found.caption(), "split": found.split}))
        return
    say.out().print(Text.assemble((str(path), "bold"), f"  {found.caption()} ({found.split.replace('_', ' ')})"))


def doctor(
    pair: flags.PairName = None,
    small: flags.Small = None,
    size: flags.Size = None,
    frames: flags.Frames = None,
    batch: flags.Batch = None,
    device: flags.Device = None,
    dtype: flags.Dtype = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check what is installed, and how to fix it; with --pair, if two models match and what memory they need."""
    say.hush()
    if pair is not None:
        _memory(pair, small, size, frames, 1 if batch is None else batch, device, dtype, as_json)
        return
    if any(option is not None for option in (size, frames, batch, dtype, device)):
        raise BadInput(
            "--size, --frames, --batch, --device and --dtype belong to --pair: "
            "hybridstitch doctor --pair mini --batch 4"
        )
    from .health import checks, facts

    found = checks()
    if as_json:
        rows = [{"name": c.name, "state": c.state, "found": c.found, "mend": c.mend} for c in found]
        print(json.dumps({"facts": facts(), "checks": rows}))
    else:
        console = say.out()
        for name, value in facts().items():
            console.print(Text.assemble((f"{name:<16}", "dim"), value))
        console.print()
        marks = {"ok": ("✓", "green"), "absent": ("–", "dim"), "broken": ("✗", "bold red")}
        for check in found:
            text = Text.assemble(marks[check.state], f" {check.name}: {check.found}")
            if check.mend:
                text.append(f"\n    {check.mend}", "cyan")
            console.print(text)
    if any(check.state == "broken" for check in found):
        raise typer.Exit(1)


def _memory(
    pair: str,
    small: str | None,
    size: str | None,
    frames: int | None,
    batch: int,
    device: str | None,
    dtype: str | None,
    as_json: bool,
) -> None:
    from .health import match_of, memory_of

    asked = Asked.of(prompts=("any",), pair=pair, small=small, size=size, frames=frames, device=device, dtype=dtype)
    if batch < 1:
        raise BadInput(f"--batch {batch} was given; at least one picture can be drawn")
    matching = match_of(asked)
    need, there, ways = memory_of(asked, batch)
    rows: dict[str, Any] = {
        "weights": dict(need.weights),
        "keys and values": need.keys_values,
        "activations of a step": need.step,
        "activations of decoding": need.decoding,
        "total": need.total,
        "device": there,
    }
    if as_json:
        print(json.dumps({"memory": rows} | ({"match": True} if matching else {})))
    else:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="dim")
        table.add_column(justify="right")
        for name, count in need.weights.items():
            table.add_row(f"weights, {name}", gibibytes(count))
        for name in ("keys and values", "activations of a step", "activations of decoding"):
            known = rows[name]
            table.add_row(name, "not counted" if known is None else gibibytes(known))
        table.add_row(Text("at most at once", "bold"), Text(gibibytes(need.total), "bold"))
        console = say.out()
        console.print(table)
        if matching:
            console.print("the two models match, by their configurations")
        verdict = "fits" if need.total <= there else "does not fit"
        console.print(
            f"{verdict}: {asked.device} has {gibibytes(there)} ({asked.dtype}, {batch} at once, with guidance)"
        )
        if ways:
            console.print(f"what fits: {', '.join(ways)}")
    if need.total > there:
        raise typer.Exit(1)


def _table(*columns: str, right: int | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for place, column in enumerate(columns):
        numeric = right is not None and place >= len(columns) - right - 1
        table.add_column(column, justify="right" if numeric else "left", no_wrap=numeric or place == 0, overflow="fold")
    return table


def _options(kind: type[Policy]) -> list[Field]:
    """A policy's fields, its own before those it shares with others."""
    return sorted(fields(kind), key=lambda field: field.name not in kind.__annotations__)


def _dashed(field: Field) -> str:
    return field.name.replace("_", "-")


def _default(field: Field) -> str:
    return "(must be given)" if field.default is MISSING else option(field.default)
