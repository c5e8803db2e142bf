"""Videos in pixels, (frames, height, width): tokens, sizes and cost, by the configurations of transformer and VAE.

The first frame is encoded by itself, so frames are one more than a multiple of those that a latent frame holds.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..policies.latency import Shape
from .family import Config, Size

Sides = Callable[[Config, Config], Size]


def self_attentions(transformer: Any, blocks: str) -> Mapping[str, Any]:
    """What the tokens of each block attend to each other with, by its name in the transformer.

    Args:
        transformer: of a video family.
        blocks: name of its list of blocks.
    """
    return {f"{blocks}.{place}.attn1": block.attn1 for place, block in enumerate(getattr(transformer, blocks))}


def counted(multiple: Sides) -> Callable[[Config, Config, Size], int]:
    """N of a video, from the pixels along a token's sides; the first frame has tokens of its own."""

    def tokens(config: Config, vae: Config, size: Size) -> int:
        frames, rows, columns = multiple(config, vae)
        count, height, width = (1, *size)[-3:]  # a picture is one frame
        return (1 + (count - 1) // frames) * (height // rows) * (width // columns)

    return tokens


def wan_multiple(config: Config, vae: Config) -> Size:
    """Frames, rows and columns of pixels of a token, by Wan's VAE."""
    time, space = vae.get("scale_factor_temporal", 4), vae.get("scale_factor_spatial", 8)
    frames, rows, columns = config["patch_size"]
    return time * frames, space * rows, space * columns


def wan_largest(config: Config, vae: Config) -> Size:
    """What Wan's position table reaches."""
    frames, rows, columns = wan_multiple(config, vae)
    reach = config.get("rope_max_seq_len", 1024)
    return frames * (reach - 1) + 1, rows * reach, columns * reach


def crossed(
    config: Config, tokens: int, text: int, *, held: tuple[float, float], rounded: tuple[float, float] = (0, 0)
) -> Shape:
    """Cost of blocks of self-attention, cross-attention to text, and a feed-forward: Wan's, LTX's, Cosmos'.

    Wan from a picture attends to the 257 tokens that its encoder gives, too. `held` and `rounded` as in `Shape`.
    """
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return Shape(
        width=width,
        layers=config["num_layers"],
        image_tokens=tokens,
        text_tokens=0,
        cross_tokens=text + (257 if config.get("image_dim") else 0),
        cross_width=config.get("text_embed_dim", 0),  # where text is not brought to D before the blocks
        mlp=config["ffn_dim"] / width if "ffn_dim" in config else config.get("mlp_ratio", 4),
        held=held,
        rounded=rounded,
    )
