"""Write `pair/`: a stitched pair with the miniature's tokenizer and random weights."""

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from hybridstitch import HybridStitch, stitch
from hybridstitch.mini import parts

WIDTH = 16  # of each text encoder

torch.manual_seed(0)
words = parts.tokenizer()
markers = {
    f"{name}_token_id": parts.token_id(words, token)
    for name, token in (("pad", parts.PAD), ("bos", parts.BOS), ("eos", parts.EOS))
}


def text_encoder() -> CLIPTextModelWithProjection:
    """As the miniature's, narrower."""
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=WIDTH, projection_dim=WIDTH, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=parts.TEXT_TOKENS, hidden_act="gelu", **markers,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config)


def transformer(layers: int, heads: int) -> SD3Transformer2DModel:
    """A random transformer, 8 wide a head."""
    model = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=layers, attention_head_dim=8,
        num_attention_heads=heads, joint_attention_dim=2 * WIDTH, caption_projection_dim=heads * 8,
        pooled_projection_dim=2 * WIDTH, pos_embed_max_size=8, qk_norm="rms_norm",
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm_q" not in name and "norm_k" not in name and parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
    return model


vae = AutoencoderKL(
    block_out_channels=(8, 8, 8),
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    layers_per_block=1,
    latent_channels=4,
    norm_num_groups=4,
    sample_size=32,
    use_quant_conv=False,
    use_post_quant_conv=False,
    mid_block_add_attention=False,
    force_upcast=False,
    scaling_factor=1.5,
    shift_factor=0.06,
)
pipe = parts.pipeline(transformer(3, 4), vae, text_encoder(), text_encoder(), words)
stitch(pipe, transformer(2, 2), HybridStitch(masks=(0.3,), thresholds=(0.9, 0.2), min_large=0.2))
pipe.to(torch.float16).save_pretrained("pair")
