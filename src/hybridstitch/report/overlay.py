"""Masks laid over pictures, and pictures side by side."""

from collections.abc import Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ..policies.trace import Step
from .colours import INK, KINDS, LARGE, PAPER, SMALL, kind
from .takes import Exhibit, decibels

TINT = 0.42  # of a model's colour over the picture in grey
GAP, LABEL = 12, 30  # pixels


def who_drew(
    image: Image.Image, step: Step, grid: tuple[int, ...], shown: Sequence[int] = (0,), *, side: int = 256
) -> Image.Image:
    """A picture in grey, tinted by the model that drew each token, the mask outlined.

    Args:
        image: the picture, or a frame of it.
        step: which tokens the large model drew.
        grid: token rows and columns, of a video frames before them; where they are one number, no mask can be shown.
        shown: frames of tokens that the picture shows, one below the other.
        side: least height of the result in pixels.
    """
    factor = max(1, -(-side // image.height))
    size = (image.width * factor, image.height * factor)
    grey = np.asarray(image.convert("L").convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.float64)
    drawn = kind(step.drawn)
    if drawn != "S+L" or step.mask is None or len(grid) == 1:
        tint = np.array(ImageColor.getrgb(KINDS[drawn]))
        return Image.fromarray((grey * (1 - TINT) + tint * TINT).astype(np.uint8))
    mask = np.zeros(prod(grid), dtype=bool)
    mask[list(step.mask)] = True
    mask = mask.reshape(-1, *grid[-2:])[list(shown)].reshape(-1, grid[-1])
    (rows, columns), frame = mask.shape, grid[-2]
    tokens = np.where(mask[..., None], ImageColor.getrgb(LARGE), ImageColor.getrgb(SMALL)).astype(np.uint8)
    tint = np.asarray(Image.fromarray(tokens).resize(size, Image.Resampling.NEAREST), dtype=np.float64)
    tinted = Image.fromarray((grey * (1 - TINT) + tint * TINT).astype(np.uint8))
    pen = ImageDraw.Draw(tinted)
    high, wide = size[1] / rows, size[0] / columns
    for row, column in np.argwhere(mask):
        left, top, right, bottom = column * wide, row * high, (column + 1) * wide, (row + 1) * high
        edges = (
            (row % frame == 0 or not mask[row - 1, column], (left, top, right, top)),
            (row % frame == frame - 1 or not mask[row + 1, column], (left, bottom, right, bottom)),
            (column == 0 or not mask[row, column - 1], (left, top, left, bottom)),
            (column == columns - 1 or not mask[row, column + 1], (right, top, right, bottom)),
        )
        for outer, line in edges:
            if outer:
                pen.line(line, fill=PAPER, width=max(1, size[1] // 128))
    return tinted


def difference(first: Image.Image, second: Image.Image, *, gain: float = 4.0) -> Image.Image:
    """Where two pictures differ: |a − b| times `gain`, the mean of the channels, dark on white."""
    a, b = (np.asarray(image.convert("RGB"), dtype=np.float64) for image in (first, second))
    apart = np.abs(a - b).mean(axis=-1)  # (H, W)
    return Image.fromarray(np.clip(255 - gain * apart, 0, 255).astype(np.uint8))


def side_by_side(exhibit: Exhibit, *, side: int = 384) -> Image.Image:
    """The large model's picture and the policy's, with times.

    Args:
        exhibit: both pictures.
        side: least height of a picture in pixels.
    """
    assert exhibit.large is not None
    take, large = exhibit.take, exhibit.large
    name = take.trace.policy.partition(":")[0]
    labels = (
        f"{exhibit.beside}, {large.seconds:.2f} s",
        f"{name}, {take.seconds:.2f} s ({exhibit.speedup:.2f}×), {decibels(exhibit.psnr)}",
    )
    return sheet((large.image, take.image), labels, side=side)


def sheet(images: Sequence[Image.Image], labels: Sequence[str], *, side: int) -> Image.Image:
    """Pictures of one size in a row, a label over each.

    Args:
        images: the pictures.
        labels: one for each.
        side: least height of a picture in pixels.
    """
    big = [enlarged(image, side) for image in images]
    width, height = big[0].size
    whole = Image.new("RGB", (len(big) * (width + GAP) + GAP, height + LABEL + GAP), PAPER)
    pen = ImageDraw.Draw(whole)
    for place, (image, label) in enumerate(zip(big, labels, strict=True)):
        left = GAP + place * (width + GAP)
        points = 15
        while points > 8 and pen.textlength(label, _font(points)) > width:
            points -= 1
        pen.text((left, LABEL / 2), label, fill=INK, font=_font(points), anchor="lm")
        whole.paste(image, (left, LABEL))
    return whole


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """A picture at a whole multiple of its size, at least `side` pixels high, in RGB."""
    factor = max(1, -(-side // image.height))
    size = (image.width * factor, image.height * factor)
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _font(points: int) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings, found without importing that: Pillow's own has no ×."""
    found = find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    return ImageFont.truetype(Path(found.origin).with_name("mpl-data") / "fonts" / "ttf" / "DejaVuSans.ttf", points)
