"""How a picture was drawn: everything that is needed to draw the same pixels again, as plain data. Needs no torch."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Self, get_args, get_type_hints

from PIL import Image

from ..drawing.engine import Engine
from ..errors import HybridStitchError, SchedulerError
from ..policies.levels import check_levels
from ..policies.trace import Trace

if TYPE_CHECKING:
    from .takes import Take

LATER = ("levels", "frames", "fps", "clip", "kv", "scheduler")  # fields that are left out where they say nothing
VERSION = 1
KEPT = get_args(get_type_hints(Engine)["kv"])
PACKAGES = ("hybridstitch", "diffusers", "torch", "transformers")
MOST = 1 << 16  # steps, and pixels a side


class PictureError(HybridStitchError, ValueError):
    """A picture file that cannot be read, or does not say how it was drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """How one picture was drawn.

    Attributes:
        prompt, negative: what was asked for, and what was not.
        pair: "mini", a folder or a hub id of the large model (or of a saved pair).
        small: the small model, where `pair` does not bring it.
        models: what the names stood for: revision or content of each, see `identity.identity`.
        policy: the policy, as a string.
        seed: of the CPU generator that made the noise.
        steps: T.
        width, height: pixels.
        guidance: scale of classifier-free guidance.
        device, dtype: where and in what precision.
        versions: of the packages and of the machine that decide the pixels.
        trace: digest of what was decided, see `trace_digest`.
        pixels: SHA-256 of the picture's RGB bytes.
        shift, levels: of the noise, one for all or each step's σ (`policies.levels`); None left them to the pipeline.
        frames, fps, clip: of a video, whose middle frame this is: how many, how many a second, and the SHA-256 of the
            video's file; `pixels` is then of all frames. None for a picture.
        kv: dtype that masks kept keys and values in (`Engine.kv`); None for that of the models.
        scheduler: its class, of diffusers; None in files of 0.1.
    """

    prompt: str
    negative: str = ""
    pair: str
    small: str | None = None
    models: Mapping[str, str]
    policy: str
    seed: int
    steps: int
    width: int
    height: int
    guidance: float
    device: str
    dtype: str
    versions: Mapping[str, str]
    trace: str
    pixels: str
    shift: float | None = None
    levels: tuple[float, ...] | None = None
    frames: int | None = None
    fps: float | None = None
    clip: str | None = None
    kv: str | None = None
    scheduler: str | None = None

    @property
    def parameters(self) -> str:
        """The readable text, in the manner other image tools write and read it."""
        lines = [self.prompt]
        if self.negative:
            lines.append(f"Negative prompt: {self.negative}")
        pair = self.pair if self.small is None else f"{self.pair} + {self.small}"
        facts = {
            "Steps": self.steps,
            **({} if self.scheduler is None else {"Sampler": _quoted(self.scheduler.removesuffix("Scheduler"))}),
            "CFG scale": f"{self.guidance:g}",
            **({} if self.shift is None else {"Shift": f"{self.shift:g}"}),
            **({} if self.levels is None else {"Noise levels": " ".join(f"{level:g}" for level in self.levels)}),
            "Seed": self.seed,
            "Size": f"{self.width}x{self.height}",
            **({} if self.frames is None else {"Frames": f"{self.frames} at {self.fps:g} a second"}),
            "Model": _quoted(pair),
            "Policy": _quoted(self.policy),
            "Version": f"hybridstitch {self.versions.get('hybridstitch', 'unknown')}",
        }
        return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in facts.items())])

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        data = {"version": VERSION, **asdict(self)}
        return {name: value for name, value in data.items() if name not in LATER or value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; a stranger may have written it, so every field is checked here, once.

        Raises:
            PictureError: another version, something missing, or something that it cannot be.
        """
        if data.get("version") != VERSION:
            raise PictureError(
                f"this picture's metadata has version {_shown(data.get('version'))}, this release reads version "
                f"{VERSION}"
            )
        given = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        for name, value in given.items():
            if not _can_be(name, value):
                raise PictureError(f"this picture's metadata is damaged: its {name} is {_shown(value)}")
        if given.get("levels") is not None:
            given["levels"] = tuple(map(float, given["levels"]))
        try:
            found = cls(**given)
        except TypeError as error:
            raise PictureError(f"this picture's metadata is incomplete ({error})") from error
        try:
            check_levels(found.steps, found.shift, found.levels)
        except SchedulerError as error:
            raise PictureError(f"this picture's metadata is damaged: {error}") from error
        return found


def drawn(take: "Take") -> dict[str, Any]:
    """Fields of `Metadata` that a take itself says: who drew what, by which scheduler, and the pixels."""
    return {
        "policy": take.trace.policy,
        "trace": trace_digest(take.trace),
        "pixels": pixel_digest(take.whole),
        "scheduler": take.scheduler,
    }


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 of a picture's RGB bytes."""
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def trace_digest(trace: Trace) -> str:
    """SHA-256 of what was decided and drawn, seconds left out: equal for equal runs."""
    data = trace.to_json(masks=True)
    for record in data["records"]:
        del record["seconds"]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Of the packages that decide the pixels, and of Python and the machine."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def differences(then: Metadata, now: Metadata) -> tuple[str, ...]:
    """What differs between a picture and one drawn from it that may change pixels: "torch 2.12.0, now 2.13.0"."""
    found = []
    if then.scheduler not in (None, now.scheduler):
        found.append(f"scheduler {then.scheduler}, now {now.scheduler}")
    for name, those, these in (("", then.versions, now.versions), ("model ", then.models, now.models)):
        for key in sorted(those.keys() | these.keys()):
            before, after = those.get(key, "none"), these.get(key, "none")
            if before != after:
                found.append(f"{name}{key} {before}, now {after}")
    return tuple(found)


def _can_be(name: str, value: Any) -> bool:
    """Whether a field of `Metadata` can have this value."""
    match name:
        case "models" | "versions":
            return isinstance(value, dict) and all(map(_is_text, (*value, *value.values())))
        case "small" | "clip" | "scheduler":
            return value is None or _is_text(value)
        case "seed":
            return _is_number(value, 0, 2**63 - 1) and isinstance(value, int)
        case "steps" | "width" | "height":
            return _is_number(value, 1, MOST) and isinstance(value, int)
        case "frames":
            return value is None or (_is_number(value, 1, MOST) and isinstance(value, int))
        case "fps":
            return value is None or (_is_number(value, 0, MOST) and value > 0)
        case "kv":
            return value is None or value in KEPT
        case "guidance":
            return _is_number(value, -MOST, MOST)
        case "shift":
            return value is None or (_is_number(value, 0, MOST) and value > 0)
        case "levels":
            return value is None or (isinstance(value, list) and all(_is_number(level, 0, 1) for level in value))
        case _:
            return _is_text(value)


def _shown(value: Any) -> str:
    """A value for an error, however long or deep it is."""
    return f"{value!r:.40}" if value is None or isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _is_text(value: Any) -> bool:
    """Whether it is text that can be printed and hashed: half of a surrogate pair cannot."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _is_number(value: Any, least: float, most: float) -> bool:
    """Whether it is a number between two; NaN is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _quoted(value: str) -> str:
    return f'"{value}"' if "," in value or ":" in value else value
