"""One colour for each model and method, everywhere: told apart without red or green cones, too.

What the large model draws is warm, what the small one draws is cool, and where both draw is between them. Rivals that
appear beside them in plots have their own.
"""

from ..policies.plan import Plan

LARGE, BOTH, SMALL, NOBODY = "#d55e00", "#8f4a9e", "#56b4e9", "#b8b8b8"
KINDS = {"L": LARGE, "S+L": BOTH, "S": SMALL, "-": NOBODY}  # what a step may be
NAMES = {"L": "large alone", "S+L": "small, large on the mask", "S": "small alone", "-": "last prediction again"}

METHODS = {  # for plots that compare methods
    "large": LARGE,
    "hybrid-stitch": BOTH,
    "small": SMALL,
    "sr-diffusion": "#00805d",
    "t-stitch": "#5c3a00",
    "fewer-steps": "#1a1a1a",
    "schedule": "#3b5bdb",
    "random-mask": "#b8b8b8",
    "oracle-mask": "#f0c000",
}
INK, PAPER, QUIET, RULE = "#1d2329", "#ffffff", "#66707a", "#d9dee3"


def kind(plan: Plan) -> str:
    """Which of `KINDS` a step is."""
    models = {stroke.model for stroke in plan.strokes}
    if not models:
        return "-"
    if models == {"S"}:
        return "S"
    return "L" if all(stroke.region.everywhere for stroke in plan.strokes if stroke.model == "L") else "S+L"
