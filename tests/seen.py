"""What the transformer of a pipeline was given and what it returned, call by call; and runs that are taken apart."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hybridstitch import stitch
from small_models import generate, pipeline, prompt, small

SIZES = {"square": (32, 32), "odd": (20, 28)}  # 8×8 tokens, and 5×7


@dataclass(frozen=True)
class Called:
    """One call: rows [u_1 … u_B, c_1 … c_B], or [c_1 … c_B]."""

    x: Tensor
    text: Tensor
    pooled: Tensor
    t: Tensor
    skip: list[int] | None
    out: Tensor

    def of(self, image: int, images: int) -> "Called":
        """The rows of one image."""
        rows = slice(image, None, images)
        return Called(self.x[rows], self.text[rows], self.pooled[rows], self.t[rows], self.skip, self.out[rows])

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `SD3Transformer2DModel.forward` takes them."""
        return self.x, self.text, self.pooled, self.t


def watch(pipe: Any, **call: Any) -> tuple[list[Called], Tensor]:
    """The calls of a run, and its latents."""
    calls = []

    def keep(module: Any, args: tuple[Any, ...], given: dict[str, Any], out: tuple[Tensor]) -> None:
        tensors = [given[name] for name in ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep")]
        calls.append(Called(*(t.clone() for t in tensors), given.get("skip_layers"), out[0].clone()))

    hook = pipe.transformer.register_forward_hook(keep, with_kwargs=True)
    try:
        latents = generate(pipe, **call)
    finally:
        hook.remove()
    return calls, latents


@torch.no_grad()
def calm(model: Any, dtype: torch.dtype = torch.float32) -> Any:
    """A random model of `small_models`, its weights at unit gain.

    At their gain of 1.5 a model without qk-norm amplifies its own bf16 rounding to 17 % of the output's maximum (at 1
    it is 1 %), and two orders of the same float32 sums come 2e-4 apart over ten steps (at 1, 7e-7).
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "norm_q" not in name and "norm_k" not in name:
            parameter.div_(1.5)
    return model.to(dtype)


def plain(kind: str = "sd3", dtype: torch.dtype = torch.float32, **build: Any) -> Any:
    """A pipeline with a calm large model."""
    pipe = pipeline(kind, **build)
    calm(pipe.transformer)
    return pipe.to(dtype)


def pair(policy: Any, kind: str = "sd3", dtype: torch.dtype = torch.float32, **build: Any) -> Any:
    """The same, stitched with a calm small model."""
    pipe = plain(kind, dtype, **build)
    stitch(pipe, calm(small(kind), dtype), policy)
    return pipe


def noise(images: int, size: tuple[int, int], seed: int = 7, dtype: torch.dtype = torch.float32) -> Tensor:
    """Latents to begin with, (B, 4, H, W), for pictures of `size`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, 4, size[0] // 2, size[1] // 2, generator=generator).to(dtype)


def single(image: int, images: int, size: tuple[int, int]) -> dict[str, Any]:
    """The call that draws one image of a batch alone."""
    one = {name: value[image, None] for name, value in prompt(images).items()}
    return {**one, "latents": noise(images, size)[image, None], "size": size}


def aligned(model: Any) -> None:
    """Weights where tensors that were made in memory lie: those read from a file lie at its addresses, and some
    kernels round by that.
    """
    for weight in model.parameters():
        weight.data = weight.data.clone()


def same(a: Tensor, b: Tensor, tolerance: float) -> None:
    """Equal within `tolerance` of the largest value of `b`."""
    assert a.shape == b.shape
    assert a.isfinite().all()
    worst = ((a.float() - b.float()).abs().max() / b.float().abs().max()).item()
    assert worst <= tolerance, f"{worst:.2e} of the maximum apart, {tolerance:.0e} allowed"


def differences(ours: Any, decided: Any, theirs: Any, tau: tuple[float, ...]) -> int:
    """Decisions that differ from a trace's, each of them too close to call (SPEC §8.3).

    Args:
        ours: per step stage and mask (N,), decided after the steps of the trace.
        decided: per step the score of each token, and D.
        theirs: the trace's steps.
        tau: the thresholds.
    """
    count, before = 0, 0
    for (stage, mask), (score, distance), step in zip(ours, decided, theirs, strict=True):
        if stage != step.plan.stage:
            assert abs(distance - tau[before]) / tau[before] < 1e-3
            count += 1
        elif mask is not None:
            mine = set(mask.nonzero()[:, 0].tolist())
            least = score[mask].min()
            for token in mine ^ set(step.mask):
                assert (score[token] - least).abs() <= 1e-4 * least
                count += 1
        before = step.plan.stage
    return count


def kept_bytes(monkeypatch, pipe):
    """A list that gets the bytes of keys and values of every memory that the pair's large model makes."""
    kept, family = [], type(pipe.transformer.family)
    room = family.room

    def counted(*args, **kwargs):
        layers = room(*args, **kwargs)
        kept.append(sum(tensor.nbytes for pair in layers for tensor in pair))
        return layers

    monkeypatch.setattr(family, "room", counted)
    return kept
