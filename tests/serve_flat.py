"""A worker that draws without models: a step takes a hundredth of a second, a picture is its seed."""

import os
import signal
import time
from collections import Counter

from hybridstitch.errors import PairError
from hybridstitch.measure.price import Prices
from hybridstitch.serve.orders import About, Picture
from hybridstitch.serve.sizes import Sizes

ABOUT = About(
    pair="flat", small=None, models={}, policy="large", device="", dtype="float32", devices=1,
    sizes=Sizes(multiple=8, largest=64), miniature=False, size=(32, 32),
    prices=Prices(large=0.01, small=0.01), memory=1 << 30, weights=0, picture=0, tokenizer="{}", text_tokens=77,
    together=2,
)  # fmt: skip


class FlatOpener:
    """Opens nothing, and fails at devices named so; what is opened leaves a line in a file, where there is one."""

    modules = ()

    def __init__(self, openings=None):
        self.openings = openings

    def __call__(self, device):
        if self.openings is not None:
            with self.openings.open("a") as file:
                file.write(f"{device}\n")
            if device == "broken the third time" and self.openings.read_text().count("\n") == 3:
                raise OSError("memory is not free yet")
        if device == "refused":
            raise PairError("no such pair")
        if device == "broken":
            raise OSError("no such file")
        return Flat(device)


class Flat:
    """Draws, and fails where a prompt says so."""

    def __init__(self, device):
        self.about = ABOUT.__class__(**{**{f: getattr(ABOUT, f) for f in ABOUT.__slots__}, "device": device})

    def draw(self, orders, on_step, on_partial):
        for _ in range(orders[0].steps):
            time.sleep(0.01)
            on_step([order.id for order in orders])
        if any(order.prompt == "kills" for order in orders):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(order.prompt == "fails" for order in orders):
            raise ZeroDivisionError("as it was told to")
        return [[drawn(order.seed + k) for k in range(order.count)] for order in orders]

    def keep(self):
        return ()

    def rest(self):
        pass


def drawn(seed):
    return Picture(
        file=str(seed).encode(), seed=seed, seconds=0.01, trace={}, trace_digest="", pixel_digest="",
        steps=dict(Counter("L")), large_tokens=1, tokens=1, flags=(),
    )  # fmt: skip
