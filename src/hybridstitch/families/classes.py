"""Classes that draw whole steps, a row each: where tokens lie, what a pair must share, which arguments are not rows."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .family import CONTROLNET, Config, Facts, Inputs
from .layout import Layout

LATENT = {"in_channels": "latent channels", "out_channels": "predicted channels"}
PATCH = {**LATENT, "patch_size": "patch size"}


def packed(config: Config) -> Layout:
    """(B, N, C)."""
    return Layout((1,), (1,))


def square(config: Config) -> Layout:
    """(B, C, H, W)."""
    return Layout((2, 3), (config["patch_size"],) * 2)


def oblong(config: Config) -> Layout:
    """(B, C, H, W), a side of the patch along each axis."""
    return Layout((2, 3), tuple(config["patch_size"]))


def video(config: Config) -> Layout:
    """(B, C, F, H, W)."""
    return Layout((2, 3, 4), tuple(config["patch_size"]))


def timed(config: Config) -> Layout:
    """(B, C, F, H, W), the patch's frames by themselves."""
    return Layout((2, 3, 4), (config["patch_size_t"], config["patch_size"], config["patch_size"]))


def channels_last(config: Config) -> Layout:
    """(B, F, H, W, C)."""
    return Layout((1, 2, 3), tuple(config["patch_size"]))


def frames_first(config: Config) -> Layout:
    """(B, F, C, H, W)."""
    return Layout((1, 3, 4), (config.get("patch_size_t") or 1, config["patch_size"], config["patch_size"]))


def by_ids(inputs: Inputs) -> Tensor:
    """Rows and columns, by the largest among tokens at time 0; references have others."""
    ids = inputs["img_ids"].flatten(0, -2)
    return ((ids[:, :1] == 0) * ids[:, 1:3]).amax(0).long() + 1


def by_size(inputs: Inputs) -> tuple[int, ...] | Tensor:
    """Frames, rows and columns; of a call that tells coordinates, (R, 3, N), how many there are along each axis."""
    size = tuple(inputs.get(name) or 0 for name in ("num_frames", "height", "width"))
    count, places = inputs["hidden_states"].shape[1], inputs.get("video_coords")
    if prod(size) == count or places is None:
        return size if prod(size) == count else (count,)
    ordered = places[0].sort(-1).values
    return (ordered[:, 1:] != ordered[:, :-1]).sum(-1) + 1


def packing(inputs: Inputs, config: Config) -> Callable[[Tensor], Tensor]:
    """LTX from a picture steps (B, C, F - 1, H, W), without it: zeros there, which are never what enters next."""
    frames, patch = inputs.get("num_frames") or 0, (config["patch_size_t"], config["patch_size"], config["patch_size"])

    def pack(latent: Tensor) -> Tensor:
        if latent.ndim == 3:
            return latent
        missing = frames * patch[0] - latent.shape[2]
        tokens = F.pad(latent, (0, 0, 0, 0, missing, 0))
        for axis, side in zip((2, 4, 6), patch, strict=True):
            tokens = tokens.unflatten(axis, (-1, side))  # in the end (B, C, F, f, H, h, W, w)
        return tokens.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)

    return pack


def scales(inputs: Inputs, config: Config) -> Inputs:
    """VACE weighs each of its control layers: the weight at the same depth, where there are more or fewer."""
    given, count = inputs.get("control_hidden_states_scale"), len(config["vace_layers"])
    if given is None or len(given) == count:
        return inputs
    return {**inputs, "control_hidden_states_scale": given[[place * len(given) // count for place in range(count)]]}


def _row(
    name: str, layout: Callable[[Config], Layout], same: dict[str, str], words: str, shared: str = "", **more: Any
) -> Facts:
    texts = dict.fromkeys(words.split(), "text width")
    return Facts(
        name=name, layout=layout, same={**same, **texts}, words=frozenset(texts), shared=frozenset(shared.split()),
        **more,
    )  # fmt: skip


def _controls(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, CONTROLNET)


KANDINSKY = {
    "in_visual_dim": "latent channels", "out_visual_dim": "predicted channels", "patch_size": "patch size",
    "visual_cond": "room for a picture",
}  # fmt: skip

CLASSES: tuple[Facts, ...] = (
    _row("AuraFlowTransformer2DModel", square, PATCH, "joint_attention_dim", "attention_kwargs"),
    _row(
        "ChromaTransformer2DModel", packed, LATENT, "joint_attention_dim", "img_ids txt_ids joint_attention_kwargs",
        grid=by_ids, refused=_controls("controlnet_block_samples", "controlnet_single_block_samples"),
    ),
    _row(
        "CogVideoXTransformer3DModel", frames_first, {**PATCH, "use_rotary_positional_embeddings": "rotary positions"},
        "text_embed_dim", "image_rotary_emb attention_kwargs ofs",
    ),
    _row(
        "HunyuanImageTransformer2DModel", oblong, PATCH, "text_embed_dim text_embed_2_dim", "attention_kwargs",
    ),
    _row(
        "HunyuanVideoTransformer3DModel", timed, {**PATCH, "patch_size_t": "patch frames"},
        "text_embed_dim pooled_projection_dim", "attention_kwargs",
    ),
    _row(
        "Kandinsky5Transformer3DModel", channels_last, KANDINSKY, "in_text_dim in_text_dim2",
        "visual_rope_pos text_rope_pos scale_factor sparse_params",
    ),
    _row("Lumina2Transformer2DModel", square, PATCH, "cap_feat_dim", "attention_kwargs"),
    _row("PixArtTransformer2DModel", square, PATCH, "caption_channels", "cross_attention_kwargs"),
    _row(
        "SanaTransformer2DModel", square, {**PATCH, "guidance_embeds": "guidance as an input"}, "caption_channels",
        "attention_kwargs",
        refused=_controls("controlnet_block_samples"),
    ),
    _row(
        "WanVACETransformer3DModel", video, {**PATCH, "vace_in_channels": "control channels"}, "text_dim",
        "control_hidden_states_scale attention_kwargs", fit=scales,
    ),
)  # fmt: skip
