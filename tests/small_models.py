"""Random SD3-type pairs and pipelines, small enough for tests: no weights, no tokenizers, no network.

Widths of large and small differ, and at least three layers each cover the first, a middle and the last
(`context_pre_only`) block. Weights are scaled up from the default, so that distances, masks and errors are not lost
in rounding.
"""

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from hybridstitch import stitch

TEXT, TEXT_WIDTH, POOLED = 7, 24, 20
KINDS = {
    "sd3": {},
    "sd3.5-large": {"qk_norm": "rms_norm"},
    "sd3.5-medium": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
}


def transformer(
    kind: str = "sd3", *, heads: int = 4, layers: int = 4, seed: int = 0, **changes: Any
) -> SD3Transformer2DModel:
    """A random transformer of one of `KINDS`, 8 wide a head."""
    torch.manual_seed(seed)
    config = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": layers,
        "attention_head_dim": 8,
        "num_attention_heads": heads,
        "joint_attention_dim": TEXT_WIDTH,
        "caption_projection_dim": heads * 8,
        "pooled_projection_dim": POOLED,
        "pos_embed_max_size": 16,
        **KINDS[kind],
        **changes,
    }
    model = SD3Transformer2DModel(**config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm_q" not in name and "norm_k" not in name and parameter.ndim > 1:
                parameter.normal_(0, 1.5 * parameter[0].numel() ** -0.5)
    return model


def vae(**changes: Any) -> AutoencoderKL:
    """A random autoencoder of factor 2."""
    torch.manual_seed(5)
    config = {
        "block_out_channels": (8, 8),
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "shift_factor": 0.06,
        "scaling_factor": 1.5,
        **changes,
    }
    return AutoencoderKL(**config).eval()


def pipeline(kind: str = "sd3", cls: type = StableDiffusion3Pipeline, *, scheduler: Any = None, **changes: Any) -> Any:
    """A pipeline around a random large transformer; prompts are given as embeddings."""
    pipe = cls(
        transformer=transformer(kind, heads=6, layers=4, seed=1, **changes),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def small(kind: str = "sd3", **changes: Any) -> SD3Transformer2DModel:
    """A random small transformer that fits `pipeline`."""
    return transformer(kind, heads=3, layers=3, seed=2, **changes)


def prompt(images: int = 1, seed: int = 3, **to: Any) -> dict[str, Any]:
    """Embeddings in place of prompts, one per image, and their negatives."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(images, *shape, generator=generator).to(**to)

    return {
        "prompt_embeds": normal(TEXT, TEXT_WIDTH),
        "negative_prompt_embeds": normal(TEXT, TEXT_WIDTH),
        "pooled_prompt_embeds": normal(POOLED),
        "negative_pooled_prompt_embeds": normal(POOLED),
    }


def generate(
    pipe: Any, *, images: int = 1, steps: int = 8, seed: int = 7, size: tuple[int, int] = (32, 32), **call: Any
) -> Any:
    """Latents (B, C, H, W) from a seed; `call` overrides any argument of the pipeline."""
    arguments = {
        **prompt(images, dtype=pipe.transformer.dtype, device=pipe.transformer.device),
        "num_inference_steps": steps,
        "guidance_scale": 4.0,
        "height": size[0],
        "width": size[1],
        "generator": torch.Generator().manual_seed(seed),
        "output_type": "latent",
        "return_dict": False,
        **call,
    }
    return pipe(**arguments)[0]


def stitched(policy: Any = "large", kind: str = "sd3", **changes: Any) -> Any:
    """`pipeline`, stitched with `small`."""
    pipe = pipeline(kind, **changes)
    stitch(pipe, small(kind), policy)
    return pipe


def worded(pipe: Any) -> Any:
    """The same pipeline with random text encoders, whose tokens are letters: its prompts are words."""
    letters = [*map(chr, range(ord("a"), ord("z") + 1))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=[], model_max_length=TEXT)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=TEXT_WIDTH // 2,
        projection_dim=POOLED // 2,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT,
        eos_token_id=len(words) - 1,
    )
    torch.manual_seed(6)
    first, second = (CLIPTextModelWithProjection(config).eval() for _ in range(2))
    texts = {"text_encoder": first, "text_encoder_2": second, "tokenizer": tokenizer, "tokenizer_2": tokenizer}
    worded = type(pipe)(**{**pipe.components, **texts})
    worded.set_progress_bar_config(disable=True)
    return worded


def kept(family: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
    """A dense step of an attached family: its prediction, and the keys and values it left."""
    memory = family.room(inputs)
    prediction, filled = family.dense(inputs, memory=memory)
    assert filled
    return prediction, memory
