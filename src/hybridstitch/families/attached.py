"""A transformer with processors and hooks of ours: what all families that draw parts have in common.

A family says which attentions keep keys and values, what hooks it needs, and what of a call is given to the
transformer when some tokens are drawn; the transformer's own forward does the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ..compat import every_block
from .family import Facts, Inputs, KeysValues
from .held import room
from .hosted import Hosted
from .lent import Lent
from .rows import Rows


class Attached(ABC):
    """See `family.Family`.

    Attributes:
        facts: of the class.
        kinds: types of the modules whose keys and values span the picture.
        stock: types of the processors that attend the way ours do.
        fusible: whether these use projections that were fused.
        transformer: the large model.
        layout, call: see `family.Family`.
    """

    facts: Facts
    kinds: tuple[type, ...] = ()
    stock: tuple[type, ...]
    fusible = False

    def __init__(self, transformer: Any) -> None:
        """Prepare; nothing is installed before `attach`.

        Args:
            transformer: the large model.
        """
        self.transformer = transformer
        self.layout = self.facts.layout(transformer.config)
        self.call: Callable[..., Any] = transformer
        self._found: dict[str, Any] = {}
        self._ours: dict[str, Lent] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    # --- what a family says ---

    @abstractmethod
    def processor(self, attention: Any) -> Lent:
        """One of ours for an attention; each gets its own."""

    @abstractmethod
    def keys(self, inputs: Inputs) -> int:
        """See `family.Family`."""

    @abstractmethod
    def some(self, inputs: Inputs, tokens: Tensor, text: str) -> tuple[Inputs, Tensor]:
        """What the transformer is given to draw some tokens.

        Args:
            inputs: of r rows.
            tokens: (r, K).
            text: "fresh" or "cached".

        Returns:
            the arguments, and where the keys that will be computed lie among `keys(inputs)`, (r, n).
        """

    def attentions(self) -> Mapping[str, Any]:
        """Modules whose keys and values span the picture, by name."""
        return {name: module for name, module in self.transformer.named_modules() if isinstance(module, self.kinds)}

    def hooks(self) -> Iterable[torch.utils.hooks.RemovableHandle]:
        """Installed hooks; none by default."""
        return ()

    def whole(self, drawn: Tensor, inputs: Inputs, tokens: Tensor) -> Tensor:
        """The prediction with the drawn tokens at their places; as it is where a hook put them back."""
        return drawn

    def seen(self, inputs: Inputs) -> Tensor | None:
        """Which keys may be attended to, (r, 1, 1, `keys(inputs)`); None for all."""
        return None

    def lengths(self, inputs: Inputs) -> list[int]:
        """Of each attention, tokens in its memory."""
        return [self.keys(inputs)] * len(self._ours)

    # --- what all of them do ---

    def module(self) -> Any:
        """The transformer."""
        return self.transformer

    def grid(self, inputs: Inputs) -> tuple[int, ...] | Tensor:
        """See `family.Family`."""
        if self.facts.grid is not None:
            return self.facts.grid(inputs)
        return self.layout.grid(inputs["hidden_states"])

    def strange(self) -> str | None:
        """See `family.Family`."""
        for name, attention in self.attentions().items():
            if type(attention.processor) not in self.stock:
                return f"{name}.processor has a {type(attention.processor).__name__}"
            if self.fusible and attention.fused_projections:
                return f"{name} has fused projections"
        return None

    def attach(self) -> None:
        """Install processors, a distinct one for each attention (stock ones are shared), and hooks."""
        self._found = {name: attention.processor for name, attention in self.attentions().items()}
        self._ours = {name: self.processor(attention) for name, attention in self.attentions().items()}
        for name, found in self._found.items():
            self._ours[name]._attention_backend = getattr(
                found, "_attention_backend", None
            )  # some have none until it is set
        self._install(self._ours)
        self._hooks = list(self.hooks())

    def detach(self) -> None:
        """Put the found processors back and remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._install(self._found)
        self._hooks, self._found, self._ours = [], {}, {}

    def intact(self) -> str | None:
        """Name the first attention whose processor is no longer ours, or None."""
        for name, attention in self.attentions().items():
            if attention.processor is not self._ours.get(name):
                return f"{name}.processor has a {type(attention.processor).__name__}"
        return None

    def room(self, inputs: Inputs, dtype: torch.dtype | None = None, *, host: bool = False) -> KeysValues:
        """See `family.Family`."""
        latent, config = inputs["hidden_states"], self.transformer.config
        heads, width = config["num_attention_heads"], config["attention_head_dim"]
        kind, cuda = dtype or latent.dtype, latent.device.type == "cuda"
        device = torch.device("cpu") if host else latent.device
        shapes = [(len(latent), length, heads, width) for length in self.lengths(inputs)]
        return [
            (room(shape, kind, device, pinned=host and cuda), room(shape, kind, device, pinned=host and cuda))
            for shape in shapes
        ]

    def dense(
        self, inputs: Inputs, *, memory: KeysValues | None = None, rows: Rows | None = None, whole: bool = False
    ) -> tuple[Tensor, bool]:
        """See `family.Family`."""
        try:
            for ours, (keys, values) in zip(self._ours.values(), memory or (), strict=False):
                ours.keys, ours.values, ours.ran = keys, values, False
            if memory:
                self._lend_rows(rows, memory[0][0].device)
            with every_block(self.transformer) if whole else nullcontext():
                prediction = self.call(**inputs, return_dict=False)[0]
            return prediction, bool(memory) and all(ours.ran for ours in self._ours.values())
        finally:
            self._take_back()

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
        """See `family.Family`."""
        given, positions = self.some(inputs, tokens, text)
        every = torch.arange(len(tokens), device=tokens.device) if rows is None else rows.index(tokens.device)
        seen = self.seen(inputs)
        places = {keys.shape[1]: (every[:, None] * keys.shape[1] + positions).flatten() for keys, _ in memory}
        hosted = Hosted(memory, tokens.device) if host else None
        try:
            for layer, (ours, (keys, values)) in enumerate(zip(self._ours.values(), memory, strict=True)):
                ours.keys, ours.values, ours.places = keys, values, places[keys.shape[1]]
                ours.positions, ours.seen = positions, seen
                ours.hosted = None if hosted is None else (hosted, layer)
            self._lend_rows(rows, tokens.device)
            with every_block(self.transformer):
                drawn = self.call(**given, return_dict=False)[0]
            if hosted is not None:
                hosted.close()
            return self.whole(drawn, inputs, tokens)
        finally:
            self._take_back()

    def _lend_rows(self, rows: Rows | None, device: torch.device) -> None:
        """Say which rows of the memory a call is about; slices are constants to a compiled graph, an index is not."""
        if rows is None or rows.whole:
            return
        parts, index = (rows.parts, None) if self.call is self.transformer else (None, rows.index(device))
        for ours in self._ours.values():
            ours.parts, ours.index = parts, index

    def _take_back(self) -> None:
        for ours in self._ours.values():
            ours.take_back()

    def _install(self, processors: Mapping[str, Any]) -> None:
        for name, attention in self.attentions().items():
            attention.set_processor(processors[name])
