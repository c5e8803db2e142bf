"""What strokes cost on this machine, measured by themselves, and what a method's denoising loop should therefore take.

Dense, small and masked steps are timed one stroke at a time (`profile.StrokeTimer`); what a step costs beside its
strokes is the loop of a run that repeats its prediction. No run of a method enters: its time is a prediction, and the
tables tell how far off it was. Only the loop is priced here, so a call costs nothing beside it.
"""

from collections.abc import Iterable
from statistics import mean
from typing import Any

from ..measure.lockstep import prepare
from ..measure.price import Prices
from ..measure.profile import StrokeTimer
from ..policies.latency import CostModel
from ..policies.methods import Schedule
from ..policies.plan import Plan, Region, Stroke
from .calls import call
from .settings import Settings

RATIOS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
WHOLE = (Stroke("L"), Stroke("S"))
MASKED = {
    "fresh": tuple(Stroke("L", Region(ratio), text="fresh") for ratio in RATIOS),
    "cached": tuple(Stroke("L", Region(ratio), text="cached") for ratio in RATIOS),
}
BARE = Schedule("L -*")


def dense(prices: Prices, plans: Iterable[Plan]) -> float:
    """Time of the denoising loop of one image, in dense steps of the large model."""
    return prices.plans(plans) / prices.large


class Meter:
    """Times strokes and the bare loop, a round at a time, so that rounds can stand between other things."""

    def __init__(self, pipe: Any, settings: Settings) -> None:
        """Prepare the strokes, and warm them up.

        Args:
            pipe: the stitched pipeline.
            settings: size, steps and guidance.
        """
        self.pipe, self.settings = pipe, settings
        start = prepare(
            pipe, settings.prompts[0], steps=settings.steps, guidance=settings.guidance, seed=settings.seed,
            width=settings.size[0], height=settings.size[1],
        )  # fmt: skip
        rows = len(start.inputs["encoder_hidden_states"])
        latent = start.latent.repeat(rows, 1, 1, 1)
        time = start.scheduler.timesteps[0].expand(rows).to(latent.device)
        inputs = {**start.inputs, "hidden_states": latent, "timestep": time}
        self.timer = StrokeTimer(pipe, inputs, (*WHOLE, *MASKED["fresh"], *MASKED["cached"]))
        self.timer.round()
        self.rounds: list[dict[Stroke, float]] = []
        self.loops: list[float] = []

    def round(self) -> None:
        """Time everything once."""
        self.rounds.append(self.timer.round())
        bare = call(self.pipe, self.settings, image=0, policy=BARE)
        self.loops.append(bare.denoising_seconds - bare.trace.seconds)

    def prices(self) -> Prices:
        """Of the rounds so far: means, because the time of a loop is a sum; without the slowest and fastest tenth."""
        seconds = {stroke: trimmed(one[stroke] for one in self.rounds) for stroke in self.timer.strokes}
        whole = [(stroke, seconds[stroke]) for stroke in WHOLE]
        fits = {
            text: CostModel.fit([*whole, *((stroke, seconds[stroke]) for stroke in strokes)])
            for text, strokes in MASKED.items()
        }
        return Prices(
            call=0.0,
            step=max(trimmed(self.loops), 0.0) / self.settings.steps,
            large=seconds[WHOLE[0]],
            small=seconds[WHOLE[1]],
            masked={text: (fit.masked_base, fit.masked_slope or 0.0) for text, fit in fits.items()},
        )


def measure(pipe: Any, settings: Settings, *, repeats: int = 15) -> Prices:
    """Time strokes on this machine, interleaved, and the bare loop.

    Args:
        pipe: the stitched pipeline.
        settings: size, steps and guidance.
        repeats: rounds.
    """
    meter = Meter(pipe, settings)
    for _ in range(repeats):
        meter.round()
    return meter.prices()


def trimmed(values: Iterable[float]) -> float:
    """Mean without the smallest and the largest tenth, rounded down."""
    ordered = sorted(values)
    cut = len(ordered) // 10
    return mean(ordered[cut : len(ordered) - cut])
