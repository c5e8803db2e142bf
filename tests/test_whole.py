"""Whole steps in unmodified pipelines of every family: who drew which step, and nothing else changed."""

import copy

import pytest
import torch
from diffusers import ZImagePipeline, ZImageTransformer2DModel

from hybridstitch import Engine, open_pair, stitch, unstitch
from hybridstitch.errors import PairError, StitchError
from hybridstitch.families.known import facts_of
from pipelines import PIPELINES, euler
from seen import aligned, same

STEPS = 4
WHOLE_ONLY = [name for name, row in PIPELINES.items() if not facts_of(row.kind).masks]


@pytest.fixture(params=PIPELINES)
def piped(request):
    """A row of `PIPELINES` that can be built here."""
    return PIPELINES[request.param].here()


def found(pipe):
    """What stitching touches in a pipeline."""
    parts = (pipe.scheduler, getattr(pipe, "transformer_2", None))
    return dict(pipe.config), [None if part is None else sorted(vars(part)) for part in parts]


def letters(pipe):
    """Which model was called, call by call, in a list that fills."""
    called = []
    for name, module in (("L", pipe.transformer.large), ("S", pipe.transformer.small)):
        module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
    return called


def test_large_only_is_the_plain_pipeline_and_unstitching_restores_it(piped):
    pipe, images = piped.build(), 2 if piped.batches else 1
    plain = piped.draw(pipe, images)
    before = found(pipe)
    stitch(pipe, piped.transformer(1), "large")
    assert torch.equal(piped.draw(pipe, images), plain)
    pipe.transformer.policy = "small"
    assert not torch.equal(piped.draw(pipe, images), plain)
    unstitch(pipe)
    assert found(pipe) == before
    assert torch.equal(piped.draw(pipe, images), plain)


@pytest.mark.parametrize("piped", [name for name in PIPELINES if name != "wan-vace"], indirect=True)
def test_small_only_is_the_plain_pipeline_of_the_small_one(piped):
    """But for Wan VACE's, which asks its own transformer how many control layers there are."""
    seats = [name for name in ("transformer", "transformer_2") if name in piped.build().components]
    plain = piped.draw(piped.build(**{seat: piped.transformer(1) for seat in seats}))
    assert torch.equal(piped.draw(piped.stitched("small")), plain)


