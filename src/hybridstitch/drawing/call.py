"""One call of the transformer by the pipeline, and what became of it.

A call has R rows, branches × images, in the order the pipeline gives them, so that a stroke for every image hands the
very tensors of the pipeline to the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from ..compat import fix_addresses
from ..errors import RunError
from ..families.family import Family, Inputs, KeysValues
from ..families.rows import Rows
from ..policies.plan import Model, Plan, Stroke
from .carry import Last
from .clock import Mark
from .engine import PLAIN, Engine
from .kv import KVCache

DTYPES = MappingProxyType(
    {"same": None, "bfloat16": torch.bfloat16, "float16": torch.float16, "float8": torch.float8_e4m3fn}
)


class Words(Protocol):
    """What the small model is told, where its text encoder is another."""

    def __call__(self, inputs: Inputs) -> Inputs:
        """The small model's arguments of a call, from the large one's."""
        ...


@dataclass(frozen=True, slots=True)
class Models:
    """The two models of a pair.

    Attributes:
        large: the large one, through its family.
        small: the small one, or a compiled form of it.
        engine: how they are run.
        caches: keys and values that outlive a run, where compiled graphs know their addresses; None elsewhere.
        words: of a small model with text encoders of its own; None where both are told the same.
    """

    large: Family
    small: Callable[..., Any]
    engine: Engine = PLAIN
    caches: dict[tuple[int, int], KVCache] | None = None
    words: Words | None = None

    def room(self, inputs: Inputs) -> KeysValues:
        """Memory for the keys and values of a call like this one, as the engine wants it."""
        try:
            layers = self.large.room(inputs, DTYPES[self.engine.kv], host=self.engine.kv_host)
        except RuntimeError as error:
            raise RunError(
                f"there is no memory for the keys and values of {self.large.keys(inputs)} tokens "
                f"({str(error).splitlines()[0]}); draw fewer frames or pixels, keep them in Engine(kv='float8') or "
                "Engine(kv_host=True), or use a policy of whole steps, which keeps none"
            ) from error
        if self.caches is not None:
            fix_addresses(tensor for pair in layers for tensor in pair)
        return layers

    def call(self, inputs: Inputs, images: int) -> "Call":
        """A call, ready to be drawn.

        Args:
            inputs: the transformer's arguments.
            images: B.
        """
        small = inputs if self.words is None else self.words(inputs)
        return Call(inputs, small, images, max(1, len(inputs["hidden_states"]) // images), self.large.facts.shared)


@dataclass(slots=True)
class Call:
    """One call.

    Attributes:
        inputs: the transformer's arguments, tensors of R rows.
        small: those of the small model; the same unless it has `Words`.
        images: B.
        branches: R / B.
        shared: arguments that are not rows.
        last: what the small model drew last, where that is carried on; renewed with the prediction.
        first: the conditional call of the same step, where guidance makes two; None for the first itself.
        shift: what strokes of the conditional branch changed, of the latent's shape; None for nothing.
        prediction: what was drawn, of the latent's shape.
        plans: per image what was carried out.
        fallbacks: per image why that is not what was decided.
        spans: (images, start, end) of each model call.
    """

    inputs: Inputs
    small: Inputs
    images: int
    branches: int
    shared: frozenset[str] = frozenset()
    last: Last | None = None
    first: "Call | None" = None
    shift: Tensor | None = None
    prediction: Tensor | None = None
    plans: list[Plan] = field(default_factory=list)
    fallbacks: list[str | None] = field(default_factory=list)
    spans: list[tuple[tuple[int, ...], Mark, Mark]] = field(default_factory=list)

    @property
    def latent(self) -> Tensor:
        """The noisy latent, (R, …)."""
        return self.inputs["hidden_states"]

    def rows(self, images: Sequence[int], branches: str = "both") -> Rows:
        """The rows of some images; only the last (conditional) branch for "cond"."""
        first = self.branches - 1 if branches == "cond" else 0
        return Rows(images=tuple(images), total=self.images, branches=self.branches, first=first)

    def passes(self, stroke: Stroke) -> bool:
        """Whether a stroke of the conditional branch meets another branch's call, which is shifted with it."""
        return stroke.masked and stroke.branches == "cond" and self.first is not None

    def share(self, images: int) -> None:
        """Correct the number of images after a call that drew all of them alike."""
        self.branches = max(1, self.branches * self.images // images)
        self.images = images
        self.plans, self.fallbacks = self.plans[:1] * images, self.fallbacks[:1] * images
        self.spans = [(tuple(range(images)), start, end) for _, start, end in self.spans]

    def take(self, rows: Rows, model: Model = "L") -> Inputs:
        """A model's arguments for some rows; the pipeline's own tensors when these are all rows."""
        inputs = self.inputs if model == "L" else self.small
        if rows.whole:
            return inputs
        return {name: value if name in self.shared else _some(value, rows) for name, value in inputs.items()}

    def release(self) -> None:
        """Let inputs and predictions go; plans and times stay."""
        self.inputs, self.small, self.prediction, self.last, self.first, self.shift = {}, {}, None, None, None, None


def check_time(first: Inputs, now: Inputs) -> None:
    """Refuse a second call of the first step that belongs to the next one: nobody sees the scheduler's steps.

    Raises:
        RunError: see above.
    """
    before, after = first["timestep"], now["timestep"]
    if after.data_ptr() != before.data_ptr() and not torch.equal(after[:1], before[:1]):
        raise RunError(
            "step 1 began, but step 0 of the scheduler was not observed; a loop of your own must step "
            "`pipe.scheduler`, and a pipeline that was given this transformer but has another scheduler needs "
            "`other.transformer.follow(other)`"
        )


def _some(value: Any, rows: Rows) -> Any:
    """The rows of one argument; what has no rows as it is."""
    total = rows.total * rows.branches
    if isinstance(value, Tensor) and value.ndim > 0 and len(value) == total:
        return rows.take(value)
    if isinstance(value, list | tuple) and len(value) == total:
        return rows.pick(value)
    if isinstance(value, dict):
        return {name: _some(one, rows) for name, one in value.items()}
    return value
