"""Opening, checking, stitching and unstitching a pair of models.

    stitch(pipe, small=…, policy=…)     in place, everything else of the pipeline untouched
    unstitch(pipe)                      as found, bit for bit
    open_pair(large, small, policy=…)   load a pipeline and stitch it; text encoders, VAE and scheduler once

All checks come first: a refused pair leaves the pipeline as it was.
"""

import json
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.configuration_utils import ConfigMixin
from huggingface_hub.errors import HfHubHTTPError
from torch import nn

from ..compat import ModelMixin, is_offloaded, set_component
from ..drawing.engine import PLAIN, Engine
from ..errors import PairError, StitchError, StitchWarning
from ..families.known import facts_of, known_name
from ..policies.methods import HybridStitch
from ..policies.policy import Policy
from ..policies.presets import Preset, as_preset
from .checks import Parts, check_kind, check_named, check_pair, check_pipeline
from .dear import dear_mask
from .expert import second
from .fits import check_weights
from .memory import outline
from .observer import check_scheduler
from .prepared import check_installed
from .source import Source
from .stitched import StitchedTransformer
from .words import words_of

DEFAULT = HybridStitch()
READERS = {"vae": AutoencoderKL, "scheduler": FlowMatchEulerDiscreteScheduler}  # of configurations, of any class
HUB_OPTIONS = ("token", "cache_dir", "local_files_only")
SMALL_OPTIONS = (*HUB_OPTIONS, "variant", "use_safetensors", "low_cpu_mem_usage")


def stitch(
    pipe: DiffusionPipeline,
    small: ModelMixin | DiffusionPipeline | str | Path,
    policy: Policy | Preset | str = DEFAULT,
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
    preset = as_preset(policy)
    policy = preset.policy
    large = check_pipeline(pipe)
    check_scheduler(pipe.scheduler, policy)
    check_installed(engine)
    module, parts, given = _small(small, large, options)
    words = words_of(large, module, given)
    for expert in (large, second(pipe)):
        if expert is not None:
            check_pair(pipe, expert, module, parts, words=words is not None)
    dear = dear_mask(policy, pipe, large, module)
    if dear is not None:
        warnings.warn(dear, StitchWarning, stacklevel=2)
    stitched = StitchedTransformer(large, module, preset, engine)
    stitched.words = words
    stitched.train(large.training)
    try:
        stitched.follow(pipe)
        set_component(pipe, "transformer", stitched)
    except BaseException:
        stitched.leave()
        raise


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
    policy: Policy | Preset | str | None = None,
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
    _check_match(large, small, options)
    _check_memory(large, small, options)
    saved = (Path(large) / "transformer" / "small").is_dir()
    pipe = _saved_variant(Path(large), **options) if saved and options.get("variant") else None
    pipe = pipe or DiffusionPipeline.from_pretrained(large, **options)
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


def _check_match(large: str | Path, small: Any, options: Mapping[str, Any]) -> None:
    """Refuse names of two models that do not match before anything large is fetched; not where parts are given."""
    if not isinstance(small, str | Path) or {"transformer", *READERS} & options.keys():
        return
    reading = {name: options[name] for name in HUB_OPTIONS if name in options}
    mine = {name: options[name] for name in (*HUB_OPTIONS, "revision") if name in options}
    try:
        check_named(Source(str(large), mine), Source(str(small), reading))
    except PairError:
        raise
    except (OSError, ValueError, HfHubHTTPError):
        pass  # whoever loads them says it better


def _check_memory(large: str | Path, small: Any, options: Mapping[str, Any]) -> None:
    """Refuse folders whose weights cannot fit. Of hub ids, loaded models and other weight files, no more is known."""
    folders = [Path(name) for name in (large, small) if isinstance(name, str | Path)]
    if not all(folder.is_dir() for folder in folders) or len(folders) < 2 - (small is None):
        return
    dtype, target = options.get("dtype", options.get("torch_dtype")), options.get("device_map")
    size = dtype.itemsize if isinstance(dtype, torch.dtype) else torch.float32.itemsize
    absent = tuple(name for name, value in options.items() if value is None)
    try:
        known = outline(*map(str, folders), element_bytes=size, without=absent, variant=options.get("variant"))
    except (PairError, StitchError, KeyError, OSError):
        return
    check_weights(known.weights, target if isinstance(target, str) and target.startswith("cuda") else "cpu")


def _saved_variant(folder: Path, *, variant: str, **options: Any) -> Any:
    """A saved pair of a variant; diffusers looks for variants in one folder a model, and a pair has two."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    parts: dict[str, Any] = {}
    for name, described in index.items():
        if name.startswith("_") or name in options or not isinstance(described, list) or described[0] is None:
            continue
        if list((folder / name).rglob(f"*.{variant}*.safetensors")):
            kind = getattr(import_module(described[0]), described[1])
            loading = {k: v for k, v in options.items() if k in ("dtype", "torch_dtype", *SMALL_OPTIONS)}
            parts[name] = kind.from_pretrained(folder, subfolder=name, variant=variant, **loading)
    if "transformer" not in parts:
        raise PairError(f"{folder} is a saved pair without a variant {variant!r}; leave variant={variant!r} out")
    return DiffusionPipeline.from_pretrained(folder, **{**options, **parts})


def _small(small: Any, large: Any, options: Mapping[str, Any]) -> tuple[Any, Parts, Any]:
    """The small transformer, the configurations of the parts it came with (VAE, scheduler), and its pipeline, if any.

    Of a folder or hub id the pipeline is opened where its text encoders are others than the large one's.
    """
    if isinstance(small, DiffusionPipeline):
        given: Any = small
        found = {name: getattr(given, name, None) for name in READERS}
        known = {
            n: {"_class_name": type(part).__name__, **part.config} for n, part in found.items() if part is not None
        }
        return given.transformer, known, small
    if isinstance(small, nn.Module):
        return small, {}, None
    shared = {k: v for k, v in options.items() if k in SMALL_OPTIONS}
    reading = {k: v for k, v in shared.items() if k in HUB_OPTIONS}
    config = _config(type(large), small, "transformer", reading)
    inside = {"subfolder": "transformer"} if config else {}
    parts = {name: found for name, reader in READERS.items() if (found := _config(reader, small, name, reading))}
    facts = facts_of(known_name(large))
    own = facts is not None and facts.own_words(large.config, config)
    check_kind(large, config or _config(type(large), small, "", reading), words=own)
    try:
        module: Any = type(large).from_pretrained(small, dtype=large.dtype, **inside, **shared)
    except (OSError, ValueError) as error:
        raise PairError(
            f"no transformer was found in {small}; give a folder or hub id of a diffusers pipeline, or of an "
            f"{type(large).__name__} ({error})"
        ) from error
    module = module.to(large.device)
    if not own:
        return module, parts, None
    encoding = {"transformer": module, "vae": None, "dtype": large.dtype, **shared}
    return module, parts, DiffusionPipeline.from_pretrained(small, **encoding).to(large.device)


def _config(reader: type[ConfigMixin], source: str | Path, part: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a pipeline's part, or nothing where there is none."""
    if Path(source).is_dir() and not (Path(source) / part).is_dir():
        return {}  # diffusers would read the folder's own
    try:
        config: Any = reader.load_config(source, subfolder=part, **options)
        return dict(config)
    except OSError:
        return {}
