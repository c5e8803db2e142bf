"""SD3.5-large and SD3-medium at full size, random weights in bfloat16: what stitching saves on a GPU. No network.

    python -m benchmarks.gpu                                   768² and 1024², 50 steps, about 25 minutes on an H200
    python -m benchmarks.gpu --scale 0.1 --device cpu          a tenth of width and depth, to see that it works

Whole runs of the pipeline (its scheduler included; embeddings in, latents out) of `L20% H30%@K S*`, which is
`L10 H15@K S25` at 50 steps, for K of 10 to 40 %, with fresh text, cached text, and cached text with the conditional
branch only; eager, compiled, and in CUDA graphs, each against the large model of the same engine, all in turn. "limit"
is the ratio of operations, which no implementation passes; "step above ideal" is a masked step's cost above its share
of a dense step's operations. Writes `docs/results/gpu.{json,md,png,svg}`.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import torch

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
    wait,
    write,
)
from hybridstitch import Engine, Schedule
from hybridstitch.families.known import shape_of
from hybridstitch.measure.price import fixed_plans
from hybridstitch.policies.latency import Shape
from hybridstitch.policies.plan import Region

LARGE, SMALL = (2432, 38), (1536, 24)  # width and layers
RATIOS = (0.1, 0.2, 0.3, 0.4)
KINDS: dict[str, dict[str, Any]] = {
    "fresh": {},
    "cached": {"text": "cached"},
    "cached, cond": {"text": "cached", "branches": "cond"},
}


def scaled(full: tuple[int, int], scale: float) -> tuple[int, int]:
    """Width, a multiple of 64, and layers."""
    return max(64, round(full[0] * scale / 64) * 64), max(2, round(full[1] * scale))


def operations(policy: Schedule, steps: int, large: Shape, small: Shape) -> float:
    """Floating-point operations of a run with guidance: two rows a step, one where only the condition is drawn."""
    total = 0
    for plan in fixed_plans(policy, steps):
        for stroke in plan.strokes:
            if stroke.model == "S":
                total += 2 * small.flops()
            elif not stroke.masked:
                total += 2 * large.flops()
            else:
                rows = 1 if stroke.branches == "cond" else 2
                total += rows * large.flops(stroke.region.count(large.image_tokens), text=stroke.text)
    return total


class Studio:
    """Two random transformers in a pipeline, at one size."""

    def __init__(self, pipe: Any, size: int, args: Any, dtype: torch.dtype) -> None:
        """Embeddings are drawn once."""
        generator = torch.Generator().manual_seed(2)
        shapes = {"prompt_embeds": (TEXT, TEXT_WIDTH), "pooled_prompt_embeds": (POOLED,)}
        self.pipe, self.size, self.args, self.dtype = pipe, size, args, dtype
        self.words = {
            f"{sign}{name}": torch.randn(1, *shape, generator=generator).to(args.device, dtype)
            for sign in ("", "negative_")
            for name, shape in shapes.items()
        }
        self.peaks: dict[str, int] = {}

    def draw(self, name: str, policy: Schedule) -> Any:
        """One run; its peak of memory is kept by name."""
        cuda = torch.device(self.args.device).type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.args.device)
        self.pipe.transformer.policy = policy
        latent = self.pipe(
            **self.words,
            num_inference_steps=self.args.steps,
            guidance_scale=4.0,
            height=self.size,
            width=self.size,
            output_type="latent",
            return_dict=False,
            generator=torch.Generator().manual_seed(0),
        )[0]
        if cuda:
            wait(self.args.device)
            self.peaks[name] = torch.cuda.max_memory_allocated(self.args.device)
        return latent

    @torch.no_grad()
    def masked_steps(self, engine: Engine) -> dict[tuple[str, float], float]:
        """h(M) of the engine's own dense step, by text and mask."""
        models = self.pipe.transformer.models
        side = self.size // 8
        given = inputs(side, 2, device=self.args.device, dtype=self.dtype)
        tokens = models.large.layout.count(given["hidden_states"])
        memory = models.room(given)
        calls: dict[str, Callable[[], Any]] = {
            "dense": lambda: models.large.dense(given, memory=memory),
        }
        for text in ("fresh", "cached"):
            for share in self.args.ratios:
                count = engine.count(Region(share).count(tokens), tokens)
                picked = torch.arange(count, device=self.args.device).repeat(2, 1)
                calls[f"{text} {share}"] = lambda picked=picked, text=text: models.large.masked(
                    given, picked, memory, None, text=text
                )
        raw = in_turn(calls, self.args.step_repeats, device=self.args.device, clock=self.args.clock)
        return {
            (text, share): ratio(raw[f"{text} {share}"], raw["dense"])
            for text in ("fresh", "cached")
            for share in self.args.ratios
        }


