"""Does a calibrated pair keep its word, and is what it serves the best there is?

One calibration, then held-out prompts that it did not see:

1. For each requested speed: the plan that the recipe serves, its speed in real calls that take turns with the large
   model's, and its closeness, paired with that of every rival at the same time: the paper's rows, each with its
   switches moved by one factor; FlowBlending; region-adaptive drawing; the small model; the large one with fewer steps,
   at stock levels and at the best that the search found for it; `skip`.
2. The same at the times of the presets that have one, by real calls in rounds of their own, and of cache-dit where it
   is installed.
3. For each requested closeness the mean over the held-out prompts.

Every rival draws the first 16 prompts. One that the served plan is ahead of there by more than four standard errors, in
SSIM and in PSNR, is settled; every other draws all of them. A row says of how many prompts it is.

    python -m benchmarks.calibration --prompts 64
    python -m benchmarks.calibration --prompts 24 --speeds 3 5 8 --guidance 1.5 --out docs/results/calibration/guidance
    python -m benchmarks.calibration --prompts 24 --speeds 3 5 8 --size 128x96 --out docs/results/calibration/size
    python -m benchmarks.calibration --prompts 24 --speeds 1.5 2 3 --steps 8 --shift 5 --out docs/results/calibration/8

writes recipe.json, raw.csv, table.json and table.md. What was drawn is kept in `--state`, so that a run goes on where
it was stopped. `--known raw.csv` takes scores of an earlier run of the same prompts in the same setting: they do not
depend on the clock. Times want a machine that does nothing else, pictures do not: `--only calibrate` ends before calls
are timed, `--only time` before pictures are drawn.
"""

import argparse
import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from time import perf_counter
from typing import Any

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler

import hybridstitch
from benchmarks.calibration.known import known
from benchmarks.calibration.page import markdown
from benchmarks.calibration.rivals import Bracket, around, fixed, rivals
from benchmarks.machine import machine
from hybridstitch.batch.heap import keep_freed_memory
from hybridstitch.calibrate import calibrate
from hybridstitch.calibrate.board import Board
from hybridstitch.calibrate.compare import Comparer, Score
from hybridstitch.calibrate.conditions import Conditions, home_of, native_size
from hybridstitch.calibrate.plans import Candidate
from hybridstitch.calibrate.state import State
from hybridstitch.evaluate.closeness import capped_psnr, ssim
from hybridstitch.measure.intervals import mean_interval
from hybridstitch.mini.scenes import heldout_prompts
from hybridstitch.policies.methods import LargeOnly
from hybridstitch.policies.parse import parse
from hybridstitch.recipe import Point, Recipe, RecipeError
from hybridstitch.recipe.file import DELIVERED
from hybridstitch.reproduce import caches

SPEEDS = (1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 16.0)
CLOSENESS = (0.8, 0.85, 0.9, 0.95, 0.98)
SEARCHED = 8  # prompts of the calibration
FIRST = 16  # prompts every rival draws
SURE = 4.0  # standard errors
SEED = 1000  # of them


