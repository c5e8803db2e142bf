"""Parts of a picture, family by family: any tokens bit for bit, a mask for each image, and everything around it.

A new family is a row of `ROWS`, on top of its pipeline's in `pipelines.PIPELINES`.
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig

from hybridstitch import Engine, HybridStitch, Replay, open_pair, stitch, unstitch
from hybridstitch.drawing.call import Call
from hybridstitch.errors import EngineError, PairError, StitchError
from hybridstitch.families.known import family_of
from hybridstitch.policies.plan import Plan, Region, Stroke
from pipelines import PIPELINES, picture, pil, qwen_vae
from seen import same
from small_models import kept
from tokenwise import token_by_token_in

CALL, TOLERANCES = 4, {torch.float32: 1e-5, torch.bfloat16: 3e-2}  # CALL: rows of a call of the model alone


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is tried of a family.

    Attributes:
        piped: the name of its pipeline in `PIPELINES`.
        changed: makes another call of four rows from the pipeline's own.
        config: changes of the transformer's configuration that go with it.
        branches: rows of an image in a call with guidance.
        text: whether text is among the tokens.
        same: an entry of the configuration that a pair must share, and what it is called.
        refused: an argument that is refused, and what is said of it.
        fuses: whether projections can be fused.
    """

    piped: str
    changed: Callable[[dict[str, Any]], dict[str, Any]] = dict
    config: tuple[tuple[str, Any], ...] = ()
    branches: int = 1
    text: bool = True
    same: tuple[str, str] = ("joint_attention_dim", "text width")
    refused: tuple[str, str] | None = None
    fuses: bool = False


def short(call):
    """FLUX.2's, with six tokens of a reference picture."""
    return {**call, "hidden_states": call["hidden_states"][:, :18], "img_ids": call["img_ids"][:, :18]}


def padded(call):
    """Qwen-Image's, with texts of different lengths."""
    words = call["encoder_hidden_states"]
    return {**call, "encoder_hidden_states_mask": torch.arange(words.shape[1]) < torch.tensor([[7], [3], [5], [1]])}


def edited(call):
    """Qwen-Image-Edit's, with another picture behind."""
    latent = torch.cat([call["hidden_states"], call["hidden_states"][:, :6]], dim=1)
    return {**padded(call), "hidden_states": latent, "img_shapes": [[(1, 4, 3), (1, 2, 3)]] * CALL}


CONTROL = ("controlnet_block_samples", "ControlNet residuals were passed")
ROWS = {
    "flux2": Row(piped="flux2", fuses=True),
    "flux2-klein": Row(piped="flux2-klein", changed=short, fuses=True, refused=("kv_cache", "klein-KV")),
    "qwen-image": Row(piped="qwen-image", changed=padded, refused=CONTROL),
    "qwen-image-edit": Row(piped="qwen-image", changed=edited, config=(("zero_cond_t", True),), refused=CONTROL),
    "dit": Row(piped="dit", branches=2, text=False, same=("num_embeds_ada_norm", "classes")),
}
PIPED = {name: row for name, row in ROWS.items() if not row.config}
TEXTS = [(name, text) for name, row in ROWS.items() for text in (("fresh", "cached") if row.text else ("fresh",))]


def piped_of(name):
    """Its row of `PIPELINES`, if diffusers has it here."""
    return PIPELINES[ROWS[name].piped].here()


@pytest.fixture(params=PIPED)
def name(request):
    """A family whose pipeline can be built here."""
    piped_of(request.param)
    return request.param


def stitched(name, policy="large"):
    """Its pipeline, stitched."""
    return piped_of(name).stitched(policy)


def asked(name, images=1):
    """Its pipeline's call, each image from a seed of its own."""
    seeds = [torch.Generator().manual_seed(7 + image) for image in range(images)]
    call = {"num_inference_steps": 6, "output_type": "latent", "return_dict": False, "generator": seeds}
    return {**call, **piped_of(name).inputs(images)}


def drawn(pipe, call):
    """Latents, or pictures where the pipeline knows no latents."""
    dtype = pipe.transformer.dtype
    given_ = {k: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in call.items()}
    return torch.as_tensor(pipe(**given_)[0])