def measure(pipe: Any, size: int, name: str, engine: Engine, args: Any, dtype: torch.dtype) -> tuple[list[Any], Any]:
    """A row a program, and the raw seconds, of one engine at one size."""
    studio = Studio(pipe, size, args, dtype)
    pipe.transformer.engine = engine
    programs = {("large", None): Schedule("L*")}
    for kind, options in KINDS.items():
        for share in args.ratios:
            programs[(kind, share)] = Schedule(f"L20% H30%@{share} S*", **options)
    calls = {str(key): lambda key=key, p=policy: studio.draw(str(key), p) for key, policy in programs.items()}
    raw = in_turn(calls, args.repeats, device=args.device, clock=args.clock)
    steps = studio.masked_steps(engine)
    tokens = (size // 16) ** 2
    shapes = [shape_of(model, tokens, TEXT) for model in (pipe.transformer.large, pipe.transformer.small)]
    whole = operations(programs[("large", None)], args.steps, *shapes)
    table = []
    for (kind, share), policy in programs.items():
        mine = raw[str((kind, share))]
        work = operations(policy, args.steps, *shapes)
        text = "fresh" if kind == "fresh" else "cached"
        above = None
        if share is not None:
            count = engine.count(Region(share).count(tokens), tokens)
            above = steps[(text, share)] - shapes[0].flops(count, text=text) / shapes[0].flops()
        table.append(
            {
                "size": size,
                "engine": name,
                "text": kind,
                "K": share,
                "seconds": median(mine),
                "speedup": ratio(raw[str(("large", None))], mine),
                "limit": whole / work,
                "TFLOP/s": work / median(mine) / 1e12,
                "step above ideal": above,
                "peak GiB": studio.peaks[str((kind, share))] / 2**30 if studio.peaks else None,
            }
        )
        print(table[-1], flush=True)
    return table, raw


def plot(table: list[dict[str, Any]], args: Any) -> None:
    """Speedup against K, of each engine and kind, beside its limit."""
    sizes = sorted({row["size"] for row in table})
    figure, axes = plt.subplots(1, len(sizes), figsize=(4.6 * len(sizes), 3.8), squeeze=False, sharey=True)
    engines = list(dict.fromkeys(row["engine"] for row in table))
    for axis, size in zip(axes[0], sizes, strict=True):
        for colour, kind in zip(COLOURS[1:], KINDS, strict=False):
            rows = [r for r in table if (r["size"], r["engine"], r["text"]) == (size, engines[0], kind)]
            axis.plot([r["K"] for r in rows], [r["limit"] for r in rows], color=colour, alpha=0.3, lw=3)
            for style, engine in zip(("o--", "o-", "s:"), engines, strict=False):
                rows = [r for r in table if (r["size"], r["engine"], r["text"]) == (size, engine, kind)]
                axis.plot([r["K"] for r in rows], [r["speedup"] for r in rows], style, color=colour, lw=1,
                          label=f"{kind}, {engine}")  # fmt: skip
        axis.set(title=f"{size}×{size} (broad lines: the limit by operations)", xlabel="K")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("times as fast as the large model")
    axes[0][0].legend(fontsize=7)
    save(figure, args.out / args.name)


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__, repeats=3, dtype="bfloat16")
    options.set_defaults(device="cuda")
    options.add_argument("--scale", type=float, default=1.0, help="of width and depth")
    options.add_argument("--sizes", type=int, nargs="+", default=[768, 1024])
    options.add_argument("--steps", type=int, default=50)
    options.add_argument("--ratios", type=float, nargs="+", default=list(RATIOS))
    options.add_argument("--engines", nargs="+", default=None, help="eager, compiled, graphs; default: all there are")
    options.add_argument("--step-repeats", type=int, default=9)
    options.add_argument("--snap", type=int, default=64)
    options.add_argument("--name", default="gpu", help="of the files")
    args = options.parse_args()
    dtype = started(args)
    cuda = torch.device(args.device).type == "cuda"
    engines = {"eager": Engine(snap=args.snap), "compiled": Engine(compile="whole", snap=args.snap)}
    if cuda:
        engines["graphs"] = Engine(compile="whole", graphs=True, snap=args.snap)
    unknown = set(args.engines or ()) - engines.keys()
    if unknown:
        raise SystemExit(f"--engines {' '.join(sorted(unknown))}: on {args.device} there are {', '.join(engines)}")
    side = max(args.sizes) // 8
    to = {"device": args.device, "dtype": dtype}
    pipe = random_pair(
        random_sd3(*scaled(LARGE, args.scale), side, **to), random_sd3(*scaled(SMALL, args.scale), side, **to)
    )
    count = {name: sum(p.numel() for p in getattr(pipe.transformer, name).parameters()) for name in ("large", "small")}
    print({name: f"{number / 1e9:.2f} billion parameters" for name, number in count.items()}, flush=True)
    table, raw = [], {}
    for size in args.sizes:
        for name, engine in engines.items():
            if args.engines is None or name in args.engines:
                rows, raw[f"{size} {name}"] = measure(pipe, size, name, engine, args, dtype)
                table += rows
    write(args.out, args.name, table, raw, scale=args.scale, steps=args.steps, parameters=count, clock=args.clock)
    plot(table, args)


if __name__ == "__main__":
    main()
