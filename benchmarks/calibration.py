"""Does a calibrated pair keep its word? Requested against delivered speed, the paper's rows at that speed, closeness.

Calibrations with 8 prompts each (one a seed), then held-out prompts that none of them saw:

1. For each requested speed: the policy that the first recipe serves, its speed in real calls that take turns with the
   large model's, and its closeness, paired with every row of the paper at the same price. A row at a speed is its
   stages with all its switches moved by one factor (the paper's own lie where `reproduce.implied` says), as a program,
   so that every picture has the same price; a row that cannot be that fast is named.
2. For each requested closeness and each seed: the mean closeness of the served policy over the held-out prompts.

    python -m benchmarks.calibration --prompts 64

writes `docs/results/calibration/` (raw.csv, table.json, table.md, a recipe a seed). What was drawn is kept in
`--state`, so that a run goes on where it was stopped; what it will take is said first.
"""

import argparse
import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

import hybridstitch
from benchmarks.machine import machine
from hybridstitch.batch.crew import Crew, processes
from hybridstitch.batch.heap import keep_freed_memory
from hybridstitch.calibrate import calibrate
from hybridstitch.calibrate.compare import Comparer, Comparison, Score
from hybridstitch.calibrate.conditions import Conditions, home_of, native_size
from hybridstitch.calibrate.search import draw
from hybridstitch.calibrate.state import State
from hybridstitch.measure.intervals import mean_interval
from hybridstitch.measure.price import Prices
from hybridstitch.mini.scenes import heldout_prompts
from hybridstitch.policies.methods import HybridStitch, LargeOnly, Schedule
from hybridstitch.policies.parse import parse
from hybridstitch.policies.policy import Policy
from hybridstitch.policies.presets import PRESETS, TABLE_1, TABLE_2, TABLE_3
from hybridstitch.recipe import Recipe, RecipeError
from hybridstitch.recipe.file import DELIVERED
from hybridstitch.reproduce.implied import shares

STEPS, GUIDANCE = 50, 4.0
SPEEDS = (1.5, 1.8, 2.2, 2.8)
CLOSENESS = (0.8, 0.85, 0.9, 0.95, 0.98)
SEARCHED = 8  # prompts of a calibration
NEAR = 0.04  # how far, in shares, a row's price may be from the requested speed


@dataclass(frozen=True, slots=True)
class Asked:
    """What is drawn: a policy at a step count, and for which request."""

    name: str
    policy: Policy
    steps: int


def row_at(name: str, speed: float, prices: Prices) -> Asked | None:
    """A row of the paper at a speed: its switches moved by the one factor whose price is nearest."""
    policy = PRESETS[name].policy
    base = name.removesuffix("-static").removesuffix("-full-large")
    switches = shares().get(base, (0.4,))
    budget = prices.seconds(LargeOnly(), STEPS) / speed
    moved = dict.fromkeys(_moved(policy, switches, part / 100) for part in range(1, 201))
    options = [(abs(prices.seconds(program, STEPS) / budget - 1), program) for program in moved if program is not None]
    off, program = min(options, key=lambda option: option[0])
    return Asked(name, program, STEPS) if off <= NEAR else None


def _moved(policy: Policy, switches: Sequence[float], factor: float) -> Schedule | None:
    """The program of a row whose switches, as shares of the steps, are multiplied by a factor."""
    if policy.name == "t-stitch":
        small = min(round(switches[0] * factor * STEPS), STEPS)
        return Schedule(f"S{small} L{STEPS - small}") if 0 < small < STEPS else None
    ends = [min(round(share * factor * STEPS), STEPS) for share in switches]
    counts = [ends[0], *(b - a for a, b in pairwise(ends)), STEPS - ends[-1]]
    if isinstance(policy, HybridStitch):
        names = ["L", *(f"H@{mask}" for mask in policy.masks), "S"]
        options: dict[str, Any] = {"update_mask": policy.update_mask, "masked_compute": policy.masked_compute}
    else:
        names, options = ["L", "S"], {}
    words = [f"{n[0]}{count}{n[1:]}" for n, count in zip(names, counts, strict=True) if count]
    return Schedule(" ".join(words), **options) if counts[0] >= 2 else None