class Bench:
    """A pair, its recipe, and what was drawn with it."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Open the miniature pair, calibrate it, and go on with what a state file holds."""
        keep_freed_memory()
        self.kept: Path = args.state
        self.pipe: Any = hybridstitch.open_pair("mini", "large")
        self.pipe.set_progress_bar_config(disable=True)
        if args.shift is not None:
            self.pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=args.shift)
            self.pipe.transformer.follow(self.pipe)
        native = native_size(self.pipe)
        size = (native[-1], native[-2])
        if args.size:
            width, _, height = args.size.partition("x")
            size = (int(width), int(height))
        self.conditions = Conditions(width=size[0], height=size[1], steps=args.steps, guidance=args.guidance)
        self.prompts = tuple(heldout_prompts(args.prompts))
        self.recipe, self.seconds = self._recipe(args.out, size)
        comparer = Comparer(
            pipe=self.pipe, conditions=self.conditions, prompts=self.prompts, seed=0, prices=self.recipe.prices
        )
        models = home_of(self.pipe, self.conditions).models
        of = {"prompts": self.prompts, "models": dict(models), "setting": str(self.conditions), "shift": args.shift}
        self.board = Board(comparer, State(args.state, of), lambda share, doing: print(f"\r{share:4.0%} ", end=""))
        if args.known is not None:
            drawn = self.board.state.scores
            found = known(args.known, range(args.prompts), self.cost)
            self.board.state.add_scores([s for s in found if (s.prompt, s.steps, s.text) not in drawn], None)

    def _recipe(self, out: Path, size: tuple[int, int]) -> tuple[Recipe, float | None]:
        """From the folder, or measured now; and the seconds that measuring took, if that is known."""
        path, start, took = out / "recipe.json", perf_counter(), self.kept.with_suffix(".seconds")
        whole = not (out / ".recipe.state").exists()
        if path.is_file():
            print(f"with the recipe that lies in {path}; remove it to calibrate anew", flush=True)
            return Recipe.load(path), float(took.read_text()) if took.is_file() else None
        prompts = [p for p in heldout_prompts(4 * SEARCHED, seed=SEED) if p not in self.prompts][:SEARCHED]
        calibrate(
            self.pipe,
            prompts,
            steps=self.conditions.steps,
            guidance=self.conditions.guidance,
            size=size,
            state=out / ".recipe.state",
            on_progress=lambda share, doing: print(f"\rcalibrating: {share:4.0%} {doing:40}", end="", flush=True),
        ).save(path)
        (out / ".recipe.state").unlink()
        seconds = perf_counter() - start
        took.unlink(missing_ok=True)
        if whole:
            took.write_text(f"{seconds}\n", encoding="utf-8")
        return Recipe.load(path), seconds if whole else None

    def cost(self, one: Candidate) -> float:
        """Seconds by the recipe's prices."""
        return self.recipe.prices.seconds(one.policy, one.steps)

    def scores(self, one: Candidate) -> list[Score]:
        """Of the prompts it drew, in order."""
        drawn = self.board.state.scores
        count = next((p for p in range(len(self.prompts)) if (p, one.steps, one.text) not in drawn), len(self.prompts))
        return list(self.board.row(one, range(count)).scores)

    def draw(self, candidates: Sequence[Candidate], prompts: Iterable[int]) -> None:
        """Held-out prompts, on all cores."""
        with self.board.crew():
            for prompt in prompts:
                self.board.evaluate([self.board.reference, *candidates], [prompt], (0.0, 1.0))
                print(f"\rprompt {prompt + 1}/{len(self.prompts)} ", end="", flush=True)
        print()

    def time(self, candidates: Sequence[Candidate], turns: range) -> dict[Candidate, float]:
        """Speeds of real calls that take turns with the large model's, a prompt each: medians."""
        rounds = [self.board.reference, *candidates]
        for turn in turns:
            for one in rounds:
                if turn not in self.board.state.timed.get((one.steps, one.text), {}):
                    noise = {"shift": one.shift, "levels": one.levels}
                    text = self.prompts[turn % len(self.prompts)]
                    taken = self.conditions.draw(self.pipe, text, one.policy, one.steps, turn, **noise)
                    self.board.state.add_time(one.steps, one.text, turn, taken.total_seconds)
            print(f"\rtiming {turn + 1 - turns.start}/{len(turns)} ", end="", flush=True)
        print()
        taken = {one: self.board.state.timed[one.steps, one.text] for one in rounds}
        large = taken[self.board.reference]
        return {one: median(large[turn] / taken[one][turn] for turn in turns) for one in candidates}

    def cached(self, count: int) -> dict[str, Any]:
        """cache-dit on the first prompts: its speed and scores; of an earlier run, if it was timed there."""
        known = self.kept.with_suffix(".cached.json")
        if known.is_file():
            return json.loads(known.read_text(encoding="utf-8"))
        speeds, closeness, psnr = [], [], []
        for prompt in range(count):
            setting = {"steps": self.conditions.steps, "guidance": self.conditions.guidance, "seed": prompt}
            taken = caches.call(self.pipe, self.prompts[prompt], **setting, **self.conditions.size)
            large = self.conditions.draw(self.pipe, self.prompts[prompt], LargeOnly(), self.conditions.steps, prompt)
            speeds.append(large.total_seconds / taken.total_seconds)
            mine, reference = np.asarray(taken.image), np.asarray(large.image)
            closeness.append(ssim(mine, reference))
            psnr.append(capped_psnr(mine, reference))
        found = {"speed": median(speeds), "closeness": closeness, "psnr": psnr}
        known.write_text(json.dumps(found), encoding="utf-8")
        return found


def candidate(point: Point) -> Candidate:
    """What a point draws."""
    return Candidate(parse(point.policy), point.steps, point.shift, point.levels)


def ahead(mine: Sequence[Score], closeness: Sequence[float], psnr: Sequence[float]) -> dict[str, Any]:
    """Paired differences over as many prompts as the rival drew."""
    pairs = zip(mine, closeness, psnr, strict=False)
    rows = [(one.closeness - c, one.psnr - p) for one, c, p in pairs]
    return {
        "closeness": mean(closeness),
        "psnr": mean(psnr),
        "ahead": mean_interval([a for a, _ in rows]),
        "ahead_dB": mean_interval([b for _, b in rows]),
    }


def ends(brackets: Iterable[Bracket]) -> list[Candidate]:
    """What they are between, each once."""
    return list(dict.fromkeys(one for bracket in brackets for one in (bracket.slower, bracket.faster)))


def settled(mine: Sequence[Score], rival: Bracket, bench: Bench) -> bool:
    """Whether a plan is surely ahead of a rival by the prompts that both drew."""
    for field in ("closeness", "psnr"):
        theirs = rival.mixed(bench.scores, field)
        ahead = [getattr(one, field) - other for one, other in zip(mine, theirs, strict=False)]
        if len(ahead) < 2 or mean(ahead) <= SURE * stdev(ahead) / len(ahead) ** 0.5:
            return False
    return True


