"""The pipelines of a server's worker, all of the same parts: from noise, from a picture, or into a hole of one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..pair.beside import beside, strength_of
from ..serve.orders import Edit, Order
from .serve_album import Start


@dataclass(frozen=True, slots=True)
class Wanted:
    """One picture of an order: its seed, and what it starts from, None for noise."""

    order: Order
    seed: int
    start: Start | None


def groups(wanted: Sequence[Wanted], most: int) -> Iterator[Sequence[Wanted]]:
    """Pictures that are drawn in one call: those that begin and go on alike.

    Args:
        wanted: of alike orders.
        most: pictures a call.
    """
    found: dict[Any, list[Wanted]] = {}
    for each in wanted:
        begun = None if each.start is None else (each.start.step, each.order.rest)
        found.setdefault(begun, []).append(each)
    for group in found.values():
        yield from (group[k : k + most] for k in range(0, len(group), most))


class Pipes:
    """An opened pair, in the pipeline that an order needs.

    Attributes:
        plain: the pipeline that begins with noise.
    """

    def __init__(self, plain: Any) -> None:
        """Of an opened pair.

        Args:
            plain: its pipeline, stitched.
        """
        self.plain = plain
        self._made: dict[str, Any] = {}

    def of(self, edit: Edit | None, start: Start | None = None) -> Any:
        """The pipeline for it.

        Args:
            edit: the picture that a request starts from.
            start: the picture drawn before that it starts from.

        Raises:
            PairError: this pair draws from noise only.
        """
        pipe = self.plain
        if edit is not None or start is not None:
            kind = "Img2Img" if edit is None or edit.mask is None else "Inpaint"
            pipe = self._made[kind] = self._made.get(kind) or beside(self.plain, kind)
        pipe.transformer.follow(pipe)
        return pipe


def starting(order: Order, starts: Sequence[Start | None]) -> dict[str, Any]:
    """What a pipeline takes to start from pictures: of a longer run that begins with noise, the last steps.

    Args:
        order: of an edit, or of a picture.
        starts: of each picture of one call, all of one step; None where it begins otherwise.
    """
    begins = [start for start in starts if start is not None]
    if begins:
        assert order.rest is not None
        steps = order.rest.steps
        return {
            "image": [start.image for start in begins],
            "strength": strength_of(steps, begins[0].step),
            "num_inference_steps": steps,
        }
    return {} if order.edit is None else _edited(order, order.edit)


def _edited(order: Order, edit: Edit) -> dict[str, Any]:
    from PIL import Image

    whole = next(n for n in range(order.steps, 200 * order.steps + 1) if _drawn(n, edit.strength) >= order.steps)
    start = {
        "image": Image.frombytes("RGB", order.size, edit.picture),
        "strength": edit.strength,
        "num_inference_steps": whole,
    }
    if edit.mask is not None:
        start["mask_image"] = Image.frombytes("L", order.size, edit.mask)
    return start


def _drawn(steps: int, strength: float) -> int:
    """How many of so many steps an image-to-image pipeline draws."""
    return steps - int(max(steps - min(steps * strength, steps), 0))
