"""What each pipeline supports: the rows and columns of docs/support.md, a tick for each test that passes.

Only what applies to a pipeline is a test here; where the page has no tick, there is none. A pipeline that cannot be
built here is skipped by the name of what is missing.

python -m pytest tests/test_support.py --support docs/support.md     writes the page's table anew
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig

from hybridstitch import Engine, HybridStitch, Replay, Schedule
from hybridstitch.families.known import facts_of
from hybridstitch.policies.plan import Plan, Region, Stroke
from pipelines import PIPELINES, WIDTH, Piped, clip_vae, heads, picture, pil, qwen_vae, text, wan_vae, words
from seen import aligned, same
from small_models import vae as image_vae

POOLED, SIZE = 12, {"height": 32, "width": 24}
OTHERS = {
    "sd3": Piped(
        pipeline="StableDiffusion3Pipeline",
        kind="SD3Transformer2DModel",
        config={
            "sample_size": 8,
            "pos_embed_max_size": 16,
            "in_channels": 16,  # what its inpainting asks for
            "out_channels": 16,
            "num_layers": 2,
            "attention_head_dim": 8,
            "joint_attention_dim": WIDTH,
            "pooled_projection_dim": POOLED,
        },
        sizes=tuple({"num_attention_heads": n, "caption_projection_dim": 8 * n} for n in (4, 2)),
        parts=lambda: {"vae": image_vae(latent_channels=16)},
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
OTHERS["flux-kontext"] = replace(
    OTHERS["flux"],
    pipeline="FluxKontextPipeline",
    inputs=lambda n: {
        **OTHERS["flux"].inputs(n),
        "image": picture(1, 32, 24),
        "_auto_resize": False,
        "max_area": 32 * 24,
    },
)
ROWS = {**OTHERS, **PIPELINES}


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Another pipeline of a row's parts, that begins with a picture or a video.

    Attributes:
        pipeline: its class's name.
        asked: further arguments of its call.
        parts: makes components that the row lacks.
    """

    pipeline: str
    asked: Mapping[str, Any]
    parts: Callable[[], dict[str, Any]] = dict


def into(pipeline, size=(32, 24), *, hole=False, parts=dict, **asked):
    """From a picture of (height, width), or into a hole of one."""
    mask = {"mask_image": torch.ones(1, 1, *size)} if hole else {}
    pixels = {"height": size[0], "width": size[1]}
    return Beginning(
        pipeline=pipeline, asked={"image": picture(1, *size), "strength": 0.9, **pixels, **mask, **asked}, parts=parts
    )


FILM = {"video": [pil(picture(1, 32, 48))] * 9, "strength": 0.9}
FROM_A_PICTURE = {
    "sd3": into("StableDiffusion3Img2ImgPipeline"),
    "flux": into("FluxImg2ImgPipeline"),
    "flux2": into("Flux2Pipeline", (64, 64), image=pil(picture(1, 64, 64))),
    "qwen-image": into("QwenImageImg2ImgPipeline", (64, 48), parts=lambda: {"vae": qwen_vae()}),
    "chroma": into("ChromaImg2ImgPipeline", parts=lambda: {"vae": image_vae()}),
    "wan": Beginning(pipeline="WanVideoToVideoPipeline", asked=FILM, parts=wan_vae),
    "cogvideox": Beginning(pipeline="CogVideoXVideoToVideoPipeline", asked=FILM, parts=clip_vae),
}
INTO_A_HOLE = {
    "sd3": into("StableDiffusion3InpaintPipeline", hole=True),
    "flux": into("FluxInpaintPipeline", hole=True),
    "flux-kontext": into("FluxKontextInpaintPipeline", hole=True),
    "flux2-klein": into(
        "Flux2KleinInpaintPipeline", image=pil(picture(1, 32, 24)), mask_image=pil(torch.ones(1, 3, 32, 24))
    ),
    "qwen-image": into("QwenImageInpaintPipeline", (64, 48), hole=True, parts=lambda: {"vae": qwen_vae()}),
}
COMPILED = {"flux": "whole", "wan": "whole", **dict.fromkeys(("sd3", "ltx", "qwen-image"), "regional")}
BOTH, MASKED = "L2 S*", "L2 H1@0.3 S*"


