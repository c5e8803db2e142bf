"""What a server's worker remembers: it looks for a picture that a prompt can start from, and keeps those it drew."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..batch.work import DeviceLost, check_device
from ..errors import PolicyError
from ..policies.levels import levels_of
from ..policies.parse import parse
from ..recipe import Recall
from ..serve.album import Page, Vector
from ..serve.orders import Order
from ..serve.shared_album import AnyAlbum

if TYPE_CHECKING:
    from PIL import Image

    from ..evaluate.towers import TextTower


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A picture to draw on from.

    Attributes:
        image: the picture.
        step: the first step that is drawn, of the order's rest.
        similarity: of the prompt and the picture.
    """

    image: "Image.Image"
    step: int
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """An album, and the CLIP that finds pictures in it.

    Attributes:
        album: the pictures.
        recall: how near they must be.
        tower: the CLIP.
        pair: names of the models and what they stand for; pictures of another pair are not found.
    """

    album: AnyAlbum
    recall: Recall
    tower: "TextTower"
    pair: Mapping[str, str | None]

    def starts(self, order: Order, scheduler: Any, faults: list[str]) -> list[Start | None]:
        """What each picture of an order can start from, each from a picture of its own; None for noise.

        Args:
            order: of some pictures.
            scheduler: the pipeline's.
            faults: takes what goes wrong, which costs the start only.
        """
        found: list[Start | None] = []
        if order.rest is not None:
            try:
                found = list(self._near(order, scheduler))
            except DeviceLost:
                raise
            except Exception as error:
                check_device(error)
                faults.append(f"no picture was looked for: {type(error).__name__}: {error}")
        return found + [None] * (order.count - len(found))

    def keep(self, order: Order, images: Sequence["Image.Image"], seeds: Sequence[int]) -> None:
        """Keep pictures of an order.

        Raises:
            OSError, sqlite3.Error: they could not be kept.
        """
        import numpy as np

        from ..report.picture import encode

        rgb = [image.convert("RGB") for image in images]
        vectors = _unit(self.tower.features([np.asarray(image) for image in rgb]))
        for image, seed, vector in zip(rgb, seeds, vectors, strict=True):
            page = Page(
                request=order.id, setting=self._setting(order), embedding=vector, policy=order.policy,
                steps=order.steps, seed=seed,
            )  # fmt: skip
            self.album.keep(encode(image), page)

    def _near(self, order: Order, scheduler: Any) -> "list[Start]":
        assert order.rest is not None
        rest, setting, size = order.rest, self._setting(order), order.size
        if self.album.count()[0] == 0:
            return []
        (text,) = _unit(self.tower.text_features([order.prompt]))
        levels = levels_of(scheduler, rest.steps, rest.shift, rest.levels)
        policy = parse(rest.policy)
        found: list[Start] = []
        for similarity, name in self.album.near(setting, text, self.recall.least):
            step = self.recall.start(similarity, levels)
            try:
                policy.check(rest.steps - step)
            except PolicyError:  # it cannot fill so few steps
                continue
            image = self.album.picture(name, size) if step >= rest.least else None
            if image is not None:
                found.append(Start(image=image, step=step, similarity=similarity))
            if len(found) == order.count:
                break
        return found

    def _setting(self, order: Order) -> str:
        """A digest of what a picture must share with a prompt to serve it."""
        shared = [dict(self.pair), self.tower.numerics, order.size, order.guidance, order.negative]
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()


def _unit(features: Any) -> list[Vector]:
    """Features (N, D) as vectors of length 1."""
    import numpy as np

    rows = features.cpu().numpy().astype(np.float64)
    return list((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
