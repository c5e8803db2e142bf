"""Tokens taken out of a packed latent (R, N, C), and put back."""

from torch import Tensor


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
