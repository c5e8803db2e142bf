"""What more workers bring, on this machine: images a second of 1 and 2 workers, one thread each, drawn in three ways.

    here      `hybridstitch batch`: processes of this machine
    ray       `hybridstitch batch --on ray`: actors of a cluster of this machine
    ray.data  `ray.data.map_batches` over the same jobs, each drawn and kept by the same `Worker`

All draw the same prompt with the miniature pair into a folder each, side by side in slices of seconds (see `slices`):
who does not draw stands still with its whole cluster. Rates are those of workers that draw: they begin when every
worker has its pair open and has drawn a picture, what opening takes is told apart, and who has nothing left to draw
while another draws the last picture is not counted. Then what the driver pays for a picture is timed with workers that
draw nothing: kept by them, and sent back to be kept by the driver.

    OMP_NUM_THREADS=1 python -m benchmarks.scale         (needs pandas, as `ray.data` does)

writes `docs/results/scale.json` with the rates of every round and `scale.md`; `benchmarks.scale_model` reads them.
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
from time import monotonic
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.rounds import RESULTS, ratio, write
from benchmarks.slices import Side, in_slices, standing_still
from hybridstitch.batch import seats as seating
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


@dataclass(frozen=True)
class Drawn:
    """What became of some jobs, in instants of `time.monotonic`.

    Attributes:
        pictures: drawn from then on.
        begun: when each worker began, all of them being warm.
        ended: when it had nothing left to draw.
        opening: from when to when all workers opened their pairs and drew something.
    """

    pictures: int
    begun: Sequence[float]
    ended: Sequence[float]
    opening: tuple[float, float]

    def opening_seconds(self, side: Side) -> float:
        """Of the side that drew them."""
        since, until = map(side.seconds, self.opening)
        return until - since

    def rate(self, side: Side) -> float:
        """Images a second in which the side that drew them went on."""
        return self.pictures / (mean(map(side.seconds, self.ended)) - mean(map(side.seconds, self.begun)))


@dataclass
class Arm:
    """One way to draw, with so many workers.

    Attributes:
        images_per_second: of each round.
        opening_seconds: before each round.
    """

    images_per_second: list[float] = field(default_factory=list)
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


def mapped(executor: Seats, groups: Sequence[AttemptGroup]) -> list[float]:
    """Instants at which an executor's pictures were there, in turn."""
    ended = []
    for outcome in executor.map(groups):
        if outcome.row.status != "done":
            raise SystemExit(f"a picture was not drawn: {outcome.row.message}")
        ended.append(monotonic())
    return ended


@contextmanager
def seats(way: str, desk: Desk, workers: int) -> Iterator[Seats]:
    """The executor of the batch command; who stands still is not late, so nobody draws a picture a second time."""
    seating.LATE_SECONDS = 1e6
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


def all_open(executor: Seats, setting: BatchSetting, workers: int, steps: int) -> tuple[float, float]:
    """From when to when every worker opens its pair, and draws a picture."""
    begun, seed = monotonic(), WARM
    while len(executor._opened) < workers:
        mapped(executor, groups_of(setting, workers, steps, seed))
        seed += workers
    mapped(executor, groups_of(setting, 2 * workers, steps, seed))
    return begun, monotonic()


def with_seats(executor: Seats, workers: int, groups: Sequence[AttemptGroup], opening: tuple[float, float]) -> Drawn:
    """All groups, by open workers; the last pictures are of a worker each."""
    begun = monotonic()
    ended = mapped(executor, groups)[-workers:]
    return Drawn(pictures=len(groups), begun=[begun], ended=ended, opening=opening)


def with_ray_data(desk: Desk, workers: int, groups: Sequence[AttemptGroup], warm: AttemptGroup) -> Drawn:
    """All groups, by actors that each call makes anew; what is drawn before the last one is open is not counted."""
    import ray  # pyright: ignore[reportMissingImports]

    class Actor:
        def __init__(self) -> None:
            self.worker, self.place = desk.worker(), os.getpid()
            self.worker.do(warm)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            begun = monotonic()
            for k in batch["item"]:
                assert self.worker.do(groups[int(k)])[0].row.status == "done"
            return {"begun": np.array([begun]), "ended": np.array([monotonic()]), "place": np.array([self.place])}

    start = monotonic()
    rows: list[dict[str, Any]] = (
        ray.data.from_items(list(range(len(groups))), override_num_blocks=len(groups))
        .map_batches(Actor, batch_size=1, num_cpus=1, compute=ray.data.ActorPoolStrategy(size=workers))
        .take_all()
    )
    by_place = [[row for row in rows if row["place"] == place] for place in {row["place"] for row in rows}]
    since = max(min(row["begun"] for row in each) for each in by_place)  # from here on all of them draw
    late = [[row for row in each if row["begun"] >= since] for each in by_place]
    return Drawn(
        pictures=sum(map(len, late)),
        begun=[min(row["begun"] for row in each) for each in late],
        ended=[max(row["ended"] for row in each) for each in late],
        opening=(start, since),
    )


