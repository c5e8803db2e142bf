"""Parts of a Wan video: any tokens bit for bit, a mask for each video and branch, one frame or several."""

import pytest
import torch

from hybridstitch import Replay, Schedule, stitch
from hybridstitch.families.wan import WanFamily
from hybridstitch.policies.plan import Plan, Region, Stroke
from pipelines import PIPELINES, WAN, Piped, words
from replayed import ROWS, check, equal
from seen import same
from tokenwise import token_by_token_in

ATTENTIONS = (
    "hybridstitch.families.lent.attention",
    "diffusers.models.transformers.transformer_wan.dispatch_attention_fn",
)
KINDS = {"video": (3, 4, 6), "one frame": (1, 6, 8), "times of tokens": (2, 4, 4), "from a picture": (2, 4, 6)}


def prepared(kind, dtype):
    """An attached family and a call of four rows."""
    frames, rows, columns = KINDS[kind]
    channels = 36 if kind == "from a picture" else 16
    piped = PIPELINES["wan"]
    config = {**WAN, "in_channels": channels, "num_layers": 1}
    model = Piped(pipeline="", kind=piped.kind, config=config, sizes=piped.sizes, grid=()).transformer(1)
    family = WanFamily(model.to(dtype))
    family.attach()
    generator = torch.Generator().manual_seed(0)
    times = torch.tensor([900, 700, 300, 20])
    count = frames * rows * columns // 4
    if kind == "times of tokens":
        times = torch.randint(0, 1000, (ROWS, count), generator=generator)
    return family, {
        "hidden_states": torch.randn(ROWS, channels, frames, rows, columns, generator=generator).to(dtype),
        "timestep": times,
        "encoder_hidden_states": words(ROWS, 7, 24).to(dtype),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_any_tokens_drawn_again_are_the_dense_model_there_bit_for_bit(kind, dtype, monkeypatch):
    token_by_token_in(monkeypatch, *ATTENTIONS)
    check(*prepared(kind, dtype), equal)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_any_tokens_drawn_again_by_the_librarys_kernels_are_the_dense_model_there(kind):
    check(*prepared(kind, torch.float32), lambda one, other: same(one, other, 1e-5))


def stitched(name, policy):
    """A pipeline of `PIPELINES` and its pair."""
    piped = PIPELINES[name]
    pipe = piped.build()
    stitch(pipe, piped.transformer(1), policy)
    return piped, pipe


@pytest.mark.parametrize("name", ["wan", "wan-i2v"])
def test_a_mask_of_all_tokens_in_a_pipeline_is_the_large_model(name):
    piped, pipe = stitched(name, "large")
    plain = piped.draw(pipe, 2, steps=3)
    large, every = Plan((Stroke("L"),)), Region(1.0, tokens=tuple(range(18)))
    pipe.transformer.policy = Replay(((large, large, Plan((Stroke("S"), Stroke("L", every)))),) * 2)
    assert torch.equal(piped.draw(pipe, 2, steps=3), plain)
    assert not any(step.fallback for step in pipe.transformer.trace.records)


@pytest.mark.parametrize("name", ["wan", "wan-i2v"])
def test_each_video_has_a_mask_of_its_own(name):
    piped, pipe = stitched(name, "L2 H1@0.3 S*")
    assert piped.draw(pipe, 2).isfinite().all()
    trace = pipe.transformer.trace
    masks = [step.mask for step in trace.records if step.index == 2]
    assert [len(mask) for mask in masks] == [5, 5]
    assert masks[0] != masks[1]
    assert [str(step.drawn) for step in trace.of(0)] == ["L", "L", "S + L@0.3", "S"]


def test_the_conditional_branch_alone_is_drawn_and_the_other_call_shifted_with_it():
    """v_u = S_u + (v_c - S_c), as where guidance is one call."""
    piped, pipe = stitched("wan", Schedule("L2 H1@0.3 S*", branches="cond"))
    seen, small = [], []
    pipe.transformer.register_forward_hook(lambda module, given, out: seen.append(out[0]))
    pipe.transformer.small.register_forward_hook(lambda module, given, out: small.append(out[0].clone()))
    piped.draw(pipe, 2)
    trace = pipe.transformer.trace
    assert [str(step.drawn) for step in trace.of(0)] == ["L", "L", "S + L@0.3", "S"]
    assert not any(step.fallback for step in trace.records)
    (c, u), (small_c, small_u) = seen[4:6], small[:2]
    assert not torch.equal(c, small_c)
    assert torch.equal(u, small_u + (c - small_c))
    for image in range(2):
        inside = pipe.transformer.family.layout.inside(torch.tensor([trace.of(image)[2].mask]), c)
        assert torch.equal(torch.where(inside, 0, c[image, None]), torch.where(inside, 0, small_c[image, None]))


def test_no_memory_of_the_conditional_branch_is_a_dense_step_of_both_calls():
    piped, pipe = stitched("wan", "large")
    large, masked = Plan((Stroke("L"),)), Plan((Stroke("S"), Stroke("L", Region(0.3, tokens=(1, 5)), branches="cond")))
    pipe.transformer.policy = Replay(((large, Plan((Stroke("S"),)), masked, large),))
    drawn = piped.draw(pipe)
    pipe.transformer.policy = Replay(((large, Plan((Stroke("S"),)), large, large),))
    assert torch.equal(piped.draw(pipe), drawn)
