"""What is scored, and what it is scored against.

A picture is uint8, (H, W, 3). Generated ones are read from PNG files only: what JPEG loses moves FID and LPIPS. Real
photographs come as they are; they are cropped to the middle and resized once, from uint8, when they are opened.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import HybridStitchError

Picture = NDArray[np.uint8]
PHOTOGRAPHS = {".png", ".jpg", ".jpeg", ".webp"}


class ScoreError(HybridStitchError, ValueError):
    """Pictures, references, weights or scores that cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class References:
    """Pictures that others are compared with.

    Attributes:
        name: which ones, as printed beside a score: "the large model's pictures".
        pictures: (H, W, 3), uint8 each.
        matched: whether picture k belongs to the prompt of image k.
    """

    name: str
    pictures: Sequence[Picture]
    matched: bool

    @property
    def label(self) -> str:
        """The name, how many there are, and a digest: equal for the same references only."""
        digest = hashlib.sha256(b"".join(digest_of(picture) for picture in self.pictures)).hexdigest()
        return f"{self.name}, {len(self.pictures)} ({digest[:8]})"


def large_pictures(pictures: Sequence[Picture]) -> References:
    """The large model's pictures of the same prompts and seeds, in the same order."""
    return References(name="the large model's pictures", pictures=pictures, matched=True)


def rendered(prompts: Sequence[str], *, seed: int = 0) -> References:
    """What the prompts of the miniature world truly look like: one rendering each, positions and light varied.

    Args:
        prompts: captions that `Scene.parse` reads.
        seed: of the variation; picture k depends on `seed` and k alone.
    """
    from ..mini.scenes import Scene

    pictures = [
        np.asarray(Scene.parse(prompt).render(np.random.default_rng((seed, place))))
        for place, prompt in enumerate(prompts)
    ]
    return References(name="renderings of the same scenes", pictures=pictures, matched=True)


def photographs(folder: str | Path, size: tuple[int, int], *, limit: int | None = None) -> References:
    """Real pictures of a folder, in the order of their names, cropped to the middle and resized once.

    Args:
        folder: PNG, JPEG or WebP files.
        size: width and height in pixels of the generated pictures.
        limit: use the first so many.

    Raises:
        ScoreError: no such folder, no pictures in it, or one that cannot be read.
    """
    if not Path(folder).is_dir():
        raise ScoreError(f"there is no folder {folder} with real pictures to compare with")
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in PHOTOGRAPHS)[:limit]
    if not paths:
        raise ScoreError(f"{folder} holds no {', '.join(sorted(PHOTOGRAPHS))} files; references are pictures")
    pictures = [np.asarray(ImageOps.fit(_opened(path), size, Image.Resampling.BICUBIC)) for path in paths]
    return References(name=f"real pictures of {folder}", pictures=pictures, matched=False)


def read(path: str | Path) -> Picture:
    """A generated picture.

    Args:
        path: a PNG file.

    Raises:
        ScoreError: no PNG, or damaged.
    """
    if Path(path).suffix.lower() != ".png":
        raise ScoreError(f"{path} is no PNG; lossy formats change FD and LPIPS, so draw it again as PNG")
    return np.asarray(_opened(Path(path)))


def digest_of(picture: Picture) -> bytes:
    """SHA-256 of a picture's shape and pixels."""
    return hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).digest()


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise ScoreError(f"there is no picture {path}") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ScoreError(f"{path} cannot be read as a picture ({error})") from error
