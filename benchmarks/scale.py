"""What more workers bring, on this machine: images a second of 1 and 2 workers, one thread each, drawn in three ways.

    here      `hybridstitch batch`: processes of this machine
    ray       `hybridstitch batch --on ray`: actors of a cluster of this machine
    ray.data  `ray.data.map_batches` over the same jobs, each drawn and kept by the same `Worker`

All draw the same pictures of the miniature pair into a folder each, round by round in turn, each with the machine to
itself (a cluster that runs beside takes part of both cores). Rates are those of workers that draw: they begin when
every worker has its pair open, what opening takes is told apart, and who has nothing left to draw while another draws
the last picture is not counted. `--workers 2` compares two alone. Then what the driver pays for a picture is timed with
workers that draw nothing: kept by them, and sent back to be kept by the driver.

    OMP_NUM_THREADS=1 python -m benchmarks.scale         (needs pandas, as `ray.data` does)

writes `docs/results/scale.json` with all raw seconds and `scale.md`; `benchmarks.scale_model` reads them. With one
number of workers alone the files are `scale_1` or `scale_2`.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from time import perf_counter, time
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.rounds import RESULTS, ratio, write
from hybridstitch.batch.executor import processes_at
from hybridstitch.batch.job import BatchSetting, Job
from hybridstitch.batch.seats import Seats
from hybridstitch.batch.work import Attempt, AttemptGroup, Desk, Draw
from hybridstitch.cli.batch_studio import JobStudio
from hybridstitch.cli.pairs import Pair
from hybridstitch.drawing.engine import PLAIN
from hybridstitch.policies.methods import LargeOnly
from hybridstitch.policies.trace import Trace
from hybridstitch.report.metadata import versions
from hybridstitch.report.takes import Take

PROMPT, SIZE = "a big dog left of a small cat on a meadow", (128, 96)
WAYS, WORKERS = ("here", "ray", "ray.data"), {1: "1 worker", 2: "2 workers"}


@dataclass(frozen=True)
class Nothing:
    """Draws one picture of so many bytes, and no time goes by.

    Attributes:
        side: pixels.
    """

    side: int

    def __call__(self, device: str) -> Draw:
        """See `Desk.open`."""
        noise = np.random.default_rng(0).integers(0, 256, (self.side, self.side, 3), np.uint8)
        trace = Trace(policy="large", steps=1, images=1, grid=(1, 1), records=())
        take = Take(image=Image.fromarray(noise), seconds=0.0, trace=trace)
        return lambda jobs: [take for _ in jobs]


@dataclass
class Arm:
    """One way to draw.

    Attributes:
        seconds: of each round.
        opening_seconds: of each round, until all workers had drawn something.
    """

    seconds: list[float]
    opening_seconds: list[float]


def groups_of(setting: BatchSetting, jobs: int, steps: int, seed: int) -> list[AttemptGroup]:
    """So many jobs, one a group."""
    found = []
    for k in range(jobs):
        job = Job(
            prompt=PROMPT, seed=seed + k, width=SIZE[0], height=SIZE[1], steps=steps, guidance=4.0, policy=LargeOnly()
        )
        found.append((Attempt(id=setting.id_of(job), job=job),))
    return found


def mapped(executor: Seats, groups: Sequence[AttemptGroup], workers: int = 1) -> float:
    """Seconds of an executor for some groups: until a worker finds nothing left to draw, mean over workers.

    The last outcomes are of a worker each, as none is so late that another draws it, too.
    """
    begun, ended = perf_counter(), []
    for outcome in executor.map(groups):
        if outcome.row.status != "done":
            raise SystemExit(f"a picture was not drawn: {outcome.row.message}")
        ended.append(perf_counter() - begun)
    return mean(ended[-workers:])


@contextmanager
def seats(way: str, desk: Desk, workers: int) -> Iterator[Seats]:
    """The executor of the batch command."""
    if way == "here":
        executor = processes_at([desk] * workers)
    else:
        from hybridstitch.batch.on_ray import RaySeat

        mark = desk.out / "mark"
        mark.touch()
        executor = Seats([RaySeat(desk, mark.name, 0) for _ in range(workers)], desk.out)
    try:
        yield executor
    finally:
        executor.close()


def all_open(executor: Seats, setting: BatchSetting, workers: int, steps: int, seed: int) -> float:
    """Seconds until every worker has its pair open, and a picture warm."""
    begun = perf_counter()
    while len(executor._opened) < workers:
        mapped(executor, groups_of(setting, workers, steps, seed))
        seed += workers
    mapped(executor, groups_of(setting, 2 * workers, steps, seed))
    return perf_counter() - begun


def with_ray_data(desk: Desk, workers: int, groups: Sequence[AttemptGroup]) -> tuple[float, float]:
    """Seconds that all groups take once every actor draws, and those before; actors are made anew by each call."""
    import ray  # pyright: ignore[reportMissingImports]

    class Actor:
        def __init__(self) -> None:
            self.worker, self.place = desk.worker(), os.getpid()

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            begun = time()
            for k in batch["item"]:
                assert self.worker.do(groups[int(k)])[0].row.status == "done"
            return {"begun": np.array([begun]), "ended": np.array([time()]), "place": np.array([self.place])}

    start = time()
    rows: list[dict[str, Any]] = (
        ray.data.from_items(list(range(len(groups))), override_num_blocks=len(groups))
        .map_batches(Actor, batch_size=1, num_cpus=1, compute=ray.data.ActorPoolStrategy(size=workers))
        .take_all()
    )
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for row in sorted(rows, key=lambda row: row["begun"]):
        first.setdefault(row["place"], row["begun"])
        last[row["place"]] = row["ended"]
    since = max(first.values())  # from here on all of them draw
    drawn = sum(
        min(1.0, (row["ended"] - since) / (row["ended"] - row["begun"])) for row in rows if row["ended"] > since
    )
    seconds = mean(max(ended - since, 0.0) for ended in last.values())
    return seconds * len(groups) / drawn, since - start


def measure(folder: Path, jobs: int, steps: int, rounds: int, counts: Sequence[int]) -> dict[str, Arm]:
    """All ways with so many workers, in turn, each with the machine to itself."""
    named = Pair.of("mini", None)
    setting = BatchSetting(
        pair="mini", small=None, models=named.models, device="cpu", dtype="float32", versions=versions()
    )
    studio = JobStudio(named=named, policy=LargeOnly(), dtype="float32", engine=PLAIN)
    arms = {(way, workers): Arm([], []) for way in WAYS for workers in counts}
    for k in range(rounds):
        order = list(arms)
        for way, workers in order[k % len(order) :] + order[: k % len(order)]:
            out, arm = folder / f"{way}-{workers}-{k}", arms[way, workers]
            out.mkdir()
            desk = Desk(out=out, setting=setting, device="cpu", open=studio)
            groups = groups_of(setting, jobs, steps, 1000 * (k + 1))
            with ExitStack() as stack:
                if way != "here":
                    stack.enter_context(cluster(workers))
                if way == "ray.data":
                    seconds, opening = with_ray_data(desk, workers, groups)
                else:
                    executor = stack.enter_context(seats(way, desk, workers))
                    opening = all_open(executor, setting, workers, steps, 10_000)
                    seconds = mapped(executor, groups, workers)
            arm.seconds.append(seconds)
            arm.opening_seconds.append(opening)
            print(f"round {k + 1}/{rounds} {way} {workers}: {jobs / seconds:.3f} images/s", flush=True)
    return {f"{way} {workers}": arm for (way, workers), arm in arms.items()}


@contextmanager
def cluster(workers: int) -> Iterator[None]:
    """Ray on this machine, with room for so many workers."""
    import ray  # pyright: ignore[reportMissingImports]

    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, object_store_memory=500_000_000)
    try:
        yield
    finally:
        ray.shutdown()


def driver(folder: Path, jobs: int) -> dict[str, list[float]]:
    """Seconds of the driver for a picture that costs nothing: kept by the workers, or sent back, small and large."""
    setting = BatchSetting(pair="-", small=None, models={}, device="cpu", dtype="float32", versions=versions())
    found: dict[str, list[float]] = {}
    for name, side, sends in (("kept there", 8, False), ("sent, 0.2 kB", 8, True), ("sent, 1.5 MB", 700, True)):
        out = folder / f"driver-{name.replace(' ', '-').replace(',', '').replace('.', '')}"
        out.mkdir()
        desk = Desk(out=out, setting=setting, device="cpu", open=Nothing(side), sends=sends)
        with seats("ray", desk, 2) as executor:
            all_open(executor, setting, 2, 1, 10_000)
            found[name] = [mapped(executor, groups_of(setting, jobs, 1, 1000 * k)) / jobs for k in range(3)]
        print(f"driver, {name}: {1000 * median(found[name]):.2f} ms a picture", flush=True)
    return found


def row(way: str, counts: Sequence[int], arms: Mapping[str, Arm], jobs: int) -> dict[str, Any]:
    """Of the table: medians, and those of ratios within a round."""
    seconds = {(name, count): arms[f"{name} {count}"].seconds for name in WAYS for count in counts}
    found: dict[str, Any] = {"way": way}
    found |= {f"images/s, {WORKERS[count]}": jobs / median(seconds[way, count]) for count in counts}
    if {*WORKERS} == {*counts}:
        found["efficiency"] = ratio(seconds[way, 1], seconds[way, 2]) / 2
    most = max(counts)
    found[f"rate of here's, {WORKERS[most]}"] = ratio(seconds["here", most], seconds[way, most])
    return found | {f"opening, {count} (s)": median(arms[f"{way} {count}"].opening_seconds) for count in counts}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=24, help="pictures of a round")
    parser.add_argument("--steps", type=int, default=20, help="of a picture")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", choices=WORKERS, default=[*WORKERS], help="default: 1 2")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: one thread a worker")
    os.environ |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    folder = Path(tempfile.mkdtemp())
    try:
        arms = measure(folder, args.jobs, args.steps, args.rounds, args.workers)
        with cluster(2):
            paid = driver(folder, 200)
    finally:
        shutil.rmtree(folder)
    table = [row(way, args.workers, arms, args.jobs) for way in WAYS]
    raw = {name: {"seconds": arm.seconds, "opening_seconds": arm.opening_seconds} for name, arm in arms.items()}
    about = {"jobs": args.jobs, "steps": args.steps, "rounds": args.rounds}
    name = "scale" if {*args.workers} == {*WORKERS} else f"scale_{args.workers[0]}"
    write(args.out, name, table, {"drawing": raw, "driver": paid}, **about)


if __name__ == "__main__":
    main()
