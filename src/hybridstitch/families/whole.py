"""Any transformer, for programs of whole steps: each model draws everything or nothing.

Large, small, T-Stitch, SRDiffusion, L-S-L, `skip` and `reuse` need no more of a class than a row of `classes.CLASSES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import StitchError
from .family import Facts, Inputs, KeysValues, bare
from .layout import Layout
from .rows import Rows


@dataclass(slots=True)
class Whole:
    """See `family.Family`; nothing is installed.

    Attributes:
        facts: of the class.
        transformer: the large model.
        layout, call, stock: see `family.Family`.
    """

    facts: Facts
    transformer: Any
    layout: Layout
    call: Callable[..., Any]
    stock: tuple[type, ...] = ()

    @classmethod
    def of(cls, facts: Facts, transformer: Any) -> "Whole":
        """A large model of a class."""
        return cls(facts, transformer, facts.layout(transformer.config), transformer)

    def module(self) -> Any:
        """The transformer."""
        return self.transformer

    def strange(self) -> str | None:
        """Whatever attends, attends."""
        return None

    def attach(self) -> None:
        """Nothing to install."""

    def detach(self) -> None:
        """Nothing was installed."""

    def intact(self) -> str | None:
        """Nothing can be replaced."""
        return None

    def grid(self, inputs: Inputs) -> tuple[int, ...] | Tensor:
        """See `family.Family`."""
        if self.facts.grid is not None:
            return self.facts.grid(inputs)
        return self.layout.grid(inputs["hidden_states"])

    def keys(self, inputs: Inputs) -> int:
        """No memory is kept."""
        return 0

    def room(self, inputs: Inputs, dtype: torch.dtype | None = None, *, host: bool = False) -> KeysValues:
        """No memory is kept."""
        return []

    def dense(
        self, inputs: Inputs, *, memory: KeysValues | None = None, rows: Rows | None = None, whole: bool = False
    ) -> tuple[Tensor, bool]:
        """See `family.Family`."""
        return bare(self.call(**inputs, return_dict=False)), False

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
        """Refused; policies that would ask for it are refused before."""
        raise StitchError(f"with {self.facts.name} each step is drawn by one model")
