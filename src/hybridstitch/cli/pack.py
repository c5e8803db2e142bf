"""`hybridstitch pack`: the pictures of a batch as webdataset or Parquet shards."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..batch.packing import PER_SHARD, Packed, send
from ..batch.packing import pack as pack_folder
from ..batch.shards import FORMATS
from ..disk.lock import alone
from ..errors import nearest
from . import flags, say
from .asked import BadInput, writable
from .batch_place import CopyTo, copy_at

Folder = Annotated[Path, typer.Argument(help="A folder of `hybridstitch batch`.", show_default=False)]
To = Annotated[str, typer.Option("--to", metavar=" | ".join(FORMATS), help="The format.")]
PerShard = Annotated[int, typer.Option("--per-shard", metavar="N", min=1, help="Pictures in each shard.")]
WithoutMissing = Annotated[
    bool, typer.Option("--without-missing", help="Leave out missing pictures instead of refusing.")
]


def pack(
    folder: Folder,
    to: To = "webdataset",
    out: flags.Out = Path("shards"),
    per_shard: PerShard = PER_SHARD,
    without_missing: WithoutMissing = False,
    copy_to: CopyTo = None,
    as_json: flags.AsJson = False,
    debug: flags.Debug = False,
) -> None:
    """Pack the pictures of a batch into shards; the same command resumes it.

    hybridstitch pack pictures --to webdataset --out shards
    """
    if to not in FORMATS:
        raise BadInput(f"--to {to} was given; {nearest(to, FORMATS)}")
    if folder.resolve() == out.resolve():
        raise BadInput(f"--out {out} is the folder of the pictures; choose another")
    copy = copy_at(copy_to, out)
    with alone(writable(out), "another pack"):
        packed = pack_folder(folder, out, to=to, per_shard=per_shard, without_missing=without_missing)
        if copy is not None:
            send(copy, out, packed.shards)
    _tell(packed, out, as_json)


def _tell(packed: Packed, out: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"out": str(out), **asdict(packed)}))
        return
    pictures, there = sum(shard.pictures for shard in packed.shards), len(packed.shards) - packed.written
    missing = f"; {packed.missing} pictures are missing" if packed.missing else ""
    say.out().print(
        f"{out}: {pictures} pictures in {len(packed.shards)} shards, {packed.written} written, {there} were there"
        f"{missing}"
    )
