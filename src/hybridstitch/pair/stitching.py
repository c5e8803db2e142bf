"""Opening, checking, stitching and unstitching a pair of models.

    stitch(pipe, small=…, policy=…)     in place, everything else of the pipeline untouched
    unstitch(pipe)                      as found, bit for bit
    open_pair(large, small, policy=…)   load a pipeline and stitch it; text encoders, VAE and scheduler once

All checks come first: a refused pair leaves the pipeline as it was.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from diffusers.configuration_utils import ConfigMixin
from torch import nn

from ..compat import ModelMixin, is_offloaded, is_parallel, perturbs_attention, set_component, strange_processor
from ..drawing.engine import PLAIN, Engine
from ..errors import PairError, StitchError, StitchWarning
from ..families.sd3 import JointAttention
from ..policies.latency import Shape, largest_useful_mask
from ..policies.methods import HybridStitch, Schedule
from ..policies.policy import Policy
from ..policies.presets import as_policy
from ..policies.program import segments
from .memory import check_fits, pair_needs
from .observer import check_scheduler
from .prepared import check_installed
from .stitched import StitchedTransformer

DEFAULT = HybridStitch()
_READERS = {"vae": AutoencoderKL, "scheduler": FlowMatchEulerDiscreteScheduler}
_HUB_OPTIONS = ("token", "cache_dir", "local_files_only")
_SMALL_OPTIONS = (*_HUB_OPTIONS, "variant", "use_safetensors", "low_cpu_mem_usage")
_SAME = {  # what a pair must share, and what to say when it does not
    "in_channels": "latent channels",
    "out_channels": "predicted channels",
    "patch_size": "patch size",
    "joint_attention_dim": "text width",
    "pooled_projection_dim": "pooled text width",
}
_SAME_VAE = {"scaling_factor": "VAE scale", "shift_factor": "VAE shift", "latent_channels": "VAE channels"}
_SAME_SCHEDULER = {"prediction_type": "prediction type", "num_train_timesteps": "training timesteps"}


def stitch(
    pipe: DiffusionPipeline,
    small: ModelMixin | DiffusionPipeline | str | Path,
    policy: Policy | str = DEFAULT,
    engine: Engine = PLAIN,
    **options: Any,
) -> None:
    """Let two models draw in a pipeline, from the next call on.

    Args:
        pipe: a diffusers pipeline with a `transformer`; it stays the same object and class.
        small: the small model: a transformer, a pipeline, a hub id, or a folder of either.
        policy: who draws what, or its string.
        engine: how the models are run; default: as they are.
        options: for `from_pretrained`, where `small` is loaded.

    Raises:
        StitchError: stitched already, offloaded already, or a kind of pipeline that cannot be.
        PairError: the two models do not match; says which property, both values, and what to do.
        PolicyError: the policy cannot be read.
        EngineError: the models' device or the installation cannot serve the engine.
        SchedulerError: the pipeline's scheduler cannot serve the policy.
    """
    policy = as_policy(policy)
    large = _check_pipeline(pipe)
    check_scheduler(pipe.scheduler, policy)
    check_installed(engine)
    module, parts = _small(small, large, options)
    _check_pair(pipe, large, module, parts)
    _warn_of_masks(policy, large, module)
    stitched = StitchedTransformer(large, module, policy, engine)
    stitched.train(large.training)
    set_component(pipe, "transformer", stitched)
    stitched.follow(pipe)


def unstitch(pipe: DiffusionPipeline) -> None:
    """Give a pipeline its own transformer back.

    Args:
        pipe: a stitched pipeline.

    Raises:
        StitchError: it is not stitched, or CPU offloading is on.
    """
    stitched = getattr(pipe, "transformer", None)
    if not isinstance(stitched, StitchedTransformer):
        raise StitchError(
            f"this {type(pipe).__name__} is not stitched; `hybridstitch.stitch(pipe, small=…)` stitches it"
        )
    if is_offloaded(pipe):
        raise StitchError(
            "CPU offloading is on and would not move the large model alone; `pipe.remove_all_hooks()` first, and "
            "`enable_model_cpu_offload()` again after unstitching"
        )
    stitched.leave()
    set_component(pipe, "transformer", stitched.large)


def open_pair(
    large: str | Path,
    small: str | Path | ModelMixin | DiffusionPipeline | None = None,
    policy: Policy | str | None = None,
    engine: Engine = PLAIN,
    **options: Any,
) -> DiffusionPipeline:
    """Load a pipeline and stitch it.

    Args:
        large: hub id or folder of the large pipeline, or a folder that a stitched pipeline was saved to.
        small: as in `stitch`; not given for a saved pair.
        policy: who draws what; default: the saved pair's, or `HybridStitch()`.
        engine: as in `stitch`.
        options: for `from_pretrained` (dtype, device_map, revision, token, …), the small model included.

    Returns:
        the stitched pipeline.

    Raises:
        HybridStitchError: as `stitch`.
    """
    if options.get("variant") is not None and (Path(large) / "transformer" / "small").is_dir():
        raise PairError(f"{large} is a saved pair, which has no variants; leave variant={options['variant']!r} out")
    _check_memory(large, small, options)
    pipe = DiffusionPipeline.from_pretrained(large, **options)
    stitched = pipe.transformer
    if isinstance(stitched, StitchedTransformer):
        if small is not None:
            raise PairError(
                f"{large} is a saved pair and brings its small model; leave `small` out, or unstitch it first"
            )
        stitched.policy = policy or stitched.policy
        stitched.engine = engine
        stitched.follow(pipe)
        return pipe
    if small is None:
        raise PairError(f"{large} holds one model; name the small one, as in open_pair({str(large)!r}, small=…)")
    stitch(pipe, small, policy or DEFAULT, engine, **options)
    return pipe


def _check_memory(large: str | Path, small: Any, options: Mapping[str, Any]) -> None:
    """Refuse folders whose weights cannot fit. Of hub ids, loaded models and other weight files, no more is known."""
    folders = [Path(name) for name in (large, small) if isinstance(name, str | Path)]
    if not all(folder.is_dir() for folder in folders) or len(folders) < 2 - (small is None):
        return
    dtype, target = options.get("dtype"), options.get("device_map")
    size = dtype.itemsize if isinstance(dtype, torch.dtype) else torch.float32.itemsize
    absent = tuple(name for name, value in options.items() if value is None)
    try:
        need = pair_needs(*map(str, folders), element_bytes=size, without=absent, variant=options.get("variant"))
    except (PairError, KeyError, OSError):
        return
    check_fits(need, target if isinstance(target, str) and target.startswith("cuda") else "cpu")


def _check_pipeline(pipe: DiffusionPipeline) -> SD3Transformer2DModel:
    """The large transformer of a pipeline that can be stitched."""
    large = getattr(pipe, "transformer", None)
    kind = type(pipe).__name__
    if isinstance(large, StitchedTransformer):
        raise StitchError(
            f"this {kind} is stitched already; change pipe.transformer.policy, or `hybridstitch.unstitch(pipe)` first"
        )
    if not isinstance(large, SD3Transformer2DModel):
        raise StitchError(
            f"{kind} has {type(large).__name__} as its transformer; this release stitches pipelines of "
            "SD3Transformer2DModel"
        )
    if any(isinstance(processor, JointAttention) for processor in large.attn_processors.values()):
        raise StitchError(
            "this large transformer is stitched into another pipeline already; share that pipeline's parts "
            "(`Pipeline(**other.components)`) or unstitch it there"
        )
    strange = strange_processor(large)
    if strange is not None:
        raise StitchError(
            f"the large transformer does not attend the stock way ({strange}); fused QKV: `unfuse_qkv_projections()`, "
            "IP-Adapter: `unload_ip_adapter()`, else `set_attn_processor(JointAttnProcessor2_0())`, then stitch"
        )
    if getattr(pipe, "controlnet", None) is not None:
        raise StitchError(
            f"{kind} has a ControlNet, whose residuals stitched steps cannot use yet; stitch a pipeline without one, "
            "or run this one unstitched"
        )
    if perturbs_attention(pipe):
        raise StitchError(
            f"{kind} swaps attention processors as it runs, and stitched steps cannot use perturbed-attention guidance "
            "yet; stitch `StableDiffusion3Pipeline.from_pipe(pipe)`"
        )
    if is_offloaded(pipe):
        raise StitchError("CPU offloading is on already; stitch first, then `enable_model_cpu_offload()`")
    if is_parallel(large):
        raise StitchError("context parallelism is on; a masked step would split the wrong tokens: switch it off")
    return large


Parts = Mapping[str, Mapping[str, Any]]


def _small(small: Any, large: SD3Transformer2DModel, options: Mapping[str, Any]) -> tuple[Any, Parts]:
    """The small transformer, and the configurations of the parts it came with (VAE, scheduler), for the check."""
    if isinstance(small, DiffusionPipeline):
        parts = {name: getattr(small, name) for name in _READERS}
        return small.transformer, {
            name: {"_class_name": type(part).__name__, **part.config}
            for name, part in parts.items()
            if part is not None
        }
    if isinstance(small, nn.Module):
        return small, {}
    shared = {k: v for k, v in options.items() if k in _SMALL_OPTIONS}
    reading = {k: v for k, v in shared.items() if k in _HUB_OPTIONS}
    inside = {"subfolder": "transformer"} if _config(SD3Transformer2DModel, small, "transformer", reading) else {}
    parts = {name: _config(reader, small, name, reading) for name, reader in _READERS.items()}
    try:
        module: Any = SD3Transformer2DModel.from_pretrained(small, dtype=large.dtype, **inside, **shared)
    except (OSError, ValueError) as error:
        raise PairError(
            f"no transformer was found in {small}; give a folder or hub id of a diffusers pipeline, or of an "
            f"SD3Transformer2DModel ({error})"
        ) from error
    return module.to(large.device), {name: config for name, config in parts.items() if config}


def _config(reader: type[ConfigMixin], source: str | Path, part: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a pipeline's part, or nothing where there is none."""
    if Path(source).is_dir() and not (Path(source) / part).is_dir():
        return {}  # diffusers would read the folder's own
    try:
        config: Any = reader.load_config(source, subfolder=part, **options)
        return dict(config)
    except OSError:
        return {}


