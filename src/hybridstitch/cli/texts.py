"""Texts that a text encoder would cut off are refused before anything is drawn."""

from collections.abc import Mapping
from typing import Any

from .asked import BadInput

T5_TOKENS = 256  # the stock pipeline's `max_sequence_length`


def check_tokens(tokenizer: Any, texts: Mapping[str, str], most: int) -> None:
    """Refuse texts of more than `most` tokens, end marks included.

    Args:
        tokenizer: a transformers tokenizer.
        texts: what each text is ("prompt 1"), and the text.
        most: tokens the encoder takes.

    Raises:
        BadInput: says how many tokens there are and how many fit.
    """
    marks = len(tokenizer("", truncation=False).input_ids)
    for name, text in texts.items():
        tokens = len(tokenizer(text, truncation=False, verbose=False).input_ids) - marks
        if tokens > most - marks:
            raise BadInput(
                f"{name} has {tokens} tokens and the text encoder takes {most - marks}; "
                f"leave out {tokens - most + marks}: {text[:60]!r}…"
            )
