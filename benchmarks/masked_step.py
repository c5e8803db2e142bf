"""What a masked step costs, beside its arithmetic: an SD3.5-large-shaped random model, masks of 10 to 40 %.

A few layers on a CPU, all 38 on a GPU (`--layers 38 --width 2432 --device cuda --dtype bfloat16`). Dense and masked
steps take turns; h(M) is the median of ratios within a round. The ideal counts operations, `24·D²·n + 4·n·m·D` a joint
block; the paper's own estimate is M.

    python -m benchmarks.masked_step                          768×768, 2,304 + 333 tokens
    python -m benchmarks.masked_step --sizes 512 768 1024 1440

writes `docs/results/masked_step.{json,md,png,svg}`.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import torch

from benchmarks.rounds import COLOURS, TEXT, in_turn, inputs, parser, random_sd3, ratio, save, started, write
from hybridstitch.families.known import shape_of
from hybridstitch.families.sd3 import SD3Family
from hybridstitch.policies.plan import Region

RATIOS = (0.1, 0.2, 0.3, 0.4)
ALLOWED = {"fresh": 0.03, "cached": 0.05}  # above the ideal, and above M


def measure(family: SD3Family, side: int, args: Any, dtype: torch.dtype) -> tuple[list[dict[str, Any]], Any]:
    """A table row per mask and text, and the raw seconds."""
    given = inputs(side, args.rows, device=args.device, dtype=dtype)
    tokens = (side // 2) ** 2
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        memory = family.room(given)
        family.dense(given, memory=memory)

    def masked(share: float, text: str) -> Callable[[], Any]:
        count = Region(share).count(tokens)

        def draw() -> Any:  # another mask each time
            picked = torch.randperm(tokens, generator=generator)[:count].sort().values.to(args.device)
            return family.masked(given, picked.repeat(args.rows, 1), memory, None, text=text)

        return draw

    calls: dict[str, Callable[[], Any]] = {
        "dense": lambda: family.dense(given),
        "dense, keeping": lambda: family.dense(given, memory=memory),
        **{f"{text} {share}": masked(share, text) for text in ALLOWED for share in RATIOS},
    }
    raw = in_turn(calls, args.repeats, device=args.device, clock=args.clock)
    shape = shape_of(family.transformer, tokens, TEXT)
    table = []
    for text in ALLOWED:
        for share in RATIOS:
            ideal = shape.flops(Region(share).count(tokens), text=text) / shape.flops()
            cost = ratio(raw[f"{text} {share}"], raw["dense"])
            most = (ideal if text == "fresh" else share) + ALLOWED[text]
            line = {
                "size": side * 8,
                "text": text,
                "M": share,
                "h(M)": cost,
                "ideal": ideal,
                "above ideal": cost - ideal,
            }
            table.append({**line, "above M": cost - share, "holds": "yes" if cost <= most else "no"})
    keeping = ratio(raw["dense, keeping"], raw["dense"])
    print(
        f"{side * 8}²: dense {median(raw['dense']) * 1e3:.1f} ms, keeping keys and values {keeping:.3f} of it",
        flush=True,
    )
    return table, raw


def plot(table: list[dict[str, Any]], args: Any) -> None:
    """h(M) beside its ideal and beside M, one panel a size."""
    sizes = sorted({row["size"] for row in table})
    figure, axes = plt.subplots(1, len(sizes), figsize=(3.6 * len(sizes) + 1, 3.4), sharey=True, squeeze=False)
    for axis, size in zip(axes[0], sizes, strict=True):
        for colour, text in zip(COLOURS[1:], ALLOWED, strict=False):
            rows = [row for row in table if row["size"] == size and row["text"] == text]
            axis.plot([r["M"] for r in rows], [r["h(M)"] for r in rows], "o-", color=colour, label=f"text {text}")
            axis.plot([r["M"] for r in rows], [r["ideal"] for r in rows], ":", color=colour, label="its operations")
        axis.plot(RATIOS, RATIOS, color="0.6", label="M")
        axis.set(title=f"{size}×{size}", xlabel="M")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("h(M), dense steps")
    axes[0][-1].legend(fontsize=8, loc="upper left")
    save(figure, args.out / "masked_step")


def main() -> None:
    """Measure, print and write."""
    options = parser(__doc__)
    options.add_argument("--width", type=int, default=768)
    options.add_argument("--layers", type=int, default=6)
    options.add_argument("--sizes", type=int, nargs="+", default=[768], help="picture sides in pixels")
    options.add_argument("--rows", type=int, default=1, help="rows of a call: 2 with guidance")
    args = options.parse_args()
    dtype = started(args)
    sides = [size // 8 for size in args.sizes]
    family = SD3Family(random_sd3(args.width, args.layers, max(sides), device=args.device, dtype=dtype))
    family.attach()
    table, raw = [], {}
    for side in sides:
        rows, raw[side * 8] = measure(family, side, args, dtype)
        table += rows
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out, "masked_step", table, raw, width=args.width, layers=args.layers, rows=args.rows, clock=args.clock)
    plot(table, args)


if __name__ == "__main__":
    main()
