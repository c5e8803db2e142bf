"""What a user asked for, checked before any model is loaded: each refusal says what was given and the way out."""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from ..errors import HybridStitchError, nearest
from ..policies.policy import Policy
from ..report.clip import FPS
from ..report.layers import DEFAULTS, Layer, named

DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
}
SLUG = 48  # characters of a prompt in a file name


class BadInput(HybridStitchError, ValueError):
    """A command line that cannot be meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call of `generate`, as far as it can be understood without a model.

    Attributes:
        prompts, negative: what to draw, and what not.
        pair, small: as `open_pair` takes them.
        policy: who draws what; None is the pair's own.
        seed: picture k of each prompt is drawn from seed + k.
        count: pictures of each prompt.
        steps, guidance: T, and the scale of classifier-free guidance.
        shift, levels: of the noise, as a preset or recipe made for few steps asks; None leaves them to the pipeline.
        size: width and height in pixels; None is the pair's own.
        device, dtype: where and in what precision.
        frames, fps: of a video, None is the pair's own; and how many a second.
        kv: dtype that masks keep keys and values in, None for that of the models.
    """

    prompts: tuple[str, ...]
    negative: str
    pair: str
    small: str | None
    policy: Policy | None
    seed: int
    count: int
    steps: int
    guidance: float
    size: tuple[int, int] | None
    device: str
    dtype: str
    shift: float | None = None
    levels: tuple[float, ...] | None = None
    frames: int | None = None
    fps: float = FPS
    kv: str | None = None

    @classmethod
    def of(
        cls,
        *,
        prompts: Sequence[str] = (),
        below: Layer | None = None,
        negative: str | None = None,
        pair: str | None = None,
        small: str | None = None,
        policy: str | None = None,
        seed: int | None = None,
        count: int = 1,
        steps: int | None = None,
        guidance: float | None = None,
        size: str | None = None,
        frames: int | None = None,
        fps: float | None = None,
        device: str | None = None,
        dtype: str | None = None,
        kv: str | None = None,
        elsewhere: bool = False,
    ) -> "Asked":
        """Put a command line together: what is left out is what the named preset says, or `below`, or the default.

        Args:
            below: what lies below the flags: of a picture's file, or of a recipe.
            elsewhere: whether the device is one of another machine.

        Raises:
            HybridStitchError: something cannot be meant.
        """
        flags = Layer(
            prompts=tuple(prompts) or None, negative=negative, pair=pair, small=small, seed=seed, steps=steps,
            guidance=guidance, size=None if size is None else to_size(size), frames=frames, fps=fps, device=device,
            dtype=dtype, kv=kv,
        )  # fmt: skip
        found = flags.over(named(policy)).over(below or Layer()).over(DEFAULTS)
        assert found.pair is not None  # nor is the rest of the defaults, for a reader of types
        assert found.seed is not None
        assert found.steps is not None
        assert found.guidance is not None
        assert found.fps is not None
        if not 0 < found.fps <= 1000:
            raise BadInput(f"--fps {found.fps:g} was given; frames a second are above 0 and at most 1000")
        _check_prompts(found.prompts or ())
        if count < 1:
            raise BadInput(f"--n {count} was given; at least one picture can be drawn")
        if not 0 <= found.seed <= 2**63 - count:
            raise BadInput(f"--seed {found.seed} was given; a seed is between 0 and {2**63 - count}")
        if found.steps < 1:
            raise BadInput(f"--steps {found.steps} was given; a picture takes at least one step")
        if not isfinite(found.guidance):
            raise BadInput(f"--guidance {found.guidance} was given; a scale is a number, 1 or less for no guidance")
        if found.policy is not None:
            found.policy.check(found.steps)
        device = found.device if elsewhere and found.device else _device(found.device)
        return cls(
            prompts=found.prompts or (),
            negative=found.negative or "",
            pair=found.pair,
            small=found.small,
            policy=found.policy,
            seed=found.seed,
            count=count,
            steps=found.steps,
            guidance=found.guidance,
            size=found.size,
            device=device,
            dtype=_dtype(found.dtype, device, found.pair),
            shift=found.shift,
            levels=found.levels,
            frames=found.frames,
            fps=found.fps,
            kv=None if found.kv == "same" else found.kv,
        )


def slug(prompt: str) -> str:
    """A prompt as a file name: words joined by hyphens, cut at a word."""
    words = re.findall(r"[^\W_]+", prompt.lower()) or ["picture"]
    name = words[0][:SLUG]
    for word in words[1:]:
        if len(name) + 1 + len(word) > SLUG:
            break
        name += f"-{word}"
    return name


def writable(folder: Path) -> Path:
    """A folder that pictures can be written to, made if need be.

    Raises:
        BadInput: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".hybridstitch"):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise BadInput(f"--out {folder} cannot be written to ({reason}); choose another folder") from error
    return folder


def _check_prompts(prompts: Sequence[str]) -> None:
    if not prompts:
        raise BadInput('no prompt was given; for example: hybridstitch generate "a big dog on a meadow"')
    for place, prompt in enumerate(prompts, start=1):
        if not prompt.strip():
            raise BadInput(f"prompt {place} of {len(prompts)} is empty; say what to draw")


def to_size(text: str) -> tuple[int, int]:
    """Width and height of a size as the command line writes it.

    Raises:
        BadInput: it is none.
    """
    match = re.fullmatch(r"(\d+)(?:[x×*](\d+))?", text.strip().lower())
    if match is None or not all(int(part or 1) for part in match.groups()):
        raise BadInput(f"--size {text!r} was given; write pixels as WIDTHxHEIGHT, or one number for a square")
    return int(match[1]), int(match[2] or match[1])


def _device(text: str | None) -> str:
    import torch

    if text is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise BadInput(f"--device {text!r} is no device; {nearest(text, ('cpu', 'cuda', 'cuda:0', 'mps'))}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"--device {text} was given; this machine has {torch.cuda.device_count()} CUDA devices: use cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BadInput("--device mps was given; this machine has none: use cpu")
    return text


def _dtype(text: str | None, device: str, pair: str) -> str:
    if text is None:
        return "float32" if pair == "mini" or device == "cpu" else "bfloat16"
    if text not in DTYPES:
        raise BadInput(f"--dtype {text!r} was given; {nearest(text, DTYPES)}")
    return DTYPES[text]