@pytest.mark.parametrize(
    "policy",
    ["t-stitch:ratio=0.5", "sr-diffusion:threshold=9", "L2 S*", "skip:large-steps=3", "L - S S",
     "reuse:bound=0.5,of=sr-diffusion:threshold=0.2"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
def test_whole_steps(piped, policy):
    images = 2 if piped.batches else 1
    pipe = piped.stitched(policy)
    called = letters(pipe)
    assert piped.draw(pipe, images).isfinite().all()
    trace = pipe.transformer.trace
    assert (trace.steps, trace.images, trace.grid) == (STEPS, images, piped.grid)
    assert [(step.index, step.image) for step in trace.records] == [(s, i) for s in range(STEPS) for i in range(images)]
    drawn = [{str(step.drawn) for step in trace.records if step.index == index} for index in range(STEPS)]
    assert all(step.large_tokens == (trace.tokens if str(step.drawn) == "L" else 0) for step in trace.records)
    if all(len(kinds) == 1 for kinds in drawn) and getattr(pipe, "transformer_2", None) is None:
        assert [*dict.fromkeys(called)] == [*dict.fromkeys(kind[0] for [kind] in drawn if kind[0] in "LS")]
    if policy == "L2 S*":
        assert drawn == [{"L"}, {"L"}, {"S"}, {"S"}]
    if trace.grid and "sr-diffusion:threshold=9" in policy:
        assert all(step.distance for step in trace.records if step.index)


@pytest.mark.parametrize("piped", WHOLE_ONLY, indirect=True)
def test_masks_are_refused_with_the_reason(piped):
    pipe = piped.build()
    before = pipe.transformer
    with pytest.raises(
        StitchError, match=rf"with {piped.kind} each step is drawn by one model; use a program of L, S and -"
    ):
        stitch(pipe, piped.transformer(1), "L2 H1@0.3 S*")
    assert pipe.transformer is before
    stitch(pipe, piped.transformer(1), "L2 S*")
    with pytest.raises(StitchError, match="each step is drawn by one model"):
        pipe.transformer.policy = "hybrid-stitch"
    assert str(pipe.transformer.policy) == "schedule:program=L2 S*"


def test_a_saved_pair_opens_and_a_copy_draws_alone(piped, tmp_path):
    pipe = piped.stitched("L2 S*")
    drawn = piped.draw(pipe)
    assert torch.equal(piped.draw(copy.deepcopy(pipe)), drawn)
    pipe.save_pretrained(tmp_path)
    absent = {name: part for name, part in pipe.components.items() if part is None}
    if "safety_checker" in pipe.components:
        absent["safety_checker"] = pipe.safety_checker
    opened = open_pair(tmp_path, **absent)
    opened.set_progress_bar_config(disable=True)
    assert str(opened.transformer.policy) == "schedule:program=L2 S*"
    for part in ("vae",):  # what a test set on it is not saved
        if getattr(pipe, part, None) is not None:
            setattr(opened, part, getattr(pipe, part))
    aligned(opened.transformer)
    same(piped.draw(opened), drawn, 1e-5)


def test_a_class_that_cannot_be_caught_is_refused_by_name():
    model = ZImageTransformer2DModel(
        in_channels=4, dim=24, n_layers=1, n_refiner_layers=1, n_heads=1, n_kv_heads=1, cap_feat_dim=8,
        axes_dims=[8, 8, 8], axes_lens=[8, 8, 8],
    )  # fmt: skip
    pipe = ZImagePipeline(scheduler=euler(), vae=None, text_encoder=None, tokenizer=None, transformer=model)
    with pytest.raises(
        StitchError, match="ZImageTransformer2DModel cannot be stitched: it takes its pictures as a list"
    ):
        stitch(pipe, model, "L2 S*")


def test_two_experts_and_one_small_model_are_one_run():
    piped = PIPELINES["wan-2.2"]
    pipe = piped.build()
    high, low, tiny = pipe.transformer, pipe.transformer_2, piped.transformer(1)
    plain = {
        "S2 L*": piped.draw(piped.build(transformer=tiny, transformer_2=low), 2),
        "L2 S*": piped.draw(piped.build(transformer=high, transformer_2=tiny), 2),
    }
    stitch(pipe, tiny, "large", Engine(history="keep"))
    for program, expected in plain.items():
        pipe.transformer.policy = program
        assert torch.equal(piped.draw(pipe, 2), expected)
    assert piped.draw(copy.deepcopy(pipe), 2).equal(expected)
    assert type(pipe.transformer_2) is type(high)
    unstitch(pipe)
    assert "forward" not in vars(pipe.transformer_2)


def test_two_experts_draw_no_masks():
    piped = PIPELINES["wan-2.2"]
    says = "this pipeline has two large models, which cannot share keys and values"
    with pytest.raises(StitchError, match=says):
        stitch(piped.build(), piped.transformer(1), "L2 H2@0.3 S*")
    pipe = piped.build()
    stitch(pipe, piped.transformer(1), "large")
    with pytest.raises(StitchError, match=says):
        pipe.transformer.policy = "L2 H2@0.3 S*"
    assert str(pipe.transformer.policy) == "large"


def test_two_experts_of_two_kinds_are_refused():
    piped = PIPELINES["wan-2.2"]
    pipe = piped.build(transformer_2=PIPELINES["wan-vace"].transformer(0))
    with pytest.raises(PairError, match="the large one WanVACETransformer3DModel; give two models of the same class"):
        stitch(pipe, piped.transformer(1), "large")
    assert type(pipe.transformer).__name__ == piped.kind
    other = piped.stitched()
    other.transformer_2 = pipe.transformer_2
    with pytest.raises(StitchError, match="its transformer_2 WanVACETransformer3DModel; both experts must be"):
        other.transformer.follow(other)
