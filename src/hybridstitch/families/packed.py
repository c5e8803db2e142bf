"""Packed latents (R, N, C): 2×2 latent pixels a token, text before them in every attention.

Drawn tokens are given to the transformer as its picture; its position table stays that of all tokens, and every
attention takes the rows it needs, so that each image of a batch may draw other tokens.
"""

import torch
from torch import Tensor

from .attached import Attached
from .family import Config, Inputs, Size


class Packed(Attached):
    """See `family.Family`."""

    def keys(self, inputs: Inputs) -> int:
        """Text and image."""
        return inputs["encoder_hidden_states"].shape[1] + inputs["hidden_states"].shape[1]

    def some(self, inputs: Inputs, tokens: Tensor, text: str) -> tuple[Inputs, Tensor]:
        """See `Attached`."""
        latent, words = inputs["hidden_states"], inputs["encoder_hidden_states"]
        positions = tokens + words.shape[1]
        if text == "cached":
            words = words[:, :0]
        before = torch.arange(words.shape[1], device=tokens.device).expand(len(tokens), -1)
        given = {**inputs, "hidden_states": gathered(latent, tokens), "encoder_hidden_states": words}
        return given, torch.cat([before, positions], dim=1)

    def whole(self, drawn: Tensor, inputs: Inputs, tokens: Tensor) -> Tensor:
        """See `Attached`."""
        return placed(drawn, tokens, inputs["hidden_states"].shape[1])


def side(vae: Config) -> int:
    """Pixels along a token's side."""
    return 2 ** len(vae["block_out_channels"])


def multiple(config: Config, vae: Config) -> Size:
    """Height and width in pixels of a token."""
    return (side(vae),) * 2


def tokens(config: Config, vae: Config, size: Size) -> int:
    """N of a picture of so many pixels."""
    return (size[0] // side(vae)) * (size[1] // side(vae))


def gathered(latent: Tensor, tokens: Tensor) -> Tensor:
    """Some tokens.

    Args:
        latent: (R, N, C).
        tokens: indices, (R, K).

    Returns:
        (R, K, C).
    """
    return latent.gather(1, tokens.unsqueeze(-1).expand(-1, -1, latent.shape[-1]))


def placed(drawn: Tensor, tokens: Tensor, total: int) -> Tensor:
    """The inverse of `gathered`, zeros elsewhere.

    Args:
        drawn: (R, K, C).
        tokens: indices, (R, K).
        total: N.

    Returns:
        (R, N, C).
    """
    among = drawn.new_zeros(len(drawn), total, drawn.shape[-1])
    return among.scatter_(1, tokens.unsqueeze(-1).expand_as(drawn), drawn)