class Bench:
    """A pair, what was drawn with it, and who draws."""

    def __init__(self, state: Path, prompts: Sequence[str], prices: Prices) -> None:
        """Open the miniature pair; go on with what a state file holds."""
        keep_freed_memory()
        self.pipe: Any = hybridstitch.open_pair("mini")
        self.pipe.set_progress_bar_config(disable=True)
        width, height = native_size(self.pipe)
        self.conditions = Conditions(width=width, height=height, steps=STEPS, guidance=GUIDANCE)
        self.prompts = tuple(prompts)
        self.comparer = Comparer(
            pipe=self.pipe, conditions=self.conditions, prompts=self.prompts, seed=0, prices=prices
        )
        models = home_of(self.pipe, self.conditions).models
        self.state = State(state, {"prompts": self.prompts, "models": dict(models), "steps": STEPS})

    def draw(self, asked: Iterable[Asked]) -> None:
        """Draw what is not drawn yet, on all cores, each prompt's shared steps once."""
        wanted = {(one.steps, str(one.policy)) for one in asked}
        whole, rest = [], []
        for prompt in range(len(self.prompts)):
            left = sorted(w for w in wanted if (prompt, *w) not in self.state.scores)
            at_reference = tuple(policy for steps, policy in left if steps == STEPS)
            if prompt not in self.state.references:
                whole.append(Comparison(prompt, STEPS, ("large", *(p for p in at_reference if p != "large"))))
            elif at_reference:
                rest.append(Comparison(prompt, STEPS, at_reference))
            for steps in {steps for steps, _ in left} - {STEPS}:
                rest.append(Comparison(prompt, steps, tuple(policy for at, policy in left if at == steps)))
        with Crew(lambda: self.comparer, processes(self.pipe.transformer.large.device)) as crew:
            done, start = 0, perf_counter()
            for tasks in (whole, rest):
                jobs = [(task, self.state.references.get(task.prompt)) for task in tasks]
                for place, (scores, made) in crew.map(draw, jobs):
                    self.state.add_scores(scores, None if made is None else (tasks[place].prompt, made))
                    done += 1
                    share = done / (len(whole) + len(rest))
                    left = (perf_counter() - start) * (1 / share - 1)
                    print(f"\rdrawing {done}/{len(whole) + len(rest)}, {left / 60:.1f} min left ", end="", flush=True)
        print()

    def time(self, asked: Sequence[Asked], count: int) -> None:
        """Time real calls of these and of the large model, in turn, one round a prompt."""
        rounds = [Asked("large", LargeOnly(), STEPS), *asked]
        for prompt in range(count):
            for one in rounds:
                if prompt not in self.state.timed.get((one.steps, str(one.policy)), {}):
                    taken = self.conditions.draw(self.pipe, self.prompts[prompt], one.policy, one.steps, prompt)
                    self.state.add_time(one.steps, str(one.policy), prompt, taken.total_seconds)
            print(f"\rtiming {prompt + 1}/{count} ", end="", flush=True)
        print()

    def scores(self, one: Asked) -> list[Score]:
        """Of every prompt, in order."""
        return [self.state.scores[prompt, one.steps, str(one.policy)] for prompt in range(len(self.prompts))]

    def speed(self, one: Asked, count: int) -> float:
        """Of real calls: total seconds of the large model over total seconds."""
        large, mine = self.state.timed[STEPS, "large"], self.state.timed[one.steps, str(one.policy)]
        return sum(large[prompt] for prompt in range(count)) / sum(mine[prompt] for prompt in range(count))


