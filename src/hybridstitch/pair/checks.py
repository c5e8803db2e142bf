"""What must hold before two models are stitched: of the pipeline, and of the pair. Each refusal says the way out."""

from collections.abc import Mapping
from typing import Any

from diffusers import DiffusionPipeline

from ..compat import is_offloaded, is_parallel, perturbs_attention
from ..errors import PairError, StitchError
from ..families.known import NAMES, REFUSED, facts_of, family_of, known_name, unknown
from ..families.lent import Lent
from .source import Source
from .stitched import StitchedTransformer

Parts = Mapping[str, Mapping[str, Any]]  # configurations of a pipeline's parts, by name
SAME_VAE = {
    "scaling_factor": "VAE scale",
    "shift_factor": "VAE shift",
    "latent_channels": "VAE channels",
    "z_dim": "VAE channels",
    "latents_mean": "VAE means",
    "latents_std": "VAE deviations",
}
SAME_GRID: dict[str, str] = dict.fromkeys(  # of VAEs that say it: releases of diffusers differ in that
    ("spatio_temporal_scaling", "temperal_downsample", "scale_factor_spatial", "scale_factor_temporal"), "VAE grid"
)
SAME_SCHEDULER = {
    "prediction_type": "prediction type",
    "num_train_timesteps": "training timesteps",
    "snr_shift_scale": "SNR shift",
}


def check_pipeline(pipe: DiffusionPipeline) -> Any:
    """The large transformer of a pipeline that can be stitched.

    Raises:
        StitchError: it cannot.
    """
    large: Any = getattr(pipe, "transformer", None)
    kind = type(pipe).__name__
    if isinstance(large, StitchedTransformer):
        raise StitchError(
            f"this {kind} is stitched already; change pipe.transformer.policy, or `hybridstitch.unstitch(pipe)` first"
        )
    if not any(base.__name__ in NAMES for base in type(large).__mro__):
        if type(large).__name__ in REFUSED:
            raise StitchError(f"this {kind} cannot be stitched: {unknown(large)}")
        raise StitchError(
            f"{kind} has {type(large).__name__} as its transformer; this release stitches pipelines of "
            f"{', '.join(NAMES)}"
        )
    if is_lent(large):
        raise StitchError(
            "this large transformer is stitched into another pipeline already; share that pipeline's parts "
            "(`Pipeline(**other.components)`) or unstitch it there"
        )
    family = family_of(large)
    strange = family.strange()
    if strange is not None:
        raise StitchError(
            f"the large transformer has attention processors that are not diffusers' own ({strange}); fused QKV: "
            "`unfuse_qkv_projections()`, IP-Adapter: `unload_ip_adapter()`, else "
            f"`set_attn_processor({family.stock[0].__name__}())`, then stitch"
        )
    if getattr(pipe, "controlnet", None) is not None:
        raise StitchError(
            f"{kind} has a ControlNet, whose residuals stitched steps cannot use yet; stitch a pipeline without one, "
            "or run this one unstitched"
        )
    if perturbs_attention(pipe):
        raise StitchError(
            f"{kind} swaps attention processors as it runs, and stitched steps cannot use perturbed-attention guidance "
            f"yet; stitch `{kind.replace('PAG', '')}.from_pipe(pipe)`"
        )
    if is_offloaded(pipe):
        raise StitchError("CPU offloading is on already; stitch first, then `enable_model_cpu_offload()`")
    if is_parallel(large):
        raise StitchError("context parallelism is on; a masked step would split the wrong tokens: switch it off")
    return large


def check_pair(pipe: Any, large: Any, small: Any, parts: Parts, *, words: bool = False) -> None:
    """Refuse two models that do not speak the same language.

    Args:
        pipe: the large one's pipeline.
        large, small: the models.
        parts: what the small one came with.
        words: whether the small model is told by text encoders of its own.

    Raises:
        PairError: names the property and both values.
    """
    if small is large:
        raise PairError("the small model is the large model itself; give another module")
    if not isinstance(small, type(large)):
        raise PairError(
            f"the small model is {type(small).__name__}, the large one {type(large).__name__}; give two models of the "
            "same class"
        )
    if is_lent(small):
        raise PairError("the small model is the large one of another stitched pipeline; load it once more for this one")
    _check_same(known_name(large), large.config, small.config, words=words)
    if "vae" in parts and pipe.vae is not None:
        _compare(pipe.vae.config, parts["vae"], SAME_VAE)
        _compare(*_filled(pipe.vae.config, parts["vae"]), SAME_GRID)
    if "scheduler" in parts:
        mine = {"_class_name": type(pipe.scheduler).__name__, **pipe.scheduler.config}
        _compare(_predicting(mine), _predicting(parts["scheduler"]), SAME_SCHEDULER)
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


