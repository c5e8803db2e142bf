"""Which transformer classes can be stitched, and by which family. To add one, write its file and a line here."""

from importlib import import_module
from typing import Any

from ..errors import StitchError
from ..policies.latency import Shape
from .classes import CLASSES
from .family import Facts, Family
from .whole import Whole

PARTS = {
    "SD3Transformer2DModel": "sd3:SD3Family",
    "FluxTransformer2DModel": "flux:FluxFamily",
    "Flux2Transformer2DModel": "flux2:Flux2Family",
    "QwenImageTransformer2DModel": "qwen:QwenFamily",
    "DiTTransformer2DModel": "dit:DiTFamily",
    "WanTransformer3DModel": "wan:WanFamily",
    "LTXVideoTransformer3DModel": "ltx:LTXFamily",
    "CosmosTransformer3DModel": "cosmos:CosmosFamily",
}
WHOLE = {facts.name: facts for facts in CLASSES}
NAMES = (*PARTS, *WHOLE)
LISTS = "it takes its pictures as a list of tensors of any sizes, whose tokens have no common axis"
SOUND = "it draws picture and sound in one call, two latents that are measured and stitched apart"
REFUSED = {  # and why a row of `CLASSES` would not do
    "ZImageTransformer2DModel": LISTS,
    "LTX2VideoTransformer3DModel": SOUND,
    "OmniGenTransformer2DModel": "it is given words and pictures in one sequence, as numbers of words",
    "HunyuanVideoFramepackTransformer3DModel": "it draws a video piece by piece, each with a run of its own",
}


def unknown(transformer: Any) -> str:
    """Why a transformer that no family knows cannot be stitched."""
    for kind in type(transformer).__mro__:
        if kind.__name__ in REFUSED:
            return f"{kind.__name__} cannot be stitched: {REFUSED[kind.__name__]}"
    return f"{type(transformer).__name__} is not supported by this release; it stitches {', '.join(NAMES)}"


def facts_of(name: str) -> Facts | None:
    """What is known of a diffusers class; None where nothing is."""
    if name in PARTS:
        return _kind(name).facts
    return WHOLE.get(name)


def family_of(transformer: Any) -> Family:
    """The family of a transformer, not yet attached.

    Raises:
        StitchError: no family knows its class.
    """
    name = known_name(transformer)
    return _kind(name)(transformer) if name in PARTS else Whole.of(WHOLE[name], transformer)


def known_name(transformer: Any) -> str:
    """The class of a transformer, or that of its classes that a family knows.

    Raises:
        StitchError: none.
    """
    for kind in type(transformer).__mro__:
        if kind.__name__ in NAMES:
            return kind.__name__
    raise StitchError(unknown(transformer))


def shape_of(transformer: Any, tokens: int, text: int | None = None) -> Shape:
    """The cost-deciding shape of a transformer.

    Args:
        transformer: the model.
        tokens: N.
        text: T; default: of its class's pipelines.

    Raises:
        StitchError: nobody counted this class.
    """
    facts = facts_of(known_name(transformer))
    if facts is None or facts.shape is None:
        raise StitchError(f"the cost of a step of {type(transformer).__name__} is not known to this release")
    return facts.shape(transformer.config, tokens, facts.text if text is None else text)


def _kind(name: str) -> Any:
    module, _, kind = PARTS[name].partition(":")
    return getattr(import_module(f".{module}", __package__), kind)
