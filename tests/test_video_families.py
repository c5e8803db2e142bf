"""Parts of LTX and Cosmos videos: any tokens bit for bit, a mask for each video, times of tokens and frames."""

import copy
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hybridstitch import Replay, open_pair, stitch, unstitch
from hybridstitch.families.known import family_of, shape_of
from hybridstitch.measure.lockstep import draw_together
from hybridstitch.measure.start import prepare
from hybridstitch.policies.parse import parse
from hybridstitch.policies.plan import Plan, Region, Stroke
from pipelines import LTX, PIPELINES, Piped, words
from replayed import ROWS, check, equal
from seen import same
from tokenwise import token_by_token_in

GRID = (3, 4, 5)
COUNT = 60
MASKED = "L2 H1@0.3 S*"
ATTENTIONS = {
    "ltx": "diffusers.models.transformers.transformer_ltx.dispatch_attention_fn",
    "cosmos": "diffusers.models.transformers.transformer_cosmos.dispatch_attention_fn",
}
COSMOS = pytest.mark.skipif(find_spec("torchvision") is None, reason="no torchvision here")
KINDS = [
    "ltx",
    "ltx, times of tokens",
    "ltx, coordinates",
    *(pytest.param(kind, marks=COSMOS) for kind in ("cosmos", "cosmos, times of frames", "cosmos, learnt places")),
]
DRAWN = ["wan", "wan-i2v", "ltx", "ltx-i2v", "ltx-condition", pytest.param("cosmos", marks=COSMOS)]


