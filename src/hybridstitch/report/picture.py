"""A picture file that says how it was drawn: written into the PNG, read back, and drawn again from it.

Two text chunks: `parameters`, the readable line that galleries and other image tools show, and `hybridstitch`, one
JSON object with everything needed to draw the same pixels again (`Metadata`). Nothing here needs torch.
"""

import json
import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..disk import files as disk
from .clip import CLIPS
from .metadata import Metadata, PictureError

CHUNK = "hybridstitch"
MOST_PIXELS = 1 << 26  # of a picture that is read: 8192 × 8192
MOST_TEXT = 1 << 20  # characters of its text chunk


def encode(image: Image.Image, metadata: Metadata | None = None) -> bytes:
    """A PNG, as a file's bytes.

    Args:
        image: the picture.
        metadata: how it was drawn; None keeps the pixels alone.
    """
    info = PngInfo()
    if metadata is not None:
        info.add_text("parameters", metadata.parameters)
        info.add_text(CHUNK, json.dumps(metadata.to_json(), ensure_ascii=True))
    file = BytesIO()
    image.save(file, format="PNG", pnginfo=info)
    return file.getvalue()


def write(image: Image.Image, path: str | Path, metadata: Metadata | None = None) -> None:
    """Save a PNG, whole or not at all.

    Args:
        image: the picture.
        path: where; the folder exists.
        metadata: how it was drawn; None writes the pixels alone.
    """
    disk.keep(Path(path), encode(image, metadata))


def read(path: str | Path) -> Metadata:
    """How a picture was drawn.

    Args:
        path: a PNG that `write` made, or the video beside it.

    Raises:
        PictureError: no such file, no picture, or one that does not say.
    """
    if Path(path).suffix in CLIPS:
        path = Path(path).with_suffix(".png")
    text = _text_of(path)
    if text is None:
        raise PictureError(
            f"{path} does not say how it was drawn: it has no {CHUNK!r} text chunk; it was not drawn by hybridstitch, "
            "was drawn with --no-metadata, or went through a program that drops text"
        )
    if len(text) > MOST_TEXT:
        raise PictureError(f"the {CHUNK!r} text chunk of {path} has {len(text)} characters, too many to be ours")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PictureError(f"the {CHUNK!r} text chunk of {path} is damaged ({error})") from error
    if not isinstance(data, dict):
        raise PictureError(f"the {CHUNK!r} text chunk of {path} holds no metadata")
    return Metadata.from_json(data)


def _text_of(path: str | Path) -> str | None:
    """The text chunk of a PNG, wherever in the file it lies; None where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is the stricter limit
            image = Image.open(path, formats=("PNG",))
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise PictureError(f"{path} has {image.width}×{image.height} pixels; {MOST_PIXELS} at most are read")
            image.load()
            return image.info.get(CHUNK)
    except PictureError:
        raise
    except FileNotFoundError as error:
        raise PictureError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise PictureError(f"{path} is a folder; name one of its PNGs") from error
    except Exception as error:  # a broken PNG makes Pillow raise nearly anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PictureError(f"{path} cannot be read as a picture ({reason})") from error
