"""A picture to edit, as a stranger sends it: looked at before it is decoded, and made what a worker takes.

OpenAI's masks are transparent where the picture is to be drawn anew; without a mask, the picture's own transparency is
one. No address is ever fetched.
"""

from io import BytesIO

from PIL import Image

from .errors import Refusal
from .orders import Edit

FORMATS = ("PNG", "JPEG", "WEBP")
STRENGTH = 0.6  # how much of a picture goes when nobody says; all of it where a mask says where


def open_picture(data: bytes, name: str, most: int) -> Image.Image:
    """Decode a file.

    Args:
        data: its bytes.
        name: of the field, for errors.
        most: pixels.

    Raises:
        Refusal: no picture, one of another kind, or too large.
    """
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
        if image.width * image.height > most:
            raise Image.DecompressionBombError
        image.load()
    except Image.DecompressionBombError as error:  # Pillow has a limit of its own
        message = f"{name} has too many pixels; {most} at most are read"
        raise Refusal(413, message, "too_many_pixels", param=name) from error
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        text = "; send the file itself, URLs are not fetched" if data[:4].lower() == b"http" else ""
        message = f"{name} is no picture that can be read; PNG, JPEG and WebP are{text}"
        raise Refusal(400, message, "bad_picture", param=name) from error
    return image


def edit_of(image: Image.Image, mask: Image.Image | None, size: tuple[int, int], strength: float | None) -> Edit:
    """What a worker starts from.

    Args:
        image: the picture.
        mask: of its size, transparent where to draw anew; None takes the picture's own transparency, if it has any.
        size: to draw, in pixels.
        strength: how much of the picture goes.

    Raises:
        Refusal: a mask of another size, or that says nowhere.
    """
    if mask is not None and mask.size != image.size:
        raise Refusal(
            400, f"the mask has {mask.width}x{mask.height} pixels and the image {image.width}x{image.height}; "
            "they must agree", "bad_mask", param="mask",
        )  # fmt: skip
    if mask is not None and not mask.has_transparency_data:
        raise Refusal(
            400,
            "the mask has no transparency; make it transparent where the picture is to be redrawn",
            "bad_mask",
            param="mask",
        )
    alpha = None
    if mask is not None or image.has_transparency_data:
        alpha = (mask or image).convert("RGBA").getchannel("A").resize(size, Image.Resampling.NEAREST)
    hole = None if alpha is None else alpha.point([255] * 128 + [0] * 128)  # transparent is to be drawn
    if mask is not None and hole is not None and hole.getbbox() is None:
        raise Refusal(400, "the mask is opaque everywhere, so nothing would be drawn", "bad_mask", param="mask")
    if hole is not None and hole.getbbox() is None:
        hole = None
    return Edit(
        picture=image.convert("RGB").resize(size, Image.Resampling.LANCZOS).tobytes(),
        mask=None if hole is None else hole.tobytes(),
        strength=strength or (STRENGTH if hole is None else 1.0),
    )