def _check_pair(pipe: DiffusionPipeline, large: SD3Transformer2DModel, small: Any, parts: Parts) -> None:
    if small is large:
        raise PairError("the small model is the large model itself; give another module")
    if not isinstance(small, type(large)):
        raise PairError(
            f"the small model is {type(small).__name__}, the large one {type(large).__name__}; give two of a kind"
        )
    if any(isinstance(processor, JointAttention) for processor in small.attn_processors.values()):
        raise PairError("the small model is the large one of another stitched pipeline; load it once more for this one")
    _compare(large.config, small.config, _SAME)
    if "vae" in parts and pipe.vae is not None:
        _compare(pipe.vae.config, parts["vae"], _SAME_VAE)
    if "scheduler" in parts:
        mine = {"_class_name": type(pipe.scheduler).__name__, **pipe.scheduler.config}
        _compare(_predicting(mine), _predicting(parts["scheduler"]), _SAME_SCHEDULER)
    if is_parallel(small):
        raise PairError("context parallelism is on in the small model; switch it off")
    if small.device != large.device:
        raise PairError(
            f"the large model is on {large.device}, the small one on {small.device}; move it: "
            f"small.to({str(large.device)!r})"
        )
    if small.dtype != large.dtype:
        raise PairError(
            f"the large model is in {large.dtype}, the small one in {small.dtype}; convert it: small.to({large.dtype})"
        )


