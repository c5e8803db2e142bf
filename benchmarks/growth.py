"""How time and memory grow: with tokens, batch, mask and steps, on random models of SD3's shape.

Time: a dense and a masked step of the large model and a step of the small one, in turn, beside their operations.
Memory: keys and values exactly, activations of a dense step as tensors hold them (`benchmarks.live`; on a GPU
`max_memory_allocated`), beside `Shape`'s formulas. Steps: whole runs of `L20% H30%@0.3 S*` against the large model.

    python -m benchmarks.growth

writes `docs/results/growth.{json,md,png,svg}`.
"""

from functools import partial
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import torch

from benchmarks.live import Live
from benchmarks.rounds import (
    COLOURS,
    POOLED,
    TEXT,
    TEXT_WIDTH,
    in_turn,
    inputs,
    parser,
    random_pair,
    random_sd3,
    ratio,
    save,
    started,
    write,
)
from hybridstitch.families.family import Family
from hybridstitch.families.known import shape_of
from hybridstitch.policies.plan import Region

SIZES, BATCHES, RATIOS, STEPS = (256, 512, 768, 1024), (1, 2, 4, 8), (0.05, 0.1, 0.2, 0.3, 0.4, 0.6), (10, 20, 30, 50)
SIZE, SHARE, PROGRAM = 512, 0.3, "L20% H30%@0.3 S*"
Raw = dict[str, list[float]]
PANELS = {"tokens": "image tokens", "batch": "images at once", "mask": "M", "steps": "steps"}


