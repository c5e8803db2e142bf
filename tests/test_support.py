"""What each pipeline supports: the rows and columns of docs/support.md, a tick for each test that passes.

python -m pytest tests/test_support.py --support docs/support.md     writes the page's table anew
"""

from pathlib import Path

import diffusers
import pytest
import torch
from peft import LoraConfig

from hybridstitch import Engine, HybridStitch, Replay, Schedule
from hybridstitch.families.known import facts_of
from hybridstitch.policies.plan import Plan, Region, Stroke
from pipelines import PIPELINES, WIDTH, Piped, heads, picture, text, words
from seen import same
from small_models import vae as image_vae

POOLED, SIZE = 12, {"height": 32, "width": 24}
OTHERS = {
    "sd3": Piped(
        pipeline="StableDiffusion3Pipeline",
        kind="SD3Transformer2DModel",
        config={
            "sample_size": 8,
            "pos_embed_max_size": 16,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "joint_attention_dim": WIDTH,
            "pooled_projection_dim": POOLED,
        },
        sizes=tuple({"num_attention_heads": n, "caption_projection_dim": 8 * n} for n in (4, 2)),
        parts=lambda: {"vae": image_vae()},
        absent="text_encoder tokenizer text_encoder_2 tokenizer_2 text_encoder_3 tokenizer_3",
        inputs=lambda n: {
            **text(n),
            "pooled_prompt_embeds": words(n, POOLED),
            "negative_pooled_prompt_embeds": words(n, POOLED, seed=4),
            **SIZE,
        },
        grid=(8, 6),
    ),
    "flux": Piped(
        pipeline="FluxPipeline",
        kind="FluxTransformer2DModel",
        config={
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 16,
            "joint_attention_dim": WIDTH,
            "pooled_projection_dim": POOLED,
            "guidance_embeds": True,
            "axes_dims_rope": (4, 6, 6),
        },
        sizes=heads(),
        parts=lambda: {"vae": image_vae()},
        absent="text_encoder tokenizer text_encoder_2 tokenizer_2",
        inputs=lambda n: {
            **text(n, negative=False),
            "pooled_prompt_embeds": words(n, POOLED),
            **SIZE,
        },
        grid=(8, 6),
    ),
}
ROWS = {**OTHERS, **PIPELINES}
FROM_A_PICTURE = {  # a pipeline of the same parts that begins with one, and one that fills a hole
    "sd3": ("StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
    "flux": ("FluxImg2ImgPipeline", "FluxInpaintPipeline"),
}
COMPILED = ("sd3", "flux", "wan", "ltx", "qwen-image")
BOTH, MASKED = "L2 S*", "L2 H1@0.3 S*"


@pytest.fixture(params=ROWS)
def piped(request):
    """A row that can be built here."""
    return ROWS[request.param].here()


def parts_of(piped, policy):
    """A stitched pipeline of a family that draws parts."""
    if not facts_of(piped.kind).masks:
        pytest.skip(f"{piped.kind} draws whole steps")
    if "transformer_2" in piped.parts():
        pytest.skip("two experts draw whole steps")
    return piped.stitched(policy)


@pytest.mark.support("whole steps")
def test_whole_steps(piped):
    plain = piped.draw(piped.build(), steps=3)
    pipe = piped.stitched()
    assert torch.equal(piped.draw(pipe, steps=3), plain)
    pipe.transformer.policy = BOTH
    assert piped.draw(pipe, steps=3).isfinite().all()
    assert [str(step.drawn) for step in pipe.transformer.trace.of(0)] == ["L", "L", "S"]


@pytest.mark.support("masks")
def test_masks(piped):
    pipe = parts_of(piped, "large")
    plain = piped.draw(pipe, steps=3)
    large, tokens = Plan((Stroke("L"),)), pipe.transformer.trace.tokens
    every = Plan((Stroke("S"), Stroke("L", Region(1.0, tokens=tuple(range(tokens))))))
    pipe.transformer.policy = Replay(((large, large, every),))
    assert torch.equal(piped.draw(pipe, steps=3), plain)
    assert not any(step.fallback for step in pipe.transformer.trace.records)


@pytest.mark.support("cached text")
def test_cached_text(piped):
    pipe = parts_of(piped, Schedule(MASKED, text="cached"))
    assert piped.draw(pipe, steps=3).isfinite().all()
    steps = pipe.transformer.trace.of(0)
    assert steps[2].mask
    assert not any(step.fallback for step in steps)


@pytest.mark.support("adaptive")
@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
def test_adaptive(piped):
    masks = facts_of(piped.kind).masks and "transformer_2" not in piped.parts()
    pipe = piped.stitched(HybridStitch(masks=(0.3,), thresholds=(9.0, 1e-9)) if masks else "sr-diffusion:threshold=9")
    piped.draw(pipe, steps=4)
    steps = pipe.transformer.trace.of(0)
    assert steps[-1].plan.stage > 0
    assert all(step.distance for step in steps[1:3])


@pytest.mark.support("batches")
def test_batches(piped):
    if not piped.batches:
        pytest.skip(f"{piped.pipeline} draws one at a time")
    pipe = piped.stitched(BOTH)
    drawn = piped.draw(pipe, 2, steps=3)
    assert (pipe.transformer.trace.images, len(drawn)) == (2, 2)
    assert torch.equal(piped.draw(pipe, 2, steps=3), drawn)


@pytest.mark.support("LoRA")
@pytest.mark.filterwarnings("ignore:this LoRA reaches the large model only")
def test_lora(piped):
    pipe = piped.build()
    if not hasattr(pipe.transformer, "add_adapter"):
        pytest.skip(f"{piped.kind} takes no LoRA")
    before = piped.draw(pipe, steps=3)
    attention = LoraConfig(r=2, target_modules=r".*\.(to_q|to_query)$", init_lora_weights=False)
    torch.manual_seed(6)
    pipe.transformer.add_adapter(attention)
    plain = piped.draw(pipe, steps=3)
    assert not torch.equal(plain, before)
    other = piped.stitched()
    torch.manual_seed(6)
    other.transformer.add_adapter(attention)
    assert torch.equal(piped.draw(other, steps=3), plain)
    other.transformer.disable_adapters()
    assert torch.equal(piped.draw(other, steps=3), before)


@pytest.mark.support("offload")
def test_offload(piped):
    if "transformer_2" in piped.parts():
        pytest.skip("refused: the second expert would move away from the small model")
    pipe = piped.stitched(BOTH)
    expected = piped.draw(pipe, steps=3)
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(piped.draw(pipe, steps=3), expected)
    pipe.remove_all_hooks()


@pytest.mark.support("compile")
def test_compile(piped, request):
    if request.node.callspec.params["piped"] not in COMPILED:
        pytest.skip("not tried: tracing a model takes up to half a minute")
    pipe = piped.stitched(BOTH)
    expected = piped.draw(pipe, steps=3)
    torch._dynamo.reset()
    pipe.transformer.engine = Engine(compile="whole", backend="eager")
    same(piped.draw(pipe, steps=3), expected, 1e-5)
    torch._dynamo.reset()


@pytest.mark.support("save and open")
def test_save_and_open(piped, tmp_path):
    pipe = piped.stitched(BOTH)
    expected = piped.draw(pipe, steps=3)
    pipe.transformer.save_pretrained(tmp_path)
    again = piped.build()
    again.transformer = type(pipe.transformer).from_pretrained(tmp_path)
    again.transformer.follow(again)
    same(piped.draw(again, steps=3), expected, 1e-5)


def begun(piped, request, which):
    """A stitched pipeline that begins with a picture, of the parts of a row's."""
    name = request.node.callspec.params["piped"]
    if "image" in piped.inputs(1) and which == 0:
        return piped.stitched(BOTH), {}
    if name not in FROM_A_PICTURE:
        pytest.skip(f"not tried with {piped.pipeline}")
    pipe = piped.stitched(BOTH)
    other = getattr(diffusers, FROM_A_PICTURE[name][which])(**pipe.components)
    other.set_progress_bar_config(disable=True)
    other.transformer.follow(other)
    return other, {"image": picture(1, 32, 24), "strength": 0.9}


@pytest.mark.support("image to image")
def test_image_to_image(piped, request):
    pipe, more = begun(piped, request, 0)
    begins = Piped(**{**vars(piped), "inputs": lambda n: {**piped.inputs(n), **more}})
    assert begins.draw(pipe, steps=4).isfinite().all()
    assert {str(step.drawn) for step in pipe.transformer.trace.of(0)} == {"L", "S"}


@pytest.mark.support("inpaint")
def test_inpaint(piped, request):
    pipe, more = begun(piped, request, 1)
    hole = {"mask_image": torch.ones(1, 1, 32, 24)}
    if piped.kind == "SD3Transformer2DModel":
        pytest.skip("shown with 16 channels in tests/test_exact.py")
    begins = Piped(**{**vars(piped), "inputs": lambda n: {**piped.inputs(n), **more, **hole}})
    assert begins.draw(pipe, steps=4).isfinite().all()


def test_the_page_ticks_what_is_tested_here(support_table):
    """A tick of a test that is gone is a mistake; what a test shows and the page lacks, too."""
    if not support_table:
        pytest.skip("asked for by itself, beside no test of the table")
    page = (Path(__file__).parent.parent / "docs" / "support.md").read_text(encoding="utf-8")
    ticked = {cell.partition('")')[0] for cell in page.split('tests/test_support.py "')[1:]}
    assert ticked <= {nodeid.partition("::")[2] for _, _, nodeid in support_table}
    assert all(f"| `{row}` |" in page for row in dict.fromkeys(row for _, row, _ in support_table))
