"""What a pair needs in memory, before anything is loaded: read from configurations and the headers of weight files.

    weights          exact: every parameter and saved buffer of every part, in the dtype it is loaded in
    keys and values  exact: `Shape.kv_bytes`
    activations      the largest moment of a dense step (`Shape.activation_bytes`) or of decoding, whichever is more

Drawing needs weights, keys and values, and a step's activations at once; decoding weights and its own. No tensor is
read.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from ..errors import PairError
from .source import INDEX, Source

if TYPE_CHECKING:
    from ..families.family import Facts, Size

WORDS = "words"  # as `facade` saves text encoders of the small model's own
MODELS = ("vae", "text_encoder", "text_encoder_2", "text_encoder_3", "transformer_2", "image_encoder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes.

    Attributes:
        weights: of each part.
        keys_values: of the large model, while masking.
        step: activations of its dense step; None where nobody counted them, as of classes that draw whole steps.
        decoding: activations of the VAE; None where nobody counted them, as those of VAEs of videos.
    """

    weights: Mapping[str, int]
    keys_values: int
    step: int | None
    decoding: int | None

    @property
    def total(self) -> int:
        """The most that is needed at once."""
        return sum(self.weights.values()) + max(self.keys_values + (self.step or 0), self.decoding or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What is known of a pair before it is loaded.

    Attributes:
        weights: bytes of each part.
        transformer, vae: configurations.
        facts: of the transformer's class.
        native: the size in pixels that is drawn where none is asked for; None where the pair does not say.
        element_bytes: of the models' dtype.
    """

    weights: Mapping[str, int]
    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    facts: "Facts"
    native: "Size | None"
    element_bytes: int

    def need(
        self,
        size: "Size | None" = None,
        *,
        images: int = 1,
        kv_bytes: int | None = None,
        text_tokens: int | None = None,
        branches: int = 2,
    ) -> Need:
        """What drawing will need.

        Args:
            size: (height, width) or (frames, height, width) in pixels; default: the pair's own.
            images: B, drawn at once.
            kv_bytes: of an element of the keys and values; default: as the models'; 0 where none are kept.
            text_tokens: T; default: of the class's pipelines.
            branches: 2 with guidance, 1 without; what its class makes of that, see `Facts.guided`.
        """
        size = size or self.native
        decoding = None if size is None else self._decoding(size, images)
        if size is None or self.facts.shape is None or self.facts.tokens is None:
            return Need(weights=self.weights, keys_values=0, step=None, decoding=decoding)
        text = self.facts.text if text_tokens is None else text_tokens
        shape = self.facts.shape(self.transformer, self.facts.tokens(self.transformer, self.vae, size), text)
        kept = self.element_bytes if kv_bytes is None else kv_bytes
        most, at_once = (min(branches, count) for count in self.facts.guided(self.transformer))
        return Need(
            weights=self.weights,
            keys_values=shape.kv_bytes(images=images, branches=most, element_bytes=kept),
            step=shape.activation_bytes(images=images, branches=at_once, element_bytes=self.element_bytes),
            decoding=decoding,
        )

    def _decoding(self, size: "Size", images: int) -> int | None:
        """The last block's first layer at full resolution: what enters it, normalised, and activated."""
        channels: list[int] | None = self.vae.get("block_out_channels")
        if len(size) > 2 or channels is None:
            return None
        return 3 * channels[min(1, len(channels) - 1)] * prod(size) * images * self.element_bytes


def outline(
    large: str,
    small: str | None = None,
    *,
    element_bytes: int = 2,
    without: tuple[str, ...] = (),
    variant: str | None = None,
) -> Outline:
    """Read what is known of a pair.

    Args:
        large: folder or hub id of the large pipeline, or of a saved or miniature pair.
        small: folder or hub id of the small pipeline or transformer; None where `large` brings it.
        element_bytes: of the models' dtype.
        without: parts of the large pipeline that will not be loaded.
        variant: of the weight files.

    Raises:
        PairError: a part has no safetensors files, there is no pair, or no family knows its class.
        StitchError: this release of diffusers lacks the pipeline.
    """
    from ..families.known import facts_of
    from .limits import Limits, pipeline_named

    source = Source(large)
    index = source.config(INDEX)
    if index is None:
        away = "" if source.here else ", in the cache or on the hub, if that can be reached"
        raise PairError(f"{large} is no diffusers pipeline: it has no {INDEX}{away}")
    saved = source.config("transformer/large/config.json") is not None
    seat = "transformer/large" if saved else "transformer"
    transformer, vae = source.config(f"{seat}/config.json"), source.config("vae/config.json")
    parts = {"large": (source, seat)}
    if small is None:
        parts["small"] = (source, "transformer/small" if saved else "small")
        parts |= _told(source, f"transformer/{WORDS}/")
    else:
        other = Source(str(small))
        theirs = other.config("transformer/config.json")
        parts["small"] = (other, "transformer" if other.config(INDEX) else "")
        facts = facts_of((transformer or {}).get("_class_name", ""))
        if facts is not None and theirs and facts.own_words(transformer or {}, theirs):
            parts |= _told(other)
    parts |= {n: (source, n) for n in MODELS if n not in without and (index.get(n) or [None])[0] is not None}
    weights = {name: where.weights(part, element_bytes, variant) for name, (where, part) in parts.items()}
    if transformer is None or vae is None:
        raise PairError(f"{large} lacks the configuration of its transformer or VAE, so its memory cannot be predicted")
    name = transformer.get("_class_name", "")
    facts = facts_of(name)
    if facts is None:
        raise PairError(f"{name} belongs to no family this release can stitch")
    native = Limits.of(pipeline_named(index["_class_name"]), name, transformer, vae).native
    native = native or (facts.native(transformer, vae) if facts.native else None)
    return Outline(
        weights=weights, transformer=transformer, vae=vae, facts=facts, native=native, element_bytes=element_bytes
    )


def _told(source: Source, under: str = "") -> dict[str, tuple[Source, str]]:
    """Text encoders of the small model's own, where there are any."""
    index = source.config(f"{under}{INDEX}") or {}
    names = [name for name in MODELS if name.startswith("text_encoder") and (index.get(name) or [None])[0] is not None]
    return {f"small, {name}": (source, f"{under}{name}") for name in names}


def capacity(device: str) -> int:
    """Bytes of memory a device has: a CPU's in all, a GPU's that are free."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gibibytes(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
