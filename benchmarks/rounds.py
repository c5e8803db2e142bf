"""What the benchmarks of speed share: random transformers, things timed in turn, and how results are written."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import matplotlib as mpl
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

mpl.use("Agg")
import matplotlib.pyplot as plt

import hybridstitch
from benchmarks.machine import machine
from hybridstitch.batch.heap import keep_freed_memory
from hybridstitch.drawing.engine import PLAIN, Engine

TEXT, TEXT_WIDTH, POOLED = 333, 4096, 2048  # of Stable Diffusion 3
CLOCKS = {"wall": perf_counter, "cpu": process_time}
RESULTS = Path("docs/results")
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def random_sd3(
    width: int, layers: int, side: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> SD3Transformer2DModel:
    """A random SD3.5-large of another width and depth, 64 channels a head, made on its device in its dtype.

    Args:
        width: D.
        layers: joint blocks.
        side: latent pixels.
        device: where.
        dtype: of its weights.
    """
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            transformer = SD3Transformer2DModel(
                sample_size=side,
                num_layers=layers,
                attention_head_dim=64,
                num_attention_heads=width // 64,
                joint_attention_dim=TEXT_WIDTH,
                caption_projection_dim=width,
                pooled_projection_dim=POOLED,
                pos_embed_max_size=max(192, side // 2),
                qk_norm="rms_norm",
            )
    finally:
        torch.set_default_dtype(before)
    return transformer.eval()


def inputs(side: int, rows: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Arguments of one call of a random transformer: 77 + 256 text tokens, `side` latent pixels."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(rows, *shape, generator=generator).to(device, dtype)

    return {
        "hidden_states": normal(16, side, side),
        "encoder_hidden_states": normal(TEXT, TEXT_WIDTH),
        "pooled_projections": normal(POOLED),
        "timestep": torch.full((rows,), 500.0, device=device),
    }


def random_pair(large: SD3Transformer2DModel, small: SD3Transformer2DModel, engine: Engine = PLAIN) -> Any:
    """A pipeline of two random transformers; it is called with embeddings and gives latents."""
    none: Any = dict.fromkeys(("vae", *(f"{p}{n}" for p in ("text_encoder", "tokenizer") for n in ("", "_2", "_3"))))
    pipe = StableDiffusion3Pipeline(transformer=large, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **none)
    pipe.set_progress_bar_config(disable=True)
    hybridstitch.stitch(pipe, small, "large", engine)
    return pipe


def wait(device: str | torch.device) -> None:
    """Until everything asked of a GPU is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def in_turn(
    calls: Mapping[str, Callable[[], Any]], repeats: int, *, device: str | torch.device, clock: str = "wall"
) -> dict[str, list[float]]:
    """Seconds of each call, all of them in turn, `repeats` times after one that does not count.

    Args:
        calls: by name.
        repeats: rounds that count.
        device: waited for before and after each call.
        clock: "wall", or "cpu": seconds this process computed, which other programs do not lengthen; one thread only.
    """
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            wait(device)
            start = now()
            call()
            wait(device)
            seconds[name].append(now() - start)
    return {name: times[1:] for name, times in seconds.items()}


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios of what was timed in the same round."""
    return median(a / b for a, b in zip(above, below, strict=True))


def parser(text: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """A benchmark's options; all have `--device`, `--dtype`, `--repeats`, `--clock` and `--out`."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", default="cpu")
    made.add_argument("--dtype", default=defaults.get("dtype", "float32"))
    made.add_argument("--repeats", type=int, default=defaults.get("repeats", 7))
    made.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: not lengthened by other programs, 1 thread")
    made.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    return made


def started(args: argparse.Namespace) -> torch.dtype:
    """Refuse a device that is not there or a clock that would not say what a reader thinks; the dtype.

    On a CPU freed memory stays with the process, as it does in the command line's.
    """
    device = torch.device(args.device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SystemExit(f"--device {args.device} was given; this machine has {torch.cuda.device_count()} CUDA devices")
    if args.clock == "cpu" and (device.type != "cpu" or torch.get_num_threads() > 1):
        raise SystemExit("--clock cpu counts one thread of a CPU: set OMP_NUM_THREADS=1 and --device cpu")
    dtype = getattr(torch, args.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise SystemExit(f"--dtype {args.dtype} is no dtype of torch; float32, bfloat16 or float16")
    if device.type == "cpu":
        keep_freed_memory()
    return dtype


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same columns as a table; numbers with three decimals."""

    def cell(value: Any) -> str:
        return f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)

    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {' | '.join(cell(row[c]) for c in columns)} |" for row in rows)]) + "\n"


def write(out: Path, name: str, table: Sequence[Mapping[str, Any]], raw: Any, **about: Any) -> None:
    """`name.json` with machine, settings, table and raw seconds, and `name.md` with the table and the command."""
    out.mkdir(parents=True, exist_ok=True)
    told = machine()
    data = {"machine": told, **about, "table": list(table), "raw": raw}
    (out / f"{name}.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    text = markdown(table)
    (out / f"{name}.md").write_text(f"`{told['command']}`\n\n{text}", encoding="utf-8")
    print(text)


def save(figure: Any, path: Path, top: float = 1.0) -> None:
    """As PNG and SVG; panels end at `top` of the height, above it is room for what all of them share."""
    figure.tight_layout(rect=(0, 0, 1, top))
    for ending in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{ending}"), dpi=110)
    plt.close(figure)
