"""A batch's folder: what was asked for, and which jobs have a valid picture already.

DIR/<id>.png          one picture a job; a video's middle frame, which says how it was drawn
DIR/<id>.mp4          the video, or .webp
DIR/jobs.jsonl        the jobs of the last call, in order, with their ids
DIR/batch.json        where they came from, and the setting they share
DIR/metadata.jsonl    what each picture shows, see `imagefolder`
DIR/manifest/*.jsonl  what became of each try
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ..disk import files as disk
from ..report.clip import ending
from ..report.identity import recorded
from ..report.metadata import PACKAGES, pixel_digest
from ..report.picture import read as recipe_in
from . import ledger
from .imagefolder import NAME as METADATA
from .job import BatchSetting, Job, id_of
from .ledger import Ledger, ManifestRow

LISTS = ("jobs.jsonl", "batch.json")
END = b"IEND\xaeB`\x82"  # of a whole PNG


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is there.

    Attributes:
        done: rows of valid pictures, by id.
        unlisted: rows made up for valid pictures that the manifest does not know: the kill fell before their line.
        broken: what is wrong with a picture that must be drawn again, by id.
        damaged_lines: of the manifest.
    """

    done: Mapping[str, ManifestRow]
    unlisted: tuple[ManifestRow, ...]
    broken: Mapping[str, str]
    damaged_lines: int


def name_of(job_id: str) -> str:
    """The picture of a job, which says how it was drawn; of a video its middle frame, written after the video."""
    return f"{job_id}.png"


def file_of(job_id: str, job: Job) -> str:
    """The file that a job is drawn for: its picture, or a video beside it."""
    return name_of(job_id) if job.frames is None else f"{job_id}{ending()}"


def files(out: Path, jobs: Mapping[str, Job]) -> list[Path]:
    """All files that a batch has made so far."""
    names = dict.fromkeys(name for key, job in jobs.items() for name in (name_of(key), file_of(key, job)))
    found = [out / name for name in (*names, *LISTS, METADATA) if (out / name).is_file()]
    return [*found, *sorted((out / ledger.FOLDER).glob("*.jsonl"))]


def look(out: Path, jobs: Mapping[str, Job], setting: BatchSetting, *, verify: bool) -> Found:
    """Which jobs are done. Writes nothing.

    Args:
        out: the folder; may be absent.
        jobs: by id.
        setting: theirs.
        verify: hash every picture, instead of comparing its size with the manifest.
    """
    rows, damaged = ledger.read(out)
    listed: defaultdict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        if row.status == "done":
            listed[row.id].append(row)
    done: dict[str, ManifestRow] = {}
    unlisted: list[ManifestRow] = []
    broken: dict[str, str] = {}
    for key, job in jobs.items():
        path = out / file_of(key, job)
        if not path.is_file() or not (out / name_of(key)).is_file():
            if key in listed:
                broken[key] = "is gone"
            continue
        size = path.stat().st_size
        match = [row for row in listed[key] if row.file_bytes == size]
        if match and verify:
            found = sha256(path)
            match = [row for row in match if row.sha256 == found]
        if match:
            done[key] = match[-1]
        elif says_it_is(path, key):
            unlisted.append(
                ManifestRow(
                    id=key, status="done", job=job.to_json(), setting=setting.digest,
                    file=path.name, file_bytes=size, sha256=sha256(path), device=setting.device,
                )
            )  # fmt: skip
            done[key] = unlisted[-1]
        else:
            broken[key] = "is not what was drawn"
    return Found(done=done, unlisted=tuple(unlisted), broken=broken, damaged_lines=damaged)


def begin(out: Path, jobs: Mapping[str, Job], setting: BatchSetting, origin: Mapping[str, Any], found: Found) -> None:
    """Write down what is asked for, and tidy up behind a kill.

    Args:
        out: the folder; is there.
        jobs: by id.
        setting: theirs.
        origin: where they came from.
        found: what `look` saw.

    Raises:
        OSError: it cannot be written.
    """
    disk.sweep(out)
    lines = [json.dumps({"id": key, "file_name": file_of(key, job), **job.to_json()}) for key, job in jobs.items()]
    disk.keep(out / "jobs.jsonl", "".join(f"{line}\n" for line in lines).encode())
    about = {"origin": dict(origin), "setting": setting.to_json()}
    disk.keep(out / "batch.json", (json.dumps(about, indent=2) + "\n").encode())
    book = Ledger(out)
    try:
        for row in found.unlisted:
            book.add(row)
    finally:
        book.close()


def models_in(out: Path) -> dict[str, str]:
    """What the models' names stood for when the last batch was drawn into a folder; see `identity.recorded`."""
    return recorded(out / "batch.json", "setting")


def apart(out: Path, setting: BatchSetting) -> list[str]:
    """In what the last batch drawn into a folder differs from this one: "torch 2.12.0, now 2.13.0".

    Args:
        out: the folder.
        setting: of this batch.
    """
    try:
        before = json.loads((out / "batch.json").read_text(encoding="utf-8"))["setting"]
        then, now = ({**s, **s["versions"], **s["models"]} for s in (before, setting.to_json()))
    except (OSError, ValueError, TypeError, KeyError):
        return []
    names = ("pair", "small", *setting.models, "device", "dtype", "kv", *PACKAGES)
    return [f"{name} {then.get(name)}, now {now[name]}" for name in names if then.get(name) != now[name]]


def says_it_is(path: Path, job_id: str) -> bool:
    """Whether a file's own recipe is that of a job, and its pixels, or a video's bytes, are those of its recipe."""
    try:
        picture = path.with_suffix(".png")
        if not picture.read_bytes().endswith(END):  # Pillow does not mind
            return False
        recipe = recipe_in(picture)
        if id_of(recipe) != job_id:
            return False
        if path != picture:
            return sha256(path) == recipe.clip
        with Image.open(path) as image:
            return pixel_digest(image) == recipe.pixels
    except Exception:  # a stranger's file may be broken in any way; whatever it is, it is not this picture
        return False


def sha256(path: Path) -> str | None:
    """Of a file's bytes; None where they cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
