"""From a request's fields to a ticket: what it means, whether it can be drawn, and what it will take."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer

from ..errors import nearest
from ..mini.scenes import unknown_words
from ..pair.memory import gibibytes
from ..policies.presets import PRESETS, outside
from ..recipe import Point, Recipe
from ..report.layers import Layer
from .dispatch import Dispatch
from .errors import Refusal
from .fields import PictureRequest, to_size
from .forecast import Forecast
from .orders import About, Edit, Order, Rest
from .points import Meant, Points
from .settings import ServeSettings
from .ticket import Ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A request that was admitted, and what it means.

    Attributes:
        asked: its fields.
        ticket: on its way.
        rungs: what it means; of one that leaves its speed to the server, closest first, as the ticket's orders.
        text_tokens: of its prompt.
    """

    asked: PictureRequest
    ticket: Ticket
    rungs: tuple[Meant, ...]
    text_tokens: int

    @property
    def meant(self) -> Meant:
        """What it is drawn by."""
        return self.rungs[self.ticket.point or 0]


class Intake:
    """Where requests are taken in.

    Attributes:
        recipe: of the pair, or None.
    """

    def __init__(
        self, dispatch: Dispatch, settings: ServeSettings, told: Layer, recipe: Recipe | None, point: Point | None,
        names: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Before a queue.

        Args:
            dispatch: the queue.
            settings: of the server.
            told: the server's own options.
            recipe: of the pair.
            point: of it, what serves a request that asks for nothing.
            names: that a request may ask for by `model`; none where any will do.
        """
        self.recipe = recipe
        self._dispatch, self._settings, self._told, self._point = dispatch, settings, told, point
        self._names = names

    @property
    def remembers(self) -> bool:
        """Whether pictures are remembered."""
        return self._settings.remember is not None

    @cached_property
    def points(self) -> Points:
        """What requests may choose from; known once the pair was opened."""
        about, _ = self._known()
        return Points.of(self._told, about.policy, about.size, self.recipe, self._point, self._settings.floor)

    def take(
        self,
        asked: PictureRequest,
        key: str,
        since: float,
        edit: Edit | None = None,
        size: tuple[int, int] | None = None,
    ) -> Taken:
        """Admit a request.

        Args:
            asked: its fields.
            key: its id.
            since: when it came, in `monotonic` seconds.
            edit: the picture to start from.
            size: that this picture was made for, instead of the request's.

        Raises:
            Refusal: it cannot be drawn, or not now.
        """
        about, forecast = self._known()
        if self._names and asked.model is not None and asked.model not in self._names:
            said = f"there is no model {asked.model!r:.80}; {nearest(asked.model[:80], self._names)}"
            raise Refusal(404, said, "model_not_found", param="model")
        most = self._settings.max_images
        if asked.n > most:
            raise Refusal(413, f"n={asked.n} was given; this server draws {most} at most", "too_many", param="n")
        if asked.stream and asked.n > 1:
            raise Refusal(422, f"n={asked.n} was given, and one picture is streamed at a time", "exclusive", param="n")
        layer = Layer(
            steps=asked.num_inference_steps, guidance=asked.guidance_scale, size=size or self.size(asked),
            seed=secrets.randbits(32) if asked.seed is None else asked.seed, negative=asked.negative_prompt,
        )  # fmt: skip
        meant = self.points.meant(
            layer, policy=asked.policy, speed=asked.speed, closeness=asked.closeness, quality=asked.quality
        )
        self._check(about, _order(asked, key, meant, edit))
        rungs = [meant]
        if meant.free and self._settings.target_seconds is not None:
            ladder = [point for point in self.points.ladder if point.steps <= self._settings.max_steps]
            rungs = [self.points.at(layer, point) for point in ladder] or rungs
        more = tuple(_notes(about, asked, meant, edit))
        rungs = [replace(rung, notes=(*rung.notes, *more)) for rung in rungs]
        orders = tuple(self._remembering(_order(asked, key, rung, edit), asked) for rung in rungs)
        ticket = Ticket(
            order=orders[-1],  # by the fastest it is admitted
            deadline=since + (asked.timeout or self._settings.timeout_seconds),
            predicted=forecast.seconds(orders[-1]),
            rungs=orders if len(orders) > 1 else (),
        )
        self._dispatch.admit(ticket)
        return Taken(asked=asked, ticket=ticket, rungs=tuple(rungs), text_tokens=self._tokens(asked.prompt))

    def _remembering(self, order: Order, asked: PictureRequest) -> Order:
        """The order of a request that this server may remember, and how it is drawn on from what it remembers.

        Who asks for closeness, or a quality, wants the large model's picture, and nothing drawn before is near that; a
        policy draws the rest by itself; for all others the rest is drawn by whom it was measured with.
        """
        if not self.remembers or not asked.remember or order.edit is not None:
            return order
        recall = None if self.recipe is None else self.recipe.recall
        if recall is None or asked.closeness is not None or asked.quality != "auto":
            return replace(order, remember=True)
        if asked.policy is not None:
            rest = Rest(policy=order.policy, steps=order.steps, shift=order.shift, levels=order.levels)
        else:
            assert self.recipe is not None
            steps = asked.num_inference_steps or self._told.steps or self.recipe.home.steps
            rest = Rest(policy=recall.policy, steps=steps, shift=None, levels=None)
        return replace(order, remember=True, rest=rest)

    def near(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size to draw a picture of this size in: its own if the pair draws it, else near to it in shape."""
        about, _ = self._known()
        share = min(about.sizes.largest / max(size), 1.0)
        return about.sizes.near((round(share * size[0]), round(share * size[1])))

    def size(self, asked: PictureRequest) -> tuple[int, int] | None:
        """What a request asks for, checked; None for "auto"."""
        about, _ = self._known()
        size = to_size(asked.size)
        fault = None if size is None else about.sizes.fault(size)
        if fault is not None:
            raise Refusal(400, f"size {fault}", "bad_size", param="size")
        return size

    def _known(self) -> tuple[About, Forecast]:
        about, forecast = self._dispatch.about, self._dispatch.forecast
        if about is None or forecast is None:
            stations = self._dispatch.stations
            if not stations.alive:
                raise Refusal(503, f"no worker is left: {stations.refused}", "dead")
            why = "draining" if self._dispatch.draining else "opening"
            said = f"the pair is not open: the server is {why}"
            raise Refusal(503, said, why, retry_after=min(stations.seconds()))
        return about, forecast

    def _check(self, about: About, order: Order) -> None:
        """Refuse what this server, the device or the text encoder cannot take."""
        most = self._settings.max_steps
        if order.steps > most:
            raise Refusal(
                413, f"{order.steps} steps were asked for; this server draws {most} at most", "too_many",
                param="num_inference_steps",
            )  # fmt: skip
        width, height = order.size
        pixels, own = width * height, about.size[0] * about.size[1]
        need = round(about.weights + about.picture * pixels / own * min(order.count, about.together))
        if need > about.memory:
            raise Refusal(
                413, f"drawing {width}x{height} takes about {gibibytes(need)} and {about.device} has "
                f"{gibibytes(about.memory)}; ask for a smaller size", "too_large", param="size",
            )  # fmt: skip
        for name, text in (("prompt", order.prompt), ("negative_prompt", order.negative)):
            tokens, most = self._tokens(text), about.text_tokens - self._marks
            if tokens > most:
                raise Refusal(
                    422, f"{name} has {tokens} tokens and the text encoder takes {most}; leave out {tokens - most}",
                    "too_long", param=name,
                )  # fmt: skip

    def _tokens(self, text: str) -> int:
        """Of a text, without the encoder's own marks."""
        return len(self._tokenizer.encode(text).ids) - self._marks

    @cached_property
    def _tokenizer(self) -> Any:
        about, _ = self._known()
        tokenizer = Tokenizer.from_str(about.tokenizer)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _marks(self) -> int:
        return len(self._tokenizer.encode("").ids)


def _order(asked: PictureRequest, key: str, meant: Meant, edit: Edit | None) -> Order:
    layer = meant.layer
    assert layer.policy is not None
    assert layer.steps is not None
    assert layer.guidance is not None
    assert layer.size is not None
    assert layer.seed is not None
    return Order(
        id=key,
        prompt=asked.prompt,
        negative=asked.negative_prompt,
        policy=str(layer.policy),
        steps=layer.steps,
        shift=layer.shift,
        levels=layer.levels if edit is None else None,  # free ones are those of a whole run
        guidance=layer.guidance,
        size=layer.size,
        seed=layer.seed,
        count=asked.n,
        partials=asked.partial_images if asked.stream else 0,
        edit=edit,
        format=asked.output_format,
        compression=asked.output_compression,
    )


def _notes(about: About, asked: PictureRequest, meant: Meant, edit: Edit | None) -> Iterator[str]:
    """What `hybridstitch generate` would warn of."""
    layer = meant.layer
    if meant.point is not None and edit is not None:
        yield f"{meant.point.name} was measured on whole pictures; of an edit neither its speed nor its closeness holds"
    if about.miniature:
        for word, near in unknown_words(asked.prompt):
            yield f"the miniature world does not know {word!r:.80}" + (f"; near: {', '.join(near)}" if near else "")
    made = PRESETS.get((asked.policy or "").strip())
    if made is not None and layer.size is not None:
        width, height = layer.size
        yield from outside(
            made, large=about.pair, small=about.small, size=(height, width), steps=layer.steps, guidance=layer.guidance
        )
