"""Formats of shards: how pictures and what is known of them become one file.

webdataset  a tar file; of each picture <id>.png (of a video <id>.mp4 or .webp, too), <id>.txt with the prompt, and
            <id>.json with all facts
parquet     a row a picture; `image` (of a video `video`) is the file itself in Hugging Face's layout of bytes and path
"""

import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from .job import JobsError

ROWS = 100  # of a Parquet file that are read at once


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture.

    Attributes:
        key: id of its job.
        facts: see `imagefolder.facts`.
        names: of its files, the one it was drawn for first.
        files: their bytes by name.
    """

    key: str
    facts: Mapping[str, Any]
    names: tuple[str, ...]
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How shards are written.

    Attributes:
        suffix: of their names.
        write: writes samples, one at a time, to a file.
        version: another one writes other bytes.
    """

    suffix: str
    write: Callable[[BinaryIO, Iterable[Sample]], None]
    version: int = 1


def write_tar(file: BinaryIO, samples: Iterable[Sample]) -> None:
    """A webdataset shard."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            told = {
                f"{sample.key}.txt": str(sample.facts["text"]).encode(),
                f"{sample.key}.json": json.dumps(sample.facts, sort_keys=True).encode(),
            }
            for name, data in {**sample.files, **told}.items():
                about = tarfile.TarInfo(name)  # of nobody, and of no time
                about.size = len(data)
                tar.addfile(about, BytesIO(data))


def write_parquet(file: BinaryIO, samples: Iterable[Sample]) -> None:
    """A Parquet shard; numbers as 64 bits, what a job does not say as null.

    Raises:
        JobsError: pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise JobsError("Parquet needs pyarrow, which is not installed: pip install 'hybridstitch[ray]'") from error
    text, whole, number = arrow.string(), arrow.int64(), arrow.float64()
    types = {
        **dict.fromkeys(("file_name", "text", "negative"), text),
        **dict.fromkeys(("seed", "width", "height", "steps"), whole),
        "guidance": number, "policy": text, "shift": number, "levels": arrow.list_(number), "frames": whole,
        "fps": number, "source": text, "id": text, "sha256": text,
    }  # fmt: skip
    every = iter(samples)
    first = next(every, None)
    kind = "image" if first is None or Path(first.names[0]).suffix == ".png" else "video"
    media = arrow.struct({"bytes": arrow.binary(), "path": text})
    schema = arrow.schema({kind: media, **types}).with_metadata(_features(kind, types))
    with parquet.ParquetWriter(file, schema) as writer:
        while first is not None:
            rows = [_row(sample, kind) for sample in chain([first], islice(every, ROWS - 1))]
            writer.write_table(arrow.Table.from_pylist(rows, schema), row_group_size=ROWS)
            first = next(every, None)


def _row(sample: Sample, kind: str) -> dict[str, Any]:
    name, source = sample.names[0], sample.facts.get("source")
    return {
        **sample.facts,
        kind: {"bytes": sample.files[name], "path": name},
        "source": None if source is None else json.dumps(source, sort_keys=True),
    }


def _features(kind: str, types: Mapping[str, Any]) -> dict[str, str]:
    """What tells `datasets` that the first column is pictures."""
    names = {"string": "string", "int64": "int64", "double": "float64"}
    values = {
        name: [{"_type": "Value", "dtype": "float64"}] if name == "levels" else {
            "_type": "Value", "dtype": names[str(each)]
        }
        for name, each in types.items()
    }  # fmt: skip
    return {"huggingface": json.dumps({"info": {"features": {kind: {"_type": kind.title()}, **values}}})}


FORMATS = {
    "webdataset": Format(suffix=".tar", write=write_tar),
    "parquet": Format(suffix=".parquet", write=write_parquet),
}
