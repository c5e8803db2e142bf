"""A picture file that says how it was drawn: written into the PNG, read back, and drawn again from it.

Two text chunks: `parameters`, the readable line that galleries and other image tools show, and `hybridstitch`, one
JSON object with everything needed to draw the same pixels again. Nothing here needs torch.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ..disk import files as disk
from ..errors import HybridStitchError
from ..policies.trace import Trace

CHUNK = "hybridstitch"
VERSION = 1
PACKAGES = ("hybridstitch", "diffusers", "torch", "transformers")
EDGE = 1 << 20  # bytes hashed at either end of a file


class PictureError(HybridStitchError, ValueError):
    """A picture file that cannot be read, or does not say how it was drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one picture was drawn.

    Attributes:
        prompt, negative: what was asked for, and what was not.
        pair: "mini", a folder or a hub id of the large model (or of a saved pair).
        small: the small model, where `pair` does not bring it.
        models: what the names stood for: revision or content of each, see `identity`.
        policy: the policy, as a string.
        seed: of the CPU generator that made the noise.
        steps: T.
        width, height: pixels.
        guidance: scale of classifier-free guidance.
        device, dtype: where and in what precision.
        versions: of the packages and of the machine that decide the pixels.
        trace: digest of what was decided, see `trace_digest`.
        pixels: SHA-256 of the picture's RGB bytes.
        shift: of the noise levels (`levels.shifted`); None left them to the pipeline.
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

    @property
    def parameters(self) -> str:
        """The readable text, in the manner other image tools write and read it."""
        lines = [self.prompt]
        if self.negative:
            lines.append(f"Negative prompt: {self.negative}")
        pair = self.pair if self.small is None else f"{self.pair} + {self.small}"
        facts = {
            "Steps": self.steps,
            "Sampler": "Euler flow matching",
            "CFG scale": f"{self.guidance:g}",
            **({} if self.shift is None else {"Shift": f"{self.shift:g}"}),
            "Seed": self.seed,
            "Size": f"{self.width}x{self.height}",
            "Model": _quoted(pair),
            "Policy": _quoted(self.policy),
            "Version": f"hybridstitch {self.versions.get('hybridstitch', 'unknown')}",
        }
        return "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in facts.items())])

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            PictureError: another version, or something missing.
        """
        if data.get("version") != VERSION:
            raise PictureError(
                f"this picture's recipe has version {data.get('version')!r}, this release reads version {VERSION}"
            )
        known = {f.name for f in fields(cls)}
        try:
            return cls(**{key: value for key, value in data.items() if key in known})
        except TypeError as error:
            raise PictureError(f"this picture's recipe is incomplete ({error})") from error


def encode(image: Image.Image, recipe: Recipe | None = None) -> bytes:
    """A PNG, as a file's bytes.

    Args:
        image: the picture.
        recipe: how it was drawn; None keeps the pixels alone.
    """
    info = PngInfo()
    if recipe is not None:
        info.add_text("parameters", recipe.parameters)
        info.add_text(CHUNK, json.dumps(recipe.to_json(), ensure_ascii=True))
    file = BytesIO()
    image.save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def write(image: Image.Image, path: str | Path, recipe: Recipe | None = None) -> None:
    """Save a PNG, whole or not at all.

    Args:
        image: the picture.
        path: where; the folder exists.
        recipe: how it was drawn; None writes the pixels alone.
    """
    disk.keep(Path(path), encode(image, recipe))


def read(path: str | Path) -> Recipe:
    """How a picture was drawn.

    Args:
        path: a PNG that `write` made.

    Raises:
        PictureError: no such file, no picture, or one that does not say.
    """
    try:
        with Image.open(path) as image:
            image.load()
            text = image.info.get(CHUNK)
    except FileNotFoundError as error:
        raise PictureError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise PictureError(f"{path} is a folder; name one of its PNGs") from error
    except (UnidentifiedImageError, OSError) as error:
        raise PictureError(f"{path} cannot be read as a picture ({error})") from error
    if text is None:
        raise PictureError(
            f"{path} does not say how it was drawn: it has no {CHUNK!r} text chunk; it was not drawn by hybridstitch, "
            "was drawn with --no-metadata, or went through a program that drops text"
        )
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise PictureError(f"the {CHUNK!r} text chunk of {path} is damaged ({error})") from error
    if not isinstance(data, dict):
        raise PictureError(f"the {CHUNK!r} text chunk of {path} is no recipe")
    return Recipe.from_json(data)


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


def identity(source: str) -> str:
    """What a name stands for now: the commit of a hub id, or a digest of a folder's files.

    Args:
        source: a folder, or a hub id that is in the local cache.

    Returns:
        "revision …", "files …" (names, sizes and both ends of each file), or "unknown".
    """
    folder = Path(source)
    if folder.is_dir():
        return f"files {_folder_digest(folder)[:16]}"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(source, "model_index.json")
    except HFValidationError:
        return "unknown"
    return f"revision {Path(cached).parent.name}" if isinstance(cached, str) else "unknown"


def differences(recipe: Recipe, now: Recipe) -> tuple[str, ...]:
    """What differs between a recipe and one drawn from it that may change pixels: "torch 2.12.0, now 2.13.0"."""
    found = []
    for name, then, today in (("", recipe.versions, now.versions), ("model ", recipe.models, now.models)):
        for key in sorted(then.keys() | today.keys()):
            before, after = then.get(key, "none"), today.get(key, "none")
            if before != after:
                found.append(f"{name}{key} {before}, now {after}")
    return tuple(found)


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in {".json", ".safetensors", ".txt"}):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(EDGE))
            file.seek(max(0, size - EDGE))
            digest.update(file.read(EDGE))
    return digest.hexdigest()


def _quoted(value: str) -> str:
    return f'"{value}"' if "," in value or ":" in value else value
