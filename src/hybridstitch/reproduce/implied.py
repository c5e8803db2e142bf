"""The switch steps that the paper's latencies imply, row by row: what thresholds of another pair are calibrated to.

The paper prints seconds, not steps. Per row, in dense steps of the large model, with T = 50:

    s        from T-Stitch: .4·s + .6 = 14.74 / 20.72
    h(M)     by operations (`latency.Shape`) for the paper's large model at 768×768: the masked tokens and the text
    SRDiffusion    T_1 + (T − T_1)·s = T·13.37 / 20.72
    HybridStitch   its last switch is SRDiffusion's ("comparable", Fig. 8); the first one is what is left of Eq. 3-4;
                   a second mask takes over halfway between

Seconds of text encoders and decoder are in the paper's latencies and cannot be told apart: they make s a little large.
"""

from math import floor

from ..policies.latency import Shape
from ..policies.methods import HybridStitch
from ..policies.presets import PRESETS, TABLE_1, TABLE_3

PAPERS_LARGE = Shape(width=2432, layers=38, image_tokens=48 * 48, text_tokens=77 + 256)
SMALL_SHARE = 0.4  # of T-Stitch's steps


def seconds(name: str) -> float:
    """The paper's latency of a row, in latencies of the large model."""
    row, whole = PRESETS[name].paper, PRESETS["large"].paper
    assert row is not None
    assert whole is not None
    return row.latency_seconds / whole.latency_seconds


def small_step() -> float:
    """s, from T-Stitch's latency."""
    return (seconds("t-stitch") - (1 - SMALL_SHARE)) / SMALL_SHARE


def masked_step(ratio: float) -> float:
    """h(M), by operations."""
    return PAPERS_LARGE.flops(round(ratio * PAPERS_LARGE.image_tokens)) / PAPERS_LARGE.flops()


def shares() -> dict[str, tuple[float, ...]]:
    """T_1 / T, T_2 / T, … of each row that decides by thresholds."""
    small = small_step()
    last = (seconds("sr-diffusion") - small) / (1 - small)
    found: dict[str, tuple[float, ...]] = {"sr-diffusion": (last,)}
    for preset in (*TABLE_1, *TABLE_3):
        if not isinstance(preset.policy, HybridStitch):
            continue
        masks = preset.policy.masks
        masked = sum(map(masked_step, masks)) / len(masks)  # masks share the hybrid steps evenly
        first = (seconds(preset.name) - small - last * masked) / (1 - small - masked)
        found[preset.name] = tuple(first + (last - first) * part / len(masks) for part in range(len(masks) + 1))
    return found


def switches(steps: int) -> dict[str, tuple[int, ...]]:
    """T_1, T_2, … of each row, whole, at another number of steps; at least 2 steps before the first, 1 between.

    Args:
        steps: T.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, parts in shares().items():
        whole: list[int] = []
        for part in parts:
            whole.append(max(floor(part * steps + 0.5), whole[-1] + 1 if whole else 2))
        found[name] = tuple(whole)
    return found
