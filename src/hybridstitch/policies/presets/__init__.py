"""Presets: policies by name, with the setting that they were made for.

    preset("hybridstitch-30").policy          HybridStitch(masks=(0.3,), thresholds=(0.5, 0.3))
    preset("hybridstitch-30").paper.speedup   1.83
    policy_named("hybridstitch-30")           also reads policy strings and programs

setting     what a preset is, and where its thresholds are at home
paper       the rows of the paper's tables, with its figures
rivals      methods of other papers
miniature   of the miniature pair
lookup      names

A rival that needs no name: `large` with fewer steps.
"""

from .lookup import PRESETS, as_policy, as_preset, policy_named, preset
from .miniature import CARRIED, FEW, STACKED
from .paper import PAPER, TABLE_1, TABLE_2, TABLE_3
from .rivals import RIVALS
from .setting import PaperRow, Preset, Setting, outside, warning

__all__ = [
    "CARRIED", "FEW", "PAPER", "PRESETS", "RIVALS", "STACKED", "TABLE_1", "TABLE_2", "TABLE_3", "PaperRow", "Preset",
    "Setting", "as_policy", "as_preset", "outside", "policy_named", "preset", "warning",
]  # fmt: skip
