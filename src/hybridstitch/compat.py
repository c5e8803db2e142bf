"""Every private or moving name of diffusers, cache-dit and torch's compiler that this library touches, in one place.

A new release that renames one of them breaks this file and nothing else.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from shutil import which
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pag.pag_utils import PAGMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = [
    "ModelMixin",
    "Transformer2DModelOutput",
    "WeakTensorKeyDictionary",
    "attention",
    "backends",
    "blocks",
    "every_block",
    "fix_addresses",
    "grid_of",
    "inductor_lacks",
    "is_offloaded",
    "is_parallel",
    "many_graphs",
    "page_lock",
    "page_unlock",
    "perturbs_attention",
    "set_component",
    "sigmas_of",
    "uncompile",
    "upload",
]


def attention(query: Tensor, key: Tensor, value: Tensor, backend: Any = None, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention through diffusers' dispatcher, so that the user's backend serves.

    Args:
        query: (R, n, heads, width).
        key: (R, m, heads, width).
        value: (R, m, heads, width).
        backend: the processor's `_attention_backend`.
        mask: which keys may be attended to, bool, (R, 1, 1, m); None for all.

    Returns:
        (R, n, heads, width).
    """
    return dispatch_attention_fn(query, key, value, attn_mask=mask, backend=backend)


def is_offloaded(pipe: DiffusionPipeline) -> bool:
    """Whether `enable_model_cpu_offload` or its sequential sister was called on the pipeline."""
    return bool(getattr(pipe, "_all_hooks", None)) or any(
        isinstance(m, nn.Module) and getattr(m, "_hf_hook", None) is not None for m in pipe.components.values()
    )


def is_parallel(model: nn.Module) -> bool:
    """Whether context or tensor parallelism was enabled on the model."""
    return getattr(model, "_parallel_config", None) is not None


def perturbs_attention(pipe: DiffusionPipeline) -> bool:
    """Whether the pipeline swaps attention processors during its call (perturbed-attention guidance)."""
    return isinstance(pipe, PAGMixin)


def set_component(pipe: DiffusionPipeline, name: str, module: nn.Module) -> None:
    """Put a module in the place of a pipeline's component, its entry in `pipe.config` included."""
    pipe.register_modules(**{name: module})


def blocks(model: nn.Module, names: Collection[str]) -> list[nn.Module]:
    """The blocks a transformer repeats, by the names of their classes."""
    return [module for module in model.modules() if type(module).__name__ in names]


@contextmanager
def every_block(model: nn.Module) -> Iterator[None]:
    """While it lasts, cache-dit skips no block of the model, if it is on at all."""
    covering = vars(model).get("forward") if getattr(model, "_is_cached", False) else None
    if covering is None:
        yield
        return
    original: Any = model._original_forward
    model.forward = original
    try:
        yield
    finally:
        model.forward = covering


def uncompile(block: nn.Module) -> None:
    """The inverse of `nn.Module.compile`."""
    block._compiled_call_impl = None


def many_graphs(count: int = 64) -> AbstractContextManager[None]:
    """While it lasts, one function may be compiled for `count` shapes instead of 8."""
    import torch._dynamo.config as config

    return config.patch(recompile_limit=count)


def upload(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Numbers known on the host, on a device; nothing waits for the transfer.

    Returns:
        (len(numbers),), int64.
    """
    if device.type == "cpu":
        return torch.tensor(numbers)
    return torch.tensor(numbers, pin_memory=device.type == "cuda").to(device, non_blocking=True)


def backends() -> list[str]:
    """What `torch.compile` can be asked for."""
    import torch._dynamo

    return torch._dynamo.list_backends(exclude_tags=None)


def inductor_lacks(device: torch.device) -> str | None:
    """What inductor needs to compile for a device and does not find, in words, or None."""
    if device.type == "cpu":
        from torch._inductor import config

        wanted = config.cpp.cxx
        names = [name for name in (wanted if isinstance(wanted, tuple | list) else (wanted,)) if name]
        return None if any(which(name) for name in names) else f"a C++ compiler ({' or '.join(names)})"
    from torch.utils._triton import has_triton

    return None if has_triton() else "triton"


def fix_addresses(tensors: Iterable[Tensor]) -> None:
    """Tell CUDA graphs that these tensors stay where they are and may be written to."""
    import torch._dynamo

    for tensor in tensors:
        torch._dynamo.mark_static_address(tensor)


def page_lock(memory: Tensor) -> None:
    """Let GPUs read and write a CPU tensor's memory while the host goes on; `page_unlock` before it is freed.

    torch's own pinned memory takes the next power of two.
    """
    runtime: Any = torch.cuda.cudart()
    if memory.nbytes:
        torch.cuda.check_error(runtime.cudaHostRegister(memory.data_ptr(), memory.nbytes, 0))


def page_unlock(memory: Tensor) -> None:
    """The inverse of `page_lock`."""
    runtime: Any = torch.cuda.cudart()
    if memory.nbytes:
        torch.cuda.check_error(runtime.cudaHostUnregister(memory.data_ptr()))


def grid_of(scheduler: Any) -> tuple[int, Tensor]:
    """Steps the scheduler's grid will run from where it begins, and the tensor that identifies the grid.

    `set_timesteps` makes a new tensor each time, so its identity tells one run from the next.
    """
    timesteps: torch.Tensor = scheduler.timesteps
    return len(timesteps) - (getattr(scheduler, "begin_index", None) or 0), timesteps


def call_seen(pipe: Any, scheduler: Any, latent: Tensor) -> dict[str, Any]:
    """What a transformer can see of the pipeline's call, as `presets.outside` takes it; None for what it cannot.

    Args:
        pipe: the pipeline that calls, or None.
        scheduler: its scheduler.
        latent: of the call.
    """
    scale: int | None = getattr(pipe, "vae_scale_factor", None)
    size = None
    if scale is not None and latent.ndim == 4:  # packed latents do not tell height from width
        size = (latent.shape[2] * scale, latent.shape[3] * scale)
    return {
        "size": size,
        "scheduler": type(scheduler).__name__,
        "guidance": getattr(pipe, "guidance_scale", None),
    }


def sigmas_of(scheduler: Any, steps: int) -> list[float]:
    """σ of so many steps of the scheduler's grid, from where it begins."""
    begin = getattr(scheduler, "begin_index", None) or 0
    sigmas: Tensor = scheduler.sigmas[begin : begin + steps]
    return sigmas.tolist()
