"""A third seat, for a small model with text encoders of its own: what the large one is told, in the small one's words.

Whenever the pipeline encodes a prompt, the small model's pipeline encodes it too, and what it answers is remembered by
the very tensors that the transformer will be given. Embeddings that a caller brings are remembered beforehand:

    pipe.transformer.words.remember(prompt_embeds, small_prompt_embeds)
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self
from weakref import ref

from torch import Tensor

from ..compat import WeakTensorKeyDictionary
from ..errors import StitchError
from ..families.family import Inputs
from ..families.known import facts_of, known_name

TEXTS = ("encoder_hidden_states", "pooled_projections")  # arguments that nothing else may stand for
Told = Tensor | tuple[Any, ...]


class OwnWords:
    """See `drawing.call.Words`.

    Attributes:
        small: the small model's pipeline, which encodes.
    """

    def __init__(self, small: Any) -> None:
        """Know nothing yet.

        Args:
            small: a pipeline with an `encode_prompt`.
        """
        self.small = small
        self._known: Any = WeakTensorKeyDictionary()  # by identity; gone when the large model's tensor goes

    def remember(self, large: Told, small: Told) -> None:
        """What the small model is told where the large one is told something.

        Args:
            large: a tensor, or what `encode_prompt` returned.
            small: the same of the small model's pipeline.
        """
        pairs = [(large, small)] if isinstance(large, Tensor) else zip(large, small, strict=True)
        for one, other in pairs:
            if isinstance(one, Tensor):
                self._known[one] = other

    def encode(self, arguments: Mapping[str, Any]) -> Any:
        """What the small model's pipeline makes of a prompt, or None of embeddings that nobody told it.

        Args:
            arguments: of the large one's `encode_prompt`, those at their defaults left out.
        """
        given: dict[str, Any] = {}
        for name, value in arguments.items():
            if isinstance(value, Tensor) and value not in self._known:
                return None
            given[name] = self._known[value] if isinstance(value, Tensor) else value
        return self.small.encode_prompt(**given)

    def __call__(self, inputs: Inputs) -> Inputs:
        """The small model's arguments of a call.

        Raises:
            StitchError: embeddings that nobody told it.
        """
        for name in TEXTS:
            if inputs.get(name) is not None and inputs[name] not in self._known:
                raise StitchError(
                    f"the small model has text encoders of its own and was not told what {name} is in its words; give "
                    "prompts, or before each embedding of your own "
                    "`pipe.transformer.words.remember(prompt_embeds, small_prompt_embeds)`; a pipeline that joins "
                    "both branches of guidance in one tensor cannot be served"
                )
        return {
            name: self._known[value] if isinstance(value, Tensor) and value in self._known else value
            for name, value in inputs.items()
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """One that knows nothing yet; text encoders are shared, as they are only asked."""
        copied = memo[id(self)] = type(self)(self.small)
        return copied


class PromptListener:
    """Stands in for a pipeline's `encode_prompt`."""

    def __init__(self, pipe: Any, words: OwnWords) -> None:
        """Prepare; `listen` installs.

        Args:
            pipe: the large model's.
            words: told of every prompt.
        """
        self._pipe: Callable[[], Any] = ref(pipe)
        self._words = words

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Encode, and let the small model's pipeline encode the same."""
        pipe = self._pipe()
        encode = type(pipe).encode_prompt.__get__(pipe)
        told = encode(*args, **kwargs)
        signature = inspect.signature(encode)
        given = signature.bind(*args, **kwargs).arguments
        other = self._words.encode({k: v for k, v in given.items() if not _same(v, signature.parameters[k].default)})
        if other is not None:
            self._words.remember(told, other)
        return told

    def __deepcopy__(self, memo: dict[int, Any]) -> "PromptListener":
        """In a copy of the pipeline, of that copy."""
        words = memo.get(id(self._words)) or self._words.__deepcopy__(memo)
        return PromptListener(memo.get(id(self._pipe()), self._pipe()), words)


def listen(pipe: Any, words: Any) -> None:
    """Let words, if they are a small model's own, hear every prompt that a pipeline encodes."""
    if isinstance(words, OwnWords):
        pipe.encode_prompt = PromptListener(pipe, words)


def unlisten(pipe: Any) -> None:
    """Leave a pipeline as it was found."""
    if isinstance(getattr(pipe, "__dict__", {}).get("encode_prompt"), PromptListener):
        del pipe.encode_prompt


def words_of(large: Any, small: Any, given: Any) -> OwnWords | None:
    """What a small model is told with; None where both are told the same, as far as widths show.

    Args:
        large, small: the transformers.
        given: what `stitch` was given as the small one; words of its own come with a pipeline.
    """
    facts = facts_of(known_name(large))
    names = () if facts is None or not hasattr(given, "encode_prompt") else facts.words
    return OwnWords(given) if any(large.config.get(key) != small.config.get(key) for key in names) else None


def _same(value: Any, default: Any) -> bool:
    return value is default or (not isinstance(value, Tensor) and value == default)
