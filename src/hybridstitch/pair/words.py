"""A third seat, for a small model with text encoders of its own: what the large one is told, in the small one's words.

Whenever the pipeline encodes a prompt, the small model's pipeline encodes it too, and what it answers is remembered by
the very tensors that the transformer will be given. Embeddings that a caller brings are remembered beforehand:

    pipe.transformer.words.remember(prompt_embeds, small_prompt_embeds)

Where guidance is embedded in the large model and not in the small one (FLUX.2 dev, klein-base), the small one guides
itself inside a call, `v = v_u + g·(v_c − v_u)` by two of its own:

    pipe.transformer.words.guidance = 4.0
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from diffusers import DiffusionPipeline
from torch import Tensor

from ..compat import WeakTensorKeyDictionary
from ..errors import StitchError
from ..families.family import Inputs, bare
from ..families.known import facts_of, known_name
from .asking import takes

DRAWING = ("transformer", "vae")  # parts of a pipeline that do not encode
TEXTS = ("encoder_hidden_states", "pooled_projections")  # arguments that nothing else may stand for
Told = Tensor | tuple[Any, ...]


class OwnWords:
    """See `drawing.call.Words`.

    Attributes:
        small: the small model's pipeline, which encodes.
        guidance: g of a small model that guides itself; None for one that does not.
        negative: what it is told without a prompt.
    """

    def __init__(self, small: Any) -> None:
        """Know nothing yet.

        Args:
            small: a pipeline with an `encode_prompt`.
        """
        self.small = small
        self.guidance: float | None = None
        self.negative = ""
        self._known: Any = WeakTensorKeyDictionary()  # by identity; gone when the large model's tensor goes

    def remember(self, large: Told, small: Told, without: Told | None = None) -> None:
        """What the small model is told where the large one is told something.

        Args:
            large: a tensor, or what `encode_prompt` returned.
            small: the same of the small model's pipeline.
            without: the same of no prompt, for a small model that guides itself.
        """
        ones, others = ((told,) if isinstance(told, Tensor) else told for told in (large, small))
        nothing = (without,) * len(ones) if without is None or isinstance(without, Tensor) else without
        for one, other, less in zip(ones, others, nothing, strict=True):
            if isinstance(one, Tensor):
                self._known[one] = (other.to(one.device), None if less is None else less.to(one.device))

    def hear(self, large: Told, arguments: Mapping[str, Any]) -> None:
        """Encode what the large model's pipeline encoded; embeddings that nobody told are left to `__call__`.

        Args:
            large: what it made of them.
            arguments: of its `encode_prompt`, those at their defaults left out.
        """
        given = {name: value for name, value in arguments.items() if name != "device"}  # encoders may lie elsewhere
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        if any(value not in self._known for value in tensors.values()):
            return
        told, less = ({name: self._known[value][which] for name, value in tensors.items()} for which in (0, 1))
        without = None
        if self.guidance is not None and all(isinstance(value, Tensor) for value in less.values()):
            blank = {name: self._blank(value) for name, value in given.items() if name.startswith("prompt")}
            without = self.small.encode_prompt(**{**given, **blank, **less})
        self.remember(large, self.small.encode_prompt(**{**given, **told}), without)

    def _blank(self, prompt: Any) -> Any:
        """As many negative prompts as there are prompts."""
        if isinstance(prompt, list):
            return [self.negative] * len(prompt)
        return self.negative if isinstance(prompt, str) else prompt

    def drawing(self, small: Callable[..., Any]) -> Callable[..., Any]:
        """The small model as it is to be called: guided, if it guides itself."""
        return small if self.guidance is None else Guided(small, self.guidance)

    def __call__(self, inputs: Inputs) -> Inputs:
        """The small model's arguments of a call.

        Raises:
            StitchError: embeddings that it has no encoding of its own for.
        """
        for name in TEXTS:
            if inputs.get(name) is not None and inputs[name] not in self._known:
                raise StitchError(
                    f"the small model has text encoders of its own, and there is no encoding by them for this {name}; "
                    "pass prompts, or before the call register both encodings: "
                    "`pipe.transformer.words.remember(prompt_embeds, small_prompt_embeds)`; pipelines that join both "
                    "guidance branches in one tensor are not supported"
                )
        known = {k: self._known[v] for k, v in inputs.items() if isinstance(v, Tensor) and v in self._known}
        told = {**inputs, **{name: words for name, (words, _) in known.items()}}
        if self.guidance is None:
            return told
        without = {name: less for name, (_, less) in known.items()}
        if any(less is None for less in without.values()):
            raise StitchError(
                "the small model guides itself and has no negative embeddings of its own; give prompts, or "
                "`pipe.transformer.words.remember(prompt_embeds, small_prompt_embeds, small_negative_prompt_embeds)`"
            )
        return {**told, "without": without}

    def save(self, folder: Path, **options: Any) -> None:
        """Write the small model's pipeline, without what draws and decodes; options as diffusers' own."""
        encoding = copy.copy(self.small)
        encoding.register_modules(**{name: None for name in DRAWING if name in encoding.components})
        encoding.save_pretrained(folder, **options)

    @classmethod
    def load(cls, folder: Path, *, guidance: float | None, negative: str, **options: Any) -> Self:
        """Read what `save` wrote; options as diffusers' own."""
        index = json.loads((folder / DiffusionPipeline.config_name).read_text(encoding="utf-8"))
        absent = {name: None for name, kind in index.items() if isinstance(kind, list) and kind[0] is None}
        words = cls(DiffusionPipeline.from_pretrained(folder, **absent, **options))
        words.guidance, words.negative = guidance, negative
        return words

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """One that knows nothing yet; text encoders are shared, as they are only asked."""
        copied = memo[id(self)] = type(self)(self.small)
        copied.guidance, copied.negative = self.guidance, self.negative
        return copied


@dataclass(frozen=True, slots=True)
class Guided:
    """A small model that guides itself: two calls in the place of one.

    Attributes:
        small: the model.
        scale: g.
    """

    small: Callable[..., Any]
    scale: float

    def __call__(self, *, without: Inputs, return_dict: bool = False, **told: Any) -> tuple[Tensor]:
        """Draw; arguments of the model, and those that are others without a prompt."""
        with_prompt, plain = (bare(self.small(**each, return_dict=False)) for each in (told, {**told, **without}))
        return (plain + self.scale * (with_prompt - plain),)


def words_of(large: Any, small: Any, given: Any) -> OwnWords | None:
    """What a small model is told with; None where both are told the same, as far as widths show.

    Under a large one whose guidance is an input it guides itself, by its pipeline's own scale, unless it was distilled.

    Args:
        large, small: the transformers.
        given: what `stitch` was given as the small one; words of its own come with a pipeline.
    """
    facts = facts_of(known_name(large))
    names = () if facts is None or not hasattr(given, "encode_prompt") else facts.words
    if facts is None or all(large.config.get(key) == small.config.get(key) for key in names):
        return None
    words = OwnWords(given)
    by_itself = facts.guided(large.config)[0] < facts.guided(small.config)[0]
    if by_itself and not given.config.get("is_distilled"):
        words.guidance = takes(type(given))["guidance_scale"].default
    return words
