"""One generation: decide, draw, observe, step by step. All state of a run lives here, none of it on a module.

begin     the first call of a step: measure the last one, ask for a plan per image, choose the masks
draw      every call of a step (guidance may need several): carry the plans out
observe   the scheduler made its step: guided prediction, both latents and what they point at are known exactly
"""

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..errors import RunError
from ..families.family import Inputs
from ..policies.policy import Reduction, Signal
from ..policies.trace import Trace
from . import record
from .call import Models, check_time
from .carry import Last
from .change import Meter
from .decide import Decider
from .draw import draw
from .guard import Guard
from .kv import KVCache
from .masks import Masks
from .record import Drawn
from .skipping import draw_skipping
from .stepped import Stepped

Kind = tuple[int, int]  # of a call: its place among those of a step, and its rows


class Run:
    """All state of one generation.

    Attributes:
        steps: T.
        images: B; supposed until the scheduler made its first step, known after.
        drawn: the steps so far.
        pending: whether a step was begun that the scheduler has not made yet.
    """

    def __init__(
        self,
        models: Models,
        steps: int,
        *,
        measured: tuple[Signal, Reduction] | None,
        keep: bool,
        images: int = 1,
        guard: Guard | None = None,
    ) -> None:
        """Begin.

        Args:
            models: who draws.
            steps: T.
            measured: which output is compared from step to step and how; None where the scheduler's cannot be.
            keep: whether masks may be asked for, so that keys and values are kept.
            images: B as far as the policy knows; what the first call's rows say otherwise.
            guard: what makes a step fall back to the large model; None lets every step be as decided.
        """
        self.models, self.steps, self.images = models, steps, images
        self.drawn: list[Drawn] = []
        self.pending = False
        self._keep, self._guard = keep, guard
        self._grid: tuple[int, ...] | Tensor = ()
        self._stepped: Callable[[Tensor], Tensor] | None = None
        self._meter = None if measured is None else Meter(*measured, models.large.layout)
        self._caches: dict[Kind, KVCache] = {} if models.caches is None else models.caches
        self._predictions: dict[Kind, Tensor] = {}
        self._last: dict[Kind, Last | None] = {}
        self._masks = Masks(models.engine, models.large.layout)

    def draw(self, inputs: Inputs, decider: Decider) -> Tensor:
        """One call of the transformer.

        Args:
            inputs: its arguments, tensors of R rows.
            decider: asked when a step begins.

        Returns:
            the prediction, of the latent's shape.

        Raises:
            RunError: the scheduler was not seen to step since the last call, or a step's output is not finite.
        """
        if not self.pending:
            self._begin(inputs, decider)
        now = self.drawn[-1]
        call = self.models.call(inputs, self.images)
        if inputs.get("skip_layers") is not None:
            now.skipping = call
            return draw_skipping(call, now.calls[0], now.tokens, self.models)
        if now.calls and len(self.drawn) == 1:
            check_time(now.calls[0].inputs, inputs)
        kind = (len(now.calls), len(call.latent))
        call.last, call.first = self._last.get(kind), now.calls[0] if now.calls else None
        now.calls.append(call)
        previous = self._predictions.get(kind)
        self._predictions[kind] = self._carry_out(kind, previous)
        if self._guard is not None and now.overrule_broken(self._predictions[kind]):
            again = self.models.call(inputs, self.images)
            again.last, again.first, again.spans = self._last.get(kind), call.first, call.spans
            now.calls[-1] = again
            self._predictions[kind] = self._carry_out(kind, previous)
        self._last[kind] = now.calls[-1].last
        return self._predictions[kind]

    def observe(self, step: Stepped) -> None:
        """The scheduler made the step.

        Raises:
            RunError: the batch changed, or the run's last output is not finite.
        """
        step = step.drawn_as(self._stepped)
        self._settle(len(step.latent))
        if len(self.drawn) == 1:
            self._masks.tokens = self.models.large.layout.count(step.latent)  # references are drawn, but not stepped
        self.pending = False
        self.drawn[-1].sigma = step.sigma
        if self._meter is not None:
            self._meter.observe(step)
        if len(self.drawn) == self.steps:
            self.finish()

    def handed_over(self) -> tuple[int, ...]:
        """Images of which the step under way leaves more to the small model than the one before."""
        if not self.pending or self.models.engine.history == "keep":
            return ()
        found = []
        for image in range(self.images):
            *earlier, now = (done.by_large(image) for done in self.drawn)
            before = next((share for share in reversed(earlier) if share is not None), None)
            if now is not None and before is not None and now < before:
                found.append(image)
        return tuple(found)

    def finish(self) -> None:
        """The run is over, at its last step or before: measure what is left, let keys and values go.

        Raises:
            RunError: an output is not finite.
        """
        if self._meter is not None and self._meter.output is not None and not self.pending:
            self.drawn[-1].measured = self._meter.read()
        self.let_go()
        record.read(self.drawn)

    def let_go(self) -> None:
        """Free keys, values, predictions and inputs; the trace stays. A broken-off run does only this."""
        self._meter = None
        for cache in self._caches.values():
            cache.forget()
        self._predictions.clear()
        self._last.clear()
        for done in self.drawn[-1:]:
            done.release()

    def look(self, latent: Tensor) -> None:
        """Measure the last step by what enters the next one, if that was not done yet.

        Args:
            latent: the model's input, images first.
        """
        if self._meter is not None and self._meter.output is not None and self.drawn[-1].measured is None:
            if not self.models.large.facts.scaled:
                self._meter.receive(latent)
            self.drawn[-1].measured = self._meter.read()

    def distances(self) -> list[tuple[float | None, ...]]:
        """Per image D of all steps measured so far, read from the device where that is still to do.

        Raises:
            RunError: a step's output is not finite.
        """
        record.read(self.drawn)
        return [tuple(done.distance(image) for done in self.drawn) for image in range(self.images)]

    def trace(self, policy: str) -> Trace:
        """What was decided and measured so far.

        Args:
            policy: who decided, as text.
        """
        record.read(self.drawn)
        grid = record.grid_of(self._grid, self._masks.tokens if self.drawn else None)
        records = record.recorded(self.drawn, self._masks.tokens)
        return Trace(policy=policy, steps=self.steps, images=self.images, grid=grid, records=records)

    def fork(self) -> "Run":
        """A run that goes on from here by itself, between two steps, with keys and values of its own."""
        twin = copy.copy(self)
        twin.drawn = list(self.drawn)
        twin._meter = copy.copy(self._meter)
        twin._caches = {key: cache.copy() for key, cache in self._caches.items()}
        twin._predictions = dict(self._predictions)
        twin._last = dict(self._last)
        twin._masks = self._masks.copy()
        return twin

    def _begin(self, inputs: Inputs, decider: Decider) -> None:
        """Measure the last step, have the next decided, and choose its masks."""
        step, latent, large = len(self.drawn), inputs["hidden_states"], self.models.large
        rows = len(latent)
        if step and rows % self.images:
            raise RunError(f"step {step} has {rows} rows, which do not divide among {self.images} images")
        if step == 0:
            if rows not in (self.images, 2 * self.images):  # guidance has two branches at most
                self.images = rows if rows % 2 else rows // 2
            self._grid = large.grid(inputs)
            if large.facts.stepped is not None:
                transformer: Any = large.module()
                self._stepped = large.facts.stepped(inputs, transformer.config)
            self._masks.tokens = large.layout.count(latent)
        self.look(latent)
        plans = list(decider.plans(self))
        tokens = [self._masks.choose(step, image, plan, self._meter, latent) for image, plan in enumerate(plans)]
        for cache in self._caches.values():
            if cache.layers and cache.stale(step - 1) and decider.large_is_over(self):
                cache.forget()
        for done in self.drawn[-1:]:
            done.release()
        overruled: list[str | None] = [None] * self.images
        if self._guard is not None and self._guard.looks(tokens):
            overruled = self._guard.objections(self.distances(), tokens)
        self.drawn.append(Drawn(plans, tokens, overruled=overruled))
        self.pending = True

    def _carry_out(self, kind: Kind, previous: Tensor | None) -> Tensor:
        """Draw the last call as the step's plans say."""
        now = self.drawn[-1]
        return draw(
            now.calls[-1],
            now.plans,
            now.tokens,
            self.models,
            self._caches.setdefault(kind, KVCache(kind[1], lasting=self.models.caches is not None)),
            previous=previous,
            step=len(self.drawn) - 1,
            keep=self._keep,
            pictured=self._masks.tokens,
            overruled=now.overruled,
        )

    def _settle(self, images: int) -> None:
        """Replace the supposed number of images by the known one."""
        if images == self.images:
            return
        if len(self.drawn) > 1 or len(set(self.drawn[0].plans)) > 1:
            raise RunError(f"the batch changed from {self.images} to {images} images in the middle of a run")
        self.images = images
        self.drawn[0].settle(images)
