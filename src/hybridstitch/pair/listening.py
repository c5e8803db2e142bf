"""What stands in for a pipeline's `encode_prompt`, so that a small model's own words hear every prompt."""

import inspect
from collections.abc import Callable
from typing import Any
from weakref import ref

from torch import Tensor

from .words import OwnWords


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
        self._words.hear(told, {k: v for k, v in given.items() if not _same(v, signature.parameters[k].default)})
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


def _same(value: Any, default: Any) -> bool:
    return value is default or (not isinstance(value, Tensor) and value == default)
