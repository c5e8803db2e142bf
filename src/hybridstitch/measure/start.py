"""A prompt ready to be drawn without its pipeline: what the pipeline hands its transformer, and how it guides.

Whatever stands between the transformer and the scheduler is found by trying: the first step's calls are answered with
noise, and what reaches the scheduler says by which formula the pipeline put them together.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..compat import is_offloaded
from ..drawing.stepped import Stepped
from ..errors import StitchError
from ..families.family import Inputs
from ..pair.asking import asked
from ..pair.decoding import in_one, pictures
from ..pair.expert import second
from ..pair.observer import Listener, unwatch, watch
from ..pair.stitched import StitchedTransformer
from .ways import Time, Way, ways_of

Guide = Callable[[Sequence[Tensor]], Tensor]
FORMULAS: tuple[Callable[[Tensor, Tensor, float], Tensor], ...] = (
    lambda negative, positive, scale: negative + scale * (positive - negative),
    lambda negative, positive, scale: positive + scale * (positive - negative),
    lambda negative, positive, scale: _as_long(negative + scale * (positive - negative), positive),  # Qwen-Image
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A prompt ready to be drawn.

    Attributes:
        latent: x_0 as the scheduler has it, of one image.
        calls: arguments of each of a step's calls of the transformer, without latent and time.
        rows: R of each call.
        dtype: of the latent as the transformer is given it.
        timed, time_dtype: its time by the scheduler's, and the dtype it is given in.
        way: what else stands between the two.
        kind: the dtype that the scheduler is given.
        formula: predictions, as they leave by the way, put together.
        scheduler: the pipeline's, its timesteps set; copied for every path.
        call: what the pipeline was called with.
    """

    latent: Tensor
    calls: tuple[Inputs, ...]
    rows: int
    dtype: torch.dtype
    timed: Time
    time_dtype: torch.dtype
    way: Way
    kind: torch.dtype
    formula: Guide
    scheduler: Any
    call: dict[str, Any]

    @property
    def steps(self) -> int:
        """T."""
        return len(self.scheduler.timesteps)

    def inputs(self, latent: Tensor, step: int) -> list[Inputs]:
        """The transformer's arguments in a step's calls.

        Args:
            latent: x_i.
            step: i.
        """
        sigma = sigma_of(self.scheduler, step)
        given = self.way.enters(latent, sigma).to(self.dtype)
        given = torch.cat([given] * self.rows) if self.rows > 1 else given
        timestep = self.timed(self.scheduler.timesteps[step], sigma, self.rows, self.time_dtype)
        return [{"hidden_states": given, "timestep": timestep, **inputs} for inputs in self.calls]

    def guide(self, predictions: Sequence[Tensor], latent: Tensor, step: int) -> Tensor:
        """What the scheduler is given for a step's predictions.

        Args:
            predictions: of the step's calls.
            latent: x_i.
            step: i.
        """
        return put_together(self.way, self.formula, predictions, latent, sigma_of(self.scheduler, step), self.kind)


class _Captured(Exception):
    """All that is wanted was seen; nothing more needs to be drawn."""


class _Capture(Listener):
    """Takes the first step's calls of the transformer, answers noise, and stops at the scheduler."""

    def __init__(self, pipe: Any) -> None:
        """Ready to take calls of a pipeline's transformer."""
        self.calls: list[Inputs] = []
        self.answers: list[Tensor] = []
        self.scheduler: Any = None  # as it was before its first step
        self.step: Stepped | None = None
        self._pipe = pipe
        self._noise = torch.Generator().manual_seed(0)

    def forward(self, *args: Any, return_dict: bool = True, **kwargs: Any) -> tuple[Tensor]:
        """In place of the transformer's own."""
        self.calls.append(self._pipe.transformer.bind(args, kwargs))
        self.scheduler = self.scheduler or copy.deepcopy(self._pipe.scheduler)
        like = self.calls[-1]["hidden_states"]
        self.answers.append(torch.randn(like.shape, generator=self._noise).to(like))
        return (self.answers[-1],)

    def observe(self, step: Stepped) -> None:
        """The scheduler was reached."""
        self.step = step
        raise _Captured


