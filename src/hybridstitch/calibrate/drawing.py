"""One task of a calibration: some policies draw one prompt at one step count, together, and are compared with the
large model's picture of it."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..evaluate.closeness import psnr, ssim
from ..measure.lockstep import decode, draw_together, prepare
from ..measure.price import Prices
from ..measure.profile import follow
from ..policies.methods import LargeOnly, parse
from .call import Call, Picture

MASKS = (0.15, 0.3)  # whose shares of the difference are told
MOST_PSNR = 99.0  # dB, of equal pictures


@dataclass(frozen=True, slots=True)
class Task:
    """Policies that draw one prompt at one step count.

    Attributes:
        prompt: its index.
        steps: T′.
        policies: as text.
    """

    prompt: int
    steps: int
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one policy drew of one prompt.

    Attributes:
        prompt: its index.
        steps, policy: what drew.
        closeness: SSIM to the large picture.
        psnr: in dB.
        seconds: the price of what was drawn.
        distances: D of each step (Eq. 9); None where there is none.
    """

    prompt: int
    steps: int
    policy: str
    closeness: float
    psnr: float
    seconds: float
    distances: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Studio:
    """Everything that drawing needs.

    Attributes:
        pipe: stitched.
        call: the setting.
        prompts: all of them.
        seed: of the noise of the first prompt; each has the next.
        prices: of this machine.
    """

    pipe: Any
    call: Call
    prompts: tuple[str, ...]
    seed: int
    prices: Prices

    def reference(self, prompt: int) -> Picture:
        """The large model's picture of a prompt."""
        start = self._start(prompt, self.call.steps)
        return decode(self.pipe, draw_together(self.pipe, start, {"large": LargeOnly()})["large"].latent)

    def draw(self, task: Task, reference: Picture | None) -> tuple[list[Score], Picture | None]:
        """Carry a task out.

        Args:
            task: at T steps it must hold "large" if there is no reference yet.
            reference: the large model's picture of the prompt, or None.

        Returns:
            a score for each policy, and the reference where this task drew it.
        """
        start = self._start(task.prompt, task.steps)
        drawn = draw_together(self.pipe, start, {text: parse(text) for text in task.policies})
        pictures = {text: decode(self.pipe, one.latent) for text, one in drawn.items()}
        made = pictures["large"] if reference is None else None
        compared = reference if made is None else made
        assert compared is not None
        scores = []
        for text, one in drawn.items():
            steps = one.trace.of(0)
            scores.append(
                Score(
                    prompt=task.prompt,
                    steps=task.steps,
                    policy=text,
                    closeness=ssim(pictures[text], compared),
                    psnr=min(psnr(pictures[text], compared), MOST_PSNR),
                    seconds=self.prices.plans(step.drawn for step in steps),
                    distances=tuple(None if s.distance is None else float(f"{s.distance:.4g}") for s in steps),
                )
            )
        return scores, made

    def shares(self, prompt: int) -> dict[str, float]:
        """f(M), the share of ‖v_L − v_S‖² inside a mask, mean over the steps of the large model's way, by M."""
        way = follow(
            self.pipe,
            self.prompts[prompt],
            steps=self.call.steps,
            guidance=self.call.guidance,
            seed=self.seed + prompt,
            **self.call.size,
        )
        found = {}
        for mask in MASKS:
            shares = torch.tensor(way.shares(mask, "denoised"))
            found[f"{mask:g}"] = float(shares[~shares.isnan()].mean())
        return found

    def _start(self, prompt: int, steps: int) -> Any:
        return prepare(
            self.pipe,
            self.prompts[prompt],
            steps=steps,
            guidance=self.call.guidance,
            seed=self.seed + prompt,
            **self.call.size,
        )
