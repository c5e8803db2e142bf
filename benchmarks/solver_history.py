"""A solver's history across a switch of models: is it better kept or forgotten?

UniPC and DPM-Solver++ of second order step by the predictions of two steps. Right after a switch the older of them is
the other model's. Kept, the solver goes on as if nothing had happened; forgotten, its next step is of first order, as
at the start, and UniPC does not correct the step before. Closeness is to the large model alone under the same solver.

    python -m benchmarks.solver_history      32 prompts, 10 steps; run again, it goes on where it was stopped

writes `docs/results/solver_history.json` and prints the table.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

import hybridstitch
from benchmarks.machine import machine
from hybridstitch import Engine, Schedule
from hybridstitch.evaluate.closeness import capped_psnr, ssim
from hybridstitch.evaluate.pictures import Picture
from hybridstitch.measure.intervals import mean_interval, paired_interval
from hybridstitch.mini.scenes import heldout_prompts
from hybridstitch.policies.program import segment_at

GUIDANCE = 4.0
SOLVERS: dict[str, Any] = {"UniPC": UniPCMultistepScheduler, "DPM-Solver++": DPMSolverMultistepScheduler}
POLICIES = (
    Schedule("L30% S*"), Schedule("S40% L*"), Schedule("L30% H40%@0.3 S*"),
    Schedule("L30% H40%@0.3 S*", carry=0.95, follow=0.25),
)  # fmt: skip
SCORES = {"psnr": capped_psnr, "ssim": ssim}


def switches(program: str, steps: int) -> set[int]:
    """Steps that others draw than the step before."""
    stages = [segment_at(program, step, steps)[0] for step in range(steps)]
    return {step for step in range(1, steps) if stages[step] != stages[step - 1]}


def forget(scheduler: Any) -> None:
    """Let the next step be of first order."""
    scheduler.lower_order_nums = 0
    if isinstance(scheduler, UniPCMultistepScheduler):
        scheduler.last_sample = None


def draw(pipe: Any, policy: Schedule, prompt: str, seed: int, *, steps: int, forgets: bool) -> Picture:
    """One picture."""
    pipe.transformer.policy = policy
    new = switches(policy.program, steps) if forgets else set()

    def tell(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step + 1 in new:
            forget(pipe.scheduler)
        return tensors

    drawn = pipe(
        prompt, num_inference_steps=steps, guidance_scale=GUIDANCE, generator=torch.Generator().manual_seed(seed),
        callback_on_step_end=tell,
    )  # fmt: skip
    return np.asarray(drawn.images[0])


def main() -> None:
    """Draw, score, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("docs/results/solver_history.json"))
    args = parser.parse_args()
    pipe = hybridstitch.open_pair("mini", policy="large", engine=Engine(history="keep"))
    pipe.set_progress_bar_config(disable=True)
    shift = pipe.scheduler.config["shift"]
    facts = {"machine": machine(), "steps": args.steps, "guidance": GUIDANCE, "shift": shift}
    rows: list[dict[str, Any]] = json.loads(args.out.read_text("utf-8"))["rows"] if args.out.exists() else []
    done = {row["image"] for row in rows}
    for index, prompt in enumerate(heldout_prompts(args.prompts)):
        if index in done:
            continue
        for solver, kind in SOLVERS.items():
            pipe.scheduler = kind(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
            reference = draw(pipe, Schedule("L*"), prompt, index, steps=args.steps, forgets=False)
            for policy in POLICIES:
                row: dict[str, Any] = {"image": index, "prompt": prompt, "solver": solver, "policy": str(policy)}
                for history, forgets in (("kept", False), ("forgotten", True)):
                    picture = draw(pipe, policy, prompt, index, steps=args.steps, forgets=forgets)
                    row[history] = {name: score(picture, reference) for name, score in SCORES.items()}
                rows.append(row)
        args.out.write_text(json.dumps({**facts, "rows": rows}, indent=1), encoding="utf-8")
        print(f"{index + 1}/{args.prompts}", flush=True)
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Means, and what forgetting changes, prompt by prompt, with 95 % intervals."""
    lines = ["| solver | policy | score | kept | forgotten | forgotten − kept |", "|---|---|---|---|---|---|"]
    for solver in SOLVERS:
        for policy in map(str, POLICIES):
            mine = [row for row in rows if (row["solver"], row["policy"]) == (solver, policy)]
            for score in SCORES:
                kept, forgotten = ([row[history][score] for row in mine] for history in ("kept", "forgotten"))
                cells = (mean_interval(kept), mean_interval(forgotten), paired_interval(forgotten, kept))
                lines.append(f"| {solver} | `{policy}` | {score.upper()} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
