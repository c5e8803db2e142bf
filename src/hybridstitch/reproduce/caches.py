"""cache-dit on the large model alone, where it is installed: blocks are skipped while the first one changes little.

Its defaults (F8 B0, 8 steps of warm-up) are for transformers of dozens of blocks; on fewer, the share of first blocks
and of warm-up steps stays. A skipped step is priced at the share of the blocks that it computes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from typing import Any

from ..measure.calls import ClockedCall, clocked
from ..pair.stitching import stitch, unstitch

SOURCE = "cache-dit, DBCache with its own threshold of 0.08, on the large model alone"
FIRST = 8 / 38  # of the blocks of the paper's large model
WARM_UP = 8 / 50  # of the steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached(ClockedCall):
    """A picture, its seconds, and its time in dense steps by the share of blocks that were computed."""

    dense_steps: float


def installed() -> bool:
    """Whether the extra is there."""
    return find_spec("cache_dit") is not None


def call(pipe: Any, prompt: str, *, steps: int, **options: Any) -> Cached:
    """Draw a picture with the large model and cache-dit; the pipeline is stitched again afterwards.

    Args:
        pipe: the stitched pipeline.
        prompt: what to draw.
        steps: T.
        options: see `measure.calls.clocked`.
    """
    with _cached(pipe, steps) as (blocks, first):
        taken = clocked(pipe, prompt, steps=steps, **options)
        skipped = _skipped(pipe)
    return Cached(
        image=taken.image,
        denoising_seconds=taken.denoising_seconds,
        total_seconds=taken.total_seconds,
        dense_steps=steps - skipped * (1 - first / blocks),
    )


@contextmanager
def _cached(pipe: Any, steps: int) -> Iterator[tuple[int, int]]:
    """The pipeline without the small model and with a cache; gives the number of blocks and of those never skipped."""
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")
    import cache_dit  # pyright: ignore[reportMissingImports]

    small, policy = pipe.transformer.small, pipe.transformer.policy
    unstitch(pipe)
    blocks = len(pipe.transformer.transformer_blocks)
    first = max(1, ceil(FIRST * blocks - 0.5))
    options = cache_dit.DBCacheConfig(
        Fn_compute_blocks=first, Bn_compute_blocks=0, max_warmup_steps=max(1, round(WARM_UP * steps))
    )
    try:
        cache_dit.enable_cache(pipe, cache_config=options)
        try:
            yield blocks, first
        finally:
            cache_dit.disable_cache(pipe)
    finally:
        stitch(pipe, small, policy)


def _skipped(pipe: Any) -> int:
    """Steps that took the cache."""
    import cache_dit  # pyright: ignore[reportMissingImports]

    stats = cache_dit.summary(pipe.transformer, logging=False)
    return max((len(found.cached_steps) for found in stats), default=0)
