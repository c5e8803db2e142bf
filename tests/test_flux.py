"""FLUX.1 through the seam: the unmodified pipeline and any subset of tokens bit for bit, a mask for each image."""

import copy

import pytest
import torch
from diffusers import FluxImg2ImgPipeline, FluxKontextPipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from flux_models import embeddings, generate, pipeline, small, stitched, transformer
from hybridstitch import HybridStitch, Replay, StitchWarning, open_pair, stitch, unstitch
from hybridstitch.errors import PairError, StitchError
from hybridstitch.families.flux import FluxFamily
from hybridstitch.families.rows import Rows
from hybridstitch.policies.plan import Plan, Region, Stroke
from seen import same
from small_models import kept
from tokenwise import token_by_token_in

ROWS, SIDES, TOLERANCES = 4, (8, 6), {torch.float32: 1e-5, torch.bfloat16: 2e-2}
TOKENS = SIDES[0] * SIDES[1]


def inputs(dtype):
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(SIDES[0]), torch.arange(SIDES[1]), indexing="ij")
    words = embeddings(ROWS, dtype)
    return {
        "hidden_states": torch.randn(ROWS, TOKENS, 16, generator=generator).to(dtype),
        "encoder_hidden_states": words["prompt_embeds"],
        "pooled_projections": words["pooled_prompt_embeds"],
        "timestep": torch.tensor([0.9, 0.7, 0.3, 0.02]).to(dtype),
        "img_ids": torch.stack([torch.zeros(TOKENS), rows.flatten(), columns.flatten()], 1).to(dtype),
        "txt_ids": torch.zeros(words["prompt_embeds"].shape[1], 3).to(dtype),
        "guidance": torch.full((ROWS,), 4.0).to(dtype),
    }


@pytest.fixture
def token_by_token(monkeypatch):
    """Products that sum each token by itself: a library's sum in another order for another number of tokens."""

    token_by_token_in(monkeypatch, "hybridstitch.families.lent.attention")


def again(family, given_, memory, tokens, rows, text):
    """Some rows drawn whole, then some tokens again: both at those tokens, and the memory after and before."""
    part = {name: v if name in family.facts.shared else rows.take(v) for name, v in given_.items()}
    mine = [(keys.clone(), values.clone()) for keys, values in memory]
    dense, _ = family.dense(part, memory=mine, rows=rows)
    before = [tensor.clone() for pair in mine for tensor in pair]
    drawn = family.masked(part, tokens[rows.numbers], mine, rows, text=text)
    where = tokens[rows.numbers].unsqueeze(-1).expand(-1, -1, 16)
    return drawn.gather(1, where), dense.gather(1, where), [tensor for pair in mine for tensor in pair], before


def subsets(data):
    """Tokens of each row, and some rows."""
    k = data.draw(st.integers(1, TOKENS - 1))
    row = st.permutations(range(TOKENS)).map(lambda order: sorted(order[:k]))
    tokens = torch.tensor(data.draw(st.lists(row, min_size=ROWS, max_size=ROWS)))
    images = data.draw(st.lists(st.integers(0, 1), min_size=1, unique=True).map(sorted))
    return tokens, Rows(images=tuple(images), total=2, branches=2)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("text", ["fresh", "cached"])
@torch.no_grad()
def test_any_tokens_drawn_again_are_the_dense_model_there_bit_for_bit(text, dtype, token_by_token):
    family, given_ = FluxFamily(transformer(heads=2, layers=1, seed=1).to(dtype)), inputs(dtype)
    family.attach()
    _, memory = kept(family, given_)

    @settings(max_examples=10, deadline=None)
    @given(st.data())
    def check(data):
        now, then, after, before = again(family, given_, memory, *subsets(data), text)
        assert torch.equal(now, then)
        assert all(map(torch.equal, after, before))

    check()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("text", ["fresh", "cached"])
@torch.no_grad()
def test_any_tokens_drawn_again_by_the_librarys_kernels_are_the_dense_model_there(text, dtype):
    family, given_ = FluxFamily(transformer(heads=6, seed=1).to(dtype)), inputs(dtype)
    family.attach()
    _, memory = kept(family, given_)

    @settings(max_examples=10, deadline=None)
    @given(st.data())
    def check(data):
        now, then, after, before = again(family, given_, memory, *subsets(data), text)
        same(now, then, TOLERANCES[dtype])
        for one, other in zip(after, before, strict=True):
            same(one, other, TOLERANCES[dtype])

    check()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("images", [1, 3])
def test_large_only_is_the_plain_pipeline_and_unstitching_restores_it(images, dtype):
    pipe = pipeline().to(dtype)
    plain = generate(pipe, images=images)
    processors = dict(pipe.transformer.attn_processors)
    stitch(pipe, small().to(dtype), "large")
    assert torch.equal(generate(pipe, images=images), plain)
    pipe.transformer.policy = "L2 H2@0.3 S2"
    assert not torch.equal(generate(pipe, images=images), plain)
    unstitch(pipe)
    assert pipe.transformer.attn_processors == processors
    assert torch.equal(generate(pipe, images=images), plain)


