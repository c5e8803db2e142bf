"""How pictures are asked for while a pair is calibrated, and where that holds."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import HybridStitchError
from ..families.family import Size
from ..measure.calls import TracedCall, call
from ..measure.machine import device_name, kernels
from ..measure.timing import GUIDED, UNGUIDED
from ..pair.asking import levelled
from ..pair.current import check_policy
from ..pair.expert import second
from ..pair.limits import limits_of
from ..policies.policy import Policy
from ..recipe import Home, RecipeError
from ..report.identity import known_as

Picture = NDArray[np.uint8]
_MOVING = ("shift", "use_dynamic_shifting", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """One setting of a pipeline's call.

    Attributes:
        width, height: pixels.
        steps: T of the reference.
        guidance: guidance scale; 1 switches it off.
        frames: of a video; None for pictures.
    """

    width: int
    height: int
    steps: int
    guidance: float
    frames: int | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of masked strokes that there are."""
        return GUIDED if self.guidance > 1 else UNGUIDED

    @property
    def size(self) -> dict[str, int]:
        """As the pipeline takes it."""
        frames = {} if self.frames is None else {"num_frames": self.frames}
        return {"width": self.width, "height": self.height, **frames}

    @property
    def pixels(self) -> Size:
        """(height, width), of a video (frames, height, width)."""
        return (self.height, self.width) if self.frames is None else (self.frames, self.height, self.width)

    def draw(
        self,
        pipe: Any,
        prompt: str,
        policy: Policy,
        steps: int,
        seed: int,
        *,
        shift: float | None = None,
        levels: tuple[float, ...] | None = None,
    ) -> TracedCall:
        """A picture by the pipeline itself, from prompt to pixels, on the clock.

        Args:
            pipe: stitched.
            prompt: what to draw.
            policy: who draws what.
            steps: T′.
            seed: of the noise.
            shift, levels: its levels; None leaves them to the pipeline.
        """
        noise = levelled(pipe, steps, shift, levels)
        return call(pipe, prompt, policy, steps=steps, guidance=self.guidance, seed=seed, **self.size, **noise)


def draws(pipe: Any, policy: Policy) -> bool:
    """Whether a pair can draw by a policy: masks are refused where steps are drawn whole, for one.

    Args:
        pipe: stitched.
        policy: who draws what.
    """
    try:
        check_policy(policy, pipe.transformer.family, pipe.scheduler, experts=second(pipe) is not None)
    except HybridStitchError:
        return False
    return True


def home_of(pipe: Any, conditions: Conditions, records: Mapping[str, str] = MappingProxyType({})) -> Home:
    """Where a calibration of this pipeline holds.

    Args:
        pipe: stitched.
        conditions: of the calls.
        records: what the names stood for in a home to be compared with, see `identity.known_as`.
    """
    from ..mini import mini_folder

    stitched = pipe.transformer
    large, small = _name(pipe), None if _is_saved_pair(stitched) else _name(stitched.small)
    mini = large is not None and large == str(mini_folder())
    names = {"large": large} | ({} if mini or small is None else {"small": small})
    first = next(stitched.large.parameters())
    return Home(
        pair="mini" if mini else large,
        small=None if mini else small,
        models={role: known_as(name, records.get(role)) for role, name in names.items() if name is not None},
        parameters=(_size(stitched.large), _size(stitched.small)),
        width=conditions.width,
        height=conditions.height,
        frames=conditions.frames,
        steps=conditions.steps,
        guidance=conditions.guidance,
        scheduler=scheduler_text(pipe.scheduler),
        machine={
            "the device": device_name(first.device) + (f" with {kernels()}" if first.device.type == "cpu" else ""),
            "the number of threads": str(torch.get_num_threads()) if first.device.type == "cpu" else "unknown",
            "the dtype": str(first.dtype).removeprefix("torch."),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "the engine": str(stitched.engine) or "plain",
        },
    )


def scheduler_text(scheduler: Any) -> str:
    """A scheduler's class, and what of its configuration moves the noise levels."""
    moved = [f"{key}={scheduler.config[key]}" for key in _MOVING if scheduler.config.get(key) not in (None, False)]
    return " ".join([type(scheduler).__name__, *moved])


def conditions_of(
    pipe: Any, size: tuple[int, int] | None, frames: int | None, *, steps: int, guidance: float
) -> Conditions:
    """One setting; what is not given is the pair's own.

    Args:
        pipe: stitched.
        size: width and height in pixels, or None.
        frames: of a video, or None.
        steps, guidance: see `Conditions`.

    Raises:
        RecipeError: frames of a pair that draws pictures, or a pair without a size of its own.
        SizeError: a size that it cannot draw.
    """
    limits = limits_of(pipe)
    if frames is not None and not limits.video:
        raise RecipeError(f"frames={frames} was given; {type(pipe).__name__} draws pictures: leave frames out")
    whole = size is not None and (frames is not None or not limits.video)
    if not whole:
        native_size(pipe)
    *count, height, width = limits.check(size, frames)
    return Conditions(width=width, height=height, frames=count[0] if count else None, steps=steps, guidance=guidance)


def native_size(pipe: Any) -> Size:
    """When no size is asked for: (height, width) in pixels, of a video (frames, height, width).

    Raises:
        RecipeError: neither the pipeline nor its transformer's class names one.
    """
    native = limits_of(pipe).native
    if native is None:
        raise RecipeError(f"{type(pipe).__name__} has no default size; give one")
    return native


def digest(prompts: Sequence[str]) -> str:
    """SHA-256 of prompts, in order."""
    return hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()


def _name(part: Any) -> str | None:
    """Where a pipeline or a model was loaded from."""
    return str(part.config.get("_name_or_path") or "") or None


def _is_saved_pair(stitched: Any) -> bool:
    """Whether both models were read from the folder of one saved pair, which is opened by its own name."""
    large, small = (Path(_name(model) or "") for model in (stitched.large, stitched.small))
    return (large.name, small.name) == ("large", "small") and large.parent == small.parent


def _size(module: torch.nn.Module) -> int:
    """Parameters of a model, without those of adapters (LoRA) that were loaded into it."""
    return sum(parameter.numel() for name, parameter in module.named_parameters() if "lora_" not in name)
