"""Any transformer, for programs of whole steps: each model draws everything or nothing.

Large, small, T-Stitch, SRDiffusion, L-S-L, `skip` and `reuse` need no more of a class than a row of `CLASSES`: where
its tokens lie, so that distances can be measured, what a pair must share, and which arguments are not rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import StitchError
from .family import Config, Facts, Inputs, KeysValues
from .layout import Layout
from .rows import Rows

LATENT = {"in_channels": "latent channels", "out_channels": "predicted channels"}
PATCH = {**LATENT, "patch_size": "patch size"}


def packed(config: Config) -> Layout:
    """(B, N, C)."""
    return Layout((1,), (1,))


def square(config: Config) -> Layout:
    """(B, C, H, W)."""
    return Layout((2, 3), (config["patch_size"],) * 2)


def video(config: Config) -> Layout:
    """(B, C, F, H, W)."""
    return Layout((2, 3, 4), tuple(config["patch_size"]))


def frames_first(config: Config) -> Layout:
    """(B, F, C, H, W)."""
    return Layout((1, 3, 4), (config.get("patch_size_t") or 1, config["patch_size"], config["patch_size"]))


def _row(name: str, layout: Callable[[Config], Layout], same: dict[str, str], *shared: str) -> Facts:
    return Facts(name=name, layout=layout, same=same, shared=frozenset(shared))


CLASSES: tuple[Facts, ...] = (
    _row("WanTransformer3DModel", video, {**PATCH, "text_dim": "text width"}, "attention_kwargs"),
    _row(
        "LTXVideoTransformer3DModel", packed, {**LATENT, "caption_channels": "text width"},
        "num_frames", "height", "width", "rope_interpolation_scale", "attention_kwargs",
    ),
    _row(
        "QwenImageTransformer2DModel", packed, {**LATENT, "joint_attention_dim": "text width"},
        "attention_kwargs",
    ),
    _row("DiTTransformer2DModel", square, {**PATCH, "num_embeds_ada_norm": "classes"}, "cross_attention_kwargs"),
    _row("SanaTransformer2DModel", square, {**PATCH, "caption_channels": "text width"}, "attention_kwargs"),
    _row(
        "CogVideoXTransformer3DModel", frames_first, {**PATCH, "text_embed_dim": "text width"},
        "image_rotary_emb", "attention_kwargs",
    ),
)  # fmt: skip


@dataclass(slots=True)
class Whole:
    """See `family.Family`; nothing is installed.

    Attributes:
        facts: of the class.
        transformer: the large model.
        layout, call: see `family.Family`.
    """

    facts: Facts
    transformer: Any
    layout: Layout
    call: Callable[..., Any]

    @classmethod
    def of(cls, facts: Facts, transformer: Any) -> "Whole":
        """A large model of a class."""
        return cls(facts, transformer, facts.layout(transformer.config), transformer)

    def module(self) -> nn.Module:
        """The transformer."""
        return self.transformer

    def strange(self) -> str | None:
        """Whatever attends, attends."""
        return None

    def attach(self) -> None:
        """Nothing to install."""

    def detach(self) -> None:
        """Nothing was installed."""

    def intact(self) -> str | None:
        """Nothing can be replaced."""
        return None

    def grid(self, inputs: Inputs) -> tuple[int, ...] | Tensor:
        """See `family.Family`."""
        return self.layout.grid(inputs["hidden_states"])

    def keys(self, inputs: Inputs) -> int:
        """No memory is kept."""
        return 0

    def room(self, inputs: Inputs, dtype: torch.dtype | None = None) -> KeysValues:
        """No memory is kept."""
        return []

    def dense(
        self, inputs: Inputs, *, memory: KeysValues | None = None, rows: Rows | None = None, whole: bool = False
    ) -> tuple[Tensor, bool]:
        """See `family.Family`."""
        return self.call(**inputs, return_dict=False)[0], False

    def masked(self, inputs: Inputs, tokens: Tensor, memory: KeysValues, rows: Rows | None, *, text: str) -> Tensor:
        """Refused; policies that would ask for it are refused before."""
        raise StitchError(f"{self.facts.name} draws whole steps only")
