"""`hybridstitch serve`: a pair over HTTP."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from ..errors import HybridStitchError, in_one_line
from ..report.layers import Layer, named
from . import flags, say
from .asked import BadInput, to_size
from .batch_place import Address, GpusPerWorker, On, WorkPlace
from .extras import install, missing
from .serve_studio import ServeOpener
from .served import Served, brought, measuring

if TYPE_CHECKING:
    from ..recipe import Recall, Recipe

Host = Annotated[str | None, Option("--host", help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, Option("--port", help="Port to listen on; 0 for any that is free.", show_default="8000")]
Devices = Annotated[
    str | None,
    Option("--device", help="One or several, as cuda:0,cuda:1; one process each.", show_default="all there are"),
]
Replicas = Annotated[
    int | None, Option("--num-workers", min=1, help="Replicas in the cluster, at most.", show_default="1")
]
Recipes = Annotated[
    list[Path] | None,
    Option(
        "--recipe",
        metavar="FILE",
        help="Draw by what `hybridstitch calibrate` found; --on ray several, which requests choose by `model`.",
    ),
]
PairsPerReplica = Annotated[
    int | None,
    Option("--pairs-per-replica", metavar="N", min=1, help="Of several recipes, pairs open at once.", show_default="1"),
]
Together = Annotated[
    int,
    Option(
        "--images-per-call", metavar="N", min=1, help="Draw up to N pictures with equal settings at once, if faster."
    ),
]
MaxWait = Annotated[
    float | None,
    Option("--max-wait", metavar="S", help="Refuse requests that would wait longer.", show_default="60 seconds"),
]
Timeout = Annotated[
    float | None, Option("--timeout", metavar="S", help="Cancel a request after this time.", show_default="600 seconds")
]
Target = Annotated[
    float | None,
    Option("--target-seconds", metavar="S", help="Under load, draw faster to answer in this time; needs a recipe."),
]
Floor = Annotated[
    float | None,
    Option("--floor", metavar="Y", help="Lowest closeness that --target-seconds may choose.", show_default="0.9"),
]
Remember = Annotated[
    Path | None,
    Option("--remember", metavar="DIR", help="Keep pictures there, and start from one that is similar to a prompt."),
]
RememberMost = Annotated[
    int | None,
    Option("--remember-most", metavar="N", help="Pictures kept; the oldest go first.", show_default="1000"),
]
LogPrompts = Annotated[bool, Option("--log-prompts", help="Write prompts into the log.")]


def serve(
    pair: flags.PairName = None,
    small: flags.Small = None,
    policy: flags.PolicyName = None,
    recipe: Recipes = None,
    speed: flags.Speed = None,
    closeness: flags.Closeness = None,
    steps: flags.Steps = None,
    size: flags.Size = None,
    guidance: flags.Guidance = None,
    host: Host = None,
    port: Port = None,
    on: On = "here",
    address: Address = None,
    num_workers: Replicas = None,
    gpus_per_worker: GpusPerWorker = None,
    pairs_per_replica: PairsPerReplica = None,
    device: Devices = None,
    dtype: flags.Dtype = None,
    compile: flags.Compile = None,
    offload: flags.Offload = False,
    kv: flags.Kv = None,
    kv_host: flags.KvHost = False,
    images_per_call: Together = 1,
    max_wait: MaxWait = None,
    timeout: Timeout = None,
    target_seconds: Target = None,
    floor: Floor = None,
    remember: Remember = None,
    remember_most: RememberMost = None,
    remember_clip: flags.RememberClip = None,
    metadata: flags.Metadata = True,
    log_prompts: LogPrompts = False,
    debug: flags.Debug = False,
) -> None:
    """Serve a pair over HTTP: OpenAI's image API, a web page, a queue that refuses what would wait too long.

    hybridstitch serve
    """
    place = WorkPlace.of(on, device, address=address, num_workers=num_workers, gpus_per_worker=gpus_per_worker)
    files = _files(recipe, place, pairs_per_replica)
    settings = _settings(
        host=host, port=port, max_wait_seconds=max_wait, timeout_seconds=timeout, target_seconds=target_seconds,
        floor=floor, remember=None if remember is None else str(remember), remember_most=remember_most,
        log_prompts=log_prompts or None, metadata=None if metadata else False,
    )  # fmt: skip
    told = Layer(
        pair=pair, small=small, steps=steps, guidance=guidance, size=None if size is None else to_size(size)
    ).over(named(policy))
    engine = flags.engine_of(compile, offload, kv, kv_host)
    devices = (None,) if device is None else tuple(name.strip() for name in device.split(","))
    from ..serve.album import Album
    from ..serve.run import run

    def made(name: str) -> Callable[..., Any]:
        """What makes the server of a recipe."""
        served = Served.of(
            files[name], speed=speed, closeness=closeness, policy=policy, source=None, pair=pair, small=small
        )
        if served is not None:
            served.warn_of(pair=pair, steps=steps, guidance=guidance, size=size)
        found = brought(pair) if served is None else served.recipe
        if served is None and settings.target_seconds is not None:
            raise BadInput(
                f"--target-seconds {settings.target_seconds:g} was given without a recipe, whose points it chooses "
                f"from; {measuring(pair, small)} measures the pair, then add --recipe recipe.json"
            )
        names = told.over(Layer() if served is None else served.layer)
        opener = ServeOpener(
            pair=names.pair, small=names.small, dtype=dtype, policy=policy, steps=steps, size=size, engine=engine,
            recipe=None if served is None else served.recipe, together=images_per_call, metadata=settings.metadata,
            recall=_recall(settings, found, remember_clip, names.pair, names.small),
        )  # fmt: skip
        return partial(
            server_of, opener, settings, devices=devices, told=told.over(Layer(pair=names.pair)),
            recipe=found, point=None if served is None else served.point,
            names=(name, *(other for other in files if other != name)) if len(files) > 1 else (),
        )  # fmt: skip

    makes = {name: made(name) for name in files}
    album = None if settings.remember is None else Album.begin(settings.remember, settings.remember_most)
    out = say.out()
    on_ready: Callable[[str], None] = lambda address: out.print(f"drawing at {address}")  # noqa: E731
    if place.ray:
        try:
            from ..serve.on_ray import run_on_ray
        except ImportError as error:  # ray without what `ray[serve]` brings
            raise HybridStitchError(
                f"serving on a cluster needs Ray Serve ({in_one_line(error)}): {install('ray')}"
            ) from error

        run_on_ray(
            makes, settings, on_ready, address=address, replicas=num_workers or 1, gpus=place.gpus_per_worker,
            pairs=pairs_per_replica or 1, album=album,
        )  # fmt: skip
        return
    (make,) = makes.values()
    run(make(album=album), lambda address: out.print(f"opening the pair; {address} answers"), on_ready)


def server_of(opener: ServeOpener, settings: Any, *, album: Any = None, **told: Any) -> Any:
    """A server, where it is to be.

    Args:
        opener: of its pair, which looks for no pictures yet.
        settings: of the server.
        album: pictures drawn before; None where none are remembered.
        told: see `Server`.
    """
    from ..serve.app import Server

    return Server(replace(opener, album=album), settings, album=album, **told)


def _files(recipes: list[Path] | None, place: WorkPlace, pairs: int | None) -> Mapping[str, Path | None]:
    """The recipes by the names that requests know them by, of which one that stands alone needs none.

    Raises:
        BadInput: more than this place serves, two of one name, or an option of several for one.
    """
    files = recipes or []
    if len(files) > 1 and not place.ray:
        raise BadInput(
            f"--recipe was given {len(files)} times, and a server on one machine draws by one recipe; give one, or "
            "add --on ray, where replicas open each as it is asked for"
        )
    if pairs is not None and len(files) < 2:
        raise BadInput(f"--pairs-per-replica {pairs} was given; it is of several recipes: give --recipe once for each")
    if not files:
        return {"pair": None}
    names = [file.stem for file in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"two recipes are called {twice}, by which requests ask for them; rename the file of one")
    return dict(zip(names, files, strict=True))


def _recall(
    settings: Any, recipe: "Recipe | None", clip: str | None, pair: str | None, small: str | None
) -> "Recall | None":
    """How near a prompt must be to a picture drawn before; None where none are remembered.

    Raises:
        BadInput: that was never measured, or with another CLIP.
    """
    if settings.remember is None:
        if clip is not None:
            raise BadInput(f"--remember-clip {clip} was given without --remember; name the folder: --remember DIR")
        return None
    if recipe is None or recipe.recall is None:
        lacks = "there is no recipe" if recipe is None else "the recipe does not say"
        raise BadInput(
            f"--remember {settings.remember} was given, and {lacks} how similar an earlier picture must "
            f"be to a prompt; {measuring(pair, small, '--memory')} measures it, then serve with --recipe recipe.json"
        )
    if clip is not None and clip != recipe.recall.clip:
        raise BadInput(
            f"--remember-clip {clip} was given, and the recipe was measured with {recipe.recall.clip}, whose numbers "
            "hold for no other; leave --remember-clip out, or measure: "
            f"{measuring(pair, small, '--memory', '--remember-clip', clip)}"
        )
    if not recipe.recall.bands:
        raise BadInput(
            f"--remember {settings.remember} was given, and calibration found no earlier picture of this pair good "
            "enough to start from; leave --remember out"
        )
    return recipe.recall


def _settings(**given: Any) -> Any:
    """Options over environment variables over the defaults."""
    absent = missing("serve")
    if absent:
        raise HybridStitchError(f"serving needs {', '.join(absent)}, not installed here: {install('serve')}")
    from pydantic import ValidationError

    from ..serve.settings import ServeSettings

    try:
        return ServeSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{first['loc'][0]}={first['input']!r} was given; {first['msg']}") from error
