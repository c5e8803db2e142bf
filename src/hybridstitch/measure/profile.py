"""A pair, measured: where the two models differ, and how the picture settles.

`follow` draws with the large model alone and asks the small one at every step for its opinion of the same latent. All
questions about distances, masks and their worth are then answered offline, without drawing again:

    difference  ‖v_L − v_S‖ / ‖v_L‖ a step, and where in the picture it lies (paper Fig. 2 and 1b)
    f(M)        share of ‖v_L − v_S‖² inside a mask of M: the policy's own, a random one, the best there is
    D           Eq. 9 for every signal and reduction
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..drawing.call import Models
from ..drawing.change import Meter, busiest
from ..drawing.stepped import Stepped
from ..families.family import bare
from ..families.layout import Layout
from ..policies.plan import Region
from ..policies.policy import Reduction, Signal
from .start import prepare, seat_of


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The large model's way to a picture, and the small one's opinion on it; T steps of one image.

    Attributes:
        latents: x_0 … x_T, (T + 1, …), float32.
        sigmas: σ_0 … σ_{T−1}, (T,).
        large: v_L after guidance, (T, …).
        small: v_S after guidance, (T, …).
        layout: of latents.
    """

    latents: Tensor
    sigmas: Tensor
    large: Tensor
    small: Tensor
    layout: Layout

    @property
    def difference(self) -> Tensor:
        """‖v_L − v_S‖² of each token at each step, (T, N)."""
        return self.layout.sums((self.large - self.small).square())

    @property
    def relative_difference(self) -> Tensor:
        """‖v_L − v_S‖ / ‖v_L‖ of each step, (T,)."""
        return (self.large - self.small).flatten(1).norm(dim=1) / self.large.flatten(1).norm(dim=1)

    def meters(self, signal: Signal, reduction: Reduction) -> list[Meter]:
        """What had been measured after each step."""
        found, meter = [], Meter(signal, reduction, self.layout)
        for step, sigma in enumerate(self.sigmas):
            latent, prediction = self.latents[step, None], self.large[step, None]
            meter.observe(
                Stepped(
                    latent=latent,
                    prediction=prediction,
                    sigma=sigma,
                    returned=self.latents[step + 1, None],
                    clean=latent - sigma * prediction,
                )
            )
            after = Meter(signal, reduction, self.layout)
            after.output, after.change = meter.output, meter.change
            found.append(after)
        return found

    def distances(self, signal: Signal, reduction: Reduction) -> list[float]:
        """D_0 … D_{T−1}; NaN where there is none."""
        return [float(meter.read()[0, 0]) for meter in self.meters(signal, reduction)]

    def shares(self, ratio: float, kind: str, *, seed: int = 0) -> list[float]:
        """f(M) of each step ≥ 2: the share of ‖v_L − v_S‖² inside the mask drawn at that step.

        Args:
            ratio: M.
            kind: "denoised" or "latent" for the policy's mask from that signal (of the step before), "random",
                "oracle" for the best mask, or "frozen@k" for the denoised mask chosen at step k.
            seed: of the random masks.

        Returns:
            T values; NaN before a mask can be chosen.
        """
        difference = self.difference
        tokens = difference.shape[1]
        count = Region(ratio).count(tokens)
        signal: Signal = "latent" if kind == "latent" else "denoised"
        meters = self.meters(signal, "token") if kind != "oracle" and kind != "random" else []
        generator = torch.Generator().manual_seed(seed)
        frozen = int(kind.partition("@")[2]) if kind.startswith("frozen") else None
        shares = []
        for step in range(len(difference)):
            if step < 2 or (frozen is not None and step < frozen):
                shares.append(float("nan"))
                continue
            if kind == "oracle":
                mask = busiest(difference[step, None], count)[0]
            elif kind == "random":
                mask = torch.randperm(tokens, generator=generator)[:count]
            else:
                mask = meters[(step if frozen is None else frozen) - 1].busiest(0, count)
            shares.append(float(difference[step, mask].sum() / difference[step].sum()))
        return shares


@torch.no_grad()
def follow(pipe: Any, prompt: str, *, steps: int, guidance: float, seed: int, **call: Any) -> Trajectory:
    """Draw one picture with the large model and ask the small one along the way.

    Args:
        pipe: a stitched pipeline; its policy is left as it is.
        prompt: what to draw.
        steps: T.
        guidance: the guidance scale (above 1).
        seed: of the noise.
        call: further arguments of the pipeline's call.
    """
    start = prepare(pipe, prompt, steps=steps, guidance=guidance, seed=seed, **call)
    models: Models = seat_of(pipe).models
    scheduler, latent = copy.deepcopy(start.scheduler), start.latent
    latents, large, small, sigmas = [latent.float()], [], [], []
    for step, time in enumerate(scheduler.timesteps):
        calls = [models.call(inputs, 1) for inputs in start.inputs(latent, step)]
        drawn = start.guide([models.large.dense(one.inputs)[0] for one in calls], latent, step)
        other = start.guide([bare(models.small(**one.small, return_dict=False)) for one in calls], latent, step)
        latent = scheduler.step(drawn, time, latent, return_dict=False, **start.way.tells(time))[0]
        latents.append(latent.float())
        large.append(start.way.sign * drawn.float())
        small.append(start.way.sign * other.float())
        sigmas.append(float(scheduler.sigmas[len(sigmas)]))
    layout = models.large.layout
    return Trajectory(torch.cat(latents), torch.tensor(sigmas), torch.cat(large), torch.cat(small), layout)
