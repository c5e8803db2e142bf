"""Which tokens a plan's region is: the busiest ones, those of the stage's first step, or those a replay names."""

import copy
from typing import Self

from torch import Tensor

from ..compat import upload
from ..errors import RunError
from ..families.layout import Layout
from ..policies.plan import Plan
from .change import Meter
from .engine import Engine


class Masks:
    """The masks of a run.

    Attributes:
        tokens: N, once known.
    """

    def __init__(self, engine: Engine, layout: Layout) -> None:
        """Choose nothing yet.

        Args:
            engine: rounds the number of tokens.
            layout: of latents.
        """
        self.tokens = 0
        self._engine, self._layout = engine, layout
        self._frozen: dict[int, tuple[int, Tensor]] = {}  # per image: the stage whose mask is frozen, and the mask

    def choose(self, image: int, plan: Plan, meter: Meter | None, latent: Tensor) -> Tensor | None:
        """The tokens of a plan's region.

        Args:
            image: whose plan.
            plan: of the step about to be drawn.
            meter: what the last steps changed; None where nothing is measured.
            latent: on the device where the tokens are wanted.

        Returns:
            (K,), or None where the plan has no region.

        Raises:
            RunError: a mask is asked for before any change was measured.
        """
        region = next((s.region for s in plan.strokes if not s.region.everywhere), None)
        if region is None:
            return None
        if region.tokens is not None:
            return upload(region.tokens, latent.device)
        stage, mask = self._frozen.get(image, (None, None))
        if region.frozen and stage == plan.stage:
            return mask
        if meter is None or meter.change is None:
            raise RunError("a mask was asked for, but no change was measured before it")
        mask = meter.busiest(image, self._engine.count(region.count(self.tokens), self.tokens))
        self._frozen[image] = (plan.stage, mask)
        return mask

    def copy(self) -> Self:
        """The same so far, for a run that goes on by itself."""
        twin = copy.copy(self)
        twin._frozen = dict(self._frozen)
        return twin