@torch.no_grad()
def step(pipe: Any, setting: tuple[int, int, float], args: Any, dtype: torch.dtype) -> tuple[dict[str, Any], Raw]:
    """Seconds of the three strokes at latent side, images and M, their ideal ratio, and memory; and all seconds."""
    side, images, share = setting
    family: Family = pipe.transformer.family
    given = inputs(side, images, device=args.device, dtype=dtype)
    tokens = (side // 2) ** 2
    memory = family.room(given)
    family.dense(given, memory=memory)
    picked = torch.randperm(tokens)[: Region(share).count(tokens)].sort().values.to(args.device).repeat(images, 1)
    raw = in_turn(
        {
            "dense": lambda: family.dense(given),
            "masked": lambda: family.masked(given, picked, memory, None, text="fresh"),
            "small": lambda: pipe.transformer.small(**given, return_dict=False),
        },
        args.repeats,
        device=args.device,
        clock=args.clock,
    )
    shape = shape_of(pipe.transformer.large, tokens, TEXT)
    size = {"images": images, "branches": 1, "element_bytes": dtype.itemsize}
    kept = sum(tensor.nbytes for pair in memory for tensor in pair)
    assert kept == shape.kv_bytes(**size), "the formula of keys and values is exact"
    return {
        "dense, s": median(raw["dense"]),
        "masked": ratio(raw["masked"], raw["dense"]),
        "its operations": shape.flops(picked.shape[1]) / shape.flops(),
        "small": ratio(raw["small"], raw["dense"]),
        "K/V, MiB": kept / 2**20,
        "activations, MiB": held(family, given, memory, args.device) / 2**20,
        "predicted, MiB": shape.activation_bytes(**size) / 2**20,
    }, raw


def held(family: Family, given: dict[str, Any], memory: Any, device: str) -> int:
    """Bytes of tensors that a dense step holds at its worst moment, beside weights, inputs, keys and values."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        family.dense(given, memory=memory)
        return torch.cuda.max_memory_allocated(device) - before
    with Live() as live:
        family.dense(given, memory=memory)
    return live.peak


def run(pipe: Any, steps: int, args: Any, dtype: torch.dtype) -> tuple[dict[str, Any], Raw]:
    """Seconds of whole runs, guidance included; and all seconds."""
    generator = torch.Generator().manual_seed(2)
    shapes = {"prompt_embeds": (TEXT, TEXT_WIDTH), "pooled_prompt_embeds": (POOLED,)}
    words = {
        f"{sign}{name}": torch.randn(1, *shape, generator=generator).to(args.device, dtype)
        for sign in ("", "negative_")
        for name, shape in shapes.items()
    }

    def draw(policy: str) -> Any:
        pipe.transformer.policy = policy
        return pipe(
            **words,
            num_inference_steps=steps,
            guidance_scale=4.0,
            height=SIZE // 2,
            width=SIZE // 2,
            output_type="latent",
            generator=torch.Generator().manual_seed(0),
        )

    calls = {"large": lambda: draw("large"), "hybrid": lambda: draw(PROGRAM)}
    raw = in_turn(calls, max(1, args.repeats // 2), device=args.device, clock=args.clock)
    return {"dense, s": median(raw["large"]), "masked": ratio(raw["hybrid"], raw["large"])}, raw


def plot(table: list[dict[str, Any]], args: Any) -> None:
    """Time and memory against each of the four."""
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.4))
    for axis, (name, label) in zip(axes, PANELS.items(), strict=True):
        rows = [row for row in table if row["against"] == name]
        x = [row["value"] for row in rows]
        if name == "steps":
            axis.plot(x, [r["dense, s"] for r in rows], "o-", color=COLOURS[0], label="large")
            axis.plot(x, [r["dense, s"] * r["masked"] for r in rows], "o-", color=COLOURS[1], label=PROGRAM)
        else:
            axis.plot(x, [r["dense, s"] for r in rows], "o-", color=COLOURS[0], label="dense step")
            axis.plot(x, [r["dense, s"] * r["masked"] for r in rows], "o-", color=COLOURS[1], label="masked step")
            axis.plot(x, [r["dense, s"] * r["small"] for r in rows], "o-", color=COLOURS[3], label="small step")
            memory = axis.twinx()
            memory.plot(x, [r["K/V, MiB"] for r in rows], "s:", color=COLOURS[2], label="K/V")
            memory.plot(x, [r["activations, MiB"] for r in rows], "s:", color=COLOURS[4], label="activations")
            memory.set(ylabel="MiB", ylim=(0, None))
        axis.set(xlabel=label, ylabel="seconds", ylim=(0, None))
        axis.grid(alpha=0.3)
    handles = {str(line.get_label()): line for axis in figure.axes for line in axis.get_lines()}
    figure.legend([*handles.values()], [*handles], ncols=len(handles), fontsize=8, loc="upper center")
    save(figure, args.out / "growth", top=0.93)


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__, repeats=5)
    options.add_argument("--width", type=int, default=512, help="of the large model; the small one has a quarter")
    options.add_argument("--layers", type=int, default=4, help="of the large model; the small one has half")
    options.add_argument("--only", choices=PANELS, nargs="+", default=list(PANELS))
    args = options.parse_args()
    dtype = started(args)
    to = {"device": args.device, "dtype": dtype}
    small = random_sd3(max(64, args.width // 4 // 64 * 64), max(1, args.layers // 2), max(SIZES) // 8, **to)
    pipe = random_pair(random_sd3(args.width, args.layers, max(SIZES) // 8, **to), small)
    asked: dict[str, list[tuple[float, tuple[int, int, float]]]] = {
        "tokens": [((size // 16) ** 2, (size // 8, 1, SHARE)) for size in SIZES],
        "batch": [(images, (SIZE // 8, images, SHARE)) for images in BATCHES],
        "mask": [(share, (SIZE // 8, 1, share)) for share in RATIOS],
    }
    table: list[dict[str, Any]] = []
    raw: dict[str, Raw] = {}
    columns = ("dense, s", "masked", "its operations", "small", "K/V, MiB", "activations, MiB", "predicted, MiB")
    for name in args.only:
        measured = [(value, partial(step, pipe, setting)) for value, setting in asked.get(name, [])]
        measured += [(steps, partial(run, pipe, steps)) for steps in STEPS if name == "steps"]
        for value, measure in measured:
            found, raw[f"{name} {value}"] = measure(args, dtype)
            table.append({"against": name, "value": value, **dict.fromkeys(columns), **found})
            print(table[-1], flush=True)
    write(args.out, "growth", table, raw, width=args.width, layers=args.layers, clock=args.clock)
    if set(args.only) == set(PANELS):
        plot(table, args)


if __name__ == "__main__":
    main()
