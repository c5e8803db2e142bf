"""An untrained miniature pair on disk, small enough for tests: the layout, tokenizer and parts of the shipped one."""

from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel

from hybridstitch.mini import parts


def transformer(*, layers: int, heads: int, seed: int) -> SD3Transformer2DModel:
    """A random transformer that fits the miniature's text encoders and VAE, 16 wide a head."""
    torch.manual_seed(seed)
    changes = {"num_layers": layers, "num_attention_heads": heads, "attention_head_dim": 16}
    config = {**parts.transformer("small").config, **changes, "caption_projection_dim": 16 * heads}
    model = SD3Transformer2DModel(**{key: value for key, value in config.items() if not key.startswith("_")})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm_q" not in name and "norm_k" not in name and parameter.ndim > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
    return model


def save(folder: Path) -> Path:
    """Write the pair: a stock pipeline with the large transformer, the small one in `small/`."""
    words = parts.tokenizer()
    torch.manual_seed(0)
    large = transformer(layers=3, heads=4, seed=1)
    pipe = parts.pipeline(large, parts.autoencoder(), parts.text_encoder(words), parts.text_encoder(words), words)
    pipe.save_pretrained(folder)
    transformer(layers=2, heads=2, seed=2).save_pretrained(folder / "small")
    return folder
