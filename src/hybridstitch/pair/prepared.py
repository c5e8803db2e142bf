"""A pair made ready as its `Engine` says, and taken back to how it was found.

Whole models are compiled as they are called, with the hooks and processors that draw parts of a picture inside: the
memory of keys and values and the drawn tokens are tensors lent from outside, so every mask of K tokens is the same
graph. Regional compilation gives every kind of block one graph a shape.
"""

import copy
from collections.abc import Callable, Collection
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

import torch

from ..compat import ModelMixin, backends, blocks, inductor_lacks, is_offloaded, is_parallel, many_graphs, uncompile
from ..drawing.call import Models
from ..drawing.engine import PLAIN, Engine
from ..errors import EngineError, StitchError, nearest
from ..families.family import Family
from .expert import second
from .shelf import Shelf


class Prepared:
    """Two models and the engine they are run by; they are made ready when `models` is first asked for.

    Attributes:
        family: the attached large model.
        small: the small model.
    """

    def __init__(self, family: Family, small: ModelMixin) -> None:
        """Begin with everything off.

        Args:
            family: the attached large model.
            small: the small model.
        """
        self.family, self.small = family, small
        self._engine = PLAIN
        self._models: Models | None = None
        self._blocks: list[Any] = []
        self._shelf: Shelf | None = None

    @property
    def engine(self) -> Engine:
        """How the models are run."""
        return self._engine

    @engine.setter
    def engine(self, engine: Engine) -> None:
        before = self._engine.quantise
        if before not in ("off", engine.quantise):
            raise EngineError(
                f"the large model's weights are quantised to {before}, which cannot be undone; load the pair again"
            )
        check_installed(engine)
        self.undo()
        if before == "off" and engine.quantise != "off":
            quantise(self.family.module(), engine.quantise, repeated(self.family))
        self._engine = engine

    def check(self, pipe: Any) -> None:
        """What must hold before a run draws anything.

        Args:
            pipe: the pipeline the models draw for, or None.

        Raises:
            StitchError, EngineError: something was done to the models that a stitched pair cannot work with.
        """
        replaced = self.family.intact()
        if replaced is not None:
            raise StitchError(
                f"attention processors were replaced after stitching ({replaced}), by fused QKV, PAG, IP-Adapter or "
                "set_attn_processor; undo that, or `unstitch(pipe)`, which puts the found ones back, and stitch again"
            )
        if is_parallel(self.family.module()) or is_parallel(self.small):
            raise StitchError("context parallelism is on; a masked step would split the wrong tokens: switch it off")
        if pipe is not None and second(pipe) is not None and is_offloaded(pipe):
            raise StitchError(
                "CPU offloading moves the second expert by itself, away from the small model it is stitched with; "
                "leave it off, or `unstitch(pipe)`"
            )
        if self._engine.offload and pipe is not None and is_offloaded(pipe):
            raise EngineError("offload=True and diffusers' CPU offloading move the same weights; use one of them")

    def models(self) -> Models:
        """What a run draws with.

        Raises:
            EngineError: the device or the installation cannot serve the engine.
        """
        if self._models is None:
            self._models = self._ready()
        return self._models

    def rest(self) -> None:
        """No step to come needs the large model."""
        if self._shelf is not None:
            self._shelf.put_away()

    def wake(self) -> None:
        """A picture is finished and another may follow."""
        if self._shelf is not None:
            self._shelf.fetch()

    def undo(self) -> None:
        """Leave both models as they were found; quantised weights stay."""
        if self._shelf is not None:
            self._shelf.close()
        for block in self._blocks:
            uncompile(block)
        self.family.call = self.family.module()
        self._models, self._blocks, self._shelf = None, [], None

    def _ready(self) -> Models:
        engine, family, small = self._engine, self.family, self.small
        large: Any = family.module()
        check_device(engine, small.device)
        drawing: Callable[..., Any] = small
        if engine.compile == "whole":
            family.call, drawing = (_compiled(model, engine) for model in (large, small))
        elif engine.compile == "regional":
            names = repeated(family)
            self._blocks = [block for model in (large, small) for block in blocks(model, names)]
            for block in self._blocks:
                block.compile(**_options(engine))
            family.call, drawing = _many(large, engine), _many(small, engine)
        if engine.offload:
            self._shelf = Shelf(large, small.device)
            family.call = _fetched(family.call, self._shelf)
        return Models(family, drawing, engine, {} if engine.graphs else None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The copied models with the same engine, made ready by themselves."""
        copied = type(self)(copy.deepcopy(self.family, memo), copy.deepcopy(self.small, memo))
        copied._engine = self._engine
        copied.family.call = copied.family.module()  # a compiled form would draw with the model it was made of
        return copied


def repeated(family: Family) -> Collection[str]:
    """Classes of the blocks that a transformer repeats.

    Raises:
        EngineError: neither we nor diffusers know them.
    """
    transformer: Any = family.module()
    names = family.facts.blocks or transformer._no_split_modules
    if not names:
        raise EngineError(
            f"the repeated blocks of {family.facts.name} are not known, so they can be neither compiled one by one nor "
            "quantised; use compile='whole', or leave it off"
        )
    return names


def check_device(engine: Engine, device: torch.device) -> None:
    """Refuse an engine that this device or installation cannot serve.

    Raises:
        EngineError: see above, with the way out.
    """
    if engine.graphs and device.type != "cuda":
        raise EngineError(f"graphs=True needs a CUDA device, the models are on {device}; leave graphs out")
    if engine.offload and device.type != "cuda":
        raise EngineError(f"offload=True moves the large model off a GPU, the models are on {device}; leave it out")
    check_installed(engine)
    if engine.compile == "off":
        return
    lacking = inductor_lacks(device) if engine.backend == "inductor" else None
    if lacking is not None:
        raise EngineError(f"compiling for {device} needs {lacking}, which is not there; install it, or compile='off'")


def check_installed(engine: Engine) -> None:
    """Refuse an engine that this installation cannot serve on any device; called before anything is loaded.

    Raises:
        EngineError: see above, with the way out.
    """
    if engine.compile != "off" and engine.backend not in backends():
        raise EngineError(f"torch.compile has no backend {engine.backend!r}; {nearest(engine.backend, backends())}")
    if engine.quantise != "off" and find_spec("torchao") is None:
        raise EngineError(f"quantise={engine.quantise!r} needs torchao, which is not installed: pip install torchao")


def quantise(model: Any, kind: str, names: Collection[str]) -> None:
    """Round the weights of a model's blocks, in place.

    Args:
        model: the model.
        kind: "int8" or "float8".
        names: of the blocks' classes.

    Raises:
        EngineError: torchao is not installed.
    """
    check_installed(Engine(quantise=kind))  # type: ignore[arg-type]
    torchao: Any = import_module("torchao.quantization")
    config = {"int8": torchao.Int8WeightOnlyConfig, "float8": torchao.Float8WeightOnlyConfig}[kind]()
    for block in blocks(model, names):
        torchao.quantize_(block, config)


def _options(engine: Engine) -> dict[str, Any]:
    """For `torch.compile`: a size that was seen to change, as groups of a mixed batch do, is open in the second graph.

    Not so in blocks, where the models' different widths would be left open too, and in what is captured for each size.
    """
    dynamic = None if engine.compile == "whole" and not engine.graphs else False
    return {"backend": engine.backend, "dynamic": dynamic, "mode": "reduce-overhead" if engine.graphs else None}


def _compiled(model: Any, engine: Engine) -> Callable[..., Any]:
    return _many(torch.compile(model, **_options(engine)), engine)


def _many(model: Callable[..., Any], engine: Engine) -> Callable[..., Any]:
    """The model, allowed as many graphs as it needs. What captured graphs return is copied: they write it again."""

    def call(**inputs: Any) -> Any:
        if engine.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with many_graphs():
            drawn = model(**inputs)
        return tuple(tensor.clone() for tensor in drawn) if engine.graphs else drawn

    return call


def _fetched(model: Callable[..., Any], shelf: Shelf) -> Callable[..., Any]:
    """The model, brought home before each call."""

    def call(**inputs: Any) -> Any:
        shelf.ready()
        return model(**inputs)

    return call
