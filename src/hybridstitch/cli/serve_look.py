"""What a worker says of the pair it opened: sizes, words, memory, and prices taken as it warms up."""

import time
from collections.abc import Sequence
from dataclasses import replace
from math import lcm
from statistics import mean
from typing import Any

import torch

from ..errors import HybridStitchError
from ..measure.price import Prices
from ..pair import memory
from ..pair.limits import Limits, limits_of
from ..policies.parse import parse
from ..report.takes import Take
from ..serve.orders import About
from ..serve.sizes import Sizes
from .artist import Artist, warm_up_program
from .asked import Asked
from .health import memory_of
from .pairs import Pair
from .texts import T5_TOKENS

WARM_UP = "a big dog on a meadow"
ANY = 1 << 14  # pixels a side, and tokens, where the pair sets no limit


def look(pipe: Any, asked: Asked, named: Pair, *, most: int, notes: tuple[str, ...]) -> About:
    """Draw a few warm steps of every kind, and say what the pair is.

    Args:
        pipe: the pair, stitched.
        asked: as the server was told.
        named: the pair.
        most: pictures that may be drawn in one call.
        notes: warnings of opening.
    """
    limits = limits_of(pipe)
    height, width = named.check_opened(pipe, asked.size, None, {})[-2:]
    size = (width, height)
    policy = asked.policy or named.policy
    artist = Artist(pipe=pipe, policy=policy, negative="", steps=asked.steps, guidance=asked.guidance, size=size)
    together = _together(artist, most)
    program = warm_up_program(policy)
    steps = len(program.program.split())
    _, *warm = [artist.draw(WARM_UP, seed, policy=program, steps=steps) for seed in range(3)]
    weights, picture = _needs(asked, named, size)
    third = getattr(pipe, "tokenizer_3", None)
    tokenizer = third or pipe.tokenizer
    exact = hasattr(pipe, "tokenizer_3")  # Stable Diffusion 3; others cut at a length of their own
    return About(
        pair=asked.pair,
        small=asked.small,
        models=named.models,
        policy=str(policy),
        device=asked.device,
        dtype=asked.dtype,
        devices=torch.cuda.device_count() if asked.device.startswith("cuda") else 1,
        sizes=_sizes(limits),
        miniature=named.mini,
        size=size,
        prices=_prices(warm),
        memory=memory.capacity(asked.device) + (weights if asked.device != "cpu" else 0),  # these lie there already
        weights=weights,
        picture=picture,
        tokenizer=tokenizer.backend_tokenizer.to_str(),
        text_tokens=(T5_TOKENS if third is not None else tokenizer.model_max_length) if exact else ANY,
        together=together,
        notes=notes,
    )


def _sizes(limits: Limits) -> Sizes:
    """Of pictures, as numbers."""
    multiple, largest = limits.multiple or (1, 1), limits.largest or (ANY, ANY)
    return Sizes(multiple=lcm(*multiple[-2:]), largest=min(largest[-2:]))


def _prices(takes: Sequence[Take]) -> Prices:
    """Of the strokes of warm pictures."""
    steps = [step for take in takes for step in take.trace.of(0)]
    whole = [(step.drawn.strokes[0], step.seconds) for step in steps if len(step.drawn.strokes) == 1]
    small = mean(seconds for stroke, seconds in whole if stroke.model == "S")
    masked = [(step.drawn.strokes[1], max(step.seconds - small, 0.0)) for step in steps if len(step.drawn.strokes) == 2]
    return Prices.fit([*whole, *masked], call=mean(max(take.seconds - take.trace.seconds, 0.0) for take in takes))


def _together(artist: Artist, most: int) -> int:
    """Pictures a call: as many as may be where each is then quicker than alone, else one."""
    return most if most > 1 and _seconds_each(artist, most) < _seconds_each(artist, 1) else 1


def _seconds_each(artist: Artist, count: int) -> float:
    """Of a few steps of so many pictures in one call, once that is warm."""
    program, seconds = parse("schedule:program=L L S"), 0.0
    for _ in range(2):
        begun = time.perf_counter()
        artist.draw_all([WARM_UP] * count, range(count), policy=program, steps=3)
        seconds = time.perf_counter() - begun
    return seconds / count


def _needs(asked: Asked, named: Pair, size: tuple[int, int]) -> tuple[int, int]:
    """Bytes of the weights, and what a picture takes besides; nothing where that cannot be read."""
    try:
        need, _, _ = memory_of(replace(asked, size=size), 1)
    except (HybridStitchError, OSError):
        return 0, 0
    weights = sum(need.weights.values())
    return weights, need.total - weights
