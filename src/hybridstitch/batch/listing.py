"""Jobs from a file: a list with a column for each thing a job may say, or a sample of a captions file.

A list is JSONL, CSV or Parquet with the columns of `COLUMNS`; only `prompt` is needed, and what a row leaves out is the
default. A row that names a preset made for few steps takes its steps and noise levels along.

A captions file has the layout of COCO's (`annotations` with `id`, `image_id`, `caption`). Of each image one caption is
taken and of all images n, both in the order of SHA-256(seed/id): a smaller sample is the beginning of a larger one, on
any machine. The k-th caption is drawn from seed + k, so that noise differs from picture to picture.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from ..errors import PolicyError, SchedulerError, nearest
from ..policies.levels import check_levels
from ..policies.policy import Policy
from ..policies.presets import PRESETS, policy_named
from .job import Job, JobsError
from .rows import LISTS, check_columns, text_of

SUFFIXES = (*LISTS, ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a row means that leaves something out.

    Attributes:
        negative, seed, steps, guidance, policy, shift, levels: see `Job`.
        size: width and height in pixels.
        frames, fps: of videos; None for pictures.
    """

    negative: str
    seed: int
    size: tuple[int, int]
    steps: int
    guidance: float
    policy: Policy
    shift: float | None = None
    levels: tuple[float, ...] | None = None
    frames: int | None = None
    fps: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A file of jobs, read.

    Attributes:
        jobs: in order.
        origin: the file, its hash, and how a sample was taken.
    """

    jobs: tuple[Job, ...]
    origin: Mapping[str, Any]


def read(path: Path, defaults: Defaults, *, n: int | None = None, captions_seed: int = 0) -> Listing:
    """Read a file of jobs.

    Args:
        path: .jsonl, .csv, .parquet, or .json for captions.
        defaults: of rows that leave something out.
        n: images of a captions file; None takes all.
        captions_seed: of the sample.

    Raises:
        JobsError: no such file, or one that cannot be meant; names the line.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise JobsError(f"{path} is no list of jobs: {nearest(suffix, SUFFIXES)} (.json is a captions file)")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise JobsError(f"there is no file {path}") from error
    except OSError as error:
        raise JobsError(f"{path} cannot be read ({error.strerror})") from error
    origin: dict[str, Any] = {"file": path.name, "sha256": hashlib.sha256(data).hexdigest()}
    if suffix == ".json":
        jobs = tuple(_captions(path, text_of(path, data), defaults, n, captions_seed))
        origin |= {"captions_seed": captions_seed, "n": len(jobs)}
    else:
        if n is not None:
            raise JobsError(f"--n {n} was given; it samples a captions file (.json), and {path} is a list: shorten it")
        jobs = tuple(_job(where, row, defaults) for where, row in LISTS[suffix](path, data))
    if not jobs:
        raise JobsError(f'{path} holds no job; a line of a list is for example {{"prompt": "a big dog"}}')
    return Listing(jobs=jobs, origin=origin)


def _job(where: str, row: Mapping[str, Any], defaults: Defaults) -> Job:
    check_columns(where, row)
    row = {key: value for key, value in row.items() if value is not None}
    prompt, negative = row.get("prompt", ""), row.get("negative", defaults.negative)
    for name, value in (("prompt", prompt), ("negative", negative)):
        if not isinstance(value, str):
            raise JobsError(f"{where}: {name} is {value!r}; it must be text")
    if not prompt.strip():
        raise JobsError(f"{where} has no prompt; say what to draw")
    size = row.get("size")
    width, height = defaults.size if size is None else _size(where, size)
    policy, steps, shift, levels = defaults.policy, defaults.steps, defaults.shift, defaults.levels
    if "policy" in row:
        policy, steps, shift, levels = _named(where, str(row["policy"]), steps)
    steps = _whole(where, "steps", row.get("steps", steps), 1)
    if "shift" in row or "levels" in row:
        shift, levels = _noise(where, row)
    elif levels is not None and len(levels) != steps:
        levels = None  # free levels belong to their number of steps
    job = Job(
        prompt=prompt,
        negative=negative,
        seed=_whole(where, "seed", row.get("seed", defaults.seed), 0),
        width=width,
        height=height,
        steps=steps,
        guidance=_number(where, "guidance", row.get("guidance", defaults.guidance)),
        policy=policy,
        shift=shift,
        levels=levels,
        **_moving(where, row, defaults),
    )
    try:
        job.policy.check(job.steps)
        check_levels(job.steps, job.shift, job.levels)
    except (PolicyError, SchedulerError) as error:
        raise JobsError(f"{where}: {error}") from error
    return job


