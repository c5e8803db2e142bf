"""The miniature pair, opened: the stock pipelines of Stable Diffusion 3, which by default add no T5 tokens.

Stock pipelines put 256 empty tokens in the place of a missing third text encoder; the miniature was trained without
them. The two classes below change that one default and nothing else. They keep the stock names, so that a saved
pipeline names a class that diffusers knows.
"""

import inspect
import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import diffusers
import torch

from ..drawing.engine import PLAIN, Engine
from ..errors import PairError, nearest
from ..pair.stitched import StitchedTransformer
from ..pair.stitching import stitch
from ..policies.policy import Policy
from ..policies.presets import Preset
from ..policies.skip import Skip
from . import FOLDER, mini_folder
from .parts import TEXT_TOKENS

# What the shipped recipe finds closest at about three times the speed, as a policy of any number of steps.
MINI_POLICY = Skip(large_steps=15, early=1.5)


def without_t5(method: Callable[..., Any]) -> Callable[..., Any]:
    """A pipeline's method whose `max_sequence_length` is 0 unless given.

    Args:
        method: `__call__` or `encode_prompt`.
    """
    signature = inspect.signature(method)
    parameters = [p.replace(default=0) if p.name == "max_sequence_length" else p for p in signature.parameters.values()]

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "max_sequence_length" not in signature.bind_partial(self, *args, **kwargs).arguments:
            kwargs["max_sequence_length"] = 0
        return method(self, *args, **kwargs)

    call.__dict__["__signature__"] = signature.replace(parameters=parameters)
    return call


class StableDiffusion3Pipeline(diffusers.StableDiffusion3Pipeline):
    """Text to image."""

    __call__ = without_t5(diffusers.StableDiffusion3Pipeline.__call__)
    encode_prompt = without_t5(diffusers.StableDiffusion3Pipeline.encode_prompt)


class StableDiffusion3Img2ImgPipeline(diffusers.StableDiffusion3Img2ImgPipeline):
    """Image to image."""

    __call__ = without_t5(diffusers.StableDiffusion3Img2ImgPipeline.__call__)
    encode_prompt = without_t5(diffusers.StableDiffusion3Img2ImgPipeline.encode_prompt)


class StableDiffusion3InpaintPipeline(diffusers.StableDiffusion3InpaintPipeline):
    """Inpainting."""

    __call__ = without_t5(diffusers.StableDiffusion3InpaintPipeline.__call__)
    encode_prompt = without_t5(diffusers.StableDiffusion3InpaintPipeline.encode_prompt)


PIPELINES: dict[str, type[diffusers.DiffusionPipeline]] = {
    kind.__name__: kind
    for kind in (StableDiffusion3Pipeline, StableDiffusion3Img2ImgPipeline, StableDiffusion3InpaintPipeline)
}


def open_mini(
    policy: Policy | Preset | str | None = None,
    *,
    engine: Engine = PLAIN,
    pipeline: type[diffusers.DiffusionPipeline] = diffusers.StableDiffusion3Pipeline,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    folder: str | Path | None = None,
) -> Any:
    """Open the miniature pair: 128×128 pictures of the world in `mini.scenes`.

    Args:
        policy: who draws what, or its string; default: `MINI_POLICY`, or the policy of a saved pair.
        engine: how the models are run; default: as they are.
        pipeline: text to image, image to image or inpaint, as diffusers names them.
        dtype: of all parts; the files are float16, which a CPU draws slowly and roughly in.
        device: of all parts.
        folder: other weights: a stock pipeline folder with the small transformer in `small/`, or a folder that
            this pair was saved to.

    Returns:
        the stitched pipeline; its call takes `max_sequence_length=0` by default.

    Raises:
        PairError: there are no weights in the folder, or no such pipeline.
        PolicyError: the policy cannot be read.
    """
    folder = mini_folder() if folder is None else Path(folder)
    if pipeline.__name__ not in PIPELINES:
        raise PairError(f"the miniature pair has no {pipeline.__name__}; {nearest(pipeline.__name__, PIPELINES)}")
    if not (folder / "model_index.json").is_file():
        raise PairError(
            f"the miniature pair's weights are not in {folder}; install hybridstitch again, or train them with "
            f"`python -m hybridstitch.mini.train all`; {FOLDER} names another folder"
        )
    pipe: Any = PIPELINES[pipeline.__name__].from_pretrained(folder, dtype=dtype, text_encoder_3=None, tokenizer_3=None)
    pipe.to(device)
    if isinstance(pipe.transformer, StitchedTransformer):
        pipe.transformer.policy = policy or pipe.transformer.policy
        pipe.transformer.engine = engine
        pipe.transformer.follow(pipe)
    else:
        small: Any = diffusers.SD3Transformer2DModel.from_pretrained(folder / "small", dtype=dtype)
        stitch(pipe, small.to(device), policy or MINI_POLICY, engine)
    return pipe


def is_mini(folder: str | Path) -> bool:
    """Whether a folder holds a miniature pair, shipped, trained or saved: whether its tokenizer is the miniature's."""
    try:
        words = json.loads((Path(folder) / "tokenizer" / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return words.get("model_max_length") == TEXT_TOKENS
