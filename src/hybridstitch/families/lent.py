"""A memory of keys and values, lent to one attention for one call and taken back after.

Keys are kept as they are attended to, after norm and RoPE. Everything lent is alike in all layers, so that one
compiled block serves them all.
"""

from typing import Any

import torch
from torch import Tensor

from ..compat import attention
from .held import held, told
from .hosted import Hosted
from .rows import Part


class Lent:
    """What an attention processor of ours is lent. A family's processor derives from it and attends.

    Attributes:
        keys, values: memory of the whole call, (R, length, heads, width); None where nothing is kept.
        parts: slices of the memory's rows with the slices of this call's rows that they are; None for all rows.
        index: the same rows as a tensor, (r,), where one compiled graph is to serve any of them at the price of a copy.
        places: where the drawn tokens lie in the memory, flattened to (R·length, …); None in a dense call.
        seen: which of all keys may be attended to in a masked call, (r, 1, 1, length); None for all.
        positions: rows of the position table of the tokens at hand, (r, n); None for all, in order.
        hosted: of a masked call whose memory lies with the host, what brings it, and which layer this is; else None.
        ran: whether it attended since `ran` was last set to False.
    """

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __init__(self) -> None:
        """Start with nothing lent."""
        self.ran = False
        self.take_back()

    def take_back(self) -> None:
        """Lend nothing any more."""
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.parts: tuple[Part, ...] | None = None
        self.index: Tensor | None = None
        self.places: Tensor | None = None
        self.positions: Tensor | None = None
        self.seen: Tensor | None = None
        self.hosted: tuple[Hosted, int] | None = None

    @property
    def some_rows(self) -> bool:
        """Whether these are not all rows of the memory."""
        return self.parts is not None or self.index is not None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
        """Attend to the tokens at hand and, in a masked call, to all others.

        Args:
            query: (r, n, heads, width).
            key: (r, m, heads, width), in the order of `places`.
            value: as `key`.
            seen: which keys may be attended to, (r, 1, 1, length); None for all.

        Returns:
            (r, n, heads, width).
        """
        self.ran = True
        self.bring()
        return self.mix(query, self.keep(self.keys, key), self.keep(self.values, value), seen)

    def bring(self) -> None:
        """Have the memory here; before the first look at it."""
        if self.hosted is not None:
            self.keys, self.values = self.hosted[0].take(self.hosted[1])

    def keep(self, memory: Tensor | None, fresh: Tensor) -> Tensor:
        """Leave keys or values in the memory.

        Args:
            memory: of the whole call, or None.
            fresh: of the tokens at hand, (r, m, heads, width).

        Returns:
            what to attend to: of all tokens of these rows, or in a masked call of all rows.
        """
        if memory is None:
            return fresh
        if self.places is None:
            self.put(memory, fresh)
            return fresh
        memory.flatten(0, 1).index_copy_(0, self.places, held(fresh, memory).flatten(0, 1))
        return memory

    def put(self, memory: Tensor, rows: Tensor) -> None:
        """Leave whole rows in the memory."""
        if self.index is not None:
            memory.index_copy_(0, self.index, held(rows, memory))
        elif self.parts is None:
            memory.copy_(held(rows, memory), non_blocking=True)
        else:
            rows = held(rows, memory)
            for there, here in self.parts:
                memory[there].copy_(rows[here], non_blocking=True)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
        """Scaled dot-product attention; where keys are those of more rows than these, part by part."""
        mixed = self._mixed(query, key, value, seen)
        if self.hosted is not None:
            self.hosted[0].give_back(self.hosted[1])
        return mixed

    def _mixed(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None) -> Tensor:
        backend = self._attention_backend
        if self.places is not None and self.index is not None:
            key, value = key.index_select(0, self.index), value.index_select(0, self.index)
        if self.places is None or self.parts is None:
            return attention(query, told(key, query.dtype), told(value, query.dtype), backend, seen)
        mixed = torch.empty_like(query)
        for there, here in self.parts:
            k, v = told(key[there], query.dtype), told(value[there], query.dtype)
            mixed[here] = attention(query[here], k, v, backend, None if seen is None else seen[here])
        return mixed
