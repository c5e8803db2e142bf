"""What a preset is, and the setting that its thresholds are at home in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..levels import at_levels, levels_of
from ..policy import Policy

APART = 1e-3  # σ that a step's noise level may be off


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
        made_for: the setting its thresholds were chosen in; None where it has no thresholds.
        paper: the paper's figures for it.
        steps: T, where the policy is made for one number of steps.
        shift, levels: of the noise, one for all or each step's σ (`policies.levels`); None leaves them to the pipeline.
        guidance, size: guidance scale, height and width in pixels, where it was measured with one of each.
        frames: of a video, likewise.
    """

    name: str
    policy: Policy
    source: str
    made_for: Setting | None = None
    paper: PaperRow | None = None
    steps: int | None = None
    shift: float | None = None
    levels: tuple[float, ...] | None = None
    guidance: float | None = None
    size: tuple[int, int] | None = None
    frames: int | None = None

    def call(self, scheduler: Any) -> dict[str, Any]:
        """What the pipeline's call takes beside the prompt: `pipe(prompt, **chosen.call(pipe.scheduler))`.

        Args:
            scheduler: the pipeline's.

        Returns:
            `num_inference_steps`, `sigmas`, `guidance_scale`, `height`, `width` and `num_frames`, as far as the preset
            says.
        """
        height, width = self.size or (None, None)
        said = {
            "num_inference_steps": self.steps, "guidance_scale": self.guidance, "height": height, "width": width,
            "num_frames": self.frames,
        }  # fmt: skip
        call: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        return call if self.steps is None else call | at_levels(scheduler, self.steps, self.shift, self.levels)

    def noise(self, scheduler: Any, steps: int) -> list[float] | None:
        """σ of every step where the preset is followed.

        Args:
            scheduler: the pipeline's.
            steps: T of the run.

        Returns:
            T levels; None where the preset leaves them to the pipeline, is of other steps, or the scheduler moves them
            with the picture's size or is given none.
        """
        if steps != self.steps or (self.shift is None and self.levels is None):
            return None
        config = scheduler.config
        if getattr(config, "shift", None) is None or getattr(config, "use_dynamic_shifting", False):
            return None
        return levels_of(scheduler, steps, self.shift, self.levels)


def outside(
    preset: Preset,
    *,
    large: str | None = None,
    small: str | None = None,
    size: tuple[int, int] | None = None,
    steps: int | None = None,
    scheduler: str | None = None,
    guidance: float | None = None,
    noise: tuple[Sequence[float], Sequence[float]] | None = None,
) -> list[str]:
    """Where a run leaves the setting that a preset was made for: sentences for a warning.

    Args:
        preset: the preset; one without thresholds or measurements is at home everywhere, at its noise levels.
        large: hub id or folder of the run's large model. What is left out is not compared.
        small: of its small model.
        size: height and width in pixels.
        steps: T.
        scheduler: class name.
        guidance: guidance scale.
        noise: σ of every step, the preset's and the run's; of the steps that differ the first is told.
    """
    home = preset.made_for
    pairs: list[tuple[str, Any, Any]] = []
    if home is not None:
        pairs = [
            ("the large model", home.large, large),
            ("the small model", home.small, small),
            ("the size", f"{home.size[0]}×{home.size[1]}", None if size is None else f"{size[0]}×{size[1]}"),
            ("the number of steps", home.steps, steps),
            ("the scheduler", home.scheduler, scheduler),
            ("the guidance", home.guidance, guidance),
        ]
    levels = [] if noise is None else enumerate(zip(*noise, strict=True))
    apart = [(step, own, now) for step, (own, now) in levels if abs(own - now) > APART]
    pairs += [(f"the noise level of step {step}", f"{own:.4f}", f"{now:.4f}") for step, own, now in apart[:1]]
    made = f"The thresholds of {preset.name!r} were chosen" if preset.policy.adaptive else f"{preset.name} was measured"
    return [
        f"{made} where {what} is {theirs}; in this run it is {ours}."
        for what, theirs, ours in pairs
        if theirs is not None and ours is not None and theirs != ours
    ]


def warning(preset: Preset, **run: Any) -> str | None:
    """What to say of a run that leaves a preset's setting, with the way back; None for one that does not.

    Args:
        preset: that the run draws by.
        run: see `outside`.
    """
    sentences = outside(preset, **run)
    if not sentences:
        return None
    back = "" if preset.steps is None else " Call `pipe(prompt, **pipe.transformer.call)` to draw as it was measured."
    return f"outside the setting of {preset.name}: {' '.join(sentences)}{back}"