def main() -> None:
    """Calibrate, draw, time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64, help="held-out prompts")
    parser.add_argument("--timed", type=int, default=16, help="rounds of timed calls")
    parser.add_argument("--speeds", type=float, nargs="+", default=SPEEDS)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--size", help="WIDTHxHEIGHT; default: the pair's own")
    parser.add_argument("--shift", type=float, help="of the scheduler; default: the pair's own")
    parser.add_argument("--out", type=Path, default=Path("docs/results/calibration"))
    parser.add_argument("--state", type=Path, help="default: beside the results, out/NAME.state")
    parser.add_argument("--known", type=Path, help="raw.csv of an earlier run of these prompts in this setting")
    parser.add_argument("--only", choices=("calibrate", "time"), help="end after this")
    args = parser.parse_args()
    args.state = args.state or Path("out") / f"{args.out.name}.state"
    for folder in (args.out, args.state.parent):
        folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    if args.only == "calibrate":
        return
    recipe, reference = bench.recipe, bench.board.seconds
    options = rivals(recipe, args.steps, bench.cost)
    own = dict(fixed())
    served: dict[str, tuple[float, Candidate]] = {}
    refused: dict[str, str] = {}
    wanted = {f"{speed:g}": speed for speed in args.speeds}
    stock = bench.cached(min(args.timed, args.prompts)) if caches.installed() and args.steps >= 10 else None
    owned = bench.time(list(own.values()), range(args.timed, 2 * args.timed))
    wanted |= {name: owned[one] for name, one in own.items()}
    if stock is not None:
        wanted["cache-dit"] = stock["speed"]
    for name, speed in wanted.items():
        try:
            served[name] = (speed, candidate(recipe.at(speed=speed)))
        except RecipeError as error:
            refused[name] = str(error)
    requested = {name: served[name][1] for name in map("{:g}".format, args.speeds) if name in served}
    delivered = bench.time(list(dict.fromkeys(requested.values())), range(args.timed))
    if args.only:
        return
    close = {wanted: candidate(recipe.at(closeness=wanted)) for wanted in CLOSENESS if _reaches(recipe, wanted)}
    brackets: dict[tuple[str, str], Bracket] = {}
    for name in requested:
        for rival, of in options.items():
            found = around(of, bench.cost(served[name][1]), bench.cost)
            if found is not None:
                brackets[name, rival] = found
    every, first = range(args.prompts), range(min(FIRST, args.prompts))
    mine = [one for _, one in served.values()]
    bench.draw(list(dict.fromkeys([*mine, *own.values(), *close.values()])), every)
    bench.draw(ends(brackets.values()), first)
    bench.draw(ends(b for (of, _), b in brackets.items() if not settled(bench.scores(served[of][1]), b, bench)), every)
    lines = []
    for name, (speed, one) in served.items():
        scores = bench.scores(one)
        rows = {
            rival: ahead(scores, b.mixed(bench.scores, "closeness"), b.mixed(bench.scores, "psnr"))
            for (of, rival), b in brackets.items()
            if of == name
        }
        if name in own:
            theirs = bench.scores(own[name])
            rows[name] = ahead(scores, [s.closeness for s in theirs], [s.psnr for s in theirs])
        if name == "cache-dit" and stock is not None:
            rows[name] = ahead(scores, stock["closeness"], stock["psnr"])
        lines.append(
            {
                "name": name,
                "requested": speed,
                "policy": str(one.policy),
                "steps": one.steps,
                "shift": one.shift,
                "levels": one.levels,
                "predicted": reference / bench.cost(one),
                "delivered": delivered.get(one) if name in requested else None,
                "within": name not in requested or abs(delivered[one] / speed - 1) <= DELIVERED,
                "closeness": mean_interval([score.closeness for score in scores]),
                "psnr": mean_interval([score.psnr for score in scores]),
                "rows": rows,
            }
        )
    report = {
        "machine": machine(),
        "setting": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "calibration_seconds": bench.seconds,
        "verdict": recipe.verdict,
        "speeds": lines,
        "refused": refused,
        "closeness": [
            {"requested": w, "reached": mean_interval([s.closeness for s in bench.scores(one)]), "policy": one.text}
            for w, one in close.items()
        ],
    }
    (args.out / "table.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (args.out / "table.md").write_text(markdown(report), encoding="utf-8")
    with (args.out / "raw.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "steps", "plan", "closeness", "psnr", "seconds_priced"])
        for score in bench.board.state.scores.values():
            values = (f"{score.closeness:.5f}", f"{score.psnr:.3f}", f"{score.seconds:.5f}")
            writer.writerow([score.prompt, score.steps, score.text, *values])
    print(markdown(report))


def _reaches(recipe: Recipe, closeness: float) -> bool:
    return any(point.closeness.low >= closeness for point in recipe.points)


if __name__ == "__main__":
    main()
