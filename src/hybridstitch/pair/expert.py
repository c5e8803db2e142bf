"""A second large model of a pipeline: Wan 2.2 draws high noise with one expert and low noise with another.

The second expert keeps its seat and its class. Its `forward` is stood in for, as the scheduler's `step` is, by one that
draws the call in the stitched transformer's run, with this expert as the large model. Both experts and the one small
model so serve one run: a program counts the steps of the video, whichever expert they fall to.
"""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..compat import Transformer2DModelOutput
from ..errors import StitchError
from ..families.known import family_of

if TYPE_CHECKING:
    from .stitched import StitchedTransformer


class Expert:
    """Stands in for the `forward` of a second large model."""

    def __init__(self, stitched: "StitchedTransformer", model: nn.Module) -> None:
        """Prepare; `seat` installs.

        Args:
            stitched: whose run draws.
            model: of the class of its large model.

        Raises:
            StitchError: the two are not of a kind.
        """
        if type(model) is not type(stitched.large):
            raise StitchError(
                f"the pipeline's transformer is {type(stitched.large).__name__}, its transformer_2 "
                f"{type(model).__name__}; both experts must be of the same class"
            )
        self.stitched = stitched
        self.family = family_of(model)
        self.family.call = type(model).forward.__get__(model)  # the model's own, which this one covers

    def __call__(self, *args: Any, return_dict: bool = True, **kwargs: Any) -> Transformer2DModelOutput | tuple[Tensor]:
        """Draw one call of a step."""
        prediction = self.stitched.draw(self.stitched.bind(args, kwargs), self.family)
        return Transformer2DModelOutput(sample=prediction) if return_dict else (prediction,)


def second(pipe: Any) -> nn.Module | None:
    """The second large model of a pipeline, or None."""
    found = getattr(pipe, "transformer_2", None)
    return found if isinstance(found, nn.Module) else None


def seat(stitched: "StitchedTransformer", pipe: Any) -> None:
    """Let a pipeline's second large model, if it has one, draw in a pair's run from now on."""
    model = second(pipe)
    if model is not None:
        model.forward = Expert(stitched, model)  # type: ignore[method-assign]


def unseat(pipe: Any) -> None:
    """Leave a pipeline's second large model as it was found."""
    model = second(pipe)
    if model is not None and isinstance(vars(model).get("forward"), Expert):
        del model.forward