def recipes(out: Path, seeds: int, exclude: Sequence[str]) -> tuple[list[Recipe], list[float]]:
    """A recipe for each seed, from the folder or measured now; and the seconds that measuring took."""
    found, seconds = [], []
    for seed in range(seeds):
        path, start = out / f"recipe-{seed}.json", perf_counter()
        if not path.is_file():
            pipe = hybridstitch.open_pair("mini")
            pipe.set_progress_bar_config(disable=True)
            prompts = [p for p in heldout_prompts(4 * SEARCHED, seed=1000 + seed) if p not in exclude][:SEARCHED]
            told = partial(print, end="", flush=True)
            calibrate(
                pipe,
                prompts,
                steps=STEPS,
                guidance=GUIDANCE,
                seed=100 * seed,
                state=out / f".recipe-{seed}.state",
                on_progress=lambda share, doing, seed=seed, told=told: told(f"\rseed {seed}: {share:4.0%} {doing:40}"),
            ).save(path)
            print()
            (out / f".recipe-{seed}.state").unlink()
            seconds.append(perf_counter() - start)
        found.append(Recipe.load(path))
    return found, seconds


def speeds(bench: Bench, recipe: Recipe, names: Sequence[str], timed: int) -> list[dict[str, Any]]:
    """Part 1."""
    served: dict[float, Asked] = {}
    refused: dict[float, str] = {}
    for speed in SPEEDS:
        try:
            point = recipe.at(speed=speed)
            served[speed] = Asked("served", parse(point.policy), point.steps)
        except RecipeError as error:
            refused[speed] = str(error)
    rivals = {speed: {name: row_at(name, speed, recipe.prices) for name in names} for speed in served}
    bench.draw([*served.values(), *(r for rows in rivals.values() for r in rows.values() if r is not None)])
    bench.time(list(served.values()), timed)
    lines: list[dict[str, Any]] = [{"requested": speed, "refused": reason} for speed, reason in refused.items()]
    for speed, one in served.items():
        mine = [score.closeness for score in bench.scores(one)]
        delivered = bench.speed(one, timed)
        rows = {}
        for name, rival in rivals[speed].items():
            if rival is None:
                rows[name] = {"unreachable": True}
                continue
            theirs = [score.closeness for score in bench.scores(rival)]
            ahead = mean_interval([a - b for a, b in zip(mine, theirs, strict=True)])
            dB = mean_interval([a.psnr - b.psnr for a, b in zip(bench.scores(one), bench.scores(rival), strict=True)])
            rows[name] = {"program": str(rival.policy), "closeness": mean(theirs), "ahead": ahead, "ahead_dB": dB}
        lines.append(
            {
                "requested": speed,
                "policy": str(one.policy),
                "steps": one.steps,
                "delivered": delivered,
                "within": abs(delivered / speed - 1) <= DELIVERED,
                "closeness": mean_interval(mine),
                "rows": rows,
            }
        )
    return lines


def closeness(bench: Bench, found: Sequence[Recipe]) -> list[dict[str, Any]]:
    """Part 2."""
    served = {}
    for seed, recipe in enumerate(found):
        for wanted in CLOSENESS:
            point = recipe.at(closeness=wanted)
            served[seed, wanted] = (Asked("served", parse(point.policy), point.steps), point)
    bench.draw([one for one, _ in served.values()])
    lines = []
    for (seed, wanted), (one, point) in served.items():
        reached = mean_interval([score.closeness for score in bench.scores(one)])
        lines.append(
            {
                "seed": seed,
                "requested": wanted,
                "policy": str(one.policy),
                "steps": one.steps,
                "speed": point.speed,
                "promised": point.closeness.low,
                "reached": reached,
                "met": reached.mean >= wanted,
            }
        )
    return lines


def estimate(prompts: int, timed: int, names: int, prices: Prices, cores: int) -> float:
    """Minutes, roughly: pictures (a row shares half of its steps with the large model), then timed calls."""
    picture = prices.seconds(LargeOnly(), STEPS)
    pictures = prompts * picture * (1 + sum((0.5 * names + 1) / speed for speed in SPEEDS) + 2) / cores
    calls = timed * picture * (1 + sum(1 / speed for speed in SPEEDS))
    return (pictures + calls) / 60


