"""Policies draw one prompt at one step count, together, and are compared with the large model's picture of it."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..evaluate.closeness import capped_psnr, ssim
from ..measure.lockstep import draw_together
from ..measure.price import Prices
from ..measure.profile import follow
from ..measure.start import decode, prepare
from ..pair.asking import levelled
from ..policies.parse import parse
from ..policies.trace import Step
from .conditions import Conditions, Picture
from .plans import noise_text

Grid = tuple[int, float | None, tuple[float, ...] | None]  # steps, and the shift or the levels of the noise
MASKS = (0.15, 0.3)  # whose shares of the difference are told


@dataclass(frozen=True, slots=True)
class Comparison:
    """Policies that draw one prompt at one step count.

    Attributes:
        prompt: its index.
        steps: T′.
        policies: as text.
        shift, levels: of the noise; None leaves them to the pipeline.
    """

    prompt: int
    steps: int
    policies: tuple[str, ...]
    shift: float | None = None
    levels: tuple[float, ...] | None = None

    @property
    def grid(self) -> Grid:
        """Where its steps are."""
        return self.steps, self.shift, self.levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one policy drew of one prompt.

    Attributes:
        prompt: its index.
        steps, policy: what drew.
        closeness: SSIM to the large picture.
        psnr: in dB, at most 99.
        seconds: the price of what was drawn.
        distances: D of each step (Eq. 9); None where there is none, and where a prediction was repeated.
        shift, levels: of the noise; None left them to the pipeline.
    """

    prompt: int
    steps: int
    policy: str
    closeness: float
    psnr: float
    seconds: float
    distances: tuple[float | None, ...]
    shift: float | None = None
    levels: tuple[float, ...] | None = None

    @property
    def text(self) -> str:
        """The policy and the noise levels, for keys."""
        return self.policy + noise_text(self.shift, self.levels)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; noise levels that are the pipeline's own are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparer:
    """Draws and compares.

    Attributes:
        pipe: stitched.
        conditions: of the calls.
        prompts: all of them.
        seed: of the noise of the first prompt; each has the next.
        prices: of this machine.
    """

    pipe: Any
    conditions: Conditions
    prompts: tuple[str, ...]
    seed: int
    prices: Prices

    def draw(self, comparison: Comparison, reference: Picture | None) -> tuple[list[Score], Picture | None]:
        """Carry a comparison out.

        Args:
            comparison: at T steps it must hold "large" if there is no reference yet.
            reference: the large model's picture of the prompt, or None.

        Returns:
            a score for each policy, and the reference where this one drew it.
        """
        start = self._start(comparison)
        drawn = draw_together(self.pipe, start, {text: parse(text) for text in comparison.policies})
        pictures = {text: decode(self.pipe, one.start, one.latent) for text, one in drawn.items()}
        made = pictures["large"] if reference is None else None
        compared = reference if made is None else made
        assert compared is not None
        scores = []
        for text, one in drawn.items():
            steps = one.trace.of(0)
            scores.append(
                Score(
                    prompt=comparison.prompt,
                    steps=comparison.steps,
                    policy=text,
                    closeness=ssim(pictures[text], compared),
                    psnr=capped_psnr(pictures[text], compared),
                    seconds=self.prices.plans(step.drawn for step in steps),
                    shift=comparison.shift,
                    levels=comparison.levels,
                    distances=tuple(map(_distance, steps)),
                )
            )
        return scores, made

    def shares(self, prompt: int) -> dict[str, float]:
        """f(M), the share of ‖v_L − v_S‖² inside a mask, mean over the steps of the large model's way, by M."""
        way = follow(
            self.pipe,
            self.prompts[prompt],
            steps=self.conditions.steps,
            guidance=self.conditions.guidance,
            seed=self.seed + prompt,
            **self.conditions.size,
        )
        found = {}
        for mask in MASKS:
            shares = torch.tensor(way.shares(mask, "denoised"))
            found[f"{mask:g}"] = float(shares[~shares.isnan()].mean())
        return found

    def _start(self, of: Comparison) -> Any:
        return prepare(
            self.pipe,
            self.prompts[of.prompt],
            steps=of.steps,
            guidance=self.conditions.guidance,
            seed=self.seed + of.prompt,
            **self.conditions.size,
            **levelled(self.pipe, of.steps, of.shift, of.levels),
        )


def _distance(step: Step) -> float | None:
    """D as it is kept; of a repeated prediction it is rounding noise."""
    return None if step.distance is None or not step.drawn.strokes else float(f"{step.distance:.4g}")
