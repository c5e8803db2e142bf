"""A video as a file: MP4 where PyAV is installed (extra `video`), else animated WebP."""

from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from io import BytesIO

from PIL import Image

FPS = 16.0
CLIPS = (".mp4", ".webp")  # endings of a video's file


def ending() -> str:
    """Of the files written here."""
    return CLIPS[0] if find_spec("av") is not None else CLIPS[1]


def encode_clip(frames: Sequence[Image.Image], fps: float, suffix: str) -> bytes:
    """A video's file.

    Args:
        frames: of one size, even sides.
        fps: frames a second.
        suffix: one of `CLIPS`.
    """
    file = BytesIO()
    if suffix == ".webp":
        first, *others = (frame.convert("RGB") for frame in frames)
        first.save(file, "WEBP", save_all=True, append_images=others, duration=round(1000 / fps), loop=0, quality=92)
        return file.getvalue()
    import av

    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "16"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame.convert("RGB"))))
        container.mux(stream.encode(None))
    return file.getvalue()


def latent_frame(frame: int, frames: int, latents: int) -> int:
    """Which frame of tokens a frame of a video belongs to; the first has tokens of its own.

    Args:
        frame: 0 … frames − 1.
        frames: of the video.
        latents: frames of tokens.
    """
    return 0 if frame == 0 else 1 + (frame - 1) * (latents - 1) // (frames - 1)


def shown(frames: int) -> tuple[int, ...]:
    """The frames that stand for a video on a sheet: the first, the middle and the last."""
    return tuple(sorted({0, frames // 2, frames - 1}))
