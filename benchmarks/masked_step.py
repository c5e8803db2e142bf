"""What a masked step costs, beside its arithmetic: an SD3.5-large-shaped random model, masks of 10 to 40 %.

A few layers of full width on a CPU, all 38 on a GPU (`--layers 38 --width 2432 --device cuda --dtype bfloat16`). Dense
and masked steps take turns; medians. The ideal counts operations, `24·D²·n + 4·n·m·D` a joint block.

    python -m benchmarks.masked_step

writes `docs/results/masked_step.json` and prints the table.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from diffusers import SD3Transformer2DModel

from benchmarks.machine import machine
from hybridstitch.families.sd3 import SD3Family
from hybridstitch.pair import shape_of
from hybridstitch.plan import Region

RATIOS = (0.1, 0.2, 0.3, 0.4)
TEXT = 333


def model(width: int, layers: int, side: int, *, device: str, dtype: torch.dtype) -> SD3Transformer2DModel:
    """A random SD3.5-large of another width and depth; `side` latent pixels."""
    torch.manual_seed(0)
    with torch.device(device):
        transformer: Any = SD3Transformer2DModel(
            sample_size=side,
            num_layers=layers,
            attention_head_dim=64,
            num_attention_heads=width // 64,
            caption_projection_dim=width,
            pos_embed_max_size=max(192, side // 2),
            qk_norm="rms_norm",
        )
    return transformer.to(dtype).eval()


@torch.no_grad()
def measure(family: SD3Family, inputs: dict[str, Any], tokens: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of dense and masked steps, in turn."""
    device = inputs["hidden_states"].device
    _, cache = family.dense(inputs, keep=True)
    raw: dict[str, list[float]] = {"dense": [], "dense, keeping": []}
    raw |= {f"{text} {ratio}": [] for text in ("fresh", "cached") for ratio in RATIOS}
    generator = torch.Generator().manual_seed(0)
    for _ in range(repeats + 1):
        for name, seconds in raw.items():
            text, _, ratio = name.partition(" ")
            chosen = torch.randperm(tokens, generator=generator)
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = perf_counter()
            if name.startswith("dense"):
                family.dense(inputs, keep="keeping" in name)
            else:
                picked = chosen[: Region(float(ratio)).count(tokens)].sort().values.to(device)
                family.masked(inputs, picked.repeat(len(inputs["hidden_states"]), 1), cache, None, text=text)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(perf_counter() - start)
    return {name: seconds[1:] for name, seconds in raw.items()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--size", type=int, default=768, help="picture side in pixels (8 a latent pixel)")
    parser.add_argument("--rows", type=int, default=1, help="rows of a call: 2 with guidance")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=Path("docs/results/masked_step.json"))
    args = parser.parse_args()
    side, dtype = args.size // 8, getattr(torch, args.dtype)
    tokens = (side // 2) ** 2
    family = SD3Family(model(args.width, args.layers, side, device=args.device, dtype=dtype))
    family.attach()
    to: dict[str, Any] = {"device": args.device, "dtype": dtype}
    inputs = {
        "hidden_states": torch.randn(args.rows, 16, side, side, **to),
        "encoder_hidden_states": torch.randn(args.rows, TEXT, 4096, **to),
        "pooled_projections": torch.randn(args.rows, 2048, **to),
        "timestep": torch.full((args.rows,), 500.0, device=args.device),
    }
    raw = measure(family, inputs, tokens, args.repeats)
    shape = shape_of(family.transformer, tokens, TEXT)
    dense = median(raw["dense"])
    rows = []
    print(f"dense {dense * 1e3:.1f} ms, keeping keys and values {median(raw['dense, keeping']) / dense:.3f} of it")
    print("| text | M | h(M), median | ideal | above it |\n|---|---|---|---|---|")
    for name, seconds in raw.items():
        if name.startswith("dense"):
            continue
        text, _, ratio = name.partition(" ")
        cost = median(a / b for a, b in zip(seconds, raw["dense"], strict=True))
        ideal = shape.flops(Region(float(ratio)).count(tokens), text=text) / shape.flops()
        rows.append({"text": text, "ratio": float(ratio), "h": cost, "ideal": ideal})
        print(f"| {text} | {ratio} | {cost:.3f} | {ideal:.3f} | {cost - ideal:+.3f} |")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": machine(),
        "options": {k: str(v) for k, v in vars(args).items()},
        "table": rows,
        "seconds": raw,
    }
    args.out.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
