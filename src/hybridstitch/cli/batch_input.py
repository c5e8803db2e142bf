"""What `hybridstitch batch` is given, checked before any model is loaded: devices, and jobs that the pair can draw."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..batch.job import Job
from ..drawing.engine import Engine
from ..policies.presets import PRESETS, outside
from . import say
from .asked import BadInput
from .batch_words import SHOWN

if TYPE_CHECKING:
    from ..pair.limits import Limits
    from .pairs import Pair


def devices_of(text: str | None) -> list[str]:
    """The devices to work on, all of one kind."""
    if text is None:
        import torch

        return [f"cuda:{place}" for place in range(torch.cuda.device_count())] or ["cpu"]
    names = [name.strip() for name in text.split(",")]
    kinds = {name.partition(":")[0] for name in names}
    if len(kinds) > 1:
        raise BadInput(f"--device {text} was given; a batch is drawn on one kind of device, as their pixels differ")
    return names


def engine_for(devices: Sequence[str], engine: Engine) -> Engine:
    """How the models are run, on devices of one kind.

    Raises:
        EngineError: they cannot run them so.
    """
    import torch

    from ..pair.prepared import check_device

    check_device(engine, torch.device(devices[0]))
    return engine


def limits_of(named: "Pair") -> "Limits":
    """What a pair can draw; of hub ids the configurations are fetched, which also settles their revisions."""
    from ..pair.limits import Limits, pipeline_named

    limits = named.limits()
    if limits is not None:
        return limits
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if named.small is not None and not Path(named.small).is_dir():
            hf_hub_download(named.small, "model_index.json")
        index, vae, transformer = (
            json.loads(Path(hf_hub_download(named.large, file)).read_text(encoding="utf-8"))
            for file in ("model_index.json", "vae/config.json", "transformer/config.json")
        )
    except (OSError, HfHubHTTPError) as error:
        first = str(error).strip().splitlines()[0]
        raise BadInput(
            f"--pair {named.large} {named.small}: not all of it is in the cache or on the hub ({first})"
        ) from error
    return Limits.of(pipeline_named(index["_class_name"]), transformer["_class_name"], transformer, vae)


def check(jobs: Sequence[Job], named: "Pair", limits: "Limits") -> None:
    """Refuse sizes and texts that the pair cannot draw."""
    from ..pair.limits import SizeError

    named.check_asked({job.policy for job in jobs}, negative=any(job.negative for job in jobs))
    for width, height, frames in dict.fromkeys((job.width, job.height, job.frames) for job in jobs):
        try:
            limits.check((width, height), frames)
        except SizeError as error:
            raise BadInput(str(error).replace("--size", "size", 1).replace("--frames", "frames")) from error
    texts = {f"the prompt of job {place}": job.prompt for place, job in enumerate(jobs, start=1)}
    texts |= {f"the negative prompt of job {place}": job.negative for place, job in enumerate(jobs, start=1)}
    named.check_text(texts)
    for sentence in _outside(jobs, named):
        say.warn(sentence)
    if named.mini:
        from ..mini.scenes import unknown_words

        words = sorted({word for text in texts.values() for word, _ in unknown_words(text)})
        if words:
            more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
            say.warn(f"the miniature world does not know {', '.join(map(repr, words[:SHOWN]))}{more}")


def _outside(jobs: Sequence[Job], named: "Pair") -> list[str]:
    """Where jobs leave the setting that a preset's thresholds were chosen in."""
    kinds = dict.fromkeys((job.policy, job.height, job.width, job.steps, job.guidance) for job in jobs)
    found: dict[str, None] = {}
    for policy, height, width, steps, guidance in kinds:
        preset = next((p for p in PRESETS.values() if p.made_for is not None and p.policy == policy), None)
        if preset is not None:
            size = (height, width)
            leaves = outside(preset, large=named.large, small=named.small, size=size, steps=steps, guidance=guidance)
            found |= dict.fromkeys([" ".join(leaves)] if leaves else [])
    return list(found)[:SHOWN]
