"""Masks and thresholds around the rows of Table 1, for Figure 6: earlier, later and longer hybrid stages.

A variant moves both what can end a stage: its threshold, and for stage 0 the least share of large steps. Rows whose
thresholds were calibrated move from there.
"""

from collections.abc import Mapping
from dataclasses import replace

from ..policies.methods import HybridStitch, TStitch
from ..policies.policy import Policy
from ..policies.presets import TABLE_1
from ..policies.srdiffusion import SRDiffusion

MOVES = {  # factors of (τ_0, least large share), of later thresholds
    "early": (1.4, 0.7, 1.25),
    "late": (0.7, 1.4, 0.85),
    "long": (1.4, 0.7, 0.8),
}
SR_FACTORS = (0.5, 1.6, 2.5)
SHARES = (0.6, 0.8)  # of T-Stitch's small steps


def variants(chosen: Mapping[str, Policy]) -> dict[str, Policy]:
    """The rows of Figure 6 that no table has, by name.

    Args:
        chosen: policies with thresholds of this pair, by row.
    """
    found: dict[str, Policy] = {}
    for preset in TABLE_1:
        policy = chosen.get(preset.name, preset.policy)
        if isinstance(policy, HybridStitch):
            found |= {f"{preset.name} {name}": moved(policy, *factors) for name, factors in MOVES.items()}
        elif isinstance(policy, SRDiffusion):
            found |= {
                f"{preset.name} x{factor:g}": replace(policy, threshold=_short(policy.threshold * factor))
                for factor in SR_FACTORS
            }
        elif isinstance(policy, TStitch):
            found |= {f"{preset.name} {share:.0%}": TStitch(share) for share in SHARES}
    return found


def moved(policy: HybridStitch, first: float, least: float, later: float) -> HybridStitch:
    """A policy with other thresholds.

    Args:
        policy: of Table 1.
        first: factor of τ_0.
        least: factor of the least share of large steps.
        later: factor of the other thresholds; τ_0 stays at least as large as they.
    """
    rest = tuple(_short(threshold * later) for threshold in policy.thresholds[1:])
    start = max(_short(policy.thresholds[0] * first), *rest)
    return replace(policy, thresholds=(start, *rest), min_large=_short(policy.min_large * least))


def _short(value: float) -> float:
    return float(f"{value:.4g}")