@torch.no_grad()
def prepare(pipe: Any, prompt: str | None, *, steps: int, guidance: float, seed: int = 0, **call: Any) -> Start:
    """Let the pipeline encode a prompt and draw its noise, up to the scheduler's first step.

    Args:
        pipe: a stitched pipeline.
        prompt: what to draw; None where embeddings say it.
        steps: T.
        guidance: the guidance scale; 1 or less for none.
        seed: of the noise, on the CPU.
        call: further arguments of the pipeline's call (`height`, `width`, `negative_prompt`, `sigmas`, …).

    Raises:
        StitchError: the pipeline is offloaded, draws with two large models, or does more between its transformer and
            its scheduler than is known here.
    """
    stitched = seat_of(pipe)
    call = {**asked(pipe, prompt, guidance=guidance), "num_inference_steps": steps, **call}
    capture = _Capture(pipe)
    quiet = getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(**{**quiet, "disable": True})
    stitched.forward = capture.forward
    watch(pipe.scheduler, capture)
    try:
        pipe(**call, generator=torch.Generator().manual_seed(seed))
    except _Captured:
        pipe.maybe_free_model_hooks()
    finally:
        del stitched.forward
        unwatch(pipe.scheduler, capture)
        pipe.set_progress_bar_config(**quiet)
    step = capture.step
    assert step is not None
    given, rows = capture.calls[0]["hidden_states"], len(capture.calls[0]["hidden_states"])
    latent = step.latent.clone()
    sigma = sigma_of(capture.scheduler, 0)
    ways = list(ways_of(given, latent, sigma))
    if not ways:
        raise _strange(pipe, "gives its transformer more than the scheduler's latent")
    scale, kind = float(call.get("true_cfg_scale") or guidance), step.prediction.dtype
    found = [
        (way, formula)
        for way in ways
        for formula in _formulas(capture.answers, scale)
        if torch.equal(put_together(way, formula, capture.answers, latent, sigma, kind), step.prediction)
    ]
    if not found or any(len(one["hidden_states"]) != rows for one in capture.calls):
        calls = f"calls its transformer {len(capture.calls)} times a step and " if len(capture.calls) > 1 else ""
        raise _strange(pipe, f"{calls}guides in a way of its own")
    now = capture.calls[0]["timestep"]
    (way, formula), first = found[0], capture.scheduler.timesteps[0]
    times = [timed for timed in way.times if _alike(timed(first, sigma, rows, now.dtype), now)]
    if not times:
        raise _strange(pipe, "tells its transformer times of its own")
    told = [{k: v for k, v in one.items() if k not in ("hidden_states", "timestep")} for one in capture.calls]
    return Start(
        latent=latent, calls=tuple(told), rows=rows, dtype=given.dtype, time_dtype=now.dtype, timed=times[0],
        way=way, kind=kind, formula=formula, scheduler=capture.scheduler, call=call,
    )  # fmt: skip


def decode(pipe: Any, start: Start, latent: Tensor) -> NDArray[np.uint8]:
    """The picture of a clean latent, as the pipeline decodes it.

    Args:
        pipe: the pipeline.
        start: what it was drawn from.
        latent: as the last step returned it.

    Returns:
        (H, W, 3), uint8; of a video its frames one below the other, (F·H, W, 3).
    """
    return np.asarray(in_one(pictures(pipe, latent, **start.call)))


def seat_of(pipe: Any) -> StitchedTransformer:
    """The stitched transformer of a pipeline that can be drawn with apart from its own loop.

    Raises:
        StitchError: there is none.
    """
    transformer = pipe.transformer
    if not isinstance(transformer, StitchedTransformer):
        raise StitchError("this pipeline is not stitched; `hybridstitch.stitch(pipe, small=…)` first")
    if is_offloaded(pipe):
        raise StitchError(
            "CPU offloading is on, and policies are drawn together without the pipeline's hooks; "
            "`pipe.remove_all_hooks()` first, and `enable_model_cpu_offload()` again after"
        )
    if second(pipe) is not None:
        raise _strange(pipe, "draws with two large models")
    return transformer


def sigma_of(scheduler: Any, step: int) -> Tensor | None:
    """σ_i; None where a scheduler's steps have none."""
    return scheduler.sigmas[step] if hasattr(scheduler, "sigmas") else None


def put_together(
    way: Way, formula: Guide, predictions: Sequence[Tensor], latent: Tensor, sigma: Tensor | None, kind: torch.dtype
) -> Tensor:
    """Predictions put together as `Start.guide` does."""
    parts = predictions[0].chunk(2) if len(predictions) == 1 < len(predictions[0]) else predictions
    return way.ends(formula([way.leaves(part, latent, sigma, kind) for part in parts]), latent, sigma)


def _formulas(answers: Sequence[Tensor], scale: float) -> Iterator[Guide]:
    """How a step's predictions might become one."""
    if len(answers) == 1 == len(answers[0]):
        yield lambda parts: parts[0]
    elif len(answers) == 2 or (len(answers) == 1 and len(answers[0]) == 2):
        for formula in FORMULAS:
            yield lambda parts, formula=formula: formula(parts[0], parts[1], scale)
            yield lambda parts, formula=formula: formula(parts[1], parts[0], scale)


def _as_long(guided: Tensor, like: Tensor) -> Tensor:
    """Each token as long as another's."""
    return guided * (torch.norm(like, dim=-1, keepdim=True) / torch.norm(guided, dim=-1, keepdim=True))


def _alike(made: Tensor, found: Tensor) -> bool:
    return made.shape == found.shape and torch.allclose(made.to(found), found, rtol=1e-6)


def _strange(pipe: Any, what: str) -> StitchError:
    return StitchError(
        f"{type(pipe).__name__} {what}; policies are drawn together only where the pipeline's loop is known: draw them "
        "one by one with the pipeline"
    )