@pytest.fixture
def piped(request):
    """A row that can be built here."""
    return ROWS[request.param].here()


def on(where):
    """A test of the rows that something applies to."""
    return pytest.mark.parametrize("piped", [name for name, row in ROWS.items() if where(name, row)], indirect=True)


def any_row(name, row):
    """It applies to all."""
    return True


def draws_parts(name, row):
    """Its large model draws parts of a picture."""
    return facts_of(row.kind).masks and not row.experts


def one_large(name, row):
    """It does not draw with two experts, the second of which would move away from the small model."""
    return not row.experts


def takes_lora(name, row):
    """Its class takes adapters, or is not here to ask."""
    kind = getattr(diffusers, row.kind, None)
    return kind is None or hasattr(kind, "add_adapter")


def from_a_picture(name, row):
    """It begins with a picture by itself, or another pipeline of its parts does."""
    return name in FROM_A_PICTURE or "image" in row.inputs(1)


def most_of(row):
    """A program of both models, with a mask where there can be one."""
    return MASKED if draws_parts("", row) else BOTH


def drawn_by(row):
    """What its steps are drawn by."""
    return {"L", "S", "S + L@0.3"} if draws_parts("", row) else {"L", "S"}


@on(any_row)
@pytest.mark.support("whole steps")
def test_whole_steps(piped):
    plain = piped.draw(piped.build(), steps=3)
    pipe = piped.stitched()
    assert torch.equal(piped.draw(pipe, steps=3), plain)
    pipe.transformer.policy = BOTH
    assert piped.draw(pipe, steps=3).isfinite().all()
    assert [str(step.drawn) for step in pipe.transformer.trace.of(0)] == ["L", "L", "S"]


def masked_everywhere(pipe):
    """Two steps of the large model, and one with a mask of all tokens, of a pipeline that drew before."""
    large, tokens = Plan((Stroke("L"),)), pipe.transformer.trace.tokens
    return Replay(((large, large, Plan((Stroke("S"), Stroke("L", Region(1.0, tokens=tuple(range(tokens))))))),))


@on(draws_parts)
@pytest.mark.support("masks")
def test_masks(piped):
    pipe = piped.stitched("large")
    plain = piped.draw(pipe, steps=3)
    pipe.transformer.policy = masked_everywhere(pipe)
    assert torch.equal(piped.draw(pipe, steps=3), plain)
    assert not any(step.fallback for step in pipe.transformer.trace.records)


@on(draws_parts)
@pytest.mark.support("cached text")
def test_cached_text(piped):
    pipe = piped.stitched(Schedule(MASKED, text="cached"))
    assert piped.draw(pipe, steps=3).isfinite().all()
    steps = pipe.transformer.trace.of(0)
    assert steps[2].mask
    assert not any(step.fallback for step in steps)


@on(any_row)
@pytest.mark.support("adaptive")
@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
def test_adaptive(piped):
    masks = draws_parts("", piped)
    pipe = piped.stitched(HybridStitch(masks=(0.3,), thresholds=(9.0, 1e-9)) if masks else "sr-diffusion:threshold=9")
    piped.draw(pipe, steps=4)
    steps = pipe.transformer.trace.of(0)
    assert steps[-1].plan.stage > 0
    assert all(step.distance for step in steps[1:3])


@on(lambda name, row: row.batches)
@pytest.mark.support("batches")
def test_batches(piped):
    pipe = piped.stitched(BOTH)
    drawn = piped.draw(pipe, 2, steps=3)
    assert (pipe.transformer.trace.images, len(drawn)) == (2, 2)
    assert torch.equal(piped.draw(pipe, 2, steps=3), drawn)


@on(takes_lora)
@pytest.mark.support("LoRA")
@pytest.mark.filterwarnings("ignore:this LoRA reaches the large model only")
def test_lora(piped):
    pipe = piped.build()
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
    if draws_parts("", piped):
        other.transformer.policy = masked_everywhere(other)
        assert torch.equal(piped.draw(other, steps=3), plain)
        other.transformer.policy = "large"
    other.transformer.disable_adapters()
    assert torch.equal(piped.draw(other, steps=3), before)


