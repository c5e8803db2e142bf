"""The transformer a diffusers pipeline calls in place of its own: a facade over the large model and the small one.

Life of a picture: the pipeline calls `forward`; the first call of a grid of timesteps begins a `Run`, which decides and
draws; the pipeline guides and calls `scheduler.step`, which an observer reports to the run; then keys and values go.
"""

import copy
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from weakref import ref

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from ..compat import ModelMixin, Transformer2DModelOutput, grid_of
from ..drawing.draw import Models
from ..drawing.engine import PLAIN, Engine
from ..drawing.guard import Guard
from ..drawing.run import Run
from ..drawing.stepped import Stepped
from ..errors import StitchError, StitchWarning
from ..families import family_of
from ..policies.policy import Policy
from ..policies.presets import as_policy
from ..policies.trace import Trace
from .observer import Listener, check_scheduler, measurable, unwatch, watch
from .prepared import Prepared

CONFIG = "config.json"
DELEGATED = (  # what pipelines and users ask of a transformer; everything else must be asked of .large or .small
    *("add_adapter", "active_adapters", "delete_adapters", "disable_adapters", "disable_lora", "enable_adapters"),
    *("enable_lora", "fuse_lora", "peft_config", "save_lora_adapter", "set_adapter", "set_adapters", "unfuse_lora"),
    *("unload_lora", "_hf_peft_config_loaded", "attn_processors", "inner_dim", "out_channels", "pos_embed"),
    *("num_layers", "encoder_hid_proj", "enable_lora_hotswap"),
)


