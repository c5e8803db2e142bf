"""What strokes cost on this machine, measured by themselves, and what a method's denoising loop should therefore take.

Dense, small and masked steps are timed one stroke at a time (`profile.costs`); what a step costs beside its strokes is
the loop of a run that repeats its prediction. No run of a method enters: its time is a prediction, and the tables tell
how far off it was.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Self

from ..latency import CostModel
from ..lockstep import prepare
from ..plan import Plan
from ..policies import Schedule
from ..profile import costs
from .calls import call
from .settings import Settings

RATIOS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Seconds of strokes.

    Attributes:
        fresh, cached: with fresh and with cached text.
        step_seconds: what a step takes beside its strokes: guidance, scheduler, deciding.
    """

    fresh: CostModel
    cached: CostModel
    step_seconds: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        fresh, cached = (CostModel(**data[name]) for name in ("fresh", "cached"))
        return cls(fresh=fresh, cached=cached, step_seconds=data["step_seconds"])

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return asdict(self)

    @property
    def large(self) -> float:
        """L_l: seconds of a dense step."""
        return self.fresh.large

    @property
    def small(self) -> float:
        """s, in dense steps."""
        return self.fresh.small / self.large

    @property
    def step(self) -> float:
        """What a step takes beside its strokes, in dense steps."""
        return self.step_seconds / self.large

    def masked(self, ratio: float, text: str = "fresh") -> float:
        """h(M), in dense steps."""
        return (self.cached if text == "cached" else self.fresh).masked(ratio) / self.large

    def seconds(self, plans: Iterable[Plan]) -> float:
        """Seconds of the denoising loop of one image."""
        total = 0.0
        for plan in plans:
            total += self.step_seconds
            for stroke in plan.strokes:
                total += (self.cached if stroke.masked and stroke.text == "cached" else self.fresh).stroke(stroke)
        return total

    def dense(self, plans: Iterable[Plan]) -> float:
        """The same in dense steps."""
        return self.seconds(plans) / self.large


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
    cached = scaled(cached, fresh.large / cached.large)  # timed after the others: the machine may have changed its pace
    bare = [call(pipe, settings, image=0, policy=Schedule("L -*")) for _ in range(max(3, repeats // 3))]
    loop = median(taken.denoising_seconds - taken.trace.seconds for taken in bare)
    return Prices(fresh=fresh, cached=cached, step_seconds=max(loop, 0.0) / settings.steps)


def scaled(model: CostModel, factor: float) -> CostModel:
    """A cost model of a machine `factor` times as slow."""
    return CostModel(
        large=model.large * factor,
        small=model.small * factor,
        masked_base=model.masked_base * factor,
        masked_slope=None if model.masked_slope is None else model.masked_slope * factor,
    )
