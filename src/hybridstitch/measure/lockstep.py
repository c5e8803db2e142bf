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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..drawing.run import Run
from ..errors import StitchError
from ..pair.observer import check_scheduler, measurable, stepped
from ..pair.stitched import StitchedTransformer
from ..policies.plan import Plan
from ..policies.policy import Policy, Reduction, Signal
from ..policies.trace import Seen, Trace


@dataclass(frozen=True, slots=True)
class Start:
    """A prompt ready to be drawn.

    Attributes:
        latent: x_0, (1, C, H, W).
        inputs: the transformer's other keyword arguments, tensors of R rows (2 with guidance).
        guidance: g.
        scheduler: the pipeline's, its timesteps set; copied for every path.
    """

    latent: Tensor
    inputs: dict[str, Any]
    guidance: float
    scheduler: Any

    @property
    def steps(self) -> int:
        """T."""
        return len(self.scheduler.timesteps)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a policy drew: the clean latent (1, C, H, W), and how."""

    latent: Tensor
    trace: Trace


class _Captured(Exception):
    """The first call of the transformer was seen; nothing needs to be drawn."""


@torch.no_grad()
def prepare(pipe: Any, prompt: str, *, steps: int, guidance: float, seed: int = 0, **call: Any) -> Start:
    """Let the pipeline encode a prompt and draw its noise, up to the first call of the transformer.

    Args:
        pipe: a stitched pipeline.
        prompt: what to draw.
        steps: T.
        guidance: the guidance scale; 1 or less for none.
        seed: of the noise, on the CPU.
        call: further arguments of the pipeline's call (`height`, `width`, `negative_prompt`, `sigmas`, …).
    """
    found: dict[str, Any] = {}

    def capture(module: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        found.update(inputs)
        raise _Captured

    handle = _stitched(pipe).register_forward_pre_hook(capture, with_kwargs=True)
    quiet = getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(**{**quiet, "disable": True})
    try:
        generator = torch.Generator().manual_seed(seed)
        pipe(prompt, num_inference_steps=steps, guidance_scale=guidance, generator=generator, **call)
    except _Captured:
        pipe.maybe_free_model_hooks()
    finally:
        handle.remove()
        pipe.set_progress_bar_config(**quiet)
    latent = found.pop("hidden_states")[:1].clone()
    for name in ("timestep", "return_dict"):
        found.pop(name, None)
    return Start(latent, found, guidance, copy.deepcopy(pipe.scheduler))


@torch.no_grad()
def draw_together(pipe: Any, start: Start, policies: Mapping[str, Policy]) -> dict[str, Drawn]:
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
    drawn: dict[str, Drawn] = {}
    for names in kinds.values():
        members = {name: policies[name] for name in names}
        run = Run(_told(members), models, start.steps, measure=measurable(start.scheduler))
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


@dataclass(frozen=True, slots=True)
class _Told(Policy):
    """Does as it is told for one step, and keeps and measures what those it stands for need."""

    name = "told"
    adaptive = True
    plan: Plan
    keeps: bool
    measures: tuple[Signal, Reduction]

    @property
    def can_mask(self) -> bool:
        return self.keeps

    @property
    def measured(self) -> tuple[Signal, Reduction]:
        return self.measures

    def check(self, steps: int) -> None:
        """Those it stands for were asked."""

    def decide(self, seen: Seen) -> Plan:
        return self.plan


def _told(members: Mapping[str, Policy], plan: Plan | None = None) -> _Told:
    keeps = any(policy.can_mask for policy in members.values())
    return _Told(plan or Plan(()), keeps, next(iter(members.values())).measured)


@dataclass(slots=True)
class _Path:
    """Policies that agreed so far, and the run they share.

    Attributes:
        start: where all began.
        members: the policies.
        stages: of each, the stage of the last step.
        run: what was drawn.
        latent: x_i, (1, C, H, W).
        scheduler: of this path only, once a step was made.
    """

    start: Start
    members: dict[str, Policy]
    stages: dict[str, int]
    run: Run
    latent: Tensor
    scheduler: Any

    def follow(self, drawn: dict[str, Drawn]) -> None:
        """Draw to the end, paths that part from this one included."""
        self.scheduler = copy.deepcopy(self.scheduler)
        for step in range(len(self.run.drawn), self.start.steps):
            first, *others = self._plans(step).items()
            for _, names in others:
                self._part(names).follow(drawn)
            plan, names = first
            self.members = {name: self.members[name] for name in names}
            self.stages = dict.fromkeys(names, plan.stage)
            self.run.policy = _told(self.members, plan)
            self._step(step)
        trace = self.run.trace()
        for name, policy in self.members.items():
            mine = replace(trace, policy=str(policy))
            drawn[name] = Drawn(self.latent, replace(mine, flags=mine.notes(policy)))

    def _plans(self, step: int) -> dict[Plan, list[str]]:
        """The plans of the step about to be drawn, and whose they are."""
        self.run.look(self.latent)
        measured = self.run.distances()
        distances = measured[0] if measured else ()
        before = tuple(done.plans[0] for done in self.run.drawn)
        plans: dict[Plan, list[str]] = {}
        for name, policy in self.members.items():
            stage = self.stages[name]
            seen = Seen(step=step, steps=self.start.steps, stage=stage, distances=distances, plans=before)
            plans.setdefault(policy.decide(seen), []).append(name)
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

    def _step(self, step: int) -> None:
        """Predict, guide, and let the scheduler step, as the pipeline does."""
        rows = len(self.start.inputs["encoder_hidden_states"])
        time = self.scheduler.timesteps[step]
        latents = torch.cat([self.latent] * rows) if rows > 1 else self.latent
        prediction = self.run.draw({"hidden_states": latents, "timestep": time.expand(rows), **self.start.inputs})
        if rows > 1:
            negative, positive = prediction.chunk(2)
            prediction = negative + self.start.guidance * (positive - negative)
        result = self.scheduler.step(prediction, time, self.latent, return_dict=False)
        made = stepped(self.scheduler, result, model_output=prediction, sample=self.latent, timestep=time)
        self.run.observe(made)
        self.latent = made.returned


def _stitched(pipe: Any) -> StitchedTransformer:
    transformer = pipe.transformer
    if not isinstance(transformer, StitchedTransformer):
        raise StitchError("this pipeline is not stitched; `hybridstitch.stitch(pipe, small=…)` first")
    return transformer
