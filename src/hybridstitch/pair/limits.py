"""Sizes that a pair can draw, in pixels and frames, read from its configurations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers

from ..errors import PairError, StitchError
from ..families.family import Size
from ..families.known import facts_of, known_name
from .asking import takes


class SizeError(PairError):
    """A size that a pair cannot draw."""


SIDES = ("num_frames", "height", "width")  # as pipelines name them


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a pair can draw; sizes are (height, width), of a video (frames, height, width).

    Attributes:
        video: whether it draws videos.
        native: when no size is asked for; None where the pair does not say.
        multiple: of each side, frames one more than a multiple; None where only the pipeline knows.
        largest: of each side; None for no limit.
    """

    video: bool
    native: Size | None = None
    multiple: Size | None = None
    largest: Size | None = None

    @classmethod
    def of(cls, pipeline: type, kind: str, transformer: Mapping[str, Any], vae: Mapping[str, Any]) -> "Limits":
        """From what decides.

        Args:
            pipeline: its class, whose call has frames or not, and sizes of its own.
            kind: name of the transformer's class.
            transformer, vae: configurations.

        Raises:
            StitchError: no family knows the transformer.
        """
        asks = takes(pipeline)
        sides = SIDES if SIDES[0] in asks else SIDES[1:]
        defaults = tuple(asks[side].default for side in sides if side in asks)
        facts = facts_of(kind)
        if facts is None:
            raise StitchError(f"{kind} is not supported by this release")
        known = [
            None if told is None else told(transformer, vae)[-len(sides) :]
            for told in (facts.native, facts.multiple, facts.largest)
        ]
        native = (
            defaults if len(defaults) == len(sides) and all(isinstance(side, int) for side in defaults) else known[0]
        )
        return cls(video=len(sides) == 3, native=native, multiple=known[1], largest=known[2])

    def check(self, size: tuple[int, int] | None, frames: int | None = None) -> Size:
        """The size to draw.

        Args:
            size: width and height asked for, or None.
            frames: asked for, or None.

        Raises:
            SizeError: not a multiple, too large, or frames of a picture; names the nearest size that can be drawn.
        """
        if frames is not None and not self.video:
            raise SizeError(f"--frames {frames} was given; this pair draws pictures: leave --frames out")
        if self.native is None and (size is None or (self.video and frames is None)):
            raise SizeError(f"this pair has no default size; give --size WxH{' --frames N' if self.video else ''}")
        native: Size = self.native or (0, 0, 0)
        asked = native[-2:] if size is None else (size[1], size[0])
        if self.video:
            asked = (native[0] if frames is None else frames, *asked)
        if self.multiple is not None:
            self._check_multiples(asked, self.multiple)
        if self.largest is not None and any(a > b for a, b in zip(asked, self.largest, strict=True)):
            most = f"{self.largest[-1]}x{self.largest[-2]} pixels"
            if self.video:
                raise SizeError(
                    f"{_told(asked)} was given; this pair draws at most {most} and {self.largest[0]} frames"
                )
            raise SizeError(f"{_told(asked)} was given; this pair draws at most {self.largest[-1]} pixels a side")
        return asked

    def _check_multiples(self, asked: Size, multiple: Size) -> None:
        near = [max(round(side / grain), 1) * grain for side, grain in zip(asked[-2:], multiple[-2:], strict=True)]
        if self.largest is not None:
            near = [min(sides) for sides in zip(near, self.largest[-2:], strict=True)]
        if any(side % grain for side, grain in zip(asked[-2:], multiple[-2:], strict=True)):
            each = str(multiple[-1]) if multiple[-1] == multiple[-2] else f"{multiple[-1]}x{multiple[-2]}"
            raise SizeError(
                f"--size {asked[-1]}x{asked[-2]} was given; this pair draws multiples of {each} pixels "
                f"(VAE × patch): {near[1]}x{near[0]} is near"
            )
        if self.video and (asked[0] < 1 or (asked[0] - 1) % multiple[0]):
            fit = 1 + max(round((asked[0] - 1) / multiple[0]), 0) * multiple[0]
            raise SizeError(
                f"--frames {asked[0]} was given; this pair draws one more than multiples of {multiple[0]} frames: "
                f"{fit} is near"
            )


def pipeline_named(name: str) -> type:
    """A pipeline's class.

    Raises:
        StitchError: diffusers has none of this name.
    """
    found = getattr(diffusers, name, None)
    if found is None:
        raise StitchError(f"diffusers {diffusers.__version__} has no {name}; another release of it may")
    return found


def limits_of(pipe: Any) -> Limits:
    """What a stitched pipeline can draw."""
    large, vae = pipe.transformer.large, getattr(pipe, "vae", None)
    return Limits.of(type(pipe), known_name(large), large.config, {} if vae is None else vae.config)


def _told(size: Size) -> str:
    """As on a command line."""
    return f"--size {size[-1]}x{size[-2]}" + (f" --frames {size[0]}" if len(size) == 3 else "")