def _predicting(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's configuration with its prediction type, which flow-matching classes leave unsaid."""
    said = "flow_prediction" if "FlowMatch" in scheduler.get("_class_name", "") else "epsilon"
    return {"prediction_type": said, **scheduler}


def _compare(large: Mapping[str, Any], small: Mapping[str, Any], names: Mapping[str, str]) -> None:
    for key, name in names.items():
        if large.get(key) != small.get(key):
            raise PairError(
                f"the two models do not match: {name} ({key}) is {large.get(key)} in the large one and "
                f"{small.get(key)} in the small one; a pair must share latent space, text encoders and "
                "what they predict: choose a small model trained with those of the large one"
            )


def shape_of(transformer: SD3Transformer2DModel, image_tokens: int, text_tokens: int = 333) -> Shape:
    """The cost-deciding shape of a transformer.

    Args:
        transformer: the model.
        image_tokens: N.
        text_tokens: T; 333 in Stable Diffusion 3 (77 of CLIP, 256 of T5).
    """
    config = transformer.config
    return Shape(
        width=config["num_attention_heads"] * config["attention_head_dim"],
        layers=config["num_layers"],
        image_tokens=image_tokens,
        text_tokens=text_tokens,
        dual_layers=len(config["dual_attention_layers"]),
    )


def _warn_of_masks(policy: Policy, large: SD3Transformer2DModel, small: SD3Transformer2DModel) -> None:
    """Eq. 7, by operations: a mask that saves nothing."""
    masks: tuple[float, ...] = ()
    if isinstance(policy, HybridStitch):
        masks = policy.masks[:1]
    elif isinstance(policy, Schedule):
        masks = tuple(s.ratio for s in segments(policy.program) if s.letter == "H" and s.ratio is not None)
    if not masks:
        return
    tokens = (large.config["sample_size"] // large.config["patch_size"]) ** 2
    ratio = shape_of(small, tokens).flops() / shape_of(large, tokens).flops()
    limit = largest_useful_mask(ratio)
    if max(masks) >= limit:
        warnings.warn(
            f"a mask of {max(masks)} is not worth it on this pair: a small step costs {ratio:.2f} of a large one "
            f"(operations at {tokens} tokens), so a hybrid step is only cheaper below 1 - {ratio:.2f} = {limit:.2f} "
            "(Eq. 7)",
            StitchWarning,
            stacklevel=3,
        )
