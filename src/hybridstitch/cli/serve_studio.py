"""What a server's worker draws with: the pair as `generate` opens it, and its orders as `generate` draws them."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ..drawing.engine import Engine
from ..errors import PairError, StitchWarning
from ..policies.parse import parse
from ..recipe import Recipe
from ..serve.forecast import SKETCH_STEPS
from ..serve.orders import OnPartial, OnStep, Order, Picture
from . import say
from .asked import Asked, BadInput

if TYPE_CHECKING:
    from PIL import Image

    from ..report.takes import Take
    from .artist import Artist
    from .pairs import Pair


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

    @property
    def modules(self) -> tuple[str, ...]:
        """See `serve.orders.PairOpener`."""
        return MODULES

    def __call__(self, device: str | None) -> "Studio":
        """See `serve.orders.PairOpener`."""
        say.hush()
        from .pairs import Pair

        asked = Asked.of(
            prompts=("-",), pair=self.pair, small=self.small, policy=self.policy, steps=self.steps, size=self.size,
            device=device, dtype=self.dtype,
        )  # fmt: skip
        named = Pair.of(asked.pair, asked.small)
        limits = named.limits()
        if limits is not None and limits.video:
            raise BadInput(f"--pair {asked.pair} draws videos; the server draws pictures")
        named.check_size(asked.size)
        policy = asked.policy or named.policy
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", StitchWarning)
            pipe = named.open(policy, device=asked.device, dtype=asked.dtype, engine=self.engine)
            if self.recipe is not None:
                from ..opening import check_recipe

                check_recipe(pipe, self.recipe)
        notes = tuple(str(warning.message) for warning in heard if issubclass(warning.category, StitchWarning))
        return Studio(self, asked, named, pipe, notes)


class Studio:
    """An opened pair that carries orders out.

    Attributes:
        about: what it can draw.
    """

    def __init__(self, opener: ServeOpener, asked: Asked, named: "Pair", pipe: Any, notes: tuple[str, ...]) -> None:
        """Warm up, and time that.

        Args:
            opener: as the server was told.
            asked: the same, understood.
            named: the pair.
            pipe: stitched.
            notes: warnings of opening.
        """
        from ..report.picture import versions
        from .serve_look import look

        self._opener, self._asked, self._named, self._pipe = opener, asked, named, pipe
        self._pipes: dict[str, Any] = {}
        self._models, self._versions = named.models, versions()
        self.about = look(pipe, asked, named, most=opener.together, notes=notes)

    def draw(self, orders: Sequence[Order], on_step: OnStep, on_partial: OnPartial) -> list[list[Picture]]:
        """See `serve.orders.Easel`."""
        from .artist import Artist

        pipe = self._pipe_of(orders[0])
        try:
            artist = Artist(
                pipe=pipe, policy=parse(orders[0].policy), negative="", steps=orders[0].steps,
                guidance=orders[0].guidance, size=orders[0].size, shift=orders[0].shift, levels=orders[0].levels,
                start=_start(orders[0]),
            )  # fmt: skip
            wanted = [(order, order.seed + k) for order in orders for k in range(order.count)]
            found: dict[str, list[Picture]] = {order.id: [] for order in orders}
            together = self.about.together
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a request's flags say what a run's warnings would
                for group in (wanted[k : k + together] for k in range(0, len(wanted), together)):
                    for (order, seed), take in zip(group, self._call(artist, group, on_step, on_partial), strict=True):
                        found[order.id].append(self._picture(order, seed, take))
            return list(found.values())
        except BaseException:
            pipe.maybe_free_model_hooks()  # which a call that was broken off did not come to
            raise

    def rest(self) -> None:
        """See `serve.orders.Easel`."""
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _call(
        self, artist: "Artist", group: Sequence[tuple[Order, int]], on_step: OnStep, on_partial: OnPartial
    ) -> "list[Take]":
        """One call of the pipeline, told of as it goes."""
        order, seed = group[0]
        ids = list(dict.fromkeys(each.id for each, _ in group))
        latest, shown = None, dict[int, int]()  # the step after which a partial picture is told of, and its index
        if order.partials:
            from ..report.frames import Latest

            first = 1 if order.edit is None else 0
            parts = order.partials + 1 - first
            shown = {round(order.steps * k / parts) - 1: k - 1 + first for k in range(1, parts)}
            if first:
                on_partial(order.id, 0, self._file(self._sketch(artist, order, seed), order, None))
            latest = Latest(artist.pipe)

        def tell(step: int) -> None:
            on_step(ids)
            seen = latest.picture() if latest is not None and step in shown else None
            if seen is not None:
                on_partial(order.id, shown[step], self._file(seen, order, None))

        return artist.draw_all(
            [each.prompt for each, _ in group], [seed for _, seed in group],
            negatives=[each.negative for each, _ in group], on_step=tell,
        )  # fmt: skip

    def _sketch(self, artist: "Artist", order: Order, seed: int) -> "Image.Image":
        """The small model's picture from the same noise, in few steps."""
        from ..policies.methods import SmallOnly

        quick = replace(
            artist, policy=SmallOnly(), steps=SKETCH_STEPS, shift=None, levels=None, negative=order.negative
        )
        return quick.draw(order.prompt, seed).image

    def _picture(self, order: Order, seed: int, take: "Take") -> Picture:
        from ..report.colours import kind
        from ..report.picture import Metadata, pixel_digest, trace_digest

        trace, pixels = trace_digest(take.trace), pixel_digest(take.image)
        metadata = None
        if self._opener.metadata and order.edit is None:  # an edit cannot be drawn again from its file alone
            metadata = Metadata(
                prompt=order.prompt, negative=order.negative, pair=self._asked.pair, small=self._asked.small,
                models=self._models, policy=take.trace.policy, seed=seed, steps=order.steps, width=order.size[0],
                height=order.size[1], guidance=order.guidance, device=self._asked.device, dtype=self._asked.dtype,
                versions=self._versions, trace=trace, pixels=pixels, shift=order.shift, levels=order.levels,
            )  # fmt: skip
        steps = take.trace.of(0)
        return Picture(
            file=self._file(take.image, order, metadata),
            seed=seed,
            seconds=take.seconds,
            trace=take.trace.to_json(masks=True),
            trace_digest=trace,
            pixel_digest=pixels,
            steps=dict(Counter(kind(step.drawn) for step in steps)),
            large_tokens=sum(step.large_tokens for step in steps),
            tokens=len(steps) * take.trace.tokens,
            flags=take.trace.flags,
        )

    def _file(self, image: "Image.Image", order: Order, metadata: Any) -> bytes:
        if order.format == "png":
            from ..report.picture import encode

            return encode(image, metadata)
        file = BytesIO()
        image.convert("RGB").save(file, format=order.format.upper(), quality=order.compression)
        return file.getvalue()

    def _pipe_of(self, order: Order) -> Any:
        """The pipeline that draws from noise, from a picture, or into a hole of one; all of the same parts."""
        if order.edit is None:
            return self._pipe
        if "StableDiffusion3" not in type(self._pipe).__name__:
            raise PairError("this server edits pictures with pairs of Stable Diffusion 3 only; generate them instead")
        kind = "Img2Img" if order.edit.mask is None else "Inpaint"
        if kind not in self._pipes:
            import diffusers

            from ..mini.opened import PIPELINES

            name = f"StableDiffusion3{kind}Pipeline"
            made = PIPELINES[name] if self._named.mini else getattr(diffusers, name)
            self._pipes[kind] = made(**self._pipe.components)
            self._pipes[kind].set_progress_bar_config(disable=True)
        return self._pipes[kind]


def _start(order: Order) -> dict[str, Any]:
    """What a pipeline takes to start from a picture: of a longer run that begins with noise, the last T steps."""
    if order.edit is None:
        return {}
    from PIL import Image

    whole = next(n for n in range(order.steps, 200 * order.steps + 1) if _drawn(n, order.edit.strength) >= order.steps)
    start = {
        "image": Image.frombytes("RGB", order.size, order.edit.picture),
        "strength": order.edit.strength,
        "num_inference_steps": whole,
    }
    if order.edit.mask is not None:
        start["mask_image"] = Image.frombytes("L", order.size, order.edit.mask)
    return start


def _drawn(steps: int, strength: float) -> int:
    """How many of so many steps an image-to-image pipeline draws."""
    return steps - int(max(steps - min(steps * strength, steps), 0))
