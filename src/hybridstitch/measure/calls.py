"""One call of a pipeline, as a user makes it, on the clock: its denoising loop, and from the prompt to the picture."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from PIL import Image

from ..drawing.clock import wait
from ..pair.asking import asked, listening
from ..pair.decoding import in_one, pictures_of
from ..policies.policy import Policy
from ..policies.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockedCall:
    """A picture and its seconds.

    Attributes:
        image: as the pipeline gives it; of a video its frames one below the other.
        denoising_seconds: wall time from the transformer's first call to the scheduler's last step.
        total_seconds: wall time of the call: text encoders, loop, decoder.
    """

    image: Image.Image
    denoising_seconds: float
    total_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedCall(ClockedCall):
    """A picture of a stitched pipeline, its seconds, and who drew what."""

    trace: Trace


def call(pipe: Any, prompt: str, policy: Policy, *, steps: int, **options: Any) -> TracedCall:
    """Draw a picture by the pipeline's own call.

    Args:
        pipe: stitched; its policy, or preset, is put back.
        prompt: what to draw.
        policy: who draws what.
        steps: T.
        options: see `clocked`.
    """
    stitched = pipe.transformer
    with drawing_by(stitched, policy):
        taken = clocked(pipe, prompt, steps=steps, **options)
        return TracedCall(
            image=taken.image,
            denoising_seconds=taken.denoising_seconds,
            total_seconds=taken.total_seconds,
            trace=stitched.trace,
        )


@contextmanager
def drawing_by(stitched: Any, policy: Policy) -> Iterator[None]:
    """While it lasts, a stitched transformer draws by another policy; then its preset and guard are as they were.

    Args:
        stitched: the transformer.
        policy: who draws what.

    Raises:
        HybridStitchError: the pair cannot draw by it.
    """
    preset, guard = stitched.preset, stitched.guard
    stitched.policy = policy
    try:
        yield
    finally:
        stitched.policy, stitched.guard = preset, guard


def clocked(
    pipe: Any, prompt: str, *, steps: int, guidance: float, seed: int, width: int, height: int, **more: Any
) -> ClockedCall:
    """A picture by whatever the pipeline holds, without its progress bar.

    Args:
        pipe: any pipeline.
        prompt: what to draw.
        steps: T.
        guidance: the guidance scale; 1 for none.
        seed: of the noise, on the CPU.
        width, height: in pixels.
        more: arguments of the pipeline's call: `num_frames`, levels of the noise (see `levels.at_levels`).

    Raises:
        PairError, StitchError: it cannot be asked by a prompt, or tells nobody of its steps, see `pair.asking`.
    """
    device = next(pipe.transformer.parameters()).device
    marks: list[float] = []

    def begins(*_: Any) -> None:
        if not marks:
            marks.append(_now(device))

    def ends(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == steps - 1:
            marks.append(_now(device))
        return tensors

    quiet = dict(getattr(pipe, "_progress_bar_config", {}))
    pipe.set_progress_bar_config(**{**quiet, "disable": True})
    handle = pipe.transformer.register_forward_pre_hook(begins)
    try:
        start = _now(device)
        drawn = pipe(
            **asked(pipe, prompt, guidance=guidance),
            num_inference_steps=steps,
            width=width,
            height=height,
            generator=torch.Generator("cpu").manual_seed(seed),
            **listening(pipe, ends, needed=True),
            output_type="pil",
            **more,
        )
        total = _now(device) - start
    finally:
        handle.remove()
        pipe.set_progress_bar_config(**quiet)
    return ClockedCall(image=in_one(pictures_of(drawn)), denoising_seconds=marks[1] - marks[0], total_seconds=total)


def _now(device: torch.device) -> float:
    """Seconds, once an accelerator has done what it was given."""
    wait(device)
    return perf_counter()