def check_kind(large: Any, config: Mapping[str, Any], *, words: bool = False) -> None:
    """Refuse a small model by its configuration, before its weights are read.

    Args:
        large: the large model.
        config: of the small one, as its file says it.
        words: whether the small model is told by text encoders of its own.

    Raises:
        PairError: names the property and both values.
    """
    kind = config.get("_class_name")
    if kind is not None and kind not in {base.__name__ for base in type(large).__mro__}:
        raise PairError(f"the small model is {kind}, the large one {type(large).__name__}; give two of a kind")
    _check_same(known_name(large), large.config, {**large.config, **config}, words=words)


def check_named(large: Source, small: Source) -> bool:
    """Refuse two models by their configurations, a few kilobytes, before anything else of them is fetched or read.

    What a configuration leaves unsaid is compared once the models are loaded.

    Args:
        large: a pipeline.
        small: a pipeline or a transformer.

    Returns:
        whether there were two configurations of transformers that this release knows to compare.

    Raises:
        PairError: names the property and both values.
        OSError: a hub that cannot be reached, or has no such name.
        ValueError: a configuration that is damaged, or a name that is none.
    """
    mine = large.config("transformer/config.json")
    kind = (mine or {}).get("_class_name", "")
    facts = facts_of(kind)
    if mine is None or facts is None:
        return False
    theirs = small.config("transformer/config.json")
    bare = theirs is None
    theirs = small.config("config.json") if bare else theirs
    if theirs is None:
        return False
    if theirs.get("_class_name", kind) != kind:
        raise PairError(f"the small model is {theirs['_class_name']}, the large one {kind}; give two of a kind")
    _check_same(kind, *_filled(mine, theirs), words=not bare and facts.own_words(mine, theirs))
    parts = {"vae/config.json": {**SAME_VAE, **SAME_GRID}, "scheduler/scheduler_config.json": SAME_SCHEDULER}
    for file, names in () if bare else parts.items():
        here, there = large.config(file), small.config(file)
        if here is not None and there is not None:
            if names is SAME_SCHEDULER:
                here, there = _predicting(here), _predicting(there)
            _compare(*_filled(here, there), names)
    return True


def is_lent(model: Any) -> bool:
    """Whether processors of ours are on a model."""
    return any(isinstance(getattr(module, "processor", None), Lent) for module in model.modules())


def _predicting(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's configuration with its prediction type, which flow-matching classes leave unsaid."""
    flow = "FlowMatch" in scheduler.get("_class_name", "") or scheduler.get("use_flow_sigmas")
    return {**scheduler, "prediction_type": "flow_prediction" if flow else scheduler.get("prediction_type", "epsilon")}


def _check_same(kind: str, large: Mapping[str, Any], small: Mapping[str, Any], *, words: bool) -> None:
    """What configurations of transformers of a class must share; those of text only where both are told the same."""
    facts = facts_of(kind)
    assert facts is not None
    _compare(large, small, {key: name for key, name in facts.same.items() if key not in facts.words})
    advice = ", or give the small one's pipeline (small=…), whose text encoders then tell it every prompt"
    if not words:
        texts = {key: name for key, name in facts.same.items() if key in facts.words}
        _compare(large, small, texts, advice if facts.own_words(large, small) else "")


def _filled(large: Mapping[str, Any], small: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two configurations, each with what only the other says: there they are not to differ."""
    return {**small, **large}, {**large, **small}


def _compare(large: Mapping[str, Any], small: Mapping[str, Any], names: Mapping[str, str], or_else: str = "") -> None:
    for key, name in names.items():
        mine, theirs = (list(of[key]) if isinstance(of.get(key), tuple) else of.get(key) for of in (large, small))
        if mine != theirs:
            raise PairError(
                f"the two models do not match: {name} ({key}) is {large.get(key)} in the large one and "
                f"{small.get(key)} in the small one; a pair must share latent space, text encoders and "
                f"what they predict: choose a small model trained with those of the large one{or_else}"
            )