def _moving(where: str, row: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """Frames of a video, and how many a second."""
    if defaults.frames is None:
        for name in ("frames", "fps"):
            if name in row:
                raise JobsError(f"{where}: {name} is {row[name]!r}; this pair draws pictures: leave {name} out")
        return {}
    fps = _number(where, "fps", row.get("fps", defaults.fps))
    if not 0 < fps <= 1000:
        raise JobsError(f"{where}: fps is {fps:g}; frames a second are above 0 and at most 1000")
    return {"frames": _whole(where, "frames", row.get("frames", defaults.frames), 1), "fps": fps}


def _size(where: str, value: Any) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:[x×*](\d+))?", str(value).strip().lower())
    if match is None or isinstance(value, bool) or not all(int(part or 1) for part in match.groups()):
        raise JobsError(f"{where}: size is {value!r}; write pixels as WIDTHxHEIGHT, or one number for a square")
    return int(match[1]), int(match[2] or match[1])


def _whole(where: str, name: str, value: Any, least: int) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,19}", text) or not least <= int(text) < 2**63:
        raise JobsError(f"{where}: {name} is {value!r}; it must be a whole number of at least {least}")
    return int(text)


def _number(where: str, name: str, value: Any) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = float("nan")
    if not isfinite(number):
        raise JobsError(f"{where}: {name} is {value!r}; it must be a number")
    return number


def _noise(where: str, row: Mapping[str, Any]) -> tuple[float | None, tuple[float, ...] | None]:
    """The shift and the free levels that a row gives; levels are a list, or text with spaces in between."""
    shift = _number(where, "shift", row["shift"]) if "shift" in row else None
    if shift is not None and shift <= 0:
        raise JobsError(f"{where}: shift is {row['shift']!r}; it must be a number above 0")
    given = row.get("levels")
    if given is None:
        return shift, None
    levels = given.split() if isinstance(given, str) else given
    if not isinstance(levels, list) or not levels:
        raise JobsError(f"{where}: levels is {given!r}; it must be a list of numbers, one for each step")
    return shift, tuple(_number(where, "levels", level) for level in levels)


def _named(where: str, text: str, steps: int) -> tuple[Policy, int, float | None, tuple[float, ...] | None]:
    """The policy that a row names, with the steps (else `steps`) and noise levels that belong to it."""
    try:
        policy = policy_named(text)
    except PolicyError as error:
        raise JobsError(f"{where}: {error}") from error
    made = PRESETS.get(text.strip())
    if made is None:
        return policy, steps, None, None
    return policy, made.steps or steps, made.shift, made.levels


def _captions(path: Path, text: str, defaults: Defaults, n: int | None, seed: int) -> Iterator[Job]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise JobsError(f"{path} is not JSON (line {error.lineno}: {error.msg})") from error
    notes = data.get("annotations") if isinstance(data, dict) else None
    if not isinstance(notes, list):
        raise JobsError(
            f"{path} is no captions file: it has no list 'annotations', as COCO's captions_val2014.json has"
        )
    of_image: dict[int | str, list[tuple[str, int | str, str]]] = {}
    for place, note in enumerate(notes):
        try:
            image, caption_id, caption = note["image_id"], note["id"], " ".join(note["caption"].split())
        except (TypeError, KeyError, AttributeError) as error:
            raise JobsError(
                f"{path}: annotation {place} is no caption; each has id, image_id and caption (captions_*.json, not "
                "instances_*.json)"
            ) from error
        if caption:
            of_image.setdefault(image, []).append((_order(seed, caption_id), caption_id, caption))
    if n is not None and not 1 <= n <= len(of_image):
        raise JobsError(f"--n {n} was given; {path} has captions of {len(of_image)} images")
    defaults.policy.check(defaults.steps)
    for place, image in enumerate(sorted(of_image, key=lambda image: _order(seed, image))[:n]):
        _, caption_id, caption = min(of_image[image])
        yield Job(
            prompt=caption,
            negative=defaults.negative,
            seed=defaults.seed + place,
            width=defaults.size[0],
            height=defaults.size[1],
            steps=defaults.steps,
            guidance=defaults.guidance,
            policy=defaults.policy,
            shift=defaults.shift,
            levels=defaults.levels,
            frames=defaults.frames,
            fps=defaults.fps,
            source={"image_id": image, "caption_id": caption_id},
        )


def _order(seed: int, key: int | str) -> str:
    return hashlib.sha256(f"{seed}/{key}".encode()).hexdigest()
