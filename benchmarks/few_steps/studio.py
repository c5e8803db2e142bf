"""Drawing candidates of one prompt together, how close they come, and what they cost."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

import hybridstitch
from hybridstitch.batch.heap import keep_freed_memory
from hybridstitch.measure.calls import call
from hybridstitch.measure.lockstep import draw_together
from hybridstitch.measure.price import Prices, fixed_plans
from hybridstitch.measure.start import Start, prepare
from hybridstitch.measure.timing import GUIDED, measure
from hybridstitch.policies.levels import shifted

from .candidates import STOCK, Candidate, large

GUIDANCE, REFERENCE = 4.0, 50


class Studio:
    """The pair, some prompts, and the clean latents of 50 large steps for each."""

    def __init__(self, prompts: Sequence[str], seed: int) -> None:
        """Open the miniature pair and draw the references.

        Args:
            prompts: what to draw.
            seed: of the first prompt's noise; the next one's is larger by one.
        """
        keep_freed_memory()
        self.pipe: Any = hybridstitch.open_pair("mini")
        self.prompts, self.seed = prompts, seed
        self.references: list[Tensor] = []
        for place in range(len(prompts)):
            self.references.append(self.draw([large(REFERENCE, STOCK)], place)[0])

    @cache  # noqa: B019  a studio lives as long as the program
    def start(self, place: int, steps: int, shift: float) -> Start:
        """A prompt ready to be drawn with these noise levels."""
        own = self.pipe.scheduler.config.shift
        levels = {} if shift == STOCK else {"sigmas": shifted(steps, shift, own=own)}
        return prepare(self.pipe, self.prompts[place], steps=steps, guidance=GUIDANCE, seed=self.seed + place, **levels)

    def draw(self, candidates: Sequence[Candidate], place: int) -> list[Tensor]:
        """Clean latents (1, C, H, W) of one prompt, steps that candidates share drawn once."""
        drawn: dict[Candidate, Tensor] = {}
        grids: dict[tuple[int, float], list[Candidate]] = {}
        for candidate in candidates:
            grids.setdefault((candidate.steps, candidate.shift), []).append(candidate)
        for grid, members in grids.items():
            found = draw_together(self.pipe, self.start(place, *grid), {c.name: c.policy for c in members})
            drawn |= {c: found[c.name].latent for c in members}
        return [drawn[c] for c in candidates]

    def closeness(self, candidates: Sequence[Candidate], places: Iterable[int]) -> dict[Candidate, list[float]]:
        """−10 log₁₀ of the mean squared distance to the reference's latent, dB, a value a prompt."""
        found: dict[Candidate, list[float]] = {c: [] for c in candidates}
        for place in places:
            for candidate, latent in zip(candidates, self.draw(candidates, place), strict=True):
                error = (latent - self.references[place]).square().mean()
                found[candidate].append(float(-10 * torch.log10(error.clamp_min(1e-12))))
        return found


def priced(pipe: Any, prompt: str) -> Prices:
    """What strokes, steps and a picture cost on this machine now."""
    setting = {"guidance": GUIDANCE, "seed": 0, "width": 128, "height": 128}
    return measure(lambda policy, steps: call(pipe, prompt, policy, steps=steps, **setting), GUIDED, rounds=5)


def dense_steps(candidate: Candidate, prices: Prices) -> float:
    """Time beside what every picture pays once, in steps of the large model alone."""
    seconds = prices.plans(fixed_plans(candidate.policy, candidate.steps)) - prices.call
    return seconds / (prices.large + prices.step)


def at_time(curve: Sequence[tuple[float, float]], time: float) -> float:
    """Decibels of the rival at exactly this time, on straight lines between its numbers of steps."""
    times, values = zip(*sorted(curve), strict=True)
    return float(np.interp(time, times, values))
