"""`metadata.jsonl`: what each picture of a folder shows, in the layout that Hugging Face calls `imagefolder`.

One line a picture, in the order of the jobs; `datasets.load_dataset("imagefolder", data_dir=DIR)` reads it. It is made
from the jobs and the manifest, so equal batches give equal bytes, and one that is lost is made again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..disk import files as disk
from .job import Job
from .ledger import ManifestRow

NAME = "metadata.jsonl"


def facts(row: ManifestRow, job: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a picture: its file's name, the prompt as `text`, and all that decided it.

    Args:
        row: of a picture that is there.
        job: as `Job.to_json` writes it.
    """
    others = {name: value for name, value in job.items() if name != "prompt"}
    return {"file_name": row.file, "text": job["prompt"], **others, "id": row.id, "sha256": row.sha256}


def describe(out: Path, jobs: Mapping[str, Job], done: Mapping[str, ManifestRow]) -> None:
    """Write the file.

    Args:
        out: the folder.
        jobs: by id.
        done: rows of the pictures that are there, by id.

    Raises:
        OSError: it cannot be written.
    """
    lines = [json.dumps(facts(done[key], job.to_json())) for key, job in jobs.items() if key in done]
    disk.keep(out / NAME, "".join(f"{line}\n" for line in lines).encode())
