"""A folder of pictures as shards for training and sharing: webdataset's tar files, or Parquet.

    OUT/pictures-00000-of-00005.tar       places 0 … N − 1 of the list of jobs, and so on
    OUT/pack.json                         which shard holds what, with its bytes and SHA-256

A shard has its name only when it is whole; one whose entry in `pack.json` is of the same pictures is not written again.
Equal pictures give equal bytes: nothing in a shard says when or by whom it was written.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..disk import files as disk
from .copies import AT_ONCE, Copy
from .folder import name_of, sha256
from .imagefolder import facts
from .job import JobsError
from .ledger import read
from .shards import FORMATS, Sample

INDEX = "pack.json"
PER_SHARD = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """An entry of the index.

    Attributes:
        name: of its file.
        pictures: how many.
        of: digest of what they are, and in which format.
        bytes, sha256: of its file.
    """

    name: str
    pictures: int
    of: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What a call did.

    Attributes:
        shards: all that there are now.
        written: by this call.
        missing: pictures of the list that are not there, and in no shard.
    """

    shards: tuple[Shard, ...]
    written: int
    missing: int


def pack(
    folder: Path, out: Path, *, to: str, per_shard: int = PER_SHARD, without_missing: bool = False,
    on_shard: Callable[[int, int], None] = lambda done, count: None,
) -> Packed:  # fmt: skip
    """Pack the pictures of a batch.

    Args:
        folder: of the batch.
        out: where shards go; is there.
        to: a format of `FORMATS`.
        per_shard: places of the list in each.
        without_missing: pack what is there, where not all is.
        on_shard: called with how many are whole, and how many there will be.

    Raises:
        JobsError: no batch, pictures are missing, or one is damaged.
        OSError: a shard cannot be written.
    """
    listed = _listed(folder)
    missing = sum(sample is None for sample in listed)
    if missing == len(listed) or (missing and not without_missing):
        raise JobsError(
            f"{missing} of {len(listed)} pictures are not in {folder}; draw them by the command that made it, or say "
            "--without-missing"
        )
    parts = [listed[k : k + per_shard] for k in range(0, len(listed), per_shard)]
    before = _index(out)
    disk.sweep(out)
    shards: list[Shard] = []
    written = 0
    for place, part in enumerate(parts):
        name = f"pictures-{place:05}-of-{len(parts):05}{FORMATS[to].suffix}"
        samples = [sample for sample in part if sample is not None]
        of = _digest([to, FORMATS[to].version, [sample.facts for sample in samples]])
        shard = before.get(name)
        if shard is None or shard.of != of or not _is_whole(out / name, shard):
            with disk.being_kept(out / name) as file:
                FORMATS[to].write(file, _checked(folder, samples))
            size, digest = (out / name).stat().st_size, sha256(out / name) or ""
            shard = Shard(name=name, pictures=len(samples), of=of, bytes=size, sha256=digest)
            written += 1
            _keep_index(out, {**before, **{s.name: s for s in (*shards, shard)}}.values())
        shards.append(shard)
        on_shard(place + 1, len(parts))
    for name in before.keys() - {shard.name for shard in shards}:  # of a list or a number a shard that was another
        (out / name).unlink(missing_ok=True)
    _keep_index(out, shards)
    return Packed(shards=tuple(shards), written=written, missing=missing)


def send(copy: Copy, out: Path, shards: Sequence[Shard]) -> None:
    """Bring shards to an address, and take those away that an earlier call brought there under other names.

    The index there says what is there at any time, so that a call that was broken off goes on.

    Args:
        copy: the address.
        out: where the shards are.
        shards: all of them.

    Raises:
        WorkError: it cannot be reached.
    """
    sizes = copy.sizes()
    before = _read_index(copy.read(INDEX)) if INDEX in sizes else {}
    wanted = {shard.name: shard for shard in shards}
    copy.remove(name for name in before.keys() - wanted.keys() if name in sizes)
    there = {name for name, shard in wanted.items() if before.get(name) == shard and sizes.get(name) == shard.bytes}
    left = [name for name in wanted if name not in there]
    for k in range(0, len(left), AT_ONCE):
        copy.put({INDEX: _index_of(wanted[name] for name in wanted if name in there)})
        copy.send(out, left[k : k + AT_ONCE])
        there.update(left[k : k + AT_ONCE])
    copy.put({INDEX: _index_of(shards)})


def _listed(folder: Path) -> list[Sample | None]:
    """The jobs of a batch's last call, in order; None where there is no picture."""
    try:
        lines = [json.loads(line) for line in (folder / "jobs.jsonl").read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise JobsError(f"{folder} is no folder of `hybridstitch batch`: it has no jobs.jsonl to read") from error
    rows = {(row.id, row.file): row for row in read(folder)[0] if row.status == "done"}
    found: list[Sample | None] = []
    for line in lines:
        key, file = line.pop("id"), line.pop("file_name")
        row = rows.get((key, file))
        names = dict.fromkeys((file, name_of(key)))  # of a video its middle frame, too
        there = row is not None and all((folder / name).is_file() for name in names)
        found.append(Sample(key, facts(row, line), tuple(names), {}) if row is not None and there else None)
    return found


def _checked(folder: Path, samples: Sequence[Sample]) -> Iterator[Sample]:
    """The same with their files, one after the other."""
    for sample in samples:
        files = {name: (folder / name).read_bytes() for name in sample.names}
        if hashlib.sha256(files[sample.names[0]]).hexdigest() != sample.facts["sha256"]:
            raise JobsError(
                f"{folder / sample.names[0]} is not what was drawn; run the command that drew it with --verify"
            )
        yield Sample(sample.key, sample.facts, sample.names, files)


def _is_whole(path: Path, shard: Shard) -> bool:
    return path.is_file() and path.stat().st_size == shard.bytes


def _index(out: Path) -> dict[str, Shard]:
    """Entries of an earlier call by name; without an index, or with a damaged one, all is written again."""
    try:
        return _read_index((out / INDEX).read_bytes())
    except OSError:
        return {}


def _read_index(data: bytes) -> dict[str, Shard]:
    try:
        return {row["name"]: Shard(**row) for row in json.loads(data)["shards"]}
    except (ValueError, TypeError, KeyError):
        return {}


def _keep_index(out: Path, shards: Iterable[Shard]) -> None:
    disk.keep(out / INDEX, _index_of(shards))


def _index_of(shards: Iterable[Shard]) -> bytes:
    return (json.dumps({"shards": [asdict(shard) for shard in shards]}, indent=2) + "\n").encode()


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
