"""Many policies, one prompt, each distinct step drawn once: policies whose plans agree so far share a run, and where
they part the run is forked, keys and values included.

    start = prepare(pipe, "a big dog on a meadow", steps=50, guidance=4.0, seed=0)
    drawn = draw_together(pipe, start, {"large": LargeOnly(), "hybrid": HybridStitch(), "few": Schedule("L20 S30")})
    picture = decode(pipe, drawn["hybrid"].latent)

What comes out is what the pipeline itself draws, bit for bit: the same models are handed the same tensors, guidance
is `v_u + g·(v_c − v_u)`, and the pipeline's own scheduler makes the steps. One picture at a time, no skip-layer
guidance. A shared step counts with its full time in every trace that went through it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..compat import is_offloaded
from ..drawing.decide import seen
from ..drawing.run import Run
from ..drawing.stepped import Stepped
from ..errors import StitchError
from ..pair.observer import Listener, check_scheduler, measurable, unwatch, watch
from ..pair.stitched import StitchedTransformer
from ..policies.plan import Plan
from ..policies.policy import Policy, Reduction, Signal
from ..policies.seen import Seen
from ..policies.trace import Trace


@dataclass(frozen=True, slots=True)
class Start:
    """A prompt ready to be drawn.

    Attributes:
        latent: x_0, (1, C, H, W).
        inputs: the transformer's other arguments, tensors of R rows.
        rows: R, 2 with guidance.
        guidance: g.
        scheduler: the pipeline's, its timesteps set; copied for every path.
    """

    latent: Tensor
    inputs: dict[str, Any]
    rows: int
    guidance: float
    scheduler: Any

    @property
    def steps(self) -> int:
        """T."""
        return len(self.scheduler.timesteps)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a policy drew: the clean latent, of one image, and how."""

    latent: Tensor
    trace: Trace


class _Captured(Exception):
    """All that is wanted was seen; nothing more needs to be drawn."""


class _Capture(Listener):
    """Takes the first step's calls of the transformer, answers nothing, and stops at the scheduler."""

    def __init__(self, pipe: Any) -> None:
        """Ready to take calls of a pipeline's transformer."""
        self.calls: list[dict[str, Any]] = []
        self.scheduler: Any = None  # as it was before its first step
        self._pipe = pipe

    def forward(self, *args: Any, return_dict: bool = True, **kwargs: Any) -> tuple[Tensor]:
        """In place of the transformer's own."""
        self.calls.append(self._pipe.transformer.bind(args, kwargs))
        self.scheduler = self.scheduler or copy.deepcopy(self._pipe.scheduler)
        return (torch.zeros_like(self.calls[-1]["hidden_states"]),)

    def observe(self, step: Stepped) -> None:
        """The scheduler was reached."""
        raise _Captured


@torch.no_grad()
def prepare(pipe: Any, prompt: str, *, steps: int, guidance: float, seed: int = 0, **call: Any) -> Start:
    """Let the pipeline encode a prompt and draw its noise, up to the scheduler's first step.

    Args:
        pipe: a stitched pipeline.
        prompt: what to draw.
        steps: T.
        guidance: the guidance scale; 1 or less for none.
        seed: of the noise, on the CPU.
        call: further arguments of the pipeline's call (`height`, `width`, `negative_prompt`, `sigmas`, …).

    Raises:
        StitchError: the pipeline is offloaded, or calls the transformer several times a step.
    """
    stitched = _stitched(pipe)
    capture = _Capture(pipe)
    quiet = getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(**{**quiet, "disable": True})
    stitched.forward = capture.forward
    watch(pipe.scheduler, capture)
    try:
        generator = torch.Generator().manual_seed(seed)
        pipe(prompt, num_inference_steps=steps, guidance_scale=guidance, generator=generator, **call)
    except _Captured:
        pipe.maybe_free_model_hooks()
    finally:
        del stitched.forward
        unwatch(pipe.scheduler, capture)
        pipe.set_progress_bar_config(**quiet)
    if len(capture.calls) != 1:
        raise StitchError(
            f"{type(pipe).__name__} calls its transformer {len(capture.calls)} times a step; policies are drawn "
            "together only where guidance is one call: draw them one by one with the pipeline"
        )
    found = capture.calls[0]
    latents = found.pop("hidden_states")
    found.pop("timestep")
    return Start(latents[:1].clone(), found, len(latents), guidance, capture.scheduler)


