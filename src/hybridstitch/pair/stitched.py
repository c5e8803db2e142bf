"""The transformer a diffusers pipeline calls in place of its own: a facade over the large model and the small one.

Life of a picture: the pipeline calls `forward`; the first call of a grid of timesteps begins a `Run`, which decides and
draws; the pipeline guides and calls `scheduler.step`, which an observer reports to the run; then keys and values go.
"""

import inspect
import sys
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..compat import ModelMixin, Transformer2DModelOutput, grid_of
from ..drawing.call import Models
from ..drawing.decide import ByPolicy
from ..drawing.engine import PLAIN, Engine
from ..drawing.guard import Guard
from ..drawing.run import Run
from ..drawing.stepped import Stepped
from ..errors import StitchError
from ..families.family import Family, Inputs
from ..families.known import family_of
from ..policies.policy import Policy
from ..policies.presets import Preset, as_preset
from ..policies.trace import Trace
from .asking import by_its_names
from .beginning import told
from .current import CurrentRun, check_policy
from .expert import seat, second, unseat
from .facade import Facade
from .following import Following
from .listening import listen, unlisten
from .observer import Listener, check_scheduler, measurable
from .prepared import Prepared


class StitchedTransformer(Facade, Listener):
    """Two transformers in the place of one. `stitch` and `open_pair` put it into a pipeline, `unstitch` takes it out.

    Attributes:
        preset: the policy with what belongs to it; set `policy` instead, which is checked.
        guard: the conditions under which the large model draws a step instead, None for none. Its ranges belong to a
            policy: another one has none.
    """

    __module__ = "hybridstitch"  # what saved pairs name, wherever this file lies

    def __init__(
        self, large: ModelMixin, small: ModelMixin, policy: Policy | Preset | str, engine: Engine = PLAIN
    ) -> None:
        """Seat two models; the large one is prepared to draw parts of a picture.

        Args:
            large: the large transformer.
            small: the small transformer, on the same device.
            policy: who draws what, or its string; a preset is remembered, see `call`.
            engine: how the models are run; default: as they are.

        Raises:
            PolicyError: the policy cannot be read.
            EngineError: quantising is asked for and cannot be done.
            StitchError: the large transformer belongs to no known family, or to one that cannot serve the policy.
        """
        super().__init__(large, small)
        self.family = family_of(large)
        self._signature = inspect.signature(inspect.unwrap(type(large).forward))
        self.preset = as_preset(policy)
        self._prepared = Prepared(self.family, small)
        self._following = Following()
        self._current: CurrentRun | None = None
        self.guard: Guard | None = None
        check_policy(self.policy, self.family, None)
        self.engine = engine
        self.family.attach()  # last: what fails before leaves the model as it was

    @property
    def engine(self) -> Engine:
        """How the models are run, from the next run on."""
        return self._prepared.engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        self._prepared.engine = engine

    @property
    def models(self) -> Models:
        """Both models, made ready as the engine says; whoever draws without the pipeline begins here."""
        fit, words, models = self.family.facts.fit, self.words, self._prepared.models()
        if words is not None:
            models = replace(models, small=words.drawing(models.small), words=words)
        if fit is not None:
            config = self.small.config
            return replace(models, words=lambda told: fit(words(told) if words else told, config))
        return models

    @property
    def policy(self) -> Policy:
        """Who draws what, from the next run on."""
        return self.preset.policy

    @policy.setter
    def policy(self, policy: Policy | Preset | str) -> None:
        preset = as_preset(policy)
        pipe = self._following.pipe
        check_policy(preset.policy, self.family, self._following.scheduler, experts=second(pipe) is not None)
        self.preset, self.guard = preset, self.guard and replace(self.guard, bands=())

    @property
    def call(self) -> dict[str, Any]:
        """What the pipeline's call takes beside the prompt to draw as the policy's preset or recipe says.

        `pipe(prompt, **pipe.transformer.call)`; empty where the policy is by no preset or recipe.
        """
        return by_its_names(self._following.pipe, self.preset.call(self._following.scheduler))

    @property
    def saved_policy(self) -> str:
        """See `Facade`."""
        return str(self.policy)

    @property
    def trace(self) -> Trace:
        """What the last run, or the one under way, decided and measured.

        Raises:
            StitchError: nothing was drawn yet.
        """
        if self._current is None:
            raise StitchError("no picture was drawn yet, so there is no trace; call the pipeline first")
        return self._current.trace

    def asked_of_large(self) -> None:
        """See `Facade`: an adapter that is merged writes into the weights, so they come back first."""
        self._prepared.wake()

    def follow(self, pipe: Any) -> None:
        """Observe this pipeline's scheduler from now on (weakly; found again at each run).

        Args:
            pipe: a diffusers pipeline whose `transformer` this is.

        Raises:
            SchedulerError: its scheduler cannot serve the policy.
        """
        check_policy(self.policy, self.family, pipe.scheduler, experts=second(pipe) is not None)
        self._following.follow(pipe, self)
        seat(self, pipe)
        listen(pipe, self.words)

    def leave(self) -> None:
        """Let the large model and the scheduler be as they were found."""
        unlisten(self._following.pipe)
        unseat(self._following.pipe)
        self._following.leave(self)
        self._prepared.undo()
        self.family.detach()

    def forward(self, *args: Any, return_dict: bool = True, **kwargs: Any) -> Transformer2DModelOutput | tuple[Tensor]:
        """Draw one call of a step; arguments as the large model's own `forward`.

        Returns:
            the prediction, of the latent's shape.

        Raises:
            HybridStitchError: the run cannot work, with the way out; the next run starts afresh.
        """
        prediction = self.draw(self.bind(args, kwargs), self.family)
        return Transformer2DModelOutput(sample=prediction) if return_dict else (prediction,)

    def draw(self, inputs: Inputs, large: Family) -> Tensor:
        """Draw one call of a step.

        Args:
            inputs: of the call, see `bind`.
            large: the large model of this step: the pair's own, or its pipeline's second.

        Returns:
            the prediction, of the latent's shape.
        """
        try:
            current = self._current_run(inputs)
            if current.run.models.large is not large:
                current.run.models = replace(current.run.models, large=large)
            prediction = current.run.draw(inputs, current.decider)
            if self.engine.offload and current.decider.large_is_over(current.run):
                self._prepared.rest()
        except BaseException:
            if self._current is not None:
                self._current.break_off()
            raise
        return prediction

    def observe(self, step: Stepped) -> None:
        """The scheduler made a step; see `current.CurrentRun.observe`."""
        if self._current is not None and self._current.observe(step, grid_of(self._following.scheduler)[1]):
            self._tell()

    def forgets(self) -> tuple[int, ...]:
        """See `observer.Listener`."""
        current = self._current
        if current is None or not current.goes_on(grid_of(self._following.scheduler)[1]):
            return ()
        return current.run.handed_over()

    def _reset_stateful_cache(self, recurse: bool = True) -> None:
        """Diffusers calls this at the end of every pipeline call, an interrupted one included."""
        if self._current is not None and self._current.end():
            self._tell()
        self._prepared.wake()

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
        """Arguments of a call by name, as the large model's forward has them.

        Raises:
            StitchError: one that stitched steps cannot use, such as ControlNet residuals.
        """
        inputs = self._signature.bind(self.large, *args, **kwargs).arguments
        del inputs["self"]
        for name, what in self.family.facts.refused.items():
            if inputs.get(name) is not None:
                raise StitchError(what)
        return inputs

    def _current_run(self, inputs: Inputs) -> CurrentRun:
        """The run this call belongs to: a new grid of timesteps, or the end of the last run, begins another."""
        scheduler, policy = self._following.scheduler, self.policy
        if scheduler is None:
            raise StitchError(
                "this stitched transformer follows no pipeline, so it cannot see the scheduler's steps; call "
                "`pipe.transformer.follow(pipe)`, or open the folder with `hybridstitch.open_pair(folder)`"
            )
        steps, grid = grid_of(scheduler)
        if self._current is not None and self._current.goes_on(grid):
            return self._current
        pipe = self._following.pipe
        check_scheduler(scheduler, policy)
        for text in told(self, pipe, scheduler, inputs, steps):
            self.warn(text)
        policy.check(steps)
        self._prepared.check(pipe)
        measured = policy.measured if measurable(scheduler) else None
        run = Run(self.models, steps, measured=measured, keep=policy.can_mask, images=policy.images, guard=self.guard)
        self._current = CurrentRun(run, ByPolicy(policy), grid)
        self._following.watch(scheduler, self)
        return self._current

    def _tell(self) -> None:
        """Warn of what a user of an adaptive policy should know of the run that ended."""
        assert self._current is not None
        if self._current.decider.policy.adaptive:
            for note in self.trace.flags:
                self.warn(note)


sys.modules["hybridstitch.stitched"] = sys.modules[__name__]  # what pairs saved by release 0.1.0 name
