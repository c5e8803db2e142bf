"""SPEC §8.2, one step: a mask of all tokens is the dense large model, any tokens drawn again at the same (x, t) too."""

import pytest
import torch
from hypothesis import given as search
from hypothesis import settings
from hypothesis import strategies as st

from hybridstitch import HybridStitch, Plan, Region, Replay, Stroke
from hybridstitch.families.rows import Rows
from hybridstitch.families.sd3 import SD3Family
from seen import SIZES, calm, noise, pair, same, watch
from small_models import KINDS, POOLED, TEXT, TEXT_WIDTH, generate, kept, transformer

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
ROWS = 4
FRESH, CACHED = "fresh", "cached"


def attached(kind, dtype=torch.float32):
    """A large model that can draw parts of a picture."""
    family = SD3Family(calm(transformer(kind, heads=6, seed=1), dtype))
    family.attach()
    return family


def inputs(size, dtype=torch.float32, seed=0):
    """Random rows for one step."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": noise(ROWS, size, dtype=dtype),
        "encoder_hidden_states": torch.randn(ROWS, TEXT, TEXT_WIDTH, generator=generator).to(dtype),
        "pooled_projections": torch.randn(ROWS, POOLED, generator=generator).to(dtype),
        "timestep": torch.tensor([900.0, 700.0, 300.0, 20.0]).to(dtype),
    }


def inside(tokens, prediction):
    """What (R, C, H, W) holds at tokens (R, K): (R, C, p·p, K)."""
    patches = torch.nn.functional.unfold(prediction.float(), 2, stride=2).unflatten(1, (-1, 4))  # (R, C, p·p, N)
    return patches.gather(-1, tokens[:, None, None].expand(-1, *patches.shape[1:3], -1))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("text", [FRESH, CACHED])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_all_tokens_drawn_as_a_mask_are_the_dense_model(kind, size, text, dtype):
    family, given = attached(kind, dtype), inputs(size, dtype)
    dense, cache = kept(family, given)
    assert len(cache) == len(family.transformer.attn_processors)
    everything = torch.arange(size[0] * size[1] // 16).expand(ROWS, -1)
    same(family.masked(given, everything, cache, None, text=text), dense, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("text", [FRESH, CACHED])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_any_tokens_drawn_again_are_the_dense_model_there(kind, size, text, dtype):
    """Each row has tokens of its own; rows are drawn together or a few at a time; the cache comes out as it was."""
    family, given = attached(kind, dtype), inputs(size, dtype)
    dense, cache = kept(family, given)
    count = size[0] * size[1] // 16
    largest = dense.float().abs().max()

    @settings(max_examples=8)
    @search(st.data())
    def check(data):
        k = data.draw(st.integers(1, count))
        row = st.permutations(range(count)).map(lambda order: sorted(order[:k]))
        tokens = torch.tensor(data.draw(st.lists(row, min_size=ROWS, max_size=ROWS)))
        branches = data.draw(st.sampled_from([1, 2, 4]))
        images = data.draw(st.lists(st.integers(0, ROWS // branches - 1), min_size=1, unique=True).map(sorted))
        first = data.draw(st.sampled_from([0, branches - 1]))
        rows = Rows(images=tuple(images), total=ROWS // branches, branches=branches, first=first)
        some = rows.numbers
        part = {name: rows.take(value) for name, value in given.items()}
        assert all(torch.equal(value, given[name][some]) for name, value in part.items())
        memory = [(key.clone(), value.clone()) for key, value in cache]
        again = family.masked(part, tokens[some], memory, rows, text=text)
        apart = (inside(tokens[some], again) - inside(tokens[some], dense[some])).abs().max()
        assert apart <= TOLERANCES[dtype] * largest
        for now, then in zip(memory, cache, strict=True):
            same(torch.stack(now), torch.stack(then), TOLERANCES[dtype])

    check()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("guidance", [4.0, 1.0], ids=["guided", "unguided"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_of_all_tokens_in_a_pipeline_is_the_large_model(kind, size, guidance, images, dtype):
    tokens = tuple(range(size[0] * size[1] // 16))
    large = Plan((Stroke("L"),))
    plans = (large, large, Plan((Stroke("S"), Stroke("L", Region(1.0, tokens=tokens)))))
    call = {"size": size, "guidance_scale": guidance, "images": images, "steps": 3}
    pipe = pair("large", kind, dtype)
    dense, _ = watch(pipe, **call)
    pipe.transformer.policy = Replay((plans,) * images)
    masked, _ = watch(pipe, **call)
    assert not any(step.fallback for step in pipe.transformer.trace.records)
    assert {step.large_tokens for step in pipe.transformer.trace.records} == {len(tokens)}
    same(masked[-1].out, dense[-1].out, TOLERANCES[dtype])


@torch.no_grad()
def test_cached_text_ignores_the_text_and_its_keys_and_values_stay():
    family, given = attached("sd3.5-medium"), inputs((32, 32))
    _, cache = kept(family, given)
    text = [layer[0][:, 64:].clone() for layer in cache]
    tokens = torch.arange(5, 20).expand(ROWS, -1)
    later = {**given, "hidden_states": given["hidden_states"].flip(-1), "timestep": given["timestep"] - 10}
    first = family.masked(later, tokens, cache, None, text=CACHED)
    again = family.masked(
        {**later, "encoder_hidden_states": later["encoder_hidden_states"] * 0}, tokens, cache, None, text=CACHED
    )
    assert torch.equal(first, again)
    assert all(torch.equal(layer[0][:, 64:], then) for layer, then in zip(cache, text, strict=True))
    fresh = family.masked(later, tokens, cache, None, text=FRESH)
    assert not torch.allclose(fresh, first, rtol=1e-3)
    joint = [layer[0][:, 64:] for layer in cache]
    assert any(t.numel() and not torch.equal(t, then) for t, then in zip(joint, text, strict=True))


@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
def test_only_policies_that_can_mask_keep_keys_and_values(monkeypatch):
    kept = []
    dense = SD3Family.dense

    def spy(self, given, **how):
        out = dense(self, given, **how)
        kept.append(out[1])
        return out

    monkeypatch.setattr(SD3Family, "dense", spy)
    for policy in ("large", "t-stitch", "sr-diffusion:threshold=0.6", "L4 S*", "L2 -1 L*"):
        generate(pair(policy), steps=6)
        assert kept
        assert not any(kept)
        kept.clear()
    for policy in (HybridStitch(thresholds=(0.65, 0.5)), "L4 H2@0.3", "L3 R1@0.3 L2"):
        generate(pair(policy), steps=6)
        assert kept
        assert all(kept)
        kept.clear()
