"""Keys and values in the host's memory, brought to the device a layer ahead of the one that attends.

On a GPU both ways are copied by streams of their own, from and to pinned memory; elsewhere copies are made at once.
"""

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


class Hosted:
    """The memory of one masked call."""

    def __init__(self, layers: list[Pair], device: torch.device) -> None:
        """Begin to bring the first layer.

        Args:
            layers: in the host's memory.
            device: where they are attended to.
        """
        self._layers, self._device = layers, device
        self._streams = [torch.cuda.Stream(device) for _ in range(2)] if device.type == "cuda" else None
        self._here: dict[int, Pair] = {}
        self._fetch(0)

    def take(self, layer: int) -> Pair:
        """Keys and values of a layer on the device; the next one's begin to come."""
        self._fetch(layer)
        if self._streams is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._streams[0])
        self._fetch(layer + 1)
        return self._here[layer]

    def give_back(self, layer: int) -> None:
        """Leave a layer in the host's memory as it is on the device now."""
        pair = self._here.pop(layer)
        if self._streams is None:
            for host, here in zip(self._layers[layer], pair, strict=True):
                host.copy_(here)
            return
        _, back = self._streams
        back.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(back):
            for host, here in zip(self._layers[layer], pair, strict=True):
                host.copy_(here, non_blocking=True)
                here.record_stream(back)

    def close(self) -> None:
        """What is copied after this sees what was given back."""
        if self._streams is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._streams[1])

    def _fetch(self, layer: int) -> None:
        if layer in self._here or layer >= len(self._layers):
            return
        keys, values = self._layers[layer]
        if self._streams is None:
            self._here[layer] = keys.to(self._device, copy=True), values.to(self._device, copy=True)
            return
        now, (ahead, _) = torch.cuda.current_stream(self._device), self._streams
        ahead.wait_stream(now)  # which may still be filling it
        with torch.cuda.stream(ahead):
            pair = keys.to(self._device, non_blocking=True), values.to(self._device, non_blocking=True)
        for tensor in pair:
            tensor.record_stream(now)
        self._here[layer] = pair
