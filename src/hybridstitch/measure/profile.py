"""A pair, measured: where the two models differ, how the picture settles, and what a stroke costs on this machine.

`follow` draws with the large model alone and asks the small one at every step for its opinion of the same latent. All
questions about distances, masks and their worth are then answered offline, without drawing again:

    difference  ‖v_L − v_S‖ / ‖v_L‖ a step, and where in the picture it lies (paper Fig. 2 and 1b)
    f(M)        share of ‖v_L − v_S‖² inside a mask of M: the policy's own, a random one, the best there is
    D           Eq. 9 for every signal and reduction

`costs` times the strokes themselves, interleaved, for s and h(M).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from ..drawing.change import Meter, busiest
from ..drawing.stepped import Stepped
from ..families.layout import Layout
from ..pair.stitched import StitchedTransformer
from ..policies.latency import CostModel
from ..policies.plan import Region, Stroke, Text
from ..policies.policy import Reduction, Signal


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
    stitched: StitchedTransformer = pipe.transformer
    small: list[Tensor] = []
    large: list[Tensor] = []
    latents: list[Tensor] = []
    sigmas: list[float] = []

    def guided(prediction: Tensor) -> Tensor:
        if guidance <= 1:
            return prediction
        negative, positive = prediction.chunk(2)
        return negative + guidance * (positive - negative)

    def ask(module: Any, args: tuple[Any, ...], inputs: dict[str, Any], output: Any) -> None:
        latents.append(inputs["hidden_states"][:1].float())
        sigmas.append(float(inputs["timestep"][0]) / 1000)
        large.append(guided(output[0].float()))
        small.append(guided(stitched.small(**inputs)[0].float()))

    before, stitched.policy = stitched.policy, "large"
    handle = stitched.large.register_forward_hook(ask, with_kwargs=True)
    try:
        generator = torch.Generator().manual_seed(seed)
        last = pipe(
            prompt,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generator,
            output_type="latent",
            return_dict=False,
            **call,
        )[0]
    finally:
        handle.remove()
        stitched.policy = before
    return Trajectory(
        torch.cat([*latents, last.float()]),
        torch.tensor(sigmas),
        torch.cat(large),
        torch.cat(small),
        stitched.family.layout,
    )


def costs(
    pipe: Any,
    inputs: dict[str, Any],
    *,
    ratios: Sequence[float] = (0.1, 0.15, 0.2, 0.3, 0.4),
    text: str = "fresh",
    repeats: int = 15,
) -> CostModel:
    """Seconds of strokes on this machine, interleaved; medians, fitted.

    Args:
        pipe: a stitched pipeline.
        inputs: keyword arguments of one transformer call.
        ratios: masks to time.
        text: "fresh" or "cached".
        repeats: measured rounds, after two that are not.
    """
    words: Text = "cached" if text == "cached" else "fresh"
    strokes = (Stroke("L"), Stroke("S"), *(Stroke("L", Region(ratio), text=words) for ratio in ratios))
    seconds = stroke_seconds(pipe, inputs, strokes, repeats=repeats)
    return CostModel.fit((stroke, median(times)) for stroke, times in seconds.items())


def stroke_seconds(
    pipe: Any, inputs: dict[str, Any], strokes: Iterable[Stroke], *, repeats: int = 15
) -> dict[Stroke, list[float]]:
    """Seconds of strokes on this machine, all of them in turn in every round.

    Args:
        pipe: a stitched pipeline.
        inputs: keyword arguments of one transformer call.
        strokes: dense or masked ones of the large model, and of the small one.
        repeats: measured rounds, after two that are not.

    Returns:
        of each stroke `repeats` numbers.
    """
    timer = StrokeTimer(pipe, inputs, strokes)
    rounds = [timer.round() for _ in range(repeats + 2)][2:]
    return {stroke: [seconds[stroke] for seconds in rounds] for stroke in timer.strokes}


class StrokeTimer:
    """Times strokes of a pair, a round at a time; in between the pipeline can be used, and stitched anew.

    A whole stroke is drawn twice and its second time counts: in a run it follows one of its kind, too.

    Attributes:
        strokes: what is timed.
    """

    @torch.no_grad()
    def __init__(self, pipe: Any, inputs: dict[str, Any], strokes: Iterable[Stroke]) -> None:
        """Draw what the masked strokes need.

        Args:
            pipe: a stitched pipeline.
            inputs: keyword arguments of one transformer call.
            strokes: dense or masked ones of the large model, and of the small one.
        """
        self.strokes = tuple(strokes)
        self._pipe, self._inputs = pipe, inputs
        family = pipe.transformer.family
        latent: Tensor = inputs["hidden_states"]
        self._device = latent.device
        tokens = family.layout.count(latent)
        self._memory = family.room(inputs)
        family.dense(inputs, memory=self._memory)
        self._chosen = {
            stroke: torch.arange(stroke.region.count(tokens), device=latent.device).repeat(len(latent), 1)
            for stroke in self.strokes
        }

    @torch.no_grad()
    def round(self) -> dict[Stroke, float]:
        """Seconds of every stroke, in turn."""
        seconds = {}
        for stroke in self.strokes:
            if not stroke.masked:
                self._draw(stroke)
            _wait(self._device)
            start = perf_counter()
            self._draw(stroke)
            _wait(self._device)
            seconds[stroke] = perf_counter() - start
        return seconds

    def _draw(self, stroke: Stroke) -> None:
        stitched: StitchedTransformer = self._pipe.transformer
        if stroke.model == "S":
            stitched.small(**self._inputs, return_dict=False)
        elif stroke.masked:
            stitched.family.masked(self._inputs, self._chosen[stroke], self._memory, None, text=stroke.text)
        else:
            stitched.family.dense(self._inputs)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