def test_a_mask_of_all_tokens_in_a_pipeline_is_the_large_model():
    plain = generate(stitched("large"), steps=3)
    large, every = Plan((Stroke("L"),)), Region(1.0, tokens=tuple(range(TOKENS)))
    pipe = stitched(Replay(((large, large, Plan((Stroke("S"), Stroke("L", every)))),)))
    assert torch.equal(generate(pipe, steps=3), plain)
    assert not any(step.fallback for step in pipe.transformer.trace.records)


@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
@pytest.mark.parametrize("text", ["fresh", "cached"])
def test_a_batch_is_its_images_one_by_one(text):
    policy = HybridStitch(masks=(0.3,), thresholds=(9.0, 1e-9), text=text)
    pipe = stitched(policy)
    together = generate(pipe, images=3)
    trace = pipe.transformer.trace
    assert trace.grid == SIDES
    assert any(step.mask for step in trace.records)
    noise = torch.randn(3, 4, 16, 12, generator=torch.Generator().manual_seed(7))
    packed = pipe._pack_latents(noise, 3, 4, 16, 12)
    for image in range(3):
        one = {name: value[image, None] for name, value in embeddings(3, torch.float32).items()}
        pipe.transformer.policy = Replay((trace.plans(masks=True)[image],))
        alone = generate(pipe, latents=packed[image, None], **one)
        assert (alone[0] - together[image]).abs().max() <= 1e-4 * alone.abs().max()


@pytest.mark.parametrize(
    "policy", ["t-stitch", "L2 S2 L2", "skip:large-steps=3", "reuse:bound=0.5,of=sr-diffusion:threshold=0.2"]
)
@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
def test_whole_steps(policy):
    pipe = stitched(policy)
    assert generate(pipe).isfinite().all()
    assert len(pipe.transformer.trace.records) == 6


def test_a_saved_pair_opens_and_a_copy_draws_alone(tmp_path):
    pipe = stitched("L2 H2@0.3 S2")
    drawn = generate(pipe)
    assert torch.equal(generate(copy.deepcopy(pipe)), drawn)
    pipe.save_pretrained(tmp_path)
    absent = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    opened = open_pair(tmp_path, **absent)
    opened.set_progress_bar_config(disable=True)
    same(generate(opened), drawn, 1e-5)  # weights lie elsewhere in memory, where products may sum in another order


def test_image_to_image_measures_and_masks():
    pipe = stitched("L2 H1@0.3 S*")
    other = FluxImg2ImgPipeline(**pipe.components)
    other.set_progress_bar_config(disable=True)
    other.transformer.follow(other)
    image = torch.rand(1, 3, 32, 24, generator=torch.Generator().manual_seed(1))
    assert generate(other, image=image, strength=0.9, steps=8).isfinite().all()
    assert [str(step.drawn) for step in other.transformer.trace.of(0)][:3] == ["L", "L", "S + L@0.3"]


def test_kontext_draws_the_picture_to_edit_along():
    pipe = pipeline(FluxKontextPipeline)
    call = {"image": torch.rand(1, 3, 32, 24), "max_area": 32 * 24, "_auto_resize": False}
    plain = generate(pipe, **call)
    large, every = Plan((Stroke("L"),)), Region(1.0, tokens=tuple(range(TOKENS)))
    stitch(pipe, small(), Replay(((large, large, *(Plan((Stroke("S"), Stroke("L", every))),) * 4),)))
    assert torch.equal(generate(pipe, **call), plain)
    assert pipe.transformer.trace.grid == SIDES
    assert [step.large_tokens for step in pipe.transformer.trace.records] == [TOKENS] * 6


def test_what_cannot_be_meant_is_refused():
    pipe = pipeline()
    other = transformer(heads=3, layers=1, seed=2)
    other.register_to_config(joint_attention_dim=99)
    with pytest.raises(PairError, match=r"text width \(joint_attention_dim\) is 24 in the large one and 99"):
        stitch(pipe, other)
    stitch(pipe, small())
    with pytest.raises(StitchError, match="ControlNet residuals were passed"):
        pipe.transformer(controlnet_block_samples=[torch.zeros(1)], hidden_states=torch.zeros(1, 4, 16))
    unstitch(pipe)
    pipe.transformer.fuse_qkv_projections()
    with pytest.raises(StitchError, match="has fused projections"):
        stitch(pipe, small())


def test_a_mask_that_is_not_worth_it_warns():
    with pytest.warns(StitchWarning, match=r"a mask of 0\.9 is not worth it on this pair"):
        stitch(pipeline(), transformer(heads=4, layers=2, seed=2), "L2 H2@0.9 S2")