@on(one_large)
@pytest.mark.support("offload")
def test_offload(piped):
    pipe = piped.stitched(BOTH)
    expected = piped.draw(pipe, steps=3)
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(piped.draw(pipe, steps=3), expected)
    pipe.remove_all_hooks()


@on(lambda name, row: name in COMPILED)
@pytest.mark.support("compile")
def test_compile(piped, request):
    pipe = piped.stitched(BOTH)
    expected = piped.draw(pipe, steps=3)
    torch._dynamo.reset()
    pipe.transformer.engine = Engine(compile=COMPILED[request.node.callspec.params["piped"]], backend="eager")
    same(piped.draw(pipe, steps=3), expected, 1e-5)
    torch._dynamo.reset()


@on(any_row)
@pytest.mark.support("save and open")
def test_save_and_open(piped, tmp_path):
    pipe = piped.stitched(most_of(piped))
    expected = piped.draw(pipe, steps=4)
    pipe.transformer.save_pretrained(tmp_path)
    again = piped.build()
    again.transformer = type(pipe.transformer).from_pretrained(tmp_path)
    again.transformer.follow(again)
    aligned(again.transformer)
    same(piped.draw(again, steps=4), expected, 1e-5)
    if draws_parts("", piped):
        assert [str(step.drawn) for step in again.transformer.trace.of(0)] == ["L", "L", "S + L@0.3", "S"]


def begun(piped, beginning):
    """A stitched pipeline that begins with a picture, and how it is called."""
    pipe = piped.stitched(most_of(piped))
    if beginning is None:
        return piped, pipe
    kind = getattr(diffusers, beginning.pipeline, None) or pytest.skip(f"no {beginning.pipeline} here")

    def taken(function, **given):
        return {name: value for name, value in given.items() if name in inspect.signature(function).parameters}

    other = kind(**taken(kind, **{**pipe.components, **beginning.parts()}))
    other.set_progress_bar_config(disable=True)
    other.transformer.follow(other)
    return replace(piped, inputs=lambda n: taken(kind.__call__, **{**piped.inputs(n), **beginning.asked})), other


@on(from_a_picture)
@pytest.mark.support("image to image")
def test_image_to_image(piped, request):
    called, pipe = begun(piped, FROM_A_PICTURE.get(request.node.callspec.params["piped"]))
    assert called.draw(pipe, steps=5).isfinite().all()
    assert {str(step.drawn) for step in pipe.transformer.trace.of(0)} == drawn_by(piped)


@on(lambda name, row: name in INTO_A_HOLE)
@pytest.mark.support("inpaint")
def test_inpaint(piped, request):
    called, pipe = begun(piped, INTO_A_HOLE[request.node.callspec.params["piped"]])
    assert called.draw(pipe, steps=5).isfinite().all()
    assert {str(step.drawn) for step in pipe.transformer.trace.of(0)} == drawn_by(piped)


def lacking(test, row):
    """Whether something that a test needs is not here."""
    others = {"test_image_to_image": FROM_A_PICTURE, "test_inpaint": INTO_A_HOLE}.get(test.partition("[")[0], {})
    return ROWS[row].lacking or (row in others and not hasattr(diffusers, others[row].pipeline))


def test_the_page_ticks_what_is_tested_here(support_table, pytestconfig):
    """Cell by cell; where a pipeline cannot be built here, its tick may be there or not."""
    if not support_table or pytestconfig.getoption("--support"):
        pytest.skip("asked for by itself, beside no test of the table, or the page is being written")
    page = (Path(__file__).parent.parent / "docs" / "support.md").read_text(encoding="utf-8")
    (_, *columns), *lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    found = {
        (row.strip("`"), feature): cell for row, *cells in lines for feature, cell in zip(columns, cells, strict=True)
    }
    tests = {(row, feature): test.split("::") for feature, row, test in support_table}
    assert set(columns) == {feature for _, feature in tests}
    assert [row.strip("`") for row, *_ in lines] == sorted({row for row, _ in tests})
    for place, cell in found.items():
        file, test = tests.get(place, ("", ""))
        tick = f'[✓](../{file} "{test}")' if test else "—"
        assert cell == tick or (cell == "—" and lacking(test, place[0])), place
