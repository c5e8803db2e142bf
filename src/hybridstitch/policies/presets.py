"""The methods of the paper's Tables 1-3 and their rivals, by name, with the figures the paper gives for them.

    preset("hybridstitch-30").policy          HybridStitch(masks=(0.3,), thresholds=(0.5, 0.3))
    preset("hybridstitch-30").paper.speedup   1.83
    policy_named("hybridstitch-30")           also reads policy strings and programs

Thresholds belong to the setting they were chosen in: `outside` says in sentences where a run leaves it. A rival that
needs no name: `large` with fewer steps.
"""

from dataclasses import dataclass
from typing import Any

from ..errors import PolicyError, nearest
from .levels import shifted
from .methods import POLICIES, HybridStitch, LargeOnly, Schedule, SmallOnly, SRDiffusion, TStitch, parse
from .policy import Policy
from .program import SEGMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRow:
    """What the paper measured: 5,000 COCO captions on an RTX 6000 Ada.

    Attributes:
        fid: against the real pictures; lower is better.
        clip: CLIP score, times 100.
        lpips: against the large model's picture; None for the large model itself.
        latency_seconds: per picture.
        speedup: against the large model, as printed.
    """

    fid: float
    clip: float
    lpips: float | None
    latency_seconds: float
    speedup: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where thresholds were chosen.

    Attributes:
        large, small: hub ids, or "mini".
        size: height and width of the picture in pixels.
        steps: T.
        scheduler: class name.
        guidance: guidance scale; None where the source does not state it.
    """

    large: str
    small: str
    size: tuple[int, int]
    steps: int
    scheduler: str
    guidance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named policy.

    Attributes:
        name: as `preset` and `policy_named` take it.
        policy: who draws what.
        source: where its numbers come from.
        made_for: the setting its thresholds were chosen in; None where there are no thresholds to carry over.
        paper: the paper's figures for it.
        steps: T, where the policy is made for one number of steps.
        shift: of the noise levels (`levels.shifted`); None leaves them to the pipeline.
    """

    name: str
    policy: Policy
    source: str
    made_for: Setting | None = None
    paper: PaperRow | None = None
    steps: int | None = None
    shift: float | None = None

    def call(self, scheduler: Any) -> dict[str, Any]:
        """What the pipeline's call takes beside the prompt: `pipe(prompt, **chosen.call(pipe.scheduler))`.

        Args:
            scheduler: the pipeline's.

        Returns:
            `num_inference_steps` and `sigmas`, as far as the preset says.
        """
        steps = {} if self.steps is None else {"num_inference_steps": self.steps}
        if self.steps is None or self.shift is None:
            return steps
        return {**steps, "sigmas": shifted(self.steps, self.shift, own=scheduler.config.shift)}


PAPER = Setting(  # section 4.1; the scheduler is the models' own, the guidance is not stated
    large="stabilityai/stable-diffusion-3.5-large",
    small="stabilityai/stable-diffusion-3-medium-diffusers",
    size=(768, 768),
    steps=50,
    scheduler="FlowMatchEulerDiscreteScheduler",
)
_THRESHOLDS = {10: (0.3, 0.25), 20: (0.35, 0.25), 30: (0.5, 0.3), 40: (0.4, 0.3)}  # section 4.1, by mask in percent
_SEVERAL = {(20, 10): (0.5, 0.3, 0.2), (30, 10): (0.5, 0.3, 0.2), (40, 30): (0.6, 0.5, 0.3)}  # section 4.4
_FIGURES = {  # Tables 1-3: FID, CLIP, LPIPS, seconds, speedup
    "large": (27.64, 31.81, None, 20.72, 1.0),
    "t-stitch": (31.87, 32.01, 0.72, 14.74, 1.41),
    "sr-diffusion": (31.67, 31.89, 0.69, 13.37, 1.55),
    "hybridstitch-10": (31.03, 31.82, 0.35, 12.03, 1.72),
    "hybridstitch-20": (30.34, 31.81, 0.37, 12.21, 1.7),
    "hybridstitch-30": (30.43, 31.84, 0.42, 11.31, 1.83),
    "hybridstitch-40": (30.96, 31.83, 0.38, 12.01, 1.72),
    "hybridstitch-10-static": (31.91, 31.81, 0.37, 11.68, 1.77),
    "hybridstitch-20-static": (31.55, 31.84, 0.39, 11.15, 1.85),
    "hybridstitch-30-static": (31.88, 31.79, 0.45, 9.95, 2.08),
    "hybridstitch-40-static": (32.08, 31.80, 0.41, 10.73, 1.93),
    "hybridstitch-10-full-large": (31.14, 31.83, 0.34, 13.82, 1.5),
    "hybridstitch-20-full-large": (31.19, 31.84, 0.35, 13.57, 1.52),
    "hybridstitch-30-full-large": (31.32, 31.84, 0.39, 12.38, 1.67),
    "hybridstitch-40-full-large": (31.27, 31.83, 0.36, 12.35, 1.68),
    "hybridstitch-20-10": (30.11, 31.80, 0.42, 11.85, 1.75),
    "hybridstitch-30-10": (30.02, 31.79, 0.41, 12.49, 1.66),
    "hybridstitch-40-30": (30.87, 31.82, 0.43, 11.43, 1.81),
}


def _of_the_paper(name: str, policy: Policy, table: str) -> Preset:
    """A row of Tables 1-3."""
    fid, clip, lpips, seconds, speedup = _FIGURES[name]
    row = PaperRow(fid=fid, clip=clip, lpips=lpips, latency_seconds=seconds, speedup=speedup)
    made_for = PAPER if policy.adaptive else None
    return Preset(name=name, policy=policy, source=f"HybridStitch, {table}", made_for=made_for, paper=row)


