"""What the facade costs: a large step plain and stitched, deciding with selecting, and a batch in mixed stages.

One random transformer, plain and stitched, its weights shared, draws the same 200 steps in turn (A B, B A, …); a
hybrid run is timed from inside; a batch of three images in three different stages is drawn in turn with the three
images drawn apart. Medians, in one process that keeps freed memory, as the command line does: else what is timed is
which of the two gives pages back. Raw seconds in `docs/results/overhead.json`.

    python -m benchmarks.overhead
"""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

import hybridstitch
from benchmarks.machine import machine
from hybridstitch.batch.heap import keep_freed_memory
from hybridstitch.drawing.run import Run
from hybridstitch.policies.plan import Plan, Region, Stroke
from hybridstitch.policies.replay import Replay

WIDTH, LAYERS, SIDE, TEXT, GUIDANCE = 512, 4, 64, 77, 4.0


def transformer(width: int, layers: int) -> SD3Transformer2DModel:
    """A random transformer of 64 channels a head."""
    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=SIDE,
        num_layers=layers,
        attention_head_dim=64,
        num_attention_heads=width // 64,
        joint_attention_dim=256,
        caption_projection_dim=width,
        pooled_projection_dim=128,
        pos_embed_max_size=SIDE,
        qk_norm="rms_norm",
    ).eval()


class Walk:
    """A denoising loop that takes one step at a time."""

    def __init__(self, transformer: Any, scheduler: Any, steps: int, images: int = 1) -> None:
        """Begin at noise."""
        generator = torch.Generator().manual_seed(1)
        self.transformer, self.scheduler = transformer, scheduler
        scheduler.set_timesteps(steps)
        self.latent = torch.randn(images, 16, SIDE, SIDE, generator=generator)
        self.text = torch.randn(2 * images, TEXT, 256, generator=generator)
        self.pooled = torch.randn(2 * images, 128, generator=generator)
        self.step = 0

    def __call__(self) -> float:
        """Take one step; returns its seconds."""
        start = perf_counter()
        timestep: Any = self.scheduler.timesteps[self.step]
        prediction = self.transformer(
            hidden_states=torch.cat([self.latent] * 2),
            timestep=timestep.expand(2 * len(self.latent)),
            encoder_hidden_states=self.text,
            pooled_projections=self.pooled,
            return_dict=False,
        )[0]
        negative, positive = prediction.chunk(2)
        guided = negative + GUIDANCE * (positive - negative)
        self.latent = self.scheduler.step(guided, timestep, self.latent, return_dict=False)[0]
        self.step += 1
        return perf_counter() - start


def stitched(large: SD3Transformer2DModel, policy: str) -> StableDiffusion3Pipeline:
    """A pipeline around two transformers, for its scheduler and its seat."""
    none: Any = dict.fromkeys(("vae", *(f"{p}{n}" for p in ("text_encoder", "tokenizer") for n in ("", "_2", "_3"))))
    pipe = StableDiffusion3Pipeline(transformer=large, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **none)
    hybridstitch.stitch(pipe, transformer(128, 2), policy)
    return pipe


def timed(method: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    """The method, its seconds appended to a list."""

    def call(*args: Any, **kwargs: Any) -> Any:
        start = perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds.append(perf_counter() - start)

    return call


@torch.no_grad()
def measure(steps: int) -> dict[str, list[float]]:
    """Seconds of each step: plain, stitched with the large model only, and of deciding in a hybrid run."""
    large = transformer(WIDTH, LAYERS)
    weights: dict[int, Any] = {id(parameter): parameter for parameter in large.parameters()}
    plain = Walk(copy.deepcopy(large, weights), FlowMatchEulerDiscreteScheduler(shift=3.0), steps)
    pipe = stitched(large, "large")
    ours = Walk(pipe.transformer, pipe.scheduler, steps)
    raw: dict[str, list[float]] = {"plain": [], "stitched": [], "deciding": [], "observing": []}
    for index in range(steps):
        for name, walk in [("plain", plain), ("stitched", ours)][:: 1 if index % 2 == 0 else -1]:
            raw[name].append(walk())
    assert torch.equal(plain.latent, ours.latent), "the stitched large model must equal the plain one bit for bit"
    pipe.transformer.policy = "hybrid-stitch:masks=0.3,thresholds=1e9/1e-9,min-large=0"
    begin, observe = Run._begin, Run.observe
    Run._begin, Run.observe = timed(begin, raw["deciding"]), timed(observe, raw["observing"])
    try:
        walk = Walk(pipe.transformer, pipe.scheduler, max(20, steps // 4))
        for _ in range(max(20, steps // 4)):
            walk()
    finally:
        Run._begin, Run.observe = begin, observe
    return raw


@torch.no_grad()
def measure_mixed(steps: int) -> dict[str, list[float]]:
    """Seconds of each step of a batch in three stages, and of its images drawn apart (their sum)."""
    start = (Plan((Stroke("L"),)),) * 2
    hybrid = Plan((Stroke("S"), Stroke("L", Region(0.3))))
    rest = (Plan((Stroke("L"),)), hybrid, Plan((Stroke("S"),)))
    plans = tuple((*start, *[plan] * (steps - 2)) for plan in rest)

    def walk(replayed: tuple[tuple[Plan, ...], ...]) -> Walk:
        pipe = stitched(transformer(WIDTH, LAYERS), "large")
        pipe.transformer.policy = Replay(replayed)
        pipes.append(pipe)
        return Walk(pipe.transformer, pipe.scheduler, steps, images=len(replayed))

    pipes: list[StableDiffusion3Pipeline] = []  # stitched transformers hold their pipelines weakly
    together, apart = walk(plans), [walk((mine,)) for mine in plans]
    raw: dict[str, list[float]] = {"mixed batch": [], "groups apart": []}
    for _ in range(steps):
        raw["mixed batch"].append(together())
        raw["groups apart"].append(sum(one() for one in apart))
    return {name: seconds[2:] for name, seconds in raw.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("docs/results/overhead.json"))
    args = parser.parse_args()
    keep_freed_memory()
    raw = measure(args.steps)
    plain, ours = median(raw["plain"]), median(raw["stitched"])
    pairs = median(b / a for a, b in zip(raw["plain"], raw["stitched"], strict=True))
    deciding = median(raw["deciding"][3:]) + median(raw["observing"][3:])
    table = {
        "plain step, ms": plain * 1e3,
        "stitched step, ms": ours * 1e3,
        "stitched / plain, of medians": ours / plain,
        "stitched / plain, median of pairs": pairs,
        "deciding and selecting, ms": deciding * 1e3,
        "deciding and selecting / plain": deciding / plain,
    }
    raw |= measure_mixed(max(12, args.steps // 8))
    table["mixed batch / groups apart, median of pairs"] = median(
        a / b for a, b in zip(raw["mixed batch"], raw["groups apart"], strict=True)
    )
    for name, value in table.items():
        print(f"{name:<44} {value:9.4f}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine(), "table": table, "seconds": raw}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
