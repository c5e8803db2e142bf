"""What compiling costs and saves on the miniature pair: cold and warm pictures, graphs counted, h(M) compiled.

    python -m benchmarks.compile

draws with each engine (eager, whole, regional) from cold: the first picture of a process that never compiled, the first
one with compiled code found on disk, and the pictures after it, whose masks differ, with the graphs that were built on
the way. Then the strokes of all engines are timed in turn, a masked step beside a dense one of the same engine.
Writes `docs/results/compile.{json,md,png,svg}`.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from unittest import mock

import matplotlib.pyplot as plt
import torch
from torch._dynamo.utils import counters

import hybridstitch
from benchmarks.rounds import COLOURS, in_turn, parser, ratio, save, started, write
from hybridstitch import Engine
from hybridstitch.families.known import shape_of
from hybridstitch.measure.start import prepare
from hybridstitch.mini.scenes import heldout_prompts
from hybridstitch.policies.plan import Region

RATIOS, ALLOWED = (0.1, 0.2, 0.3, 0.4), 0.12
PROGRAM, STEPS, GUIDANCE = "L20% H30%@0.3 S*", 50, 4.0


@contextmanager
def empty_disk() -> Iterator[None]:
    """Compiled code goes to a folder of its own, which is empty."""
    with TemporaryDirectory() as folder, mock.patch.dict("os.environ", {"TORCHINDUCTOR_CACHE_DIR": folder}):
        yield


def picture(pipe: Any, prompt: str, seed: int) -> float:
    """Seconds of one picture."""
    start = perf_counter()
    pipe(
        prompt,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
    )
    return perf_counter() - start


def from_cold(pipe: Any, engine: Engine, prompts: list[str]) -> dict[str, Any]:
    """Seconds of first and later pictures, and the graphs built by then."""
    found: dict[str, Any] = {}
    with empty_disk():
        for name in ("first picture, s", "first picture with code on disk, s"):
            torch._dynamo.reset()
            counters.clear()
            pipe.transformer.engine = engine
            found[name] = picture(pipe, prompts[0], 0)
        graphs = counters["stats"]["unique_graphs"]
        later = [picture(pipe, prompt, seed) for seed, prompt in enumerate(prompts[1:], start=1)]
    found["later pictures, s"] = median(later)
    found["graphs"] = graphs
    found["built later"] = counters["stats"]["unique_graphs"] - graphs
    found["graph breaks"] = sum(counters["graph_break"].values())
    pipe.transformer.engine = Engine()
    return found


def strokes(pipe: Any, given: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Dense, small and masked strokes of one engine, text fresh and cached."""
    models = pipe.transformer.models
    tokens = models.large.layout.count(given["hidden_states"])
    rows = len(given["hidden_states"])
    memory = models.room(given)
    calls: dict[str, Callable[[], Any]] = {
        "dense": lambda: models.large.dense(given, memory=memory),
        "small": lambda: models.small(**given, return_dict=False),
    }
    for text in ("fresh", "cached"):
        for share in RATIOS:
            picked = torch.arange(models.engine.count(Region(share).count(tokens), tokens)).repeat(rows, 1)
            picked = picked.to(given["hidden_states"].device)
            calls[f"{text} {share}"] = lambda picked=picked, text=text: models.large.masked(
                given, picked, memory, None, text=text
            )
    return calls


def plot(table: list[dict[str, Any]], args: Any) -> None:
    """h(M) of each engine."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True)
    for axis, text in zip(axes, ("fresh", "cached"), strict=True):
        rows = [row for row in table if (row["engine"], row["text"]) == ("eager", text)]
        axis.plot([r["M"] for r in rows], [r["ideal"] for r in rows], ":", color="0.4", label="its operations")
        for colour, engine in zip(COLOURS, dict.fromkeys(row["engine"] for row in table), strict=False):
            rows = [row for row in table if (row["engine"], row["text"]) == (engine, text)]
            axis.plot([r["M"] for r in rows], [r["h(M)"] for r in rows], "o-", color=colour, label=engine)
        axis.set(title=f"text {text}", xlabel="M")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("h(M), dense steps of the engine")
    axes[0].legend(fontsize=8)
    save(figure, args.out / "compile")


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__, repeats=15)
    options.add_argument("--pictures", type=int, default=4, help="with each engine")
    options.add_argument("--images", type=int, default=1, help="of a step: what is read of the weights serves them all")
    options.add_argument("--snap", type=int, default=16)
    args = options.parse_args()
    if args.pictures < 2:
        options.error("--pictures: at least 2, the first one compiles")
    dtype = started(args)
    pipe = hybridstitch.open_pair("mini", policy=PROGRAM, device=args.device, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    engines = {"eager": Engine()}
    engines |= {kind: Engine(compile=kind, snap=args.snap) for kind in ("whole", "regional")}
    prompts = heldout_prompts(args.pictures)
    cold = []
    for name, engine in engines.items():
        cold.append({"engine": name, **from_cold(pipe, engine, prompts)})
        print(cold[-1], flush=True)
    write(args.out, "compile_cold", cold, None, program=PROGRAM, steps=STEPS)
    torch._dynamo.reset()
    start = prepare(pipe, prompts[0], steps=1, guidance=GUIDANCE)
    inputs = {
        name: value.repeat_interleave(args.images, 0) if isinstance(value, torch.Tensor) else value
        for name, value in start.calls[0].items()
    }
    rows = len(inputs["encoder_hidden_states"])
    given = {
        **inputs,
        "hidden_states": start.latent.repeat(rows, 1, 1, 1),
        "timestep": torch.full((rows,), 500.0, device=args.device),
    }
    calls = {}
    for name, engine in engines.items():
        twin = copy.deepcopy(pipe)
        twin.transformer.engine = engine
        calls |= {f"{name} {stroke}": call for stroke, call in strokes(twin, given).items()}
    raw = in_turn(calls, args.repeats, device=args.device, clock=args.clock)
    large = pipe.transformer.large
    tokens = pipe.transformer.family.layout.count(start.latent)
    shape = shape_of(large, tokens, start.calls[0]["encoder_hidden_states"].shape[1])
    table = []
    for name, engine in engines.items():
        faster = ratio(raw["eager dense"], raw[f"{name} dense"])
        small = ratio(raw[f"{name} small"], raw[f"{name} dense"])
        for text in ("fresh", "cached"):
            for share in RATIOS:
                count = engine.count(Region(share).count(tokens), tokens)
                cost = ratio(raw[f"{name} {text} {share}"], raw[f"{name} dense"])
                line = {"engine": name, "dense speedup": faster, "s": small, "text": text, "M": share, "K": count}
                ideal = shape.flops(count, text=text) / shape.flops()
                holds = "yes" if cost <= share + ALLOWED else "no"
                table.append({**line, "h(M)": cost, "ideal": ideal, "above M": cost - share, "holds": holds})
    write(args.out, "compile", table, raw, clock=args.clock, images=args.images, cold=cold)
    plot(table, args)


if __name__ == "__main__":
    main()
