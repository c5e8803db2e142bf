"""One generation: decide, draw, observe, step by step. All state of a run lives here, none of it on a module.

begin     the first call of a step: measure the last one, ask the policy for a plan per image, choose the masks
draw      every call of a step (guidance may need several): carry the plans out
observe   the scheduler made its step: guided prediction, σ and both latents are known exactly
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import RunError
from ..policies.plan import Plan
from ..policies.policy import Policy
from ..policies.trace import Seen, Trace
from .carry import Last
from .change import Meter
from .draw import Call, Inputs, Models, draw, draw_skipping
from .guard import NOTHING_CHANGED, OUT_OF_RANGE, Guard
from .kv import KVCache
from .record import Drawn
from .stepped import Stepped


class Run:
    """All state of one generation.

    Attributes:
        steps: T.
        images: B; guessed from the first call, known from the first step of the scheduler on.
        drawn: the steps so far.
        pending: whether a step was begun that the scheduler has not made yet.
    """

    def __init__(
        self, policy: Policy, models: Models, steps: int, *, measure: bool, guard: Guard | None = None
    ) -> None:
        """Begin.

        Args:
            policy: who decides.
            models: who draws.
            steps: T.
            measure: whether the scheduler's steps can be measured.
            guard: what makes a step fall back to the large model; None lets every step be as decided.

        Raises:
            PolicyError: the policy cannot fill `steps` steps.
        """
        policy.check(steps)
        self.policy, self.models, self.steps = policy, models, steps
        self._guard = guard
        self.images = 0
        self.drawn: list[Drawn] = []
        self.pending = False
        self._grid = (0, 0)
        self._meter = Meter(*policy.measured, models.large.patch) if measure else None
        # Of each kind of call of a step, by its place among them and its rows:
        self._caches: dict[tuple[int, int], KVCache] = {} if models.caches is None else models.caches
        self._predictions: dict[tuple[int, int], Tensor] = {}
        self._last: dict[tuple[int, int], Last | None] = {}
        self._frozen: dict[int, tuple[int, Tensor]] = {}  # per image: the stage whose mask is frozen, and the mask

    def draw(self, inputs: Inputs) -> Tensor:
        """One call of the transformer.

        Args:
            inputs: its keyword arguments, tensors of R rows.

        Returns:
            the prediction, (R, C, H, W).

        Raises:
            RunError: the scheduler was not seen to step since the last call, or a step's output is not finite.
        """
        latent: Tensor = inputs["hidden_states"]
        if not self.pending:
            self._begin(latent)
        step, now = len(self.drawn) - 1, self.drawn[-1]
        call = Call(inputs, self.images, max(1, len(latent) // self.images))
        if inputs.get("skip_layers") is not None:
            now.skipping = call
            return draw_skipping(call, now.calls[0], now.tokens, self.models)
        if now.calls and not torch.equal(now.calls[0].inputs["timestep"][:1], inputs["timestep"][:1]):
            raise RunError(
                f"step {step + 1} began, but the scheduler was not seen to make step {step}; a loop of your own must "
                "step `pipe.scheduler`, and a pipeline that was given this transformer but has another scheduler "
                "needs `other.transformer.follow(other)`"
            )
        key = (len(now.calls), len(latent))
        call.last = self._last.get(key)
        now.calls.append(call)
        previous = self._predictions.get(key)
        self._predictions[key] = self._carry_out(call, key, previous)
        if self._guard is not None and now.overrule_broken(self._predictions[key]):
            call = Call(inputs, call.images, call.branches, last=self._last.get(key), spans=call.spans)
            now.calls[-1] = call
            self._predictions[key] = self._carry_out(call, key, previous)
        self._last[key] = call.last
        return self._predictions[key]

    def _carry_out(self, call: Call, key: tuple[int, int], previous: Tensor | None) -> Tensor:
        """Draw one call as the step's plans say."""
        now = self.drawn[-1]
        return draw(
            call,
            now.plans,
            now.tokens,
            self.models,
            self._caches.setdefault(key, KVCache(key[1], lasting=self.models.caches is not None)),
            previous=previous,
            step=len(self.drawn) - 1,
            keep=self.policy.can_mask,
            overruled=now.overruled,
        )

    def observe(self, step: Stepped) -> None:
        """The scheduler made the step.

        Raises:
            RunError: the batch changed, or the run's last output is not finite.
        """
        self._settle(len(step.latent))
        self.pending = False
        self.drawn[-1].sigma = step.sigma
        if self._meter is not None:
            self._meter.observe(step)
        if len(self.drawn) == self.steps:
            self.finish()

    def finish(self) -> None:
        """The run is over, at its last step or before: measure what is left, let keys and values go.

        Raises:
            RunError: an output is not finite.
        """
        if self._meter is not None and self._meter.output is not None and not self.pending:
            self.drawn[-1].measured = self._meter.read()
        self.let_go()
        self.distances()

    def let_go(self) -> None:
        """Free keys, values, predictions and inputs; the trace stays. A broken-off run does only this."""
        self._meter = None
        for cache in self._caches.values():
            cache.forget()
        self._predictions.clear()
        self._last.clear()
        for done in self.drawn[-1:]:
            done.release()

    def large_is_over(self) -> bool:
        """Whether no plan to come asks for the large model, as far as the present stages tell."""
        return not any(
            stroke.model == "L"
            for image, now in enumerate(self.drawn[-1].plans)
            for step in range(len(self.drawn), self.steps)
            for stroke in self.policy.decide(
                Seen(step=step, steps=self.steps, stage=now.stage, distances=(), image=image)
            ).strokes
        )

    def trace(self, flags: Sequence[str] = ()) -> Trace:
        """What was decided and measured so far.

        Args:
            flags: what a user should know about it.
        """
        self.distances()
        tokens = self._grid[0] * self._grid[1]
        return Trace(
            policy=str(self.policy),
            steps=self.steps,
            images=self.images,
            grid=self._grid,
            records=tuple(step for index, done in enumerate(self.drawn) for step in done.steps(index, tokens)),
            flags=tuple(flags),
        )

    def look(self, latent: Tensor) -> None:
        """Measure the last step by what enters the next one, if that was not done yet.

        Args:
            latent: x_i, (R, C, H, W), images first.
        """
        if self._meter is not None and self._meter.output is not None and self.drawn[-1].measured is None:
            self._meter.receive(latent[: self.images, : self._meter.output.shape[1]])
            self.drawn[-1].measured = self._meter.read()

    def distances(self) -> list[tuple[float | None, ...]]:
        """Per image D of all steps measured so far, read from the device where that is still to do.

        Raises:
            RunError: a step's output is not finite.
        """
        for index, done in enumerate(self.drawn):
            done.read(index)
        return [tuple(done.distance(image) for done in self.drawn) for image in range(self.images)]

    def fork(self) -> "Run":
        """A run that goes on from here by itself, between two steps, with keys and values of its own."""
        twin = copy.copy(self)
        twin.drawn = list(self.drawn)
        twin._meter = copy.copy(self._meter)
        twin._caches = {key: cache.copy() for key, cache in self._caches.items()}
        twin._predictions = dict(self._predictions)
        twin._last = dict(self._last)
        twin._frozen = dict(self._frozen)
        return twin

    def _begin(self, latent: Tensor) -> None:
        """Measure the last step, decide and choose masks for the next."""
        step = len(self.drawn)
        if step == 0:
            half = len(latent) // 2
            doubled = len(latent) % 2 == 0 and torch.equal(latent[:half], latent[half:])
            self.images = half if doubled else len(latent)
        elif len(latent) % self.images:
            raise RunError(f"step {step} has {len(latent)} rows, which do not divide among {self.images} images")
        self.look(latent)
        read = self.policy.adaptive or (self._guard is not None and self._guard.bands)
        distances = self.distances() if read else [()] * self.images
        before = [tuple(done.plans[image] for done in self.drawn) for image in range(self.images)]
        plans = [
            self.policy.decide(
                Seen(
                    step=step,
                    steps=self.steps,
                    stage=before[image][-1].stage if step else 0,
                    distances=distances[image],
                    image=image,
                    plans=before[image],
                )
            )
            for image in range(self.images)
        ]
        patch = self.models.large.patch
        self._grid = (latent.shape[-2] // patch, latent.shape[-1] // patch)
        tokens = [self._choose(image, plan, latent.device) for image, plan in enumerate(plans)]
        for cache in self._caches.values():
            if cache.layers and cache.stale(step - 1) and self.large_is_over():
                cache.forget()
        for done in self.drawn[-1:]:
            done.release()
        overruled = [self._objection(image, tokens[image], distances[image]) for image in range(self.images)]
        self.drawn.append(Drawn(plans, tokens, overruled=overruled))
        self.pending = True

    def _objection(self, image: int, tokens: Tensor | None, distances: Sequence[float | None]) -> str | None:
        """Why the step about to be drawn is not drawn as decided."""
        if self._guard is None:
            return None
        if distances and self._guard.out_of_range(len(distances) - 1, distances[-1]):
            return OUT_OF_RANGE
        if tokens is not None and self._meter is not None and self._meter.is_still(image, tokens):
            return NOTHING_CHANGED
        return None

    def _choose(self, image: int, plan: Plan, device: torch.device) -> Tensor | None:
        """The tokens of the plan's region, (K,), or None where it has none."""
        region = next((s.region for s in plan.strokes if not s.region.everywhere), None)
        if region is None:
            return None
        if region.tokens is not None:
            return torch.tensor(region.tokens, device=device)
        stage, mask = self._frozen.get(image, (None, None))
        if region.frozen and stage == plan.stage:
            return mask
        if self._meter is None or self._meter.change is None:
            raise RunError(f"step {len(self.drawn)} asks for a mask, but no change was measured before it")
        tokens = self._grid[0] * self._grid[1]
        mask = self._meter.busiest(image, self.models.engine.count(region.count(tokens), tokens))
        self._frozen[image] = (plan.stage, mask)
        return mask

    def _settle(self, images: int) -> None:
        """Replace the guessed number of images by the known one."""
        if images == self.images:
            return
        now = self.drawn[0]
        if len(self.drawn) > 1 or len(set(now.plans)) > 1:
            raise RunError(f"the batch changed from {self.images} to {images} images in the middle of a run")
        self.images = images
        now.plans, now.tokens = now.plans[:1] * images, [None] * images
        for call in now.calls:
            call.share(images)