@contextmanager
def arm(way: str, workers: int, steps: int, folder: Path) -> Iterator[Callable[[tuple[int, int]], Drawn]]:
    """What draws so many pictures from a seed on."""
    named = Pair.of("mini", None)
    setting = BatchSetting(
        pair="mini", small=None, models=named.models, device="cpu", dtype="float32", versions=versions()
    )
    studio = JobStudio(named=named, policy=LargeOnly(), dtype="float32", engine=PLAIN)
    desk = Desk(out=folder, setting=setting, device="cpu", open=studio)
    with ExitStack() as stack:
        if way != "here":
            from hybridstitch.batch.on_ray import connected

            stack.enter_context(connected("local"))
        if way == "ray.data":
            (warm,) = groups_of(setting, 1, steps, WARM)
            yield lambda told: with_ray_data(desk, workers, groups_of(setting, told[0], steps, told[1]), warm)
        else:
            executor = stack.enter_context(seats(way, desk, workers))
            opening = all_open(executor, setting, workers, steps)
            yield lambda told: with_seats(executor, workers, groups_of(setting, told[0], steps, told[1]), opening)


def measure(folder: Path, pictures: int, steps: int, rounds: int) -> dict[str, Arm]:
    """All ways with 1 and 2 workers, each of which draws so many pictures a round."""
    arms = {(way, workers): Arm() for workers in WORKERS for way in WAYS}
    names = {key: "{} {}".format(*key) for key in arms}
    opens = {}
    for (way, workers), name in names.items():
        (folder / name).mkdir()
        opens[name] = partial(arm, way, workers, steps, folder / name)
    with standing_still(opens) as sides:
        for k in range(rounds):
            told = {names[way, workers]: (pictures * workers, 1000 * (k + 1)) for way, workers in arms}
            drawn = in_slices(sides, told)
            for key, name in names.items():
                arms[key].images_per_second.append(drawn[name].rate(sides[name]))
                arms[key].opening_seconds.append(drawn[name].opening_seconds(sides[name]))
                print(f"round {k + 1}/{rounds} {name}: {arms[key].images_per_second[-1]:.3f} images/s", flush=True)
    return {names[key]: each for key, each in arms.items()}


def driver(folder: Path, jobs: int) -> dict[str, list[float]]:
    """Seconds of the driver for a picture that costs nothing: kept by the workers, or sent back, small and large."""
    setting = BatchSetting(pair="-", small=None, models={}, device="cpu", dtype="float32", versions=versions())
    found: dict[str, list[float]] = {}
    for name, side, sends in (("kept there", 8, False), ("sent, 0.2 kB", 8, True), ("sent, 1.5 MB", 700, True)):
        out = folder / f"driver-{name.replace(' ', '-').replace(',', '').replace('.', '')}"
        out.mkdir()
        desk = Desk(out=out, setting=setting, device="cpu", open=Nothing(side), sends=sends)
        with seats("ray", desk, 2) as executor:
            all_open(executor, setting, 2, 1)
            found[name] = []
            for k in range(3):
                begun = monotonic()
                found[name].append((mapped(executor, groups_of(setting, jobs, 1, 1000 * k))[-1] - begun) / jobs)
        print(f"driver, {name}: {1000 * median(found[name]):.2f} ms a picture", flush=True)
    return found


def table(arms: Mapping[str, Arm]) -> list[dict[str, Any]]:
    """Medians, and those of ratios within a round."""
    rates = {name: arm.images_per_second for name, arm in arms.items()}
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
    parser.add_argument("--pictures", type=int, default=24, help="of a worker in a round")
    parser.add_argument("--steps", type=int, default=20, help="of a picture")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: one thread a worker")
    os.environ |= {"RAY_worker_niceness": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    os.environ |= {"RAY_health_check_failure_threshold": "1000"}  # who stands still is not dead
    from hybridstitch.batch.on_ray import connected

    folder = Path(tempfile.mkdtemp())
    try:
        arms = measure(folder, args.pictures, args.steps, args.rounds)
        with connected("local"):
            paid = driver(folder, 200)
    finally:
        shutil.rmtree(folder)
    about = {"pictures": args.pictures, "steps": args.steps, "rounds": args.rounds}
    raw = {"drawing": {name: asdict(arm) for name, arm in arms.items()}, "driver": paid}
    write(args.out, "scale", table(arms), raw, **about)


if __name__ == "__main__":
    main()
