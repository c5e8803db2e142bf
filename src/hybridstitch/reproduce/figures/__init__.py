"""The paper's figures, by name: (results, crew) → the files that were written, PNG, SVG and CSV.

`results` holds what was drawn, timed and scored; a figure that needs more draws it with the crew: `crew.here.pipe` in
this process, or `crew.map(work, tasks)` in all of them. Files go to `results.settings.figures`.

where        1b  where the two models differ, beside the picture
spread        2  how the difference is spread
grid          4  the pictures
devices       5  latency and speedup by device
tradeoff      6  quality against latency, with the Pareto front
masked        7  what a masked step costs
switching     8  when models change hands
differences      what 1b and 2 look at, measured once a folder
front            score against time with the front, for whoever compares policies
style            one colour and one marker a method
"""

from collections.abc import Callable
from pathlib import Path

from ...batch.crew import Crew
from ..equipment import Equipment
from ..results import Results
from . import devices, grid, masked, spread, switching, tradeoff, where

FIGURES: tuple[tuple[str, Callable[[Results, Crew[Equipment]], list[Path]]], ...] = (
    ("fig1b", where.draw),
    ("fig2", spread.draw),
    ("fig4", grid.draw),
    ("fig5", devices.draw),
    ("fig6", tradeoff.draw),
    ("fig7", masked.draw),
    ("fig8", switching.draw),
)
