"""Processes that draw a batch and die at one of its writes. The library knows nothing of this: `disk` is wrapped."""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from hybridstitch.batch.executor import processes_at
from hybridstitch.batch.ledger import Ledger
from hybridstitch.disk import files as disk
from hybridstitch.policies.trace import Trace

PICTURE = b"\x89PNG"
# where it dies -> pictures that are there afterwards, if it dies at the second
POINTS = {
    "before the list": 0,
    "amid the list": 0,
    "before the temporary file": 1,
    "amid the temporary file": 1,
    "before its fsync": 1,
    "before the rename": 1,
    "after the rename": 2,
    "before the row": 2,
    "amid the row": 2,
    "before the row's fsync": 2,
    "after the row": 2,
}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(point, nth=2):
    """Wrap the writes of this process: it is killed at `point` of the nth picture."""
    whole = {name: getattr(disk, name) for name in ("keep", "append", "pour", "settle", "rename")}
    seen = {"pictures": 0, "doing": ""}

    def here(name):
        return point == name and (seen["pictures"] == nth or "list" in point)

    def keep(path, data):
        seen["doing"] = {".png": "picture", ".jsonl": "list"}.get(path.suffix, "")
        seen["pictures"] += path.suffix == ".png"
        if seen["doing"] == "list" and here("before the list"):
            die()
        if here("before the temporary file"):
            die()
        whole["keep"](path, data)

    def append(file, line):
        seen["doing"] = "row"
        if here("before the row"):
            die()
        whole["append"](file, line)
        if here("after the row"):
            die()

    def pour(file, data):
        amid = {"picture": "amid the temporary file", "row": "amid the row", "list": "amid the list"}
        if here(amid.get(seen["doing"])):
            whole["pour"](file, data[: len(data) // 2])
            die()
        whole["pour"](file, data)

    def settle(file):
        if here({"picture": "before its fsync", "row": "before the row's fsync"}.get(seen["doing"])):
            die()
        whole["settle"](file)

    def rename(part, path):
        if path.suffix == ".png" and here("before the rename"):
            die()
        whole["rename"](part, path)
        if path.suffix == ".png" and here("after the rename"):
            die()

    for name, wrapped in {"keep": keep, "append": append, "pour": pour, "settle": settle, "rename": rename}.items():
        setattr(disk, name, wrapped)


def command_line(words, environment, point):
    """Run the command line in this process, which dies at a point."""
    from hybridstitch.cli import main

    os.environ.update(environment)
    die_at(point)
    sys.exit(main(words))


# --- without models: a picture is its seed's colour ---


class Flat:
    """Draws without models. The prompt says what goes wrong: a point of `POINTS`, "dies", "fails" or "loses", once a
    folder; with "in company" only beside others. Each call leaves a line in DIR/calls."""

    def __init__(self, out):
        self.out = Path(out)

    def __call__(self, device):
        if device == "nowhere":
            (self.out / "nowhere").touch()
            raise RuntimeError("no such device")
        if device == "deadly":
            die()
        if device == "once":
            mark = self.out / "opened"
            if mark.exists():
                raise RuntimeError("no such device any more")
            mark.touch()
        return self.draw_together

    def draw_together(self, jobs):
        with (self.out / "calls").open("a") as file:
            file.write(",".join(job.prompt for job in jobs) + "\n")
        if len(jobs) > 1:
            for job in jobs:
                if job.prompt == "fails in company":
                    raise ValueError("not together")
                if job.prompt == "dies in company":
                    die()
        return [self.draw(job) for job in jobs]

    def first(self, job):
        """Whether a job is drawn for the first time in this folder."""
        mark = self.out / f"tried-{job.seed}"
        new = not mark.exists()
        mark.touch()
        return new

    def draw(self, job):
        from hybridstitch.report.takes import Take

        if job.prompt == "dies always" or (job.prompt == "dies" and self.first(job)):
            die()
        if job.prompt == "fails always" or (job.prompt == "fails" and self.first(job)):
            raise ValueError("a bad\nday")
        if job.prompt == "loses always" or (job.prompt == "loses" and self.first(job)):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nand advice")
        if job.prompt == "loses in words" and self.first(job):
            raise RuntimeError("CUDA error: device-side assert triggered")
        if job.prompt == "has no room" and self.first(job):
            raise torch.AcceleratorError("CUDA error: out of memory")
        if job.prompt == "slow":
            (self.out / f"pid-{os.getpid()}").touch()
            time.sleep(0.2)
        if job.prompt == "waits for nowhere":
            while not (self.out / "nowhere").exists():
                time.sleep(0.02)
            time.sleep(1)  # until the other's error has travelled
        if job.prompt == "stalls" and self.first(job):
            time.sleep(600)
        if job.prompt in POINTS and self.first(job):
            die_at(job.prompt, nth=1)
        image = Image.new("RGB", (job.width, job.height), (job.seed % 256, 2, 3))
        trace = Trace(policy=str(job.policy), steps=job.steps, images=1, grid=(1, 1), records=())
        return Take(image=image, seconds=0.5, trace=trace)


def caller(out, devices):
    """Draw twenty slow pictures in processes, as `test_batch.py` does."""
    from test_batch import desks, run, some

    run(out, some(*["slow"] * 20), processes_at(desks(out, *devices)))


def full(file, data):
    """A disk without room."""
    raise OSError(28, os.strerror(28))


def torn(folder, text=b'{"id": "ab'):
    """A shard whose only line was cut."""
    book = Ledger(folder)
    book.folder.mkdir(exist_ok=True)
    (book.folder / "0.jsonl").write_bytes(text)
