"""A tiny random Wan pair on disk, words and all: what the command line opens."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from hybridstitch import stitch
from pipelines import PIPELINES, WIDTH, wan_vae

WORDS = ("a", "big", "dog", "small", "cat", "on", "meadow", "the", "snow", "runs", "jumps", "sleeps", "at", "night")


def tokenizer() -> PreTrainedTokenizerFast:
    """A word a token."""
    known = {word: place for place, word in enumerate(("<pad>", "</s>", "<unk>", *WORDS))}
    made = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def pipeline():
    """A plain one around the large model."""
    config = UMT5Config(
        vocab_size=len(WORDS) + 3,
        d_model=WIDTH,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    parts = {**wan_vae(), "text_encoder": UMT5EncoderModel(config).eval(), "tokenizer": tokenizer()}
    return PIPELINES["wan"].build(**parts)


def stitched(policy: str = "large"):
    """The pair in memory."""
    pipe = pipeline()
    stitch(pipe, PIPELINES["wan"].transformer(1), policy)
    return pipe


def save(folder: Path, policy: str = "L2 H1@0.3 S*") -> Path:
    """The pair on disk."""
    stitched(policy).save_pretrained(folder)
    return folder