def prepared(kind, dtype):
    """An attached family and a call of four rows."""
    name = kind.partition(",")[0]
    piped = PIPELINES[name]
    learnt = {"extra_pos_embed_type": "learnable"} if "learnt" in kind else {}
    config = {**piped.config, "num_layers": 1, **learnt}
    made = Piped(pipeline="", kind=piped.kind, config=config, sizes=piped.sizes, grid=())
    family = family_of(made.transformer(1).to(dtype))
    family.attach()
    generator = torch.Generator().manual_seed(0)
    frames, rows, columns = GRID
    times = torch.tensor([900.0, 700.0, 300.0, 20.0])
    call = {"timestep": times, "encoder_hidden_states": words(ROWS, 7, 24).to(dtype)}
    if name == "ltx":
        call["hidden_states"] = torch.randn(ROWS, COUNT, LTX["in_channels"], generator=generator).to(dtype)
        call["encoder_attention_mask"] = torch.ones(ROWS, 7)
        if "times" in kind:
            call["timestep"] = 1000 * torch.rand(ROWS, COUNT, generator=generator)
        if "coordinates" in kind:
            call["video_coords"] = 99 * torch.rand(ROWS, 3, COUNT, generator=generator)
        else:
            call |= {"num_frames": frames, "height": rows, "width": columns, "rope_interpolation_scale": (0.3, 32, 32)}
        return family, call
    call["hidden_states"] = torch.randn(ROWS, 16, frames, 2 * rows, 2 * columns, generator=generator).to(dtype)
    call["padding_mask"] = torch.zeros(1, 1, 2 * rows, 2 * columns, dtype=dtype)
    call["timestep"] = (times / 1000).to(dtype)
    if "times" in kind:
        call["timestep"] = torch.rand(ROWS, 1, frames, 1, 1, generator=generator).to(dtype)
    return family, call


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_any_tokens_drawn_again_are_the_dense_model_there_bit_for_bit(kind, dtype, monkeypatch):
    name = kind.partition(",")[0]
    token_by_token_in(monkeypatch, "hybridstitch.families.lent.attention", ATTENTIONS[name])
    check(*prepared(kind, dtype), equal)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_any_tokens_drawn_again_by_the_librarys_kernels_are_the_dense_model_there(kind):
    check(*prepared(kind, torch.float32), lambda one, other: same(one, other, 1e-5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drawn", [None, 9], ids=["dense", "masked"])
@torch.no_grad()
def test_operations_and_memory_are_those_counted(kind, drawn):
    """Of blocks alone, which is where all but a few are once a model is large."""
    name = kind.partition(",")[0]
    family, call = prepared(kind, torch.float32)
    family.module().to("meta")  # where attention is products that are counted
    call = {name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in call.items()}
    blocks = family.module().transformer_blocks
    memory = family.room(call)
    told = shape_of(family.module(), COUNT, 7)
    assert told.kv_bytes(element_bytes=4) * ROWS // 2 == sum(t.nbytes for pair in memory for t in pair)
    seen = []
    hooks = [blocks[0].register_forward_pre_hook(lambda *_: seen.append(counter.get_total_flops()))]
    hooks.append(blocks[-1].register_forward_hook(lambda *_: seen.append(counter.get_total_flops())))
    with FlopCounterMode(display=False) as counter:
        if drawn is None:
            family.dense(call, memory=memory)
        else:
            family.masked(call, torch.arange(drawn, device="meta").expand(ROWS, -1), memory, None, text="fresh")
    for hook in hooks:
        hook.remove()
    counted = seen[1] - seen[0]
    if name == "cosmos":  # times are projected in every norm, which is little where blocks are wide
        counted -= modulated(family.module(), call, drawn)
    assert ROWS * told.flops(drawn) == pytest.approx(counted, rel=0.02)


def modulated(model, call, drawn):
    """Operations of the norms of a block by time: two projections, for each row or each token."""
    width, narrow = model.config.num_attention_heads * model.config.attention_head_dim, model.config.adaln_lora_dim
    rows = ROWS * (1 if call["timestep"].ndim == 1 else COUNT if drawn is None else drawn)
    return 3 * 2 * rows * (width * narrow + narrow * 3 * width)


def stitched(name, policy):
    """A pipeline of `PIPELINES` and its pair."""
    piped = PIPELINES[name]
    pipe = piped.build()
    stitch(pipe, piped.transformer(1), policy)
    return piped, pipe


def attending(pipe):
    """The processors of a pipeline's transformer."""
    return [module.processor for module in pipe.transformer.modules() if hasattr(module, "processor")]


def told_in(dtype, piped):
    """The same call with embeddings of a dtype."""

    def inputs(images):
        return {k: v.to(dtype) if k.endswith("embeds") else v for k, v in piped.inputs(images).items()}

    return replace(piped, inputs=inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", DRAWN)
def test_large_only_is_the_plain_pipeline_and_unstitching_restores_it(name, dtype):
    piped = told_in(dtype, PIPELINES[name])
    pipe = piped.build().to(dtype)
    plain, processors = piped.draw(pipe, 2), attending(pipe)
    stitch(pipe, piped.transformer(1).to(dtype), "large")
    assert torch.equal(piped.draw(pipe, 2), plain)
    pipe.transformer.policy = MASKED
    assert not torch.equal(piped.draw(pipe, 2), plain)
    unstitch(pipe)
    assert attending(pipe) == processors
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipe.transformer.modules())
    assert torch.equal(piped.draw(pipe, 2), plain)


@pytest.mark.parametrize("name", DRAWN)
def test_a_mask_of_all_tokens_in_a_pipeline_is_the_large_model(name):
    piped, pipe = stitched(name, "large")
    plain = piped.draw(pipe, 2, steps=3)
    trace = pipe.transformer.trace
    large, every = Plan((Stroke("L"),)), Region(1.0, tokens=tuple(range(trace.tokens)))
    pipe.transformer.policy = Replay(((large, large, Plan((Stroke("S"), Stroke("L", every)))),) * 2)
    assert torch.equal(piped.draw(pipe, 2, steps=3), plain)
    assert not any(step.fallback for step in pipe.transformer.trace.records)


@pytest.mark.parametrize("name", DRAWN)
def test_each_video_has_a_mask_of_its_own_and_a_batch_is_its_videos(name):
    piped, pipe = stitched(name, MASKED)
    both = piped.inputs(2)

    def drawn(count):
        """The first videos, each from noise of its own."""
        first = {k: v[:count] if isinstance(v, torch.Tensor) and len(v) == 2 else v for k, v in both.items()}
        noise = [torch.Generator().manual_seed(7 + image) for image in range(count)]
        return replace(piped, inputs=lambda n: {**first, "generator": noise}).draw(pipe)

    together = drawn(2)
    trace = pipe.transformer.trace
    assert trace.grid == piped.grid
    masks = [step.mask for step in trace.records if step.index == 2]
    assert masks[0] != masks[1]
    assert [str(step.drawn) for step in trace.of(0)] == ["L", "L", "S + L@0.3", "S"]
    pipe.transformer.policy = Replay((trace.plans(masks=True)[0],))
    same(drawn(1)[0], together[0], 1e-4)


@pytest.mark.parametrize("name", DRAWN)
def test_a_saved_pair_opens_and_a_copy_draws_alone(name, tmp_path):
    piped, pipe = stitched(name, MASKED)
    drawn = piped.draw(pipe)
    assert torch.equal(piped.draw(copy.deepcopy(pipe)), drawn)
    pipe.save_pretrained(tmp_path)
    absent = {part: None for part, found in pipe.components.items() if found is None}
    if "safety_checker" in pipe.components:
        absent["safety_checker"] = pipe.safety_checker
    opened = open_pair(tmp_path, **absent)
    if getattr(pipe, "vae", None) is not None:
        opened.vae = pipe.vae  # what a test set on it is not saved
    opened.set_progress_bar_config(disable=True)
    same(piped.draw(opened), drawn, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["wan", "ltx", "ltx-condition", DRAWN[-1]])
def test_policies_drawn_together_are_what_the_pipeline_draws(name, dtype):
    """Cosmos' latent goes in scaled, and comes out as what is left of it; LTX with conditions has a time a token."""
    told = told_in(dtype, PIPELINES["ltx" if "ltx" in name else name]).inputs(1)
    piped = replace(PIPELINES[name], inputs=lambda n: {**told, "guidance_scale": 3.0})
    pipe = piped.build().to(dtype)
    stitch(pipe, piped.transformer(1).to(dtype), "large")
    start = prepare(pipe, None, steps=4, guidance=3.0, seed=7, **piped.inputs(1))
    policies = {text: parse(text) for text in ("large", MASKED, "L2 S*")}
    for text, found in draw_together(pipe, start, policies).items():
        pipe.transformer.policy = policies[text]
        expected, latent = piped.draw(pipe), found.latent
        if name == "ltx-condition":  # whose latents are unpacked
            latent = pipe._unpack_latents(latent, *piped.grid, 1, 1)
        assert torch.equal(latent.reshape(expected.shape).to(expected), expected)
        assert found.trace.plans(masks=True) == pipe.transformer.trace.plans(masks=True)


@pytest.mark.parametrize("begins", [False, True], ids=["from noise", "from a picture"])
def test_a_time_for_each_token_under_unipc(begins):
    """As Wan 2.2 TI2V: every token has its time, and those of a given first frame none, which are never masked."""
    row = PIPELINES["wan-i2v" if begins else "wan"]
    picture = {"image": row.inputs(1)["image"]} if begins else {}
    parts = dict.fromkeys(("image_encoder", "image_processor")) if begins else {}
    config, settings = PIPELINES["wan"].config, {"expand_timesteps": True}
    kinds = {"parts": lambda: {**row.parts(), **parts}, "config": config, "settings": settings}
    piped = replace(row, **kinds, inputs=lambda n: {**PIPELINES["wan"].inputs(n), **picture})
    plain = piped.draw(piped.build(), 2, steps=4)
    pipe = piped.stitched("large")
    assert torch.equal(piped.draw(pipe, 2, steps=4), plain)
    tokens = pipe.transformer.trace.tokens
    large, every = Plan((Stroke("L"),)), Plan((Stroke("S"), Stroke("L", Region(1.0, tokens=tuple(range(tokens))))))
    pipe.transformer.policy = Replay(((large, large, every, every),) * 2)
    assert torch.equal(piped.draw(pipe, 2, steps=4), plain)
    pipe.transformer.policy = "L2 H1@0.5 S*"
    assert piped.draw(pipe, 2, steps=4).isfinite().all()
    steps = pipe.transformer.trace.of(0)
    assert all(step.distance for step in steps[1:])
    assert steps[2].mask
    if begins:
        assert min(steps[2].mask) >= tokens // pipe.transformer.trace.grid[0]