TABLE_1 = (
    _of_the_paper("large", LargeOnly(), "Table 1"),
    _of_the_paper("t-stitch", TStitch(0.4), "Table 1"),
    _of_the_paper("sr-diffusion", SRDiffusion(threshold=0.005), "Table 1"),
    *(
        _of_the_paper(f"hybridstitch-{percent}", HybridStitch(masks=(percent / 100,), thresholds=thresholds), "Table 1")
        for percent, thresholds in _THRESHOLDS.items()
    ),
)
TABLE_2 = (  # these decide for themselves, as the paper's did; to change one thing only, replay the stages of a trace
    *(
        _of_the_paper(
            f"hybridstitch-{percent}-static",
            HybridStitch(masks=(percent / 100,), thresholds=thresholds, update_mask=False),
            "Table 2, StaticMask",
        )
        for percent, thresholds in _THRESHOLDS.items()
    ),
    *(
        _of_the_paper(
            f"hybridstitch-{percent}-full-large",
            HybridStitch(masks=(percent / 100,), thresholds=thresholds, masked_compute=False),
            "Table 2, FullLarge",
        )
        for percent, thresholds in _THRESHOLDS.items()
    ),
)
TABLE_3 = tuple(
    _of_the_paper(
        f"hybridstitch-{first}-{second}",
        HybridStitch(masks=(first / 100, second / 100), thresholds=thresholds),
        "Table 3",
    )
    for (first, second), thresholds in _SEVERAL.items()
)
RIVALS = (
    Preset(name="small", policy=SmallOnly(), source="the small model alone; the paper gives no figures for it"),
    Preset(
        name="modm",
        policy=Schedule("L20% S*"),
        source="MoDM's order as the HybridStitch paper tells it: the large model first; the share is ours",
    ),
    Preset(
        name="flowblending",
        policy=Schedule("L20% S* L15%"),
        source="FlowBlending (arXiv 2512.24724), large-small-large: a third of the steps large, which gives its 57 % "
        "fewer operations on a 2B/13B pair; the split between both ends is ours",
    ),
    Preset(
        name="region-adaptive",
        policy=Schedule("L14% R28%@0.5 L R25%@0.5 L R*@0.5", signal="latent"),
        source="RAS (arXiv 2502.10389) on the large model alone, as its Stable Diffusion 3 script runs 28 steps: half "
        "of the tokens from step 4 on, all of them at steps 12 and 20; chosen by the size of their last prediction "
        "(the denoised estimate of a repeated prediction does not change, so it would choose the same ones for ever)",
    ),
)
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
    made_for=Setting(
        large="mini", small="mini", size=(128, 128), steps=50, scheduler="FlowMatchEulerDiscreteScheduler", guidance=4.0
    ),
)
# Presets of another pair: a tuple like those above, each with its own `made_for`, added to the sum below.
PRESETS: dict[str, Preset] = {
    preset.name: preset for preset in (*TABLE_1, *TABLE_2, *TABLE_3, *RIVALS, *FEW, STACKED, CARRIED)
}


def preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        PolicyError: there is none; names the nearest.
    """
    if name not in PRESETS:
        raise PolicyError(f"there is no preset {name!r}; {nearest(name, PRESETS)}")
    return PRESETS[name]


def policy_named(text: str) -> Policy:
    """The policy that a text means: a preset's name, a policy string, or a program.

    Args:
        text: `hybridstitch-30`, `hybrid-stitch:masks=0.3,thresholds=0.5/0.3` or `L10 H15@0.3 S25`.

    Raises:
        PolicyError: none of them (with the nearest name), or options behind a preset's name.
    """
    name, colon, _ = text.strip().partition(":")
    if name in PRESETS and not colon:
        return PRESETS[name].policy
    if name in POLICIES or SEGMENT.fullmatch(name.partition(" ")[0]):
        return parse(text)
    if name in PRESETS:
        raise PolicyError(
            f"preset {name!r} takes no options; write its policy out and change that: {PRESETS[name].policy}"
        )
    raise PolicyError(f"there is no preset or policy {name!r}; {nearest(name, {*PRESETS, *POLICIES})}")


def as_policy(policy: Policy | str) -> Policy:
    """A policy, or the one that a text means, see `policy_named`.

    Raises:
        PolicyError: neither.
    """
    if isinstance(policy, str):
        return policy_named(policy)
    if not isinstance(policy, Policy):
        raise PolicyError(
            f"{policy!r} was given as a policy; give one such as hybridstitch.HybridStitch(), or its string"
        )
    return policy


def outside(
    preset: Preset,
    *,
    large: str | None = None,
    small: str | None = None,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    scheduler: str | None = None,
    guidance: float | None = None,
) -> list[str]:
    """Where a run leaves the setting that a preset's thresholds were chosen in: sentences for a warning.

    Args:
        preset: the preset; one without thresholds is at home everywhere.
        large: hub id or folder of the run's large model. What is left out is not compared.
        small: of its small model.
        size: height and width in pixels.
        steps: T.
        scheduler: class name.
        guidance: guidance scale.
    """
    home = preset.made_for
    if home is None:
        return []
    pairs = (
        ("the large model", home.large, large),
        ("the small model", home.small, small),
        ("the size", f"{home.size[0]}×{home.size[1]}", None if size is None else f"{size[0]}×{size[1]}"),
        ("the number of steps", home.steps, steps),
        ("the scheduler", home.scheduler, scheduler),
        ("the guidance", home.guidance, guidance),
    )
    return [
        f"The thresholds of {preset.name!r} were chosen where {what} is {theirs}; in this run it is {ours}."
        for what, theirs, ours in pairs
        if theirs is not None and ours is not None and theirs != ours
    ]
