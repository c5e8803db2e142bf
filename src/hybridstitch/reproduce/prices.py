"""What strokes cost on this machine, measured by themselves, and what a method's denoising loop should therefore take.

Dense, small and masked steps are timed one stroke at a time (`profile.costs`); what a step costs beside its strokes is
the loop of a run that repeats its prediction. No run of a method enters: its time is a prediction, and the tables tell
how far off it was. Only the loop is priced here, so a call costs nothing beside it.
"""

from collections.abc import Iterable
from statistics import median
from typing import Any

from ..latency import CostModel
from ..lockstep import prepare
from ..plan import Plan
from ..policies import Schedule
from ..price import Prices
from ..profile import costs
from .calls import call
from .settings import Settings

RATIOS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


def dense(prices: Prices, plans: Iterable[Plan]) -> float:
    """Time of the denoising loop of one image, in dense steps of the large model."""
    return prices.plans(plans) / prices.large


def measure(pipe: Any, settings: Settings, *, repeats: int = 15) -> Prices:
    """Time strokes on this machine, interleaved, and the bare loop.

    Args:
        pipe: the stitched pipeline.
        settings: size, steps and guidance.
        repeats: rounds.
    """
    start = prepare(
        pipe, settings.prompts[0], steps=settings.steps, guidance=settings.guidance, seed=settings.seed,
        width=settings.size[0], height=settings.size[1],
    )  # fmt: skip
    rows = len(start.inputs["encoder_hidden_states"])
    latent = start.latent.repeat(rows, 1, 1, 1)
    time = start.scheduler.timesteps[0].expand(rows).to(latent.device)
    inputs = {**start.inputs, "hidden_states": latent, "timestep": time}
    fresh, cached = (costs(pipe, inputs, ratios=RATIOS, text=text, repeats=repeats) for text in ("fresh", "cached"))
    pace = fresh.large / cached.large  # timed after the others: the machine may have changed its pace
    bare = [call(pipe, settings, image=0, policy=Schedule("L -*")) for _ in range(max(3, repeats // 3))]
    loop = median(taken.denoising_seconds - taken.trace.seconds for taken in bare)
    return Prices(
        call=0.0,
        step=max(loop, 0.0) / settings.steps,
        large=fresh.large,
        small=fresh.small,
        masked={"fresh": line(fresh), "cached": line(cached, pace)},
    )


def line(model: CostModel, pace: float = 1.0) -> tuple[float, float]:
    """Intercept and slope of a masked stroke on a machine `pace` times as slow."""
    assert model.masked_slope is not None
    return model.masked_base * pace, model.masked_slope * pace
