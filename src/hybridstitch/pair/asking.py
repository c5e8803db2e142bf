"""A prompt, what not to draw, and guidance, by the names that a pipeline's call has for them.

    most                    guidance_scale=g, negative_prompt=…
    Qwen-Image              true_cfg_scale=g, and a negative prompt, without which it does not guide
    FLUX, HunyuanVideo      guidance_scale=g, an input of the model: no negative prompt is heard

Read from the call's signature: where both scales are there, the true one is above 1 by default if it is the one that
guides. Prompts go by name, as FLUX.2 and LTX with conditions take pictures first.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import PairError, SchedulerError, StitchError
from ..policies.levels import at_levels

BEGUN = {"LTXImageToVideoPipeline", "Cosmos2VideoToWorldPipeline"}  # by a picture, whose default is None
BLANK = " "  # of Qwen-Image, where nobody says what not to draw
Told = str | Sequence[str]


def asked(
    pipe: Any, prompt: Told | None, *, guidance: float, negative: Told | None = None, begins: bool = True
) -> dict[str, Any]:
    """Arguments of a pipeline's call.

    Args:
        pipe: which draws.
        prompt: what to draw, one or several; None where embeddings say it.
        guidance: the guidance scale; 1 or less for none.
        negative: what not to draw, one or as many as prompts; empty for nothing.
        begins: whether it is also given what it may begin with, see `check_asked`.

    Raises:
        PairError: as `check_asked`.
    """
    avoided = negative if isinstance(negative, str) else [*negative] if negative and any(negative) else ""
    check_asked(type(pipe), negative=bool(avoided), begins=begins)
    told: dict[str, Any] = {"prompt": prompt if prompt is None or isinstance(prompt, str) else [*prompt]}
    told |= guided(pipe, guidance)
    if avoided:
        told["negative_prompt"] = avoided
    elif prompt is None:
        told.pop("negative_prompt", None)  # embeddings say that, too
    elif "negative_prompt" in told and not isinstance(prompt, str):
        told["negative_prompt"] = [BLANK] * len(prompt)
    return told


def guided(pipe: Any, guidance: float) -> dict[str, Any]:
    """Arguments of a pipeline's call that guide by a scale, where a prompt is given.

    Args:
        pipe: which draws.
        guidance: the scale.
    """
    known = takes(type(pipe))
    if _true_scale(known) > 1:
        return {"true_cfg_scale": guidance, **({"negative_prompt": BLANK} if guidance > 1 else {})}
    return {"guidance_scale": guidance} if "guidance_scale" in known or _is_open(known) else {}


def by_its_names(pipe: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a call, its guidance by the name that the pipeline has for it.

    Args:
        pipe: which draws; None where that is not known, and nothing changes.
        call: with `guidance_scale`, or without guidance.
    """
    others = dict(call)
    scale = None if pipe is None else others.pop("guidance_scale", None)
    return others if scale is None else {**others, **guided(pipe, scale)}


def check_asked(kind: type, *, negative: bool = False, begins: bool = False) -> None:
    """Refuse what a pipeline cannot be asked for.

    Args:
        kind: its class.
        negative: whether it is told what not to draw.
        begins: whether it is given what it may begin with, a picture or a video.

    Raises:
        PairError: it takes no prompt, begins with a picture, or hears of nothing that it should not draw.
    """
    known, name = takes(kind), kind.__name__
    if "prompt" not in known and not _is_open(known):
        raise PairError(f"{name} is asked for classes, not prompts; call it yourself, stitched in Python")
    first = [n for n, each in known.items() if each.default is each.empty and n not in ("self", "prompt")]
    needed = [n for n in first if known[n].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    if not begins and (needed or name in BEGUN):
        raise PairError(
            f"{name} begins with {' and '.join(needed) or 'a picture'}, and a prompt is all that it is told here; call "
            "it yourself, stitched in Python"
        )
    embedded = 0 < _true_scale(known) <= 1
    if negative and (embedded or not ("negative_prompt" in known or _is_open(known))):
        raise PairError(
            f"{name} draws with guidance that is an input of its model, and hears of no negative prompt: leave it out"
        )


def listening(pipe: Any, on_step: Callable[..., Any], *, needed: bool = False) -> dict[str, Any]:
    """The argument by which a pipeline tells of its steps.

    Args:
        pipe: any pipeline.
        on_step: as diffusers calls it.
        needed: whether it must.

    Raises:
        StitchError: it tells nobody, and must.
    """
    if "callback_on_step_end" in takes(type(pipe)):
        return {"callback_on_step_end": on_step}
    if needed:
        raise StitchError(f"{type(pipe).__name__} tells nobody of its steps, so that they cannot be timed")
    return {}


def levelled(pipe: Any, steps: int, shift: float | None, levels: Sequence[float] | None) -> dict[str, Any]:
    """The argument by which a pipeline is given noise levels; nothing where they are left to it.

    Args:
        pipe: which draws.
        steps, shift, levels: see `levels.at_levels`.

    Raises:
        SchedulerError: as `at_levels`, or a pipeline that is given none.
    """
    found = at_levels(pipe.scheduler, steps, shift, levels)
    if found and not takes_levels(pipe):
        raise SchedulerError(f"{type(pipe).__name__} is given no noise levels; leave the shift or the levels out")
    return found


def takes_levels(pipe: Any) -> bool:
    """Whether a pipeline can be given noise levels; those of Wan, LTX, Cosmos and Kandinsky cannot."""
    known = takes(type(pipe))
    return "sigmas" in known or _is_open(known)


def takes(kind: type) -> Mapping[str, inspect.Parameter]:
    """What a pipeline's call takes, by name."""
    call: Any = kind.__call__
    return inspect.signature(call).parameters


def _is_open(known: Mapping[str, inspect.Parameter]) -> bool:
    """Whether any name is taken."""
    return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values())


def _true_scale(known: Mapping[str, inspect.Parameter]) -> float:
    """What `true_cfg_scale` is by default; 0 where there is none."""
    found = known.get("true_cfg_scale")
    return 0.0 if found is None or not isinstance(found.default, int | float) else float(found.default)
