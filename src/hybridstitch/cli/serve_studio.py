"""What a server's worker draws with: the pair as `generate` opens it, and its orders as `generate` draws them."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ..drawing.engine import Engine
from ..errors import StitchWarning
from ..policies.parse import parse
from ..recipe import Recall, Recipe
from ..serve.easel import OnPartial, OnStep
from ..serve.forecast import SKETCH_STEPS
from ..serve.orders import Order, Picture
from ..serve.shared_album import AnyAlbum
from . import say
from .asked import Asked, BadInput

if TYPE_CHECKING:
    from PIL import Image

    from ..report.takes import Take
    from .artist import Artist
    from .pairs import Pair
    from .serve_album import Keeper, Start
    from .serve_pipes import Pipes, Wanted


MODULES = (
    "diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3",
    "transformers.models.clip.modeling_clip",
    "hybridstitch.cli.serve_look",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOpener:
    """Opens the pair of a server in a worker; can be pickled, and needs no torch before it is called.

    Attributes:
        pair, small, dtype: as the command line names them.
        policy: who draws what when nobody says, or None for the pair's own.
        steps: when nobody says, or None.
        size: when nobody says, as the command line writes it, or None for the pair's own.
        engine: how the models are run.
        recipe: that the pair is checked against.
        together: pictures of one kind that may be drawn in one call, if that is quicker here.
        metadata: write into PNGs how they were drawn.
        album, recall: pictures drawn before, and how near they must be; None where none are remembered.
    """

    pair: str | None
    small: str | None
    dtype: str | None
    policy: str | None
    steps: int | None
    size: str | None
    engine: Engine
    recipe: Recipe | None
    together: int
    metadata: bool
    album: AnyAlbum | None = None
    recall: Recall | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """See `serve.easel.PairOpener`."""
        return MODULES

    def __call__(self, device: str | None) -> "Studio":
        """See `serve.easel.PairOpener`."""
        say.hush()
        from .pairs import Pair

        asked = Asked.of(
            prompts=("-",), pair=self.pair, small=self.small, policy=self.policy, steps=self.steps, size=self.size,
            device=device, dtype=self.dtype, kv=self.engine.kv,
        )  # fmt: skip
        named = Pair.of(asked.pair, asked.small)
        limits = named.limits()
        if limits is not None and limits.video:
            raise BadInput(f"--pair {asked.pair} draws videos; the server draws pictures")
        named.check_size(asked.size)
        policy = asked.policy or named.policy
        named.check_asked([policy])
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", StitchWarning)
            pipe = named.open(policy, device=asked.device, dtype=asked.dtype, engine=self.engine)
            if self.recipe is not None:
                from ..opening import check_recipe

                check_recipe(pipe, self.recipe)
        notes = tuple(str(warning.message) for warning in heard if issubclass(warning.category, StitchWarning))
        from .serve_pipes import Pipes

        return Studio(self, asked, named, Pipes(pipe), self._keeper(pipe, named, asked), notes)

    def _keeper(self, pipe: Any, named: "Pair", asked: Asked) -> "Keeper | None":
        """What remembers pictures, if any are."""
        if self.album is None or self.recall is None:
            return None
        from ..evaluate.clips import open_clip
        from ..pair.beside import KNOWN, has_beside
        from .serve_album import Keeper

        if not has_beside(pipe):
            raise BadInput(
                f"--remember needs image-to-image, which {type(pipe).__name__} has not here; leave --remember out, or "
                f"serve a pair of {KNOWN}"
            )
        return Keeper(
            album=self.album, recall=self.recall, tower=open_clip(self.recall.clip, asked.device),
            pair={"large": asked.pair, "small": asked.small, **named.models},
        )  # fmt: skip


class Studio:
    """An opened pair that carries orders out.

    Attributes:
        about: what it can draw.
    """

    def __init__(
        self, opener: ServeOpener, asked: Asked, named: "Pair", pipes: "Pipes", keeper: "Keeper | None",
        notes: tuple[str, ...],
    ) -> None:  # fmt: skip
        """Warm up, and time that.

        Args:
            opener: as the server was told.
            asked: the same, understood.
            named: the pair.
            pipes: the pair, opened and stitched.
            keeper: remembers pictures; None remembers none.
            notes: warnings of opening.
        """
        from ..report.metadata import versions
        from .serve_look import look

        self._opener, self._asked, self._pipes, self._keeper = opener, asked, pipes, keeper
        self._drawn: list[tuple[Order, list[int], list[Image.Image]]] = []  # and to be kept
        self._faults: list[str] = []
        self._models, self._versions = named.models, versions()
        self.about = look(pipes.plain, asked, named, most=opener.together, notes=notes)

    def draw(self, orders: Sequence[Order], on_step: OnStep, on_partial: OnPartial) -> list[list[Picture]]:
        """See `serve.easel.Easel`."""
        from .serve_pipes import Wanted, groups

        wanted = [
            Wanted(order, order.seed + k, start) for order in orders for k, start in enumerate(self._starts(order))
        ]
        found: dict[tuple[str, int], tuple[Picture, Image.Image]] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a request's flags say what a run's warnings would
            for group in groups(wanted, self.about.together):
                for each, take in zip(group, self._call(group, on_step, on_partial), strict=True):
                    found[each.order.id, each.seed] = self._picture(each, take), take.image
        pictures = [[found[order.id, order.seed + k] for k in range(order.count)] for order in orders]
        for order, row in zip(orders, pictures, strict=True):
            fresh = [(picture.seed, image) for picture, image in row if picture.start == 0]
            if order.remember and fresh:
                self._drawn.append((order, [seed for seed, _ in fresh], [image for _, image in fresh]))
        return [[picture for picture, _ in row] for row in pictures]

    def keep(self) -> list[str]:
        """See `serve.easel.Easel`."""
        drawn, self._drawn = self._drawn, []
        said, self._faults = self._faults, []
        if self._keeper is not None:
            for order, seeds, images in drawn:
                self._keeper.keep(order, images, seeds)
        return said

    def rest(self) -> None:
        """See `serve.easel.Easel`."""
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _starts(self, order: Order) -> "list[Start | None]":
        """What each picture of an order starts from."""
        if self._keeper is None:
            return [None] * order.count
        return self._keeper.starts(order, self._pipes.plain.scheduler, self._faults)

    def _artist(self, group: "Sequence[Wanted]") -> "Artist":
        """Who draws pictures of one call."""
        from .artist import Artist
        from .serve_pipes import starting

        order, start = group[0].order, group[0].start
        policy, steps, shift, levels = order.policy, order.steps, order.shift, order.levels
        if start is not None:
            assert order.rest is not None
            policy, shift, levels = order.rest.policy, order.rest.shift, order.rest.levels
            steps = order.rest.steps - start.step
        return Artist(
            pipe=self._pipes.of(order.edit, start), policy=parse(policy), negative="", steps=steps,
            guidance=order.guidance, size=order.size, shift=shift, levels=levels,
            start=starting(order, [each.start for each in group]),
        )  # fmt: skip

    def _call(self, group: "Sequence[Wanted]", on_step: OnStep, on_partial: OnPartial) -> "list[Take]":
        """One call of the pipeline, told of as it goes."""
        order, seed = group[0].order, group[0].seed
        artist = self._artist(group)
        ids = list(dict.fromkeys(each.order.id for each in group))
        latest, shown = None, dict[int, int]()  # the step after which a partial picture is told of, and its index
        try:
            if order.partials:
                from ..report.frames import Latest

                first = 1 if order.edit is None and group[0].start is None else 0
                parts = order.partials + 1 - first
                shown = {round(artist.steps * k / parts) - 1: k - 1 + first for k in range(1, parts)}
                if first:
                    on_partial(order.id, 0, self._file(self._sketch(artist, order, seed), order, None))
                latest = Latest(artist.pipe, order.size)

            def tell(step: int) -> None:
                on_step(ids)
                seen = latest.picture() if latest is not None and step in shown else None
                if seen is not None:
                    on_partial(order.id, shown[step], self._file(seen, order, None))

            return artist.draw_all(
                [each.order.prompt for each in group], [each.seed for each in group],
                negatives=[each.order.negative for each in group], on_step=tell,
            )  # fmt: skip
        except BaseException:
            artist.pipe.maybe_free_model_hooks()  # which a call that was broken off did not come to
            raise

    def _sketch(self, artist: "Artist", order: Order, seed: int) -> "Image.Image":
        """The small model's picture from the same noise, in few steps."""
        from ..policies.methods import SmallOnly

        quick = replace(
            artist, policy=SmallOnly(), steps=SKETCH_STEPS, shift=None, levels=None, negative=order.negative
        )
        return quick.draw(order.prompt, seed).image

    def _picture(self, each: "Wanted", take: "Take") -> Picture:
        from ..report.colours import kind
        from ..report.metadata import Metadata, drawn

        order, seed, start = each.order, each.seed, each.start
        found, metadata = drawn(take), None
        alone = order.edit is None and start is None  # one that began with a picture cannot be drawn from its file
        if self._opener.metadata and alone:
            metadata = Metadata(
                prompt=order.prompt, negative=order.negative, pair=self._asked.pair, small=self._asked.small,
                models=self._models, seed=seed, steps=order.steps, width=order.size[0],
                height=order.size[1], guidance=order.guidance, device=self._asked.device, dtype=self._asked.dtype,
                versions=self._versions, shift=order.shift, levels=order.levels, kv=self._asked.kv, **found,
            )  # fmt: skip
        steps = take.trace.of(0)
        return Picture(
            file=self._file(take.image, order, metadata),
            seed=seed,
            seconds=take.seconds,
            trace=take.trace.to_json(masks=True),
            trace_digest=found["trace"],
            pixel_digest=found["pixels"],
            steps=dict(Counter(kind(step.drawn) for step in steps)),
            large_tokens=sum(step.large_tokens for step in steps),
            tokens=len(steps) * take.trace.tokens,
            flags=take.trace.flags,
            start=0 if start is None else start.step,
            similarity=None if start is None else start.similarity,
        )

    def _file(self, image: "Image.Image", order: Order, metadata: Any) -> bytes:
        if order.format == "png":
            from ..report.picture import encode

            return encode(image, metadata)
        file = BytesIO()
        image.convert("RGB").save(file, format=order.format.upper(), quality=order.compression)
        return file.getvalue()
