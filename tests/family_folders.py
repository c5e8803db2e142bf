"""Tiny random pairs of several families on disk, words and all: what the command line opens."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

import flux_models
from hybridstitch import stitch
from pipelines import PIPELINES, WIDTH, Piped, clip_vae
from wan_folder import WORDS, pipeline, tokenizer

VOCABULARY, CLIP_TOKENS, T5_TOKENS = len(WORDS) + 3, 16, 226


def t5(width: int) -> Mapping[str, Any]:
    """A tiny encoder, and its words."""
    torch.manual_seed(11)
    config = T5Config(vocab_size=VOCABULARY, d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return {"text_encoder": T5EncoderModel(config).eval(), "tokenizer": tokenizer()}


def clip(width: int) -> Mapping[str, Any]:
    """Another one, which pools at its end mark."""
    torch.manual_seed(12)
    config = CLIPTextConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=CLIP_TOKENS, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    words = tokenizer()
    words.model_max_length = CLIP_TOKENS
    return {"text_encoder": CLIPTextModel(config).eval(), "tokenizer": words}


def flux(width: int = flux_models.TEXT_WIDTH, **parts: Any) -> Any:
    """FLUX.1's pipeline, its T5 of a width."""
    pipe = flux_models.pipeline(text_width=width)
    second = {f"{name}_2": part for name, part in t5(width).items()}
    told = type(pipe)(**{**pipe.components, **clip(flux_models.POOLED), **second, **parts})
    told.set_progress_bar_config(disable=True)
    return told


def row(name: str) -> Piped:
    """A family's, for as many words as its pipeline gives."""
    found = PIPELINES[name]
    longer = {"max_text_seq_length": T5_TOKENS} if name == "cogvideox" else {}
    return replace(found, absent="", config={**found.config, **longer})


MADE = {
    "flux": flux,
    "wan": pipeline,
    "ltx": lambda: row("ltx").build(**t5(WIDTH)),
    "ltx-condition": lambda: row("ltx-condition").build(**t5(WIDTH)),
    "cogvideox": lambda: row("cogvideox").build(**clip_vae(), **t5(WIDTH)),
}


def small(name: str) -> Any:
    """The small transformer of a pair."""
    return flux_models.small() if name == "flux" else row(name).transformer(1)


def stitched(name: str, policy: str = "large") -> Any:
    """A pair in memory."""
    pipe = MADE[name]()
    stitch(pipe, small(name), policy)
    return pipe


def save(name: str, folder: Path, policy: str = "L2 H1@0.3 S*") -> Path:
    """A pair on disk."""
    stitched(name, policy).save_pretrained(folder)
    return folder
