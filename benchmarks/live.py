"""Memory that tensors hold, followed operation by operation: what `max_memory_allocated` says on a GPU, on any device.

Counts each storage once, from the operation that makes it until nothing refers to it any more. Memory that a kernel
takes and gives back inside is not seen.
"""

from typing import Any
from weakref import finalize

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Follows the operations inside its `with` block.

    Attributes:
        now: bytes made inside the block that are still held.
        peak: the most that were held at once.
    """

    def __init__(self) -> None:
        """Begin at nothing."""
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and count what it made."""
        given = {t.untyped_storage()._cdata for t in _tensors((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in given or key in self._known:
                continue
            self._known.add(key)
            self.now += storage.nbytes()
            finalize(storage, self._gone, key, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
