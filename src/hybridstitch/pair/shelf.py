"""A model put away while nobody needs it, and fetched again before somebody does.

On the CPU its weights have one block of memory that lasts, page-locked where a GPU is their home. Putting away copies
all of them there, every time: nothing tells for certain that a weight is as it was (`weight.data += x`, as peft merges,
moves neither its address nor its version). Both ways are transfers on a stream of their own, which the host does not
wait for. `fetch` and `ready` let the current stream wait; between `put_away` and them nobody may touch the weights.

Memory at home belongs to the current stream, so that whoever draws next can have it: it is marked as used by the
transfers and given to others only behind them.
"""

import weakref
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..compat import page_lock, page_unlock

ALIGNED = 64  # bytes: each weight begins at a multiple


class Shelf:
    """Where one model goes when it is not needed.

    Attributes:
        away: whether the model is put away.
    """

    def __init__(self, model: nn.Module, home: torch.device) -> None:
        """Take the memory; nothing is moved yet.

        Args:
            model: the model.
            home: the device it works on.
        """
        self.model, self.home, self.away = model, home, False
        self._stream = torch.cuda.Stream(home) if home.type == "cuda" else None
        self._arrival: torch.cuda.Event | None = None
        self._places: list[Tensor] = []
        self._free: Callable[[], object] = _nothing
        self._make_room()

    def put_away(self) -> None:
        """Let the model's memory on its home device go."""
        if self.away:
            return
        self.ready()
        self._make_room()
        self._move(self._places)
        self.away = True

    def fetch(self) -> None:
        """Begin to bring the model home; what the current stream does from now on waits for it."""
        if self.away:
            self._move([torch.empty_like(tensor, device=self.home) for tensor in self._tensors()])
            self.away = False
            if self._stream is not None:
                self._arrival = torch.cuda.Event()
                self._arrival.record(self._stream)
            self._wait()

    def ready(self) -> None:
        """Fetch if that was not begun; also on another stream than that one, work from now on waits for it."""
        self.fetch()
        self._wait()

    def close(self) -> None:
        """Bring the model home and give the memory back."""
        self.ready()
        self._free()
        self._places, self._free = [], _nothing

    def _wait(self) -> None:
        if self._arrival is not None:
            torch.cuda.current_stream(self.home).wait_event(self._arrival)

    def _move(self, places: list[Tensor]) -> None:
        """Copy each tensor to its place, behind what the current stream has still to do, and let it lie there."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.home))
        with torch.cuda.stream(self._stream):
            for tensor, place in zip(self._tensors(), places, strict=True):
                place.copy_(tensor.data, non_blocking=True)
                for used in (tensor.data, place):
                    if self._stream is not None and used.is_cuda:
                        used.record_stream(self._stream)
                tensor.data = place

    def _make_room(self) -> None:
        """A place on the CPU for each tensor; new memory only where the model became another."""
        wanted = [torch.empty_like(tensor, device="meta") for tensor in self._tensors()]
        if [_layout(tensor) for tensor in wanted] == [_layout(tensor) for tensor in self._places]:
            return
        self._free()
        starts, count = [], 0
        for tensor in wanted:
            starts.append(count)
            count += -(-tensor.nbytes // ALIGNED) * ALIGNED
        memory = torch.empty(count, dtype=torch.uint8)
        if self._stream is not None:
            page_lock(memory)
            self._free = weakref.finalize(self, _unlock, memory, self._stream)
        self._places = [
            memory[start : start + like.nbytes].view(like.dtype).as_strided(like.shape, like.stride())
            for like, start in zip(wanted, starts, strict=True)
        ]

    def _tensors(self) -> Iterator[Tensor]:
        yield from self.model.parameters()
        yield from self.model.buffers()


def _layout(tensor: Tensor) -> tuple[torch.dtype, torch.Size, tuple[int, ...]]:
    return tensor.dtype, tensor.shape, tensor.stride()


def _unlock(memory: Tensor, stream: torch.cuda.Stream) -> None:
    """Unlock memory once no transfer uses it."""
    stream.synchronize()
    page_unlock(memory)


def _nothing() -> None:
    """There is no memory to unlock."""