class StitchedTransformer(ModelMixin, Listener):
    """Two transformers in the seat of one. `stitch` and `open_pair` make it; `unstitch` takes it out again.

    Attributes:
        large: the pipeline's own transformer.
        small: the model that draws the rest.
        guard: what makes a step fall back to the large model, see `guard.Guard`; None for nothing.
    """

    __module__ = "hybridstitch"  # what saved pairs name, wherever this file lies
    _group_offload_block_modules = ("large", "small")
    _no_split_modules = SD3Transformer2DModel._no_split_modules

    def __init__(self, large: ModelMixin, small: ModelMixin, policy: Policy | str, engine: Engine = PLAIN) -> None:
        """Seat two models; the large one is prepared to draw parts of a picture.

        Args:
            large: the large transformer.
            small: the small transformer, on the same device.
            policy: who draws what, or its string.
            engine: how the models are run; default: as they are.

        Raises:
            PolicyError: the policy cannot be read.
            EngineError: quantising is asked for and cannot be done.
            StitchError: the large transformer belongs to no known family.
        """
        super().__init__()
        self._policy = as_policy(policy)
        self.large, self.small = large, small
        self.family = family_of(large)
        self.family.attach()
        self._prepared = Prepared(self.family, small)
        self._run: Run | None = None
        self._over = True
        self._grid: Tensor | None = None
        self._pipe: Callable[[], Any] = _nobody
        self._scheduler: Callable[[], Any] = _nobody
        self._warned: set[str] = set()
        self.engine = engine
        self.guard: Guard | None = None

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
        return self._prepared.models()

    @property
    def policy(self) -> Policy:
        """Who draws what, from the next run on."""
        return self._policy

    @policy.setter
    def policy(self, policy: Policy | str) -> None:
        policy = as_policy(policy)
        scheduler = self._current_scheduler()
        if scheduler is not None:
            check_scheduler(scheduler, policy)
        self._policy = policy

    @property
    def trace(self) -> Trace:
        """What the last run, or the one under way, decided and measured.

        Raises:
            StitchError: nothing was drawn yet.
        """
        if self._run is None:
            raise StitchError("no picture was drawn yet, so there is no trace; call the pipeline first")
        trace = self._run.trace()
        return self._run.trace(trace.notes(self._run.policy)) if self._over else trace

    @property
    def config(self) -> Any:
        """The large model's configuration, which pipelines read sizes and channels from."""
        return self.large.config

    def follow(self, pipe: Any) -> None:
        """Observe this pipeline's scheduler from now on (weakly; found again at each run).

        Args:
            pipe: a diffusers pipeline whose `transformer` this is.

        Raises:
            SchedulerError: its scheduler cannot serve the policy.
        """
        check_scheduler(pipe.scheduler, self.policy)
        self._watch(pipe.scheduler)
        self._pipe = ref(pipe)

    def leave(self) -> None:
        """Let the large model and the scheduler be as they were found."""
        for scheduler in (self._scheduler(), self._current_scheduler()):
            if scheduler is not None:
                unwatch(scheduler, self)
        self._prepared.undo()
        self.family.detach()

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        pooled_projections: Tensor | None = None,
        timestep: Tensor | None = None,
        block_controlnet_hidden_states: list[Tensor] | None = None,
        joint_attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
        skip_layers: list[int] | None = None,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Draw one call of a step; arguments as `SD3Transformer2DModel.forward`.

        Args:
            hidden_states: noisy latent, (R, C, H, W).
            encoder_hidden_states: text, (R, T, width).
            pooled_projections: pooled text, (R, width).
            timestep: 1000·σ, (R,).
            block_controlnet_hidden_states: must be None.
            joint_attention_kwargs: passed to both models (the LoRA scale).
            return_dict: wrap the prediction.
            skip_layers: layers of the large model to leave out (skip-layer guidance).

        Returns:
            the prediction, (R, C, H, W).

        Raises:
            HybridStitchError: the run cannot work, with the way out; the next run starts afresh.
        """
        if block_controlnet_hidden_states is not None:
            raise StitchError(
                "ControlNet residuals were passed; stitched steps cannot use them yet: `unstitch(pipe)` for ControlNet"
            )
        inputs = {
            "hidden_states": hidden_states,
            "encoder_hidden_states": encoder_hidden_states,
            "pooled_projections": pooled_projections,
            "timestep": timestep,
            "joint_attention_kwargs": joint_attention_kwargs,
        }
        if skip_layers is not None:
            inputs["skip_layers"] = skip_layers
        try:
            run = self._current_run(hidden_states.device)
            prediction = run.draw(inputs)
            if self.engine.offload and run.large_is_over():
                self._prepared.rest()
        except BaseException:
            self._break_off()
            raise
        return Transformer2DModelOutput(sample=prediction) if return_dict else (prediction,)

    def observe(self, step: Stepped) -> None:
        """The scheduler made a step; see `run.Run.observe`. Steps of other runs are not ours to count."""
        if self._run is None or self._over or not self._run.pending:
            return
        if grid_of(self._current_scheduler())[1] is not self._grid:  # another pair's run, after ours was broken off
            self._break_off()
            return
        try:
            self._run.observe(step)
        except BaseException:
            self._break_off()
            raise
        if len(self._run.drawn) == self._run.steps:
            self._finish()

    def _reset_stateful_cache(self, recurse: bool = True) -> None:
        """Diffusers calls this at the end of every pipeline call, an interrupted one included."""
        if self._run is not None and not self._over:
            self._over = True
            self._run.finish()
            self._finish()
        self._prepared.wake()

    def load_lora_adapter(self, *args: Any, **kwargs: Any) -> Any:
        """Load a LoRA into the large model (a LoRA fits one width), and say so once."""
        self._warn(
            "this LoRA reaches the large model only; give the small one its own with "
            "pipe.transformer.small.load_lora_adapter(...)"
        )
        self._prepared.wake()
        return self.large.load_lora_adapter(*args, **kwargs)

    def _load_ip_adapter_weights(self, *args: Any, **kwargs: Any) -> None:
        raise StitchError("IP-Adapter cannot be stitched yet; `unstitch(pipe)` before loading one")

    def set_attn_processor(self, processor: Any) -> None:
        """Refused: the processors of a stitched model keep keys and values."""
        raise StitchError(
            "the attention processors of a stitched model cannot be replaced; `unstitch(pipe)` first, or set those of "
            "pipe.transformer.small"
        )

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, variant: str | None = None, **options: Any
    ) -> None:
        """Write `large/`, `small/` and the policy, for `open_pair(folder)`; options as diffusers' own.

        Raises:
            StitchError: a variant was asked for.
        """
        if variant is not None:
            raise StitchError(
                f"variant={variant!r}: diffusers looks for variants in one folder a model, and a pair has two; save "
                "without one, in another folder"
            )
        folder = Path(save_directory)
        for name, model in (("large", self.large), ("small", self.small)):
            model.save_pretrained(folder / name, *args, **options)
        saved = {"_class_name": type(self).__name__, "policy": str(self.policy)}
        (folder / CONFIG).write_text(json.dumps(saved, indent=2), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Self:
        """Read what `save_pretrained` wrote; options as diffusers' own."""
        folder = Path(pretrained_model_name_or_path) / (options.pop("subfolder", None) or "")
        policy = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["policy"]
        large, small = (SD3Transformer2DModel.from_pretrained(folder / name, **options) for name in ("large", "small"))
        return cls(large, small, policy)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A pair of its own that has drawn nothing yet; in the copy of a pipeline it follows that copy."""
        left = {"_run": None, "_over": True, "_grid": None, "_scheduler": _nobody}
        pipe = memo.get(id(self._pipe()))
        left["_pipe"] = _nobody if pipe is None else ref(pipe)
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__setstate__({k: left[k] if k in left else copy.deepcopy(v, memo) for k, v in self.__dict__.items()})
        return copied

    def __getattr__(self, name: str) -> Any:
        if name in DELEGATED:
            self._prepared.wake()  # whoever merges an adapter writes into the weights
            return getattr(self.large, name)
        return super().__getattr__(name)

    def _current_run(self, device: torch.device) -> Run:
        """The run this call belongs to: a new grid of timesteps, or the end of the last run, begins another."""
        scheduler = self._current_scheduler()
        if scheduler is None:
            raise StitchError(
                "this stitched transformer follows no pipeline, so it cannot see the scheduler's steps; call "
                "`pipe.transformer.follow(pipe)`, or open the folder with `hybridstitch.open_pair(folder)`"
            )
        steps, grid = grid_of(scheduler)
        if self._run is None or self._over or grid is not self._grid:
            self._check(scheduler, device)
            self._run = Run(self.policy, self.models, steps, measure=measurable(scheduler), guard=self.guard)
            self._grid, self._over = grid, False
            self._watch(scheduler)
        return self._run

    def _current_scheduler(self) -> Any:
        pipe = self._pipe()
        return self._scheduler() if pipe is None else pipe.scheduler

    def _watch(self, scheduler: Any) -> None:
        before = self._scheduler()
        if before is not None and before is not scheduler:
            unwatch(before, self)
        watch(scheduler, self)
        self._scheduler = ref(scheduler)

    def _check(self, scheduler: Any, device: torch.device) -> None:
        """What must hold before a run draws anything."""
        check_scheduler(scheduler, self.policy)
        self._prepared.check(self._pipe())

    def _break_off(self) -> None:
        """After an error: the next call begins a run, and this one holds no memory until then."""
        self._over = True
        if self._run is not None:
            self._run.let_go()

    def _finish(self) -> None:
        assert self._run is not None
        self._over = True
        if self._run.policy.adaptive:
            for note in self.trace.flags:
                self._warn(note)

    def _warn(self, text: str) -> None:
        """Say it once, whatever its numbers."""
        kind = text.split(":")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(text, StitchWarning, stacklevel=3)


sys.modules["hybridstitch.stitched"] = sys.modules[__name__]  # what pairs saved by release 0.1.0 name


def _nobody() -> None:
    """No pipeline or scheduler is followed."""
