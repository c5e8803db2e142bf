"""What stands between a scheduler and a transformer beside guidance: how a latent goes in, and a prediction comes out.

    most                   x and t as they are, or t / 1000
    LTX with conditions    x and t, (R, 1); the scheduler is given −v, and a time for each token
    Cosmos                 (1 − τ)·x and τ = σ / (σ + 1); d = (1 − τ)·x − τ·f is guided, the scheduler given (x − d) / σ

Which one it is shows in what a pipeline gives both at its first step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

Time = Callable[[Tensor, Any, int, torch.dtype], Tensor]  # by the scheduler's time, σ, R, and the dtype it is given in


@dataclass(frozen=True, slots=True)
class Way:
    """One way; σ is None where the scheduler's steps have none.

    Attributes:
        enters: what the transformer sees of x, by x and σ.
        times: how it may be told the time.
        leaves: a prediction as it is guided, by itself, x, σ, and the dtype that the scheduler is given.
        ends: what was guided, as the scheduler is given it, by itself, x and σ.
        tells: what else the scheduler is told, by its time.
        sign: of v in what it is given.
    """

    enters: Callable[[Tensor, Any], Tensor]
    times: tuple[Time, ...]
    leaves: Callable[[Tensor, Tensor, Any, torch.dtype], Tensor]
    ends: Callable[[Tensor, Tensor, Any], Tensor]
    tells: Callable[[Tensor], dict[str, Tensor]] = lambda time: {}
    sign: int = 1


AS_IT_IS = Way(
    enters=lambda x, sigma: x,
    times=(
        lambda time, sigma, rows, dtype: time.expand(rows),
        lambda time, sigma, rows, dtype: time.expand(rows).to(dtype) / 1000,
    ),
    leaves=lambda drawn, x, sigma, dtype: drawn.to(dtype),
    ends=lambda guided, x, sigma: guided,
)
PRECONDITIONED = Way(
    enters=lambda x, sigma: x * (1 - _share(sigma)),
    times=(lambda time, sigma, rows, dtype: _share(sigma).expand(rows).to(dtype),),
    leaves=lambda drawn, x, sigma, dtype: ((1 - _share(sigma)) * x + -_share(sigma) * drawn.float()).to(drawn.dtype),
    ends=lambda guided, x, sigma: (x - guided) / sigma,
)
BY_TOKEN = replace(
    AS_IT_IS,
    times=(lambda time, sigma, rows, dtype: time.expand(rows).unsqueeze(-1).to(dtype),),
    ends=lambda guided, x, sigma: -guided,
    tells=lambda time: {"per_token_timesteps": time.expand(1).unsqueeze(-1).float()},
    sign=-1,
)
WAYS = (AS_IT_IS, BY_TOKEN, PRECONDITIONED)


def ways_of(given: Tensor, latent: Tensor, sigma: Any) -> Iterator[Way]:
    """By which ways a transformer may have been given a latent.

    Args:
        given: (R, …).
        latent: x of one image, (1, …).
        sigma: σ.
    """
    if given.shape[1:] != latent.shape[1:]:
        return
    for way in WAYS if sigma is not None else WAYS[:-1]:
        if torch.equal(given, way.enters(latent, sigma).to(given).expand_as(given)):
            yield way


def _share(sigma: Tensor) -> Tensor:
    """τ, of noise."""
    return sigma / (sigma + 1)
