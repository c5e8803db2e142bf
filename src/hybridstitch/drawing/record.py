"""What one step did, kept on the device until somebody reads it: nothing here waits for the device before that."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan

from torch import Tensor

from ..errors import RunError
from ..policies.plan import Plan, large
from ..policies.trace import Step
from .clock import seconds
from .draw import Call
from .guard import NOT_FINITE


@dataclass(slots=True)
class Drawn:
    """One step of all images.

    Attributes:
        plans: per image what was decided.
        tokens: per image the chosen tokens (K,), or None.
        calls: the transformer calls of the step, in order; guidance may need several.
        skipping: the call of skip-layer guidance, if there was one.
        sigma: σ_i, once the scheduler made the step.
        measured: (2, B), D and 1 where the output is finite; a tensor until read.
        overruled: per image why a guard lets the large model draw it instead; empty without a guard.
    """

    plans: list[Plan]
    tokens: list[Tensor | None]
    calls: list[Call] = field(default_factory=list)
    skipping: Call | None = None
    sigma: Tensor | float | None = None
    measured: Tensor | list[list[float]] | None = None
    overruled: list[str | None] = field(default_factory=list)

    def overrule_broken(self, prediction: Tensor) -> bool:
        """Overrule the plans of images whose last call came out NaN or infinite; read on the host.

        Args:
            prediction: of the last call, (R, C, H, W), branches × images.

        Returns:
            whether there are any that the large model did not draw alone already.
        """
        finite = prediction.isfinite().flatten(1).all(1).view(-1, len(self.plans)).all(0).tolist()
        broken = [
            image
            for image, whole in enumerate(finite)
            if not whole and self.calls[-1].plans[image].strokes != (large(),)
        ]
        for image in broken:
            self.overruled[image] = self.calls[0].fallbacks[image] = NOT_FINITE
        return bool(broken)

    def read(self, index: int) -> None:
        """Bring D to the host.

        Args:
            index: the step, for the message.

        Raises:
            RunError: the step's output is not finite.
        """
        if not isinstance(self.measured, Tensor):
            return
        self.measured = self.measured.tolist()
        assert isinstance(self.measured, list)
        for image, finite in enumerate(self.measured[1]):
            if not finite:
                drew = self.calls[0].plans[image] if self.calls else self.plans[image]
                raise RunError(
                    f"step {index} of image {image}, drawn by {drew} (L large, S small), came out NaN or infinite; "
                    "try a wider dtype (fp16 overflows where bf16 does not), and each model alone (policies 'large' "
                    "and 'small') to see whose it is"
                )

    def distance(self, image: int) -> float | None:
        """D of one image, after `read`; None where there is none."""
        if self.measured is None or isnan(self.measured[0][image]):
            return None
        return float(self.measured[0][image])

    def release(self) -> None:
        """Let inputs and predictions go; plans and times stay."""
        for call in [*self.calls, *filter(None, [self.skipping])]:
            call.inputs, call.prediction, call.last = {}, None, None

    def steps(self, index: int, tokens: int) -> Sequence[Step]:
        """The step as plain data, per image.

        Args:
            index: the step.
            tokens: N.
        """
        if not self.calls:
            return ()
        main = self.calls[0]
        spans = [span for call in [*self.calls, *filter(None, [self.skipping])] for span in call.spans]
        rows = []
        for image, (plan, drawn) in enumerate(zip(self.plans, main.plans, strict=True)):
            chosen, large = self.tokens[image], drawn.large_tokens(tokens)
            if chosen is not None and 0 < large < tokens:
                large = len(chosen)  # rounded by the engine
            rows.append(
                Step(
                    index=index,
                    image=image,
                    sigma=None if self.sigma is None else float(self.sigma),
                    plan=plan,
                    drawn=drawn,
                    distance=self.distance(image),
                    seconds=sum(seconds(a, b) / len(images) for images, a, b in spans if image in images),
                    large_tokens=large,
                    mask=tuple(chosen.tolist()) if chosen is not None and len(chosen) == large else None,
                    fallback=main.fallbacks[image],
                )
            )
        return rows