@torch.no_grad()
def draw_together(pipe: Any, start: Start, policies: Mapping[str, Policy]) -> dict[str, Finished]:
    """Draw one picture by each policy, every distinct step once.

    Args:
        pipe: the stitched pipeline `start` is of; its own policy does not matter.
        start: see `prepare`.
        policies: by name.

    Returns:
        by name, in the order given.

    Raises:
        PolicyError: a policy cannot fill the steps.
        SchedulerError: the scheduler cannot serve a policy.
        RunError: an output is not finite.
    """
    stitched = _stitched(pipe)
    models = stitched.models
    kinds: dict[tuple[Signal, Reduction], list[str]] = {}
    for name, policy in policies.items():
        check_scheduler(start.scheduler, policy)
        policy.check(start.steps)
        kinds.setdefault(policy.measured, []).append(name)
    drawn: dict[str, Finished] = {}
    for names in kinds.values():
        members = {name: policies[name] for name in names}
        measured = members[names[0]].measured if measurable(start.scheduler) else None
        keep = any(policy.can_mask for policy in members.values())
        run = Run(models, start.steps, measured=measured, keep=keep)
        _Path(start, members, dict.fromkeys(names, 0), run, start.latent, start.scheduler).follow(drawn)
    return {name: drawn[name] for name in policies}


@torch.no_grad()
def decode(pipe: Any, latent: Tensor) -> NDArray[np.uint8]:
    """The picture of a clean latent, as the pipeline decodes it.

    Args:
        pipe: the pipeline.
        latent: (1, C, H, W).

    Returns:
        (H, W, 3), uint8.
    """
    config = pipe.vae.config
    pixels = pipe.vae.decode(latent / config.scaling_factor + config.shift_factor, return_dict=False)[0]
    return np.asarray(pipe.image_processor.postprocess(pixels, output_type="pil")[0])


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Path:
    """Policies that agreed so far, and the run they share.

    Attributes:
        start: where all began.
        members: the policies.
        stages: of each, the stage of the last step.
        run: what was drawn.
        latent: x_i, (1, C, H, W).
        scheduler: of this path only, once a step was made.
        plan: of the step being drawn.
    """

    start: Start
    members: dict[str, Policy]
    stages: dict[str, int]
    run: Run
    latent: Tensor
    scheduler: Any
    plan: Plan | None = None

    def follow(self, drawn: dict[str, Finished]) -> None:
        """Draw to the end, paths that part from this one included."""
        self.scheduler = copy.deepcopy(self.scheduler)
        watch(self.scheduler, self)
        for _ in range(len(self.run.drawn), self.start.steps):
            first, *others = self._decided().items()
            for _, names in others:
                self._part(names).follow(drawn)
            self.plan, names = first
            self.members = {name: self.members[name] for name in names}
            self.stages = dict.fromkeys(names, self.plan.stage)
            self._step()
        for name, policy in self.members.items():
            drawn[name] = Finished(self.latent, self.run.trace(str(policy)).noted(policy))

    def plans(self, run: Run) -> list[Plan]:
        """What all members decided, see `decide.Decider`."""
        assert self.plan is not None
        return [self.plan]

    def observe(self, step: Stepped) -> None:
        """The scheduler made a step."""
        self.run.observe(step)

    def large_is_over(self, run: Run) -> bool:
        """Whether no member will ask for the large model, see `decide.Decider`."""
        return not any(
            stroke.model == "L"
            for name, policy in self.members.items()
            for step in range(len(run.drawn), run.steps)
            for stroke in policy.decide(Seen(step=step, steps=run.steps, stage=self.stages[name], distances=())).strokes
        )

    def _decided(self) -> dict[Plan, list[str]]:
        """The plans of the step about to be drawn, and whose they are."""
        self.run.look(self.latent)
        distances = self.run.distances()[0]
        plans: dict[Plan, list[str]] = {}
        for name, policy in self.members.items():
            plans.setdefault(policy.decide(seen(self.run, 0, distances, self.stages[name])), []).append(name)
        return plans

    def _part(self, names: list[str]) -> "_Path":
        """A path of its own for some members, from here on."""
        return _Path(
            self.start,
            {name: self.members[name] for name in names},
            {name: self.stages[name] for name in names},
            self.run.fork(),
            self.latent,
            self.scheduler,
        )

    def _step(self) -> None:
        """Predict, guide, and let the scheduler step, as the pipeline does."""
        rows, step = self.start.rows, len(self.run.drawn)
        time = self.scheduler.timesteps[step]
        latents = torch.cat([self.latent] * rows) if rows > 1 else self.latent
        inputs = {"hidden_states": latents, "timestep": time.expand(rows), **self.start.inputs}
        prediction = self.run.draw(inputs, self)
        if rows > 1:
            negative, positive = prediction.chunk(2)
            prediction = negative + self.start.guidance * (positive - negative)
        self.latent = self.scheduler.step(prediction, time, self.latent, return_dict=False)[0]


def _stitched(pipe: Any) -> StitchedTransformer:
    transformer = pipe.transformer
    if not isinstance(transformer, StitchedTransformer):
        raise StitchError("this pipeline is not stitched; `hybridstitch.stitch(pipe, small=…)` first")
    if is_offloaded(pipe):
        raise StitchError(
            "CPU offloading is on, and policies are drawn together without the pipeline's hooks; "
            "`pipe.remove_all_hooks()` first, and `enable_model_cpu_offload()` again after"
        )
    return transformer
