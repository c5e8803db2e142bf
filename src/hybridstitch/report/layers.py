"""Settings laid over one another: what the upper layer leaves open, the lower one decides.

what was asked for  over  a preset it names  over  a recipe's point  over  a picture's file  over  the defaults

The command line and the server put theirs together alike, so that the same settings draw the same picture.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

from ..errors import PolicyError
from ..policies.parse import parse
from ..policies.policy import Policy
from ..policies.presets import PRESETS, policy_named
from ..recipe import Point, Recipe
from .clip import FPS
from .metadata import Metadata, PictureError


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What one source says about pictures to be drawn; None where it says nothing.

    Attributes:
        prompts, negative: what to draw, and what not.
        pair, small: as `open_pair` takes them.
        policy: who draws what.
        seed: of the first picture.
        steps, guidance: T, and the scale of classifier-free guidance.
        size: width and height in pixels.
        device, dtype: where and in what precision.
        frames, fps: of a video, and how many a second.
        shift, levels: of the noise (`policies.levels`); they belong to the layer's policy and steps.
        kv: dtype that masks keep keys and values in, "same" for that of the models.
    """

    prompts: tuple[str, ...] | None = None
    negative: str | None = None
    pair: str | None = None
    small: str | None = None
    policy: Policy | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    size: tuple[int, int] | None = None
    frames: int | None = None
    fps: float | None = None
    device: str | None = None
    dtype: str | None = None
    shift: float | None = None
    levels: tuple[float, ...] | None = None
    kv: str | None = None

    def over(self, lower: Self) -> Self:
        """This layer's settings, and where it says nothing the lower one's.

        Two settings never come alone: a small model goes with the pair that names it, and noise levels with the policy
        and the number of steps that they were made for.
        """
        if self.pair is not None:
            lower = replace(lower, small=None)
        others = self.policy not in (None, lower.policy) or self.steps not in (None, lower.steps)
        if others or self.shift is not None or self.levels is not None:
            lower = replace(lower, shift=None, levels=None)
        given = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return replace(lower, **given)


STEPS, GUIDANCE = 50, 4.0
DEFAULTS = Layer(negative="", pair="mini", seed=0, steps=STEPS, guidance=GUIDANCE, fps=FPS)


def named(policy: str | None) -> Layer:
    """What the name of a policy brings: of a preset also the steps and the noise levels that it is made for.

    Args:
        policy: as the user wrote it, or None.

    Raises:
        PolicyError: it means nothing.
    """
    if policy is None:
        return Layer()
    made = PRESETS.get(policy.strip())
    if made is None:
        return Layer(policy=policy_named(policy))
    return Layer(policy=made.policy, steps=made.steps, shift=made.shift, levels=made.levels)


def recorded(metadata: Metadata) -> Layer:
    """What a picture's file says of how it was drawn.

    Raises:
        PictureError: its policy cannot be read.
    """
    try:
        policy = parse(metadata.policy)
    except (PolicyError, RecursionError) as error:  # a policy may wrap another
        raise PictureError(f"this picture's policy cannot be read ({error})") from error
    return Layer(
        prompts=(metadata.prompt,),
        negative=metadata.negative,
        pair=metadata.pair,
        small=metadata.small,
        policy=policy,
        seed=metadata.seed,
        steps=metadata.steps,
        guidance=metadata.guidance,
        size=(metadata.width, metadata.height),
        frames=metadata.frames,
        fps=metadata.fps,
        device=metadata.device,
        dtype=metadata.dtype,
        shift=metadata.shift,
        levels=metadata.levels,
        kv=metadata.kv,
    )


def of_point(recipe: Recipe, point: Point) -> Layer:
    """What a point of a recipe says: pair, policy, steps, noise levels, guidance and size to draw with.

    Args:
        recipe: the recipe.
        point: one that `Recipe.at` gave.
    """
    home = recipe.home
    return Layer(
        pair=home.pair,
        small=home.small,
        policy=parse(point.policy),
        steps=point.steps,
        shift=point.shift,
        levels=point.levels,
        guidance=home.guidance,
        size=(home.width, home.height),
        frames=home.frames,
    )
