"""`hybridstitch generate`: from prompts to pictures, a comparison and an explanation."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from ..drawing.engine import Engine
from ..policies.policy import Policy
from ..policies.presets import PRESETS, outside
from ..report.layers import Layer
from ..report.metadata import Metadata, differences, versions
from . import flags, say
from .asked import Asked, BadInput, writable
from .served import Served
from .source import picture_layer

if TYPE_CHECKING:
    from .files import Written
    from .pairs import Pair

PAGE = "index.html"


class TwoModels(TyperCommand):
    """A command whose `--pair` takes "mini", a saved pair, or two names, LARGE SMALL."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write `--pair LARGE SMALL` as `--pair LARGE --small SMALL`."""
        return super().parse_args(ctx, two_models(args))


def two_models(args: Sequence[str]) -> list[str]:
    """`--pair LARGE SMALL` written as `--pair LARGE --small SMALL`; "mini" and saved pairs are one name."""
    args = list(args)
    for place, word in enumerate(args):
        if word == "--":
            break
        if word == "--pair" and "--small" not in args and len(args) > place + 2:
            large, small = args[place + 1 : place + 3]
            folder = Path(large)
            whole = (folder / "small").is_dir() or (folder / "transformer" / "large").is_dir()
            if large != "mini" and not whole and not small.startswith("-") and not folder.is_file():
                args.insert(place + 2, "--small")
            break
    return args


def generate(
    ctx: typer.Context,
    prompts: flags.Prompts = None,
    pair: flags.PairName = None,
    small: flags.Small = None,
    policy: flags.PolicyName = None,
    seed: flags.Seed = None,
    steps: flags.Steps = None,
    size: flags.Size = None,
    frames: flags.Frames = None,
    fps: flags.Fps = None,
    guidance: flags.Guidance = None,
    negative: flags.Negative = None,
    n: flags.Count = 1,
    out: flags.Out = Path("out"),
    device: flags.Device = None,
    dtype: flags.Dtype = None,
    compile: flags.Compile = None,
    offload: flags.Offload = False,
    kv: flags.Kv = None,
    kv_host: flags.KvHost = False,
    images_per_call: flags.ImagesPerCall = 1,
    compare: flags.Compare = False,
    explain: flags.Explain = False,
    source: flags.Source = None,
    recipe_file: flags.RecipeFile = None,
    speed: flags.Speed = None,
    closeness: flags.Closeness = None,
    metadata: flags.Metadata = True,
    as_json: flags.AsJson = False,
    debug: flags.Debug = False,
) -> None:
    """Draw pictures with two models, and show how much faster that was and why.

    hybridstitch generate "a big dog left of a small cat on a meadow" --compare --explain
    """
    if explain and images_per_call > 1:
        raise BadInput(f"--explain follows one picture at a time; leave --images-per-call {images_per_call} out")
    drawn, below = (None, Layer()) if source is None else picture_layer(source, pair=pair, small=small)
    served = Served.of(
        recipe_file, speed=speed, closeness=closeness, policy=policy, source=source, pair=pair, small=small
    )
    if served is not None:
        served.warn_of(pair=pair, steps=steps, guidance=guidance, size=size, frames=frames)
        below = served.layer.over(below)
    asked = Asked.of(
        prompts=prompts or (), below=below, negative=negative, pair=pair, small=small, policy=policy, seed=seed,
        count=n, steps=steps, guidance=guidance, size=size, frames=frames, fps=fps, device=device, dtype=dtype,
        kv=kv,
    )  # fmt: skip
    engine = flags.engine_of(compile, offload, asked.kv, kv_host)
    say.hush()
    from .pairs import Pair

    named = Pair.of(asked.pair, asked.small)
    named.check_size(asked.size, asked.frames, fps)
    chosen = asked.policy or named.policy
    named.check_asked([chosen], negative=bool(asked.negative))
    chosen.check(asked.steps)
    named.check_fits(asked, chosen, engine, images=images_per_call)
    writable(out)
    texts = {f"prompt {place}": prompt for place, prompt in enumerate(asked.prompts, start=1)}
    texts |= {"the negative prompt": asked.negative}
    named.check_text(texts)
    if named.mini:
        _warn_of_words(texts)
    if policy in PRESETS:
        _warn_of_preset(policy, asked, named)
    written = _draw(
        asked, named, chosen, texts, served, drawn, engine=engine, together=images_per_call, out=out, compare=compare,
        explain=explain, metadata=metadata, quiet=as_json,
    )  # fmt: skip
    page = _page(written, out / PAGE, ctx.obj) if explain else None
    if drawn is not None and source is not None:
        _tell_apart(source, drawn, written)
    if as_json:
        from .files import result

        print(json.dumps(result(written, page)))
    else:
        _close(written, page)