# --- one call of the model ---


def prepared(name, dtype):
    """An attached family and a call of four rows, each at a time of its own."""
    row, piped = ROWS[name], piped_of(name)
    piped = replace(piped, config={**piped.config, **dict(row.config)})
    pipe, calls = piped.build(), []
    hook = pipe.transformer.register_forward_pre_hook(lambda *given: calls.append(given), with_kwargs=True)
    drawn(pipe, {**asked(name, CALL // row.branches), "num_inference_steps": 1})
    hook.remove()
    (_, args, call), *_ = calls
    call = inspect.signature(inspect.unwrap(type(pipe.transformer).forward)).bind(None, *args, **call).arguments
    del call["self"]
    call["timestep"] = (call["timestep"] * torch.tensor([1, 0.7, 0.3, 0.02])).to(call["timestep"].dtype)
    call = {k: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in row.changed(call).items()}
    family = family_of(pipe.transformer.to(dtype))
    family.attach()
    return family, {k: v for k, v in call.items() if k != "return_dict"}


def check(family, call, text, compare):
    """Draw any tokens again and compare with the whole, memory included."""
    _, memory = kept(family, call)
    whole = Call(call, call, 2, 2, family.facts.shared)
    count = family.layout.count(call["hidden_states"])

    @settings(max_examples=10, deadline=None)
    @given(st.data())
    def replay(data):
        k = data.draw(st.integers(1, count - 1))
        row = st.permutations(range(count)).map(lambda order: sorted(order[:k]))
        tokens = torch.tensor(data.draw(st.lists(row, min_size=CALL, max_size=CALL)))
        rows = whole.rows(data.draw(st.lists(st.integers(0, 1), min_size=1, unique=True).map(sorted)))
        mine = [(keys.clone(), values.clone()) for keys, values in memory]
        dense, _ = family.dense(whole.take(rows), memory=mine, rows=rows)
        before = [tensor.clone() for pair in mine for tensor in pair]
        again = family.masked(whole.take(rows), tokens[rows.numbers], mine, rows, text=text)
        inside = family.layout.inside(tokens[rows.numbers], dense)
        compare(torch.where(inside, again, 0), torch.where(inside, dense, 0))
        for one, other in zip((tensor for pair in mine for tensor in pair), before, strict=True):
            compare(one, other)

    replay()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("name", "text"), TEXTS)
@torch.no_grad()
def test_any_tokens_drawn_again_are_the_dense_model_there_bit_for_bit(name, text, dtype, monkeypatch):
    token_by_token_in(monkeypatch, "hybridstitch.families.lent.attention")

    def equal(one, other):
        assert torch.equal(one, other)

    check(*prepared(name, dtype), text, equal)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(("name", "text"), TEXTS)
@torch.no_grad()
def test_any_tokens_drawn_again_by_the_librarys_kernels_are_the_dense_model_there(name, text, dtype):
    check(*prepared(name, dtype), text, lambda one, other: same(one, other, TOLERANCES[dtype]))


@pytest.mark.parametrize("name", ROWS)
@torch.no_grad()
def test_an_attached_model_is_the_model_bit_for_bit(name):
    family, call = prepared(name, torch.bfloat16)
    now = family.dense(call)[0]
    family.detach()
    assert torch.equal(now, family.transformer(**call, return_dict=False)[0])


# --- pipelines ---


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("images", [1, 3])
def test_large_only_is_the_plain_pipeline_and_unstitching_restores_it(name, images, dtype):
    pipe, call = piped_of(name).build().to(dtype), lambda: asked(name, images)
    plain = drawn(pipe, call())
    processors = {name: part.processor for name, part in pipe.transformer.named_modules() if hasattr(part, "processor")}
    stitch(pipe, piped_of(name).transformer(1).to(dtype), "large")
    assert torch.equal(drawn(pipe, call()), plain)
    pipe.transformer.policy = "L2 H2@0.3 S2"
    assert not torch.equal(drawn(pipe, call()), plain)
    unstitch(pipe)
    assert all(part.processor is processors[n] for n, part in pipe.transformer.named_modules() if n in processors)
    assert torch.equal(drawn(pipe, call()), plain)


def test_a_mask_of_all_tokens_in_a_pipeline_is_the_large_model(name):
    pipe = stitched(name)
    plain = drawn(pipe, asked(name, 2))
    large, every = Plan((Stroke("L"),)), Region(1.0, tokens=tuple(range(pipe.transformer.trace.tokens)))
    pipe.transformer.policy = Replay(((large, large, *(Plan((Stroke("S"), Stroke("L", every))),) * 4),) * 2)
    assert torch.equal(drawn(pipe, asked(name, 2)), plain)
    assert not any(step.fallback for step in pipe.transformer.trace.records)


@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
@pytest.mark.parametrize(("name", "text"), [(name, text) for name, text in TEXTS if name in PIPED])
def test_a_batch_is_its_images_one_by_one(name, text):
    pipe = stitched(name, HybridStitch(masks=(0.3,), thresholds=(9.0, 1e-9), text=text))
    together = drawn(pipe, asked(name, 3))
    trace = pipe.transformer.trace
    assert trace.grid == piped_of(name).grid
    assert len({step.mask for step in trace.records if step.index == 4}) > 1
    for image in range(3):
        one = {
            key: value[image, None] if torch.is_tensor(value) else value[image : image + 1]
            for key, value in asked(name, 3).items()
            if isinstance(value, torch.Tensor | list) and len(value) == 3
        }
        pipe.transformer.policy = Replay((trace.plans(masks=True)[image],))
        same(drawn(pipe, {**asked(name, 3), **one}), together[image, None], 1e-4)


def test_a_saved_pair_opens_and_a_copy_draws_alone(name, tmp_path):
    pipe = stitched(name, "L2 H2@0.3 S2")
    first = drawn(pipe, asked(name))
    assert torch.equal(drawn(copy.deepcopy(pipe), asked(name)), first)
    pipe.save_pretrained(tmp_path)
    opened = open_pair(tmp_path, **{part: None for part, found in pipe.components.items() if found is None})
    opened.set_progress_bar_config(disable=True)
    same(drawn(opened, asked(name)), first, 1e-5)


def test_a_lora_reaches_every_mask(name):
    plain, pipe = piped_of(name).build(), stitched(name)
    if not hasattr(plain.transformer, "add_adapter"):
        pytest.skip(f"diffusers loads no LoRA into {piped_of(name).kind}")
    before = drawn(pipe, asked(name))
    for one in (plain, pipe):
        torch.manual_seed(4)
        config = LoraConfig(
            r=2, lora_alpha=4, target_modules=["to_q", "to_v", "to_qkv_mlp_proj"], init_lora_weights=False
        )
        one.transformer.add_adapter(config)
    changed = drawn(plain, asked(name))
    assert not torch.equal(changed, before)
    assert torch.equal(drawn(pipe, asked(name)), changed)
    large, every = Plan((Stroke("L"),)), Region(1.0, tokens=tuple(range(pipe.transformer.trace.tokens)))
    pipe.transformer.policy = Replay(((large, large, *(Plan((Stroke("S"), Stroke("L", every))),) * 4),))
    assert torch.equal(drawn(pipe, asked(name)), changed)
    pipe.transformer.delete_adapters("default")
    assert torch.equal(drawn(pipe, asked(name)), before)


def test_blocks_that_diffusers_does_not_name_are_compiled():
    pipe, call = stitched("dit", "L2 H1@0.3 S*"), lambda: {**asked("dit"), "num_inference_steps": 3}
    plain = drawn(pipe, call())
    pipe.transformer.engine = Engine(compile="regional", backend="eager")
    same(drawn(pipe, call()), plain, 1e-5)


def test_blocks_that_nobody_names_are_not_compiled_one_by_one():
    piped = PIPELINES["kandinsky5"]
    if piped.lacking:
        pytest.skip(piped.lacking)
    pipe = piped.build()
    stitch(pipe, piped.transformer(1), "L2 S*", Engine(compile="regional", backend="eager"))
    with pytest.raises(EngineError, match="the repeated blocks of Kandinsky5Transformer3DModel are not known"):
        piped.draw(pipe)


def test_dit_under_dpm_solver_forgets_as_if_each_image_were_drawn_alone():
    """Its scheduler steps both branches, of which the second is thrown away."""
    row = PIPELINES["dit"]
    piped = replace(row, scheduler=lambda: diffusers.DPMSolverMultistepScheduler(algorithm_type="dpmsolver++"))
    plain = piped.draw(piped.build(), 2, steps=6)
    pipe = piped.stitched("large")
    assert torch.equal(piped.draw(pipe, 2, steps=6), plain)
    large, tiny = (Plan((Stroke(model),)) for model in "LS")
    every = Plan((Stroke("S"), Stroke("L", Region(1.0, tokens=tuple(range(16))))))
    pipe.transformer.policy = Replay(((large, large, *(every,) * 4),) * 2)
    assert torch.equal(piped.draw(pipe, 2, steps=6), plain)
    plans = ((large,) * 2 + (tiny,) * 4, (large,) * 4 + (tiny,) * 2)
    together, alone = [], []
    for history in ("forget", "keep"):
        pipe.transformer.engine = Engine(history=history)
        pipe.transformer.policy = Replay(plans)
        together.append(drawn(pipe, {**asked("dit", 2), "num_inference_steps": 6}))
        for image in range(2):
            call = {**asked("dit", 2), "num_inference_steps": 6}
            one = {name: call[name][image : image + 1] for name in ("class_labels", "generator")}
            pipe.transformer.policy = Replay((plans[image],))
            alone.append(drawn(pipe, {**call, **one}))
    for place, one in enumerate(alone):
        same(one[0], together[place // 2][place % 2], 1e-4)
    assert not torch.equal(*together)


INTO = {
    "qwen-image": ("QwenImageImg2ImgPipeline", {"strength": 0.9, "image": picture(1, 64, 48)}),
    "flux2-klein": (
        "Flux2KleinInpaintPipeline",
        {"strength": 0.9, "image": pil(picture(1, 32, 24)), "mask_image": pil(torch.ones(1, 3, 32, 24))},
    ),
}


@pytest.mark.parametrize("name", INTO)
def test_pictures_to_begin_with_are_masked(name):
    kind, more = INTO[name]
    if not hasattr(diffusers, kind):
        pytest.skip(f"no {kind} here")
    pipe = stitched(name, "L2 H2@0.3 S*")
    parts = {**pipe.components, "vae": pipe.vae or qwen_vae()}
    other = getattr(diffusers, kind)(**parts)
    other.set_progress_bar_config(disable=True)
    other.transformer.follow(other)
    assert drawn(other, {**asked(name), **more}).isfinite().all()
    assert [str(step.drawn) for step in other.transformer.trace.of(0)][:4] == ["L", "L", *["S + L@0.3"] * 2]


def test_what_cannot_be_meant_is_refused(name):
    row, pipe = ROWS[name], piped_of(name).build()
    key, called = row.same
    other = piped_of(name).transformer(1)
    other.register_to_config(**{key: 99})
    with pytest.raises(PairError, match=rf"{called} \({key}\) is \d+ in the large one and 99"):
        stitch(pipe, other)
    if row.branches == 2:
        with pytest.raises(StitchError, match="branches=cond is not supported for"):
            stitch(pipe, piped_of(name).transformer(1), HybridStitch(branches="cond"))
    stitch(pipe, piped_of(name).transformer(1))
    if row.refused:
        argument, said = row.refused
        with pytest.raises(StitchError, match=said):
            pipe.transformer(**{argument: [torch.zeros(1)], "hidden_states": torch.zeros(1, 4, 16)})
    unstitch(pipe)
    if row.fuses:
        pipe.transformer.fuse_qkv_projections()
        with pytest.raises(StitchError, match="has fused projections"):
            stitch(pipe, piped_of(name).transformer(1))
