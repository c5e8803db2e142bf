"""One HTML page over pictures: before and after under one slider, film strips, stages, and the command behind it.

The page is one file with everything inside it: no script, font, style or picture is fetched from anywhere.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from ..disk import files as disk
from ..policies.trace import Trace
from .clip import encode_clip
from .colours import KINDS, NAMES, kind
from .filmstrip import filmstrip
from .overlay import difference, who_drew
from .picture import encode
from .takes import Exhibit, Take, decibels


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Consecutive steps that drew alike, as the page's table shows them."""

    colour: str
    who: str
    drew: str
    first: int
    last: int
    share: float
    distances: tuple[float | None, float | None]
    seconds: float


def page(exhibits: Sequence[Exhibit], path: str | Path, *, command: str, versions: str) -> None:
    """Write the page.

    Args:
        exhibits: one section each; takes with frames get a film strip.
        path: where.
        command: what drew them.
        versions: one line on what it ran with.
    """
    environment = Environment(
        loader=PackageLoader("hybridstitch", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    large = [exhibit.large.seconds for exhibit in exhibits if exhibit.large is not None]
    taken = sum(exhibit.take.seconds for exhibit in exhibits)
    text = environment.get_template("page.html").render(
        sections=[_section(exhibit) for exhibit in exhibits],
        policies=sorted({exhibit.take.trace.policy for exhibit in exhibits}),
        command=command,
        versions=versions,
        seconds=taken,
        large_seconds=sum(large) if large else None,
        legend=[(KINDS[name], NAMES[name]) for name in ("L", "S+L", "S")],
    )
    disk.keep(Path(path), text.encode())


def stages(trace: Trace) -> list[Stage]:
    """The stretches of one image's steps that were drawn alike."""
    found = []
    for _, group in groupby(trace.of(0), key=lambda step: step.drawn):
        part = list(group)
        found.append(
            Stage(
                colour=KINDS[kind(part[0].drawn)],
                who=NAMES[kind(part[0].drawn)],
                drew=str(part[0].drawn),
                first=part[0].index,
                last=part[-1].index,
                share=sum(step.large_tokens for step in part) / (len(part) * trace.tokens),
                distances=(part[0].distance, part[-1].distance),
                seconds=sum(step.seconds for step in part),
            )
        )
    return found


def _section(exhibit: Exhibit) -> dict[str, object]:
    """What the template shows of one exhibit."""
    take, large = exhibit.take, exhibit.large
    steps = take.trace.of(0)
    masked = [step for step in steps if step.mask is not None]
    shown = masked[len(masked) // 2] if masked else steps[-1]
    tinted = [who_drew(frame, shown, take.trace.grid, (take.tokens_of(at),)) for at, frame in enumerate(_frames(take))]
    overlay = _moving(tinted, take.fps)
    name = take.trace.policy.partition(":")[0]
    if large is not None:
        before, after = (exhibit.beside, _shown(large)), (name, _shown(take))
        apart = [difference(*pair) for pair in zip(_frames(take), _frames(large), strict=True)]
        thumbs = [("difference ×4", _moving(apart, take.fps))]
    else:
        before, after = (name, _shown(take)), ("who drew where", overlay)
        thumbs = []
    if masked and large is not None:
        thumbs.append((f"who drew where, step {shown.index}", overlay))
    return {
        "prompt": exhibit.prompt,
        "seed": exhibit.seed,
        "name": name,
        "seconds": take.seconds,
        "large_seconds": None if large is None else large.seconds,
        "speedup": exhibit.speedup,
        "psnr": decibels(exhibit.psnr),
        "share": sum(step.large_tokens for step in steps) / max(1, len(steps) * take.trace.tokens),
        "width": take.image.width,
        "height": take.image.height,
        "before": before,
        "after": after,
        "thumbs": thumbs,
        "strip": _strip(exhibit) if take.frames else None,
        "stages": stages(take.trace),
        "summary": take.trace.summary(),
        "flags": take.trace.flags,
        "file": None if take.path is None else take.path.name,
    }


def _strip(exhibit: Exhibit) -> str:
    with TemporaryDirectory() as folder:
        path = Path(folder, "strip.png")
        filmstrip(exhibit, path, head=False)
        return _address(path.read_bytes())


def _frames(take: Take) -> Sequence[Image.Image]:
    return take.clip or (take.image,)


def _shown(take: Take) -> str:
    return _moving(_frames(take), take.fps)


def _moving(frames: Sequence[Image.Image], fps: float) -> str:
    """A picture, or frames that move in an `img`."""
    if len(frames) == 1:
        return _address(encode(frames[0]))
    return _address(encode_clip(frames, fps, ".webp"), "webp")


def _address(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()
