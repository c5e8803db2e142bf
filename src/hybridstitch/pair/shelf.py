"""A model put away while nobody needs it, and fetched again before somebody does.

Its weights stay on the CPU all the time (pinned where a GPU is their home), so that putting away copies only what was
changed since and fetching is one transfer a tensor, on a stream of its own: the GPU goes on with other work until
`ready` is called.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor's copy on the CPU, and which state of which tensor it is."""

    copy: Tensor
    address: int
    version: int


class Shelf:
    """Where one model goes when it is not needed.

    Attributes:
        away: whether the model is put away.
    """

    def __init__(self, model: nn.Module, home: torch.device) -> None:
        """Nothing is moved yet.

        Args:
            model: the model.
            home: the device it works on.
        """
        self.model, self.home, self.away = model, home, False
        self._stored: dict[str, _Stored] = {}
        self._arrival: torch.cuda.Event | None = None
        self._stream = torch.cuda.Stream(home) if home.type == "cuda" else None

    def put_away(self) -> None:
        """Let the model's memory on its home device go."""
        if self.away:
            return
        self.ready()
        for name, tensor in self._tensors():
            known = self._stored.get(name)
            if known is None or (known.address, known.version) != (tensor.data_ptr(), tensor._version):
                copy = torch.empty_like(tensor, device="cpu", pin_memory=self._stream is not None).copy_(tensor)
                self._stored[name] = _Stored(copy, tensor.data_ptr(), tensor._version)
            tensor.data = self._stored[name].copy
        self.away = True

    def fetch(self) -> None:
        """Begin to bring the model home; `ready` waits for it."""
        if not self.away:
            return
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self.home))
        with torch.cuda.stream(self._stream):
            for name, tensor in self._tensors():
                stored = tensor.data
                tensor.data = torch.empty_like(stored, device=self.home).copy_(stored, non_blocking=True)
                self._stored[name] = _Stored(stored, tensor.data_ptr(), tensor._version)
        if self._stream is not None:
            self._arrival = torch.cuda.Event()
            self._arrival.record(self._stream)
        self.away = False

    def ready(self) -> None:
        """Fetch if that was not begun, and let the home device's work wait for the arrival."""
        self.fetch()
        if self._arrival is not None:
            torch.cuda.current_stream(self.home).wait_event(self._arrival)
            self._arrival = None

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self.model.named_parameters()
        yield from self.model.named_buffers()
