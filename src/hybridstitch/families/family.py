"""What a transformer class is, and how an attached one draws all or part of a picture.

`Facts` is known without weights and says what the rest of the house needs to know of a class; a `Family` is one large
transformer, prepared. Tokens enter somewhere, attend, and leave; everything else of a transformer works token by token.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..policies.latency import Shape
from .layout import Layout
from .rows import Rows

KeysValues = list[tuple[Tensor, Tensor]]
Inputs = dict[str, Any]  # a forward's arguments by name
Config = Mapping[str, Any]
Size = tuple[int, ...]  # in pixels: (height, width), of a video (frames, height, width)
CONTROLNET = "ControlNet residuals were passed; stitched steps cannot use them yet: `unstitch(pipe)` for ControlNet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is true of one transformer class.

    Attributes:
        name: diffusers' class; `getattr(diffusers, name)` loads it.
        layout: of its latents, from its configuration.
        same: entries of the configuration that a pair must share, and what to call them.
        words: of these, entries of text: a small model with text encoders of its own may differ in them.
        shared: arguments without a row for each image and branch.
        refused: arguments that must be None, and what to say where they are not.
        blocks: classes of the blocks it repeats, for compiling and quantising.
        masks: whether it draws parts; else policies with masks are refused.
        text: T, text tokens of its pipelines.
        shape: cost and keys and values of N image and T text tokens by its configuration; None where nobody counted.
        tokens: N of a size in pixels, (height, width) or (frames, height, width), by the configurations of transformer
            and VAE; None where the pipeline alone knows.
        native: the size in pixels that it was made for, by the same; None where it has no such size.
        multiple: what each side of a size must be a multiple of, frames one more than a multiple; by the same.
        largest: the most pixels of each side, by the same; None for no limit.
        grid: tokens along each axis by a call's arguments; None where the latent's own shape says it.
        stepped: by the first call of a run, how what the scheduler steps becomes what the model draws; None where it is
            that already.
        fit: a call's arguments as a model of another configuration takes them; None where it takes the same.
        guided: by the configuration, branches of guidance that there are, and rows of an image in one call of them:
            (2, 2) where one call draws both, (2, 1) where there are two calls, (1, 1) where guidance is an input.
        conditional_first: whether a call with both branches of guidance has the conditional one first.
        scaled: whether the model sees its latent multiplied by a number of the step.
    """

    name: str
    layout: Callable[[Config], Layout]
    same: Mapping[str, str]
    words: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()
    masks: bool = False
    text: int = 0
    shape: Callable[[Config, int, int], Shape] | None = None
    tokens: Callable[[Config, Config, Size], int] | None = None
    native: Callable[[Config, Config], Size] | None = None
    multiple: Callable[[Config, Config], Size] | None = None
    largest: Callable[[Config, Config], Size] | None = None
    grid: Callable[[Inputs], tuple[int, ...] | Tensor] | None = None
    stepped: Callable[[Inputs, Config], Callable[[Tensor], Tensor] | None] | None = None
    fit: Callable[[Inputs, Config], Inputs] | None = None
    guided: Callable[[Config], tuple[int, int]] = lambda config: (2, 2)
    conditional_first: bool = False
    scaled: bool = False

    def own_words(self, large: Config, small: Config) -> bool:
        """Whether a small model needs words of its own, and can be told them: not of both branches in one tensor.

        Args:
            large, small: configurations; what the small one's leaves unsaid is taken to be alike.
        """
        apart = any(small.get(key, large.get(key)) != large.get(key) for key in self.words)
        return apart and self.guided(large)[1] == 1


def two_calls(config: Config) -> tuple[int, int]:
    """See `Facts.guided`."""
    return 2, 1


def bare(returned: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The prediction that a forward returned with `return_dict=False`: in a tuple, or by itself (Kandinsky 5)."""
    return returned if isinstance(returned, Tensor) else returned[0]


class Family(Protocol):
    """One large transformer, drawing all or part of a picture.

    Attributes:
        facts: of its class.
        stock: types of attention processors that attend the way ours do; none where ours are not needed.
        layout: of its latents.
        call: what draws: the transformer, or a compiled form of it.
    """

    facts: Facts
    stock: tuple[type, ...]
    layout: Layout
    call: Callable[..., Any]

    def module(self) -> Any:
        """The transformer."""
        ...

    def strange(self) -> str | None:
        """The first attention that does not attend the stock way, in words, or None."""
        ...

    def attach(self) -> None:
        """Install what drawing parts needs. The plain forward stays bit-exact."""
        ...

    def detach(self) -> None:
        """Leave the transformer as it was found."""
        ...

    def intact(self) -> str | None:
        """What was replaced since `attach`, in words, or None."""
        ...

    def grid(self, inputs: Inputs) -> tuple[int, ...] | Tensor:
        """Tokens along each axis of what is scored; a tensor where only the device knows."""
        ...

    def keys(self, inputs: Inputs) -> int:
        """Tokens that an attention attends to, text and references included: the memory's length."""
        ...

    def room(self, inputs: Inputs, dtype: torch.dtype | None = None, *, host: bool = False) -> KeysValues:
        """Memory for the keys and values of a call like this one, not filled.

        Args:
            inputs: arguments of the transformer's forward for R rows.
            dtype: of the memory; default: that of the latent. In float8 see `held`.
            host: in the host's memory, pinned where the latent is on a GPU.

        Returns:
            per attention layer two tensors (R, length, heads, width).
        """
        ...

    def dense(
        self,
        inputs: Inputs,
        *,
        memory: KeysValues | None = None,
        rows: Rows | None = None,
        whole: bool = False,
    ) -> tuple[Tensor, bool]:
        """Draw everything.

        Args:
            inputs: arguments of the transformer's forward for some rows of a call.
            memory: where to leave keys and values, of `room`'s shapes for the whole call; None keeps none.
            rows: which rows of the call these are; None for all.
            whole: run every block, where a cache put over the model would skip some.

        Returns:
            the prediction, and whether the memory was filled: not if blocks were skipped.
        """
        ...

    def masked(
        self,
        inputs: Inputs,
        tokens: Tensor,
        memory: KeysValues,
        rows: Rows | None,
        *,
        text: str,
        host: bool = False,
    ) -> Tensor:
        """Draw some tokens with the kept keys and values of all others, and leave theirs in the memory.

        Args:
            inputs: arguments of the transformer's forward for some rows of a call.
            tokens: indices of the tokens to draw, (len(rows), K), ascending.
            memory: keys and values of the whole call.
            rows: which rows of the call these are; None for all.
            text: "fresh" recomputes the text tokens, "cached" leaves theirs as they are and computes none.
            host: whether the memory lies with the host.

        Returns:
            of the prediction's shape; only the drawn tokens mean anything.
        """
        ...
