"""What serves the miniature pair best, by this repository's own measurements; another pair gets a file like this."""

from ..methods import HybridStitch, Schedule
from .setting import Preset, Setting

FEW = tuple(  # of the miniature pair: the small model first, while levels lie close together; then masks over repeats
    Preset(
        name=f"mini-few-{budget}",
        policy=Schedule(program, text="cached"),
        source=f"`python -m benchmarks.few_steps`: {time} dense steps of time, and {ahead} dB ahead of what the large "
        "model alone does in it at the best levels found for it; 64 prompts",
        steps=steps,
        shift=shift,
    )
    for budget, program, steps, shift, time, ahead in (
        (3, "S2 L R@0.45 R@0.15 S", 6, 4.0, 2.2, 5.3),
        (4, "S2 L R@0.3 R@0.15 L R@0.45", 7, 5.0, 3.4, 4.6),
        (5, "S L R@0.15 R@0.45 - L R@0.3 R@0.15 L", 9, 5.0, 4.4, 3.8),
        (6, "L S L R@0.45 - L R@0.45 R@0.15 L", 9, 4.0, 5.3, 1.1),
    )
)
AT_50 = Setting(
    large="mini", small="mini", size=(128, 128), steps=50, scheduler="FlowMatchEulerDiscreteScheduler", guidance=4.0
)
# D falls to about 0.05, rises to 0.2-0.6 at the switch and falls slowly from there (LOG.md).
HYBRID = Preset(
    name="hybridstitch",
    policy=HybridStitch(masks=(0.2,), thresholds=(0.13, 0.09), min_large=0.16, patience=2, text="cached"),
    source="the paper's method with the pair's own thresholds; 2.1 times as fast as 50 large steps, and 15 dB "
    "behind what the large model alone does in that time (n = 64)",
    made_for=AT_50,
)
STACKED = Preset(
    name="mini-stacked",
    policy=Schedule(
        "L S L R@0.3 -3 L R@0.3 -2 L R@0.3 -3 L R@0.3 -3 L R@0.3 -3 L R@0.3 -4 L R@0.3 -4 L R@0.3 -4 L R@0.3 -4",
        text="cached",
    ),
    source="`python -m benchmarks.equal_time --policy mini-stacked --no-few`: both models, masks with cached text and "
    "repeats; 3.2 times as fast as 50 large steps on two threads and 10 dB ahead of region-adaptive drawing (n = 64)",
    steps=50,
)
CARRIED = Preset(
    name="mini-carried",
    policy=HybridStitch(
        masks=(0.2,), thresholds=(0.3, 0.015), min_large=0.14, patience=2, text="cached", carry=0.95, follow=0.25
    ),
    source="`python -m benchmarks.equal_time --policy mini-carried --no-few`: where the small model draws, the last "
    "prediction carries on; 2.3 times as fast as 50 large steps on one thread (n = 64)",
    made_for=AT_50,
)
