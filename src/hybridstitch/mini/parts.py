"""Constructors of the miniature's parts: a Stable Diffusion 3 family in stock diffusers and transformers
classes.

Picture (3, 128, 128) in [-1, 1] -> latent (16, 32, 32) -> 256 image tokens (patch 2). Text: 24 tokens of
two CLIP text encoders, 128 wide each, side by side (24, 256), and their two pooled projections (256,). No
T5. Large: width 256, 6 layers, 14 M parameters. Small: width 128, 3 layers, 1.7 M.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from .words import vocabulary

TEXT_TOKENS = 24
TEXT_WIDTH = 128  # of each of the two text encoders, and of the space text and pictures share
PAD, BOS, EOS = "<|pad|>", "<|startoftext|>", "<|endoftext|>"
SIZES = {"large": (6, 4, 64), "small": (3, 2, 64)}  # layers, heads, width of a head
SHIFT = 2.0  # of the flow-matching schedule


def tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows each word of the world as one token, and spells out any other text.

    The merges are trained on the words themselves, until each has become one token.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(  # pyright: ignore[reportCallIssue]
        vocab_size=10_000,
        min_frequency=1,
        special_tokens=[PAD, BOS, EOS, *sorted(alphabet), *(f"{letter}</w>" for letter in sorted(alphabet))],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trained.train_from_iterator(list(vocabulary()), trainer)
    state = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in state["merges"]]
    vocab = state["vocab"]
    # End marker last and unlike 2: transformers reads 2 as an old, wrong configuration and pools elsewhere.
    order = [
        PAD,
        BOS,
        *(token for token in sorted(vocab, key=vocab.get) if token not in (PAD, BOS, EOS)),
        EOS,
    ]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps({token: place for place, token in enumerate(order)}))
        Path(folder, "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
        return CLIPTokenizer.from_pretrained(
            folder, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=EOS, model_max_length=TEXT_TOKENS
        )


def token_id(words: CLIPTokenizer, token: str) -> int:
    """The id of one token."""
    return words.get_vocab()[token]


def text_encoder(words: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """One text encoder: 128 wide, 3 layers; the pipeline reads its last but one hidden state."""
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TEXT_TOKENS,
            hidden_act="gelu",
            pad_token_id=token_id(words, PAD),
            bos_token_id=token_id(words, BOS),
            eos_token_id=token_id(words, EOS),
        )
    )


def image_tower() -> CLIPVisionModelWithProjection:
    """The picture side of the miniature CLIP: patches of 16 pixels, 192 wide, 4 layers."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            image_size=128,
            patch_size=16,
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=4,
            num_attention_heads=3,
            projection_dim=TEXT_WIDTH,
            hidden_act="gelu",
        )
    )


def autoencoder() -> AutoencoderKL:
    """(3, 128, 128) <-> (16, 32, 32): factor 4, no attention. Scale and shift are set once it is trained."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * 3,  # pyright: ignore[reportArgumentType]
        block_out_channels=(16, 48, 64),  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=128,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        force_upcast=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def transformer(size: str) -> SD3Transformer2DModel:
    """The "large" or the "small" transformer, untrained."""
    layers, heads, head_width = SIZES[size]
    return SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=16,
        num_layers=layers,
        attention_head_dim=head_width,
        num_attention_heads=heads,
        joint_attention_dim=2 * TEXT_WIDTH,
        caption_projection_dim=heads * head_width,
        pooled_projection_dim=2 * TEXT_WIDTH,
        out_channels=16,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The flow-matching Euler scheduler both models draw with."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)


def pipeline(
    transformer: SD3Transformer2DModel,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModelWithProjection,
    text_encoder_2: CLIPTextModelWithProjection,
    words: CLIPTokenizer,
) -> StableDiffusion3Pipeline:
    """The stock pipeline around these parts. Call it with `max_sequence_length=0`: there is no T5."""
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=words,
        text_encoder_2=text_encoder_2,
        tokenizer_2=words,
        text_encoder_3=None,  # pyright: ignore[reportArgumentType]
        tokenizer_3=None,  # pyright: ignore[reportArgumentType]
    )
