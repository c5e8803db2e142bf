"""What more workers bring, on this machine: images a second of 1 and 2 workers, one thread each, drawn in three ways.

    here      `hybridstitch batch`: processes of this machine
    ray       `hybridstitch batch --on ray`: actors of a cluster of this machine
    ray.data  `ray.data.map_batches` over the same jobs, each drawn and kept by the same `Worker`

All draw the same prompt with the miniature pair into a folder each, round by round in turns of seconds. Who does not
draw stands still with its whole cluster (see `turns`), as a waiting cluster takes part of both cores. Rates are those
of workers that draw: they begin when every worker has its pair open and has drawn a picture, what opening takes is told
apart, and who has nothing left to draw while another draws the last picture is not counted. Then what the driver pays
for a picture is timed with workers that draw nothing: kept by them, and sent back to be kept by the driver.

    OMP_NUM_THREADS=1 python -m benchmarks.scale         (needs pandas, as `ray.data` does)

writes `docs/results/scale.json` with all raw seconds and `scale.md`; `benchmarks.scale_model` reads them.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, median
from time import perf_counter, time
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.rounds import RESULTS, ratio, write
from benchmarks.turns import taking_turns
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
WAYS, WORKERS = ("here", "ray", "ray.data"), (1, 2)
TURNS = 3  # of a round
WARM = 10_000_000  # seed of pictures that do not count


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
    """One way to draw, with so many workers.

    Attributes:
        rates: images a second of each round, over all its turns.
        seconds: of each round's turns.
        opening_seconds: before each turn, until all workers had drawn something.
    """

    rates: list[float] = field(default_factory=list)
    seconds: list[list[float]] = field(default_factory=list)
    opening_seconds: list[float] = field(default_factory=list)


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


def with_ray_data(
    desk: Desk, workers: int, groups: Sequence[AttemptGroup], warm: Sequence[AttemptGroup]
) -> tuple[float, float]:
    """Seconds that all groups take once every actor draws, and those before; actors are made anew by each call."""
    import ray  # pyright: ignore[reportMissingImports]

    class Actor:
        def __init__(self) -> None:
            self.worker, self.place = desk.worker(), os.getpid()
            for group in warm:
                self.worker.do(group)

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


@contextmanager
def arm(way: str, workers: int, steps: int, folder: Path) -> Iterator[Callable[[tuple[int, int]], tuple[float, float]]]:
    """What draws so many pictures from a seed on, and gives the seconds of drawing and those of opening before."""
    named = Pair.of("mini", None)
    setting = BatchSetting(
        pair="mini", small=None, models=named.models, device="cpu", dtype="float32", versions=versions()
    )
    studio = JobStudio(named=named, policy=LargeOnly(), dtype="float32", engine=PLAIN)
    desk = Desk(out=folder, setting=setting, device="cpu", open=studio)
    with ExitStack() as stack:
        if way != "here":
            stack.enter_context(cluster(workers))
        if way == "ray.data":
            warm = groups_of(setting, 1, steps, WARM)
            yield lambda told: with_ray_data(desk, workers, groups_of(setting, told[0], steps, told[1]), warm)
        else:
            executor = stack.enter_context(seats(way, desk, workers))
            opening = all_open(executor, setting, workers, steps, WARM)
            yield lambda told: (mapped(executor, groups_of(setting, told[0], steps, told[1]), workers), opening)


def measure(folder: Path, pictures: int, steps: int, rounds: int) -> dict[str, Arm]:
    """All ways with 1 and 2 workers, each of which draws `TURNS` times so many pictures a round.

    Those here and on Ray come in `TURNS` pairs of turns, as what is compared should lie seconds apart; odd rounds go
    the other way.
    """
    arms = {f"{way} {workers}": Arm() for workers in WORKERS for way in WAYS}
    opens = {}
    for name in arms:
        way, workers = name.split()
        (folder / name).mkdir()
        opens[name] = partial(arm, way, int(workers), steps, folder / name)
    pair = ("here", "ray")
    order = [f"{way} {n}" for n in WORKERS for k in range(TURNS) for way in (pair[::-1] if k % 2 else pair)]
    order += [f"ray.data {n}" for n in WORKERS]  # makes its actors anew each time: one long turn
    with taking_turns(opens) as turns:
        for k in range(rounds):
            seconds: dict[str, list[float]] = {name: [] for name in arms}
            for name in reversed(order) if k % 2 else order:
                jobs = pictures * int(name[-1]) * (TURNS if name.startswith("ray.data") else 1)
                took, opening = turns[name]((jobs, 1000 * (1 + k * TURNS + len(seconds[name]))))
                seconds[name].append(took)
                arms[name].opening_seconds.append(opening)
            for name, each in seconds.items():
                arms[name].seconds.append(each)
                arms[name].rates.append(TURNS * pictures * int(name[-1]) / sum(each))
                print(f"round {k + 1}/{rounds} {name}: {arms[name].rates[-1]:.3f} images/s", flush=True)
    return arms


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
            all_open(executor, setting, 2, 1, WARM)
            found[name] = [mapped(executor, groups_of(setting, jobs, 1, 1000 * k)) / jobs for k in range(3)]
        print(f"driver, {name}: {1000 * median(found[name]):.2f} ms a picture", flush=True)
    return found


def table(arms: Mapping[str, Arm]) -> list[dict[str, Any]]:
    """Medians, and those of ratios within a round."""
    rates = {name: arm.rates for name, arm in arms.items()}
    found = []
    for way in WAYS:
        one, two = f"{way} 1", f"{way} 2"
        row: dict[str, Any] = {"way": way, "images/s, 1 worker": median(rates[one])}
        row |= {"images/s, 2 workers": median(rates[two]), "efficiency": ratio(rates[two], rates[one]) / 2}
        row |= {f"of here's rate, {n}": ratio(rates[f"{way} {n}"], rates[f"here {n}"]) for n in WORKERS}
        found.append(row | {f"opening, {n} (s)": median(arms[f"{way} {n}"].opening_seconds) for n in WORKERS})
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2, help=f"of a worker in a turn, of which a round has {TURNS}")
    parser.add_argument("--steps", type=int, default=20, help="of a picture")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: one thread a worker")
    os.environ |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    folder = Path(tempfile.mkdtemp())
    try:
        arms = measure(folder, args.pictures, args.steps, args.rounds)
        with cluster(2):
            paid = driver(folder, 200)
    finally:
        shutil.rmtree(folder)
    about = {"pictures": args.pictures, "steps": args.steps, "rounds": args.rounds}
    raw = {"drawing": {name: asdict(arm) for name, arm in arms.items()}, "driver": paid}
    write(args.out, "scale", table(arms), raw, **about)


if __name__ == "__main__":
    main()