def _draw(
    asked: Asked,
    named: "Pair",
    policy: Policy,
    texts: Mapping[str, str],
    served: Served | None,
    drawn: Metadata | None,
    *,
    engine: Engine,
    together: int,
    out: Path,
    compare: bool,
    explain: bool,
    metadata: bool,
    quiet: bool,
) -> list["Written"]:
    """Open the pair, draw, and save each picture as soon as it is there."""
    from .artist import Artist
    from .files import Files

    with say.progress(sys.stderr) as bar:
        task = bar.add_task("opening the pair", total=None)
        pipe = named.open(policy, device=asked.device, dtype=asked.dtype, engine=engine)
        *frames, height, width = named.check_opened(pipe, asked.size, asked.frames, texts)
        size, count = (width, height), frames[0] if frames else None
        if served is not None:
            served.check(pipe)
        artist = Artist(
            pipe=pipe, policy=policy, negative=asked.negative, steps=asked.steps, guidance=asked.guidance, size=size,
            frames=count, fps=asked.fps, shift=asked.shift, levels=asked.levels, together=together,
        )  # fmt: skip
        models = named.known_as({} if drawn is None else drawn.models)
        reference = None if served is None else served.reference(asked.steps)
        files = Files(
            out=out, asked=asked, models=models, metadata=metadata, size=size, frames=count, reference=reference
        )
        steps = asked.steps + (reference or asked.steps) * compare
        total = len(asked.prompts) * ceil(asked.count / together) * steps
        bar.update(task, description="warming up" if compare else "drawing", total=total, completed=0)
        seeds = range(asked.seed, asked.seed + asked.count)

        def on_step(step: int) -> None:
            bar.update(task, description="drawing", advance=1)

        written = []
        for exhibit in artist.exhibits(
            asked.prompts, seeds, compare=compare, reference=reference, frames=explain, on_step=on_step
        ):
            written.append(files.write(exhibit, strip=explain))
            if not quiet:
                bar.stop()  # so that a line on stdout does not meet the bar on stderr
                say.out().print(written[-1].lines())
                bar.start()
    return written


def _page(written: Sequence["Written"], path: Path, command: Sequence[str]) -> Path:
    from ..report.page import page

    about = ", ".join(f"{name} {number}" for name, number in versions().items())
    page([entry.exhibit for entry in written], path, command=shlex.join(["hybridstitch", *command]), versions=about)
    return path


def _close(written: Sequence["Written"], page: Path | None) -> None:
    """The last lines."""
    from .files import speedup

    faster = speedup(written)
    if faster is not None and len(written) > 1:
        say.out().print(f"{len(written)} pictures: {faster:.2f}× as fast as the large model", style="bold")
    if page is not None:
        say.out().print(f"open this page: {page}")


def _warn_of_words(texts: Mapping[str, str]) -> None:
    """The miniature world is small; it draws what it does not know as best it can."""
    from ..mini.scenes import unknown_words

    for name, text in texts.items():
        for word, near in unknown_words(text):
            advice = f"; near: {', '.join(near)}" if near else "; `hybridstitch scene --words` lists all it knows"
            say.warn(f"{name}: the miniature world does not know {word!r}{advice}")


def _warn_of_preset(name: str, asked: Asked, named: "Pair") -> None:
    """Thresholds belong to a setting."""
    size = asked.size or named.native_size()
    reasons = outside(
        PRESETS[name],
        large=asked.pair,
        small=asked.small,
        size=None if size is None else (size[1], size[0]),
        steps=asked.steps,
        guidance=asked.guidance,
    )
    if reasons:
        say.warn(" ".join(reasons))


def _tell_apart(source: Path, then: Metadata, written: Sequence["Written"]) -> None:
    """Whether the picture came out as it was, and if not, why it may have changed."""
    now = written[0].metadata
    ours = {"models", "versions", "scheduler", "trace", "pixels", "clip"}  # see `differences`
    changed = [f.name for f in fields(Metadata) if f.name not in ours and getattr(now, f.name) != getattr(then, f.name)]
    if now.pixels == then.pixels:
        say.line("note", f"the same pixels as {source}", "bold green")
    elif changed:
        say.line("note", f"a variation of {source}: another {', '.join(changed)}", "bold")
    else:
        apart = differences(then, now)
        same = "the same versions and models, so another machine, thread count, engine or number of pictures a call"
        reason = "; ".join(apart) or same
        say.warn(f"not the same pixels as {source}: {reason}")