def markdown(report: dict[str, Any]) -> str:
    """The tables as a page shows them."""
    out = ["| requested | served | delivered | within 5 % | closeness | closest row of the paper | ahead of it by |"]
    out.append("|---|---|---|---|---|---|---|")
    for line in report["speeds"]:
        if "refused" in line:
            out.append(f"| {line['requested']} | refused: {line['refused']} | | | | | |")
            continue
        rows = {name: row for name, row in line["rows"].items() if "ahead" in row}
        best = max(rows, key=lambda name: rows[name]["closeness"])
        out.append(
            f"| {line['requested']} | `{line['policy']}` in {line['steps']} | {line['delivered']:.3f} "
            f"| {'yes' if line['within'] else 'no'} | {line['closeness']} | {best}, {rows[best]['closeness']:.3f} "
            f"| {rows[best]['ahead']} |"
        )
    out += [
        "",
        "| row of the paper | " + " | ".join(f"ahead at {line['requested']}" for line in report["speeds"]) + " |",
    ]
    out.append("|---" * (1 + len(report["speeds"])) + "|")
    for name in report["names"]:
        cells = []
        for line in report["speeds"]:
            row = line.get("rows", {}).get(name, {})
            cells.append(str(row["ahead"]) if "ahead" in row else "cannot be that fast")
        out.append(f"| {name} | {' | '.join(cells)} |")
    out += ["", "| closeness requested | met | speed, median | reached, by seed |", "|---|---|---|---|"]
    for wanted in CLOSENESS:
        mine = [line for line in report["closeness"] if line["requested"] == wanted]
        reached = ", ".join(f"{line['reached'].mean:.3f}" for line in mine)
        speed = median(line["speed"] for line in mine)
        out.append(f"| {wanted} | {sum(line['met'] for line in mine)} of {len(mine)} | {speed:.2f} | {reached} |")
    return "\n".join(out) + "\n"


def main() -> None:
    """Calibrate, draw, time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=64, help="held-out prompts")
    parser.add_argument("--timed", type=int, default=16, help="of them, how many are drawn by timed calls")
    parser.add_argument("--seeds", type=int, default=5, help="calibrations")
    parser.add_argument("--rows", choices=("all", "main"), default="all", help="main: without Table 2's ablations")
    parser.add_argument("--out", type=Path, default=Path("docs/results/calibration"))
    parser.add_argument("--state", type=Path, default=Path("out/calibration.state"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    args.state.parent.mkdir(parents=True, exist_ok=True)
    presets = (*TABLE_1, *(TABLE_2 if args.rows == "all" else ()), *TABLE_3)
    names = [preset.name for preset in presets if preset.name != "large"]
    timed = min(args.timed, args.prompts)
    prompts = heldout_prompts(args.prompts)
    print(f"{args.seeds} calibrations of at most 3 minutes each", flush=True)
    found, seconds = recipes(args.out, args.seeds, prompts)
    bench = Bench(args.state, prompts, found[0].prices)
    cores = processes(bench.pipe.transformer.large.device)
    minutes = estimate(args.prompts, timed, len(names), found[0].prices, cores)
    print(f"pictures and timed calls: about {ceil(minutes)} minutes on {cores} core(s)", flush=True)
    report: dict[str, Any] = {"machine": machine(), "names": names, "prompts": args.prompts, "timed": timed}
    report["calibration_seconds"] = seconds
    report["closeness"] = closeness(bench, found)
    report["speeds"] = speeds(bench, found[0], names, timed)
    (args.out / "table.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (args.out / "table.md").write_text(markdown(report), encoding="utf-8")
    with (args.out / "raw.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "steps", "policy", "closeness", "psnr", "seconds_priced"])
        for score in bench.state.scores.values():
            writer.writerow(
                [score.prompt, score.steps, score.policy, f"{score.closeness:.5f}", f"{score.psnr:.3f}", score.seconds]
            )
    print(markdown(report))


if __name__ == "__main__":
    main()
