"""What a step costs, dense or masked, is within 2 % of what torch counts: large and small, published widths."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.live import Live
from hybridstitch.families.known import facts_of, family_of, shape_of


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is counted.

    Attributes:
        kind: the transformer's class.
        vae: its configuration, as far as it decides the size of a token.
        size: height and width in pixels.
        text: T.
        large, small: configurations of the transformers.
        given: what a call has beside latent, time and text, by the grid and T.
    """

    kind: str
    vae: Mapping[str, Any]
    size: tuple[int, int]
    text: int
    large: Mapping[str, Any]
    small: Mapping[str, Any]
    given: Callable[[tuple[int, int], int], dict[str, Any]] = lambda grid, text: {}


def ids(axes):
    """Positions of packed tokens, and guidance."""
    return lambda grid, text: {
        "img_ids": torch.empty(grid[0] * grid[1], axes),
        "txt_ids": torch.empty(text, axes),
        "guidance": torch.empty(1),
    }


EIGHT = {"block_out_channels": [128, 256, 512, 512]}  # pixels along an entry of the latent
PUBLISHED = {
    "sd3.5": Published(
        kind="SD3Transformer2DModel", vae=EIGHT, size=(1024, 1024), text=333,
        large={"num_layers": 12, "num_attention_heads": 38, "caption_projection_dim": 2432, "sample_size": 128},
        small={"num_layers": 12, "num_attention_heads": 24, "caption_projection_dim": 1536, "sample_size": 128,
               "dual_attention_layers": (0, 1, 2), "pos_embed_max_size": 384},
        given=lambda grid, text: {"pooled_projections": torch.empty(1, 2048)},
    ),
    "flux": Published(
        kind="FluxTransformer2DModel", vae=EIGHT, size=(1024, 1024), text=512,
        large={"guidance_embeds": True, "num_layers": 3, "num_single_layers": 6},
        small={"guidance_embeds": True, "num_layers": 2, "num_single_layers": 4},
        given=lambda grid, text: {**ids(3)(grid, text), "pooled_projections": torch.empty(1, 768)},
    ),
    "flux2": Published(
        kind="Flux2Transformer2DModel", vae=EIGHT, size=(1024, 1024), text=512, given=ids(4),
        large={"num_layers": 2, "num_single_layers": 10},
        small={"num_layers": 2, "num_single_layers": 8, "num_attention_heads": 24, "joint_attention_dim": 7680},
    ),
    "qwen-image": Published(
        kind="QwenImageTransformer2DModel", vae={"temperal_downsample": [False, True, True]}, size=(1328, 1328),
        text=60, large={"num_layers": 8}, small={"num_layers": 5},
        given=lambda grid, text: {"img_shapes": [[(1, *grid)]]},
    ),
    "dit": Published(
        kind="DiTTransformer2DModel", vae=EIGHT, size=(512, 512), text=0,
        large={"sample_size": 64, "out_channels": 8, "num_layers": 8},
        small={"sample_size": 64, "out_channels": 8, "num_attention_heads": 12, "attention_head_dim": 64,
               "num_layers": 6},
        given=lambda grid, text: {"class_labels": torch.zeros(1, dtype=torch.long)},
    ),
}  # fmt: skip
STEPS = {"dense": (None, "fresh"), "masked": (0.3, "fresh"), "cached": (0.3, "cached")}
KINDS = [(which, step) for which in ("large", "small") for step in STEPS]
CASES = [(name, *kind) for name, row in PUBLISHED.items() for kind in KINDS if row.text or kind[1] != "cached"]


def prepared(row, which, dtype=torch.float32):
    """An attached family of published widths, a call of its own size, and N."""
    model = getattr(diffusers, row.kind)(**getattr(row, which)).eval().to(dtype)
    facts, config = facts_of(row.kind), model.config
    n = facts.tokens(config, row.vae, row.size)
    grid = (row.size[0] // 16, row.size[1] // 16)
    assert n == grid[0] * grid[1]
    packed = len(facts.layout(config).axes) == 1
    latent = (1, n, config.in_channels) if packed else (1, config.in_channels, 2 * grid[0], 2 * grid[1])
    call = {"hidden_states": torch.empty(latent, dtype=dtype), "timestep": torch.empty(1, dtype=dtype)}
    for name, value in row.given(grid, row.text).items():
        rounds = name in ("pooled_projections", "guidance")
        call[name] = value.to(dtype) if rounds else value
    if row.text:
        call["encoder_hidden_states"] = torch.empty(1, row.text, config.joint_attention_dim, dtype=dtype)
    family = family_of(model)
    family.attach()
    return family, call, n


@pytest.mark.parametrize(("name", "which", "step"), CASES)
@torch.no_grad()
def test_operations_are_those_counted(name, which, step):
    row, (ratio, text) = PUBLISHED[name], STEPS[step]
    if not hasattr(diffusers, row.kind):
        pytest.skip(f"no {row.kind} here")
    with torch.device("meta"):
        family, call, n = prepared(row, which)
        drawn = None if ratio is None else round(ratio * n)
        with FlopCounterMode(display=False) as counter:
            if drawn is None:
                family.dense(call)
            else:
                family.masked(call, torch.arange(drawn)[None], family.room(call), None, text=text)
    predicted = shape_of(family.module(), n, row.text).flops(drawn, text=text)
    assert predicted == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_activations_are_what_a_dense_step_holds(name, dtype, flash):
    row = PUBLISHED[name]
    if not hasattr(diffusers, row.kind):
        pytest.skip(f"no {row.kind} here")
    with torch.device("meta"):
        family, call, n = prepared(row, "large", dtype)
        memory = family.room(call)
        with Live() as live:
            family.dense(call, memory=memory)
    shape, one = shape_of(family.module(), n, row.text), {"branches": 1, "element_bytes": dtype.itemsize}
    assert shape.activation_bytes(**one) == pytest.approx(live.peak, rel=0.05)
    assert shape.kv_bytes(**one) == sum(tensor.nbytes for pair in memory for tensor in pair)
