"""The paper's figures, by name: (results, crew) → the files that were written, PNG, SVG and CSV.

`results` holds what was drawn, timed and scored; a figure that needs more draws it with the crew: `crew.here.pipe` in
this process, or `crew.map(work, tasks)` in all of them. Files go to `results.settings.figures`.
"""

from collections.abc import Callable
from pathlib import Path

from ..crew import Crew
from ..results import Results

FIGURES: tuple[tuple[str, Callable[[Results, Crew], list[Path]]], ...] = ()
