"""Everything that is refused: what was found, what was expected, the way out, before anything is computed.

After each refusal the pipeline is as it was: same transformer, same processors and hooks, the scheduler's step
untouched, and the same picture from the same seed. Policies, programs and traces are refused in their own tests.
"""

import warnings
from contextlib import contextmanager

import diffusers
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    SD3ControlNetModel,
    StableDiffusion3ControlNetPipeline,
    StableDiffusion3PAGPipeline,
    StableDiffusion3Pipeline,
)
from diffusers.models.attention_processor import FusedJointAttnProcessor2_0, JointAttnProcessor2_0
from torch import nn

import hybridstitch
from hybridstitch import HybridStitch, Schedule, StitchWarning, open_pair, stitch, unstitch
from hybridstitch.errors import (
    HybridStitchError,
    PairError,
    PolicyError,
    RunError,
    SchedulerError,
    StitchError,
    TraceError,
    nearest,
)
from hybridstitch.families.known import family_of
from hybridstitch.pair.stitched import StitchedTransformer
from small_models import POOLED, TEXT_WIDTH, generate, pipeline, prompt, small, transformer, vae

ADAPTIVE = HybridStitch(thresholds=(5.0, 1e-9))  # hybrid from the third step on
STEPS = 5
NO_TEXT = {name: None for n in ("", "_2", "_3") for name in (f"text_encoder{n}", f"tokenizer{n}")}


def state(pipe):
    """What a refusal must leave alone."""
    seat = pipe.transformer
    large = getattr(seat, "large", seat)
    return {
        "transformer": seat,
        "processors": {name: id(processor) for name, processor in large.attn_processors.items()},
        "hooks": {
            name: (list(module._forward_hooks), list(module._forward_pre_hooks))
            for name, module in large.named_modules()
        },
        "scheduler": pipe.scheduler,
        "step": vars(pipe.scheduler).get("step"),
        "config": dict(pipe.config),
        "training": large.training,
        "policy": getattr(seat, "policy", None),
    }


class Calls:
    """Counts the calls of some transformers."""

    def __init__(self, *models):
        self.count = 0
        for model in models:
            model.register_forward_pre_hook(self._called)

    def _called(self, module, inputs):
        self.count += 1


@contextmanager
def refused(kind, *says, pipe=None, picture=True, **call):
    """The block raises `kind`, says all of `says`, computes nothing and leaves the pipeline as it was."""
    calls = Calls(*([] if pipe is None else [getattr(pipe.transformer, "large", pipe.transformer)]))
    before = pipe and state(pipe)
    drawn = generate(pipe, steps=STEPS, **call) if pipe and picture else None
    calls.count = 0
    with pytest.raises(kind) as caught:
        yield
    assert calls.count == 0
    assert isinstance(caught.value, HybridStitchError)
    assert [part for part in says if part not in str(caught.value)] == [], str(caught.value)
    if pipe:
        assert state(pipe) == before
    if drawn is not None:
        assert torch.equal(generate(pipe, steps=STEPS, **call), drawn)


def stitched_pipeline(policy=ADAPTIVE, **options):
    pipe = pipeline(**options)
    stitch(pipe, small(), policy)
    return pipe


# --- a pair that does not match ---

SHARED = "a pair must share latent space, text encoders and what they predict: choose a small model trained with those"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"in_channels": 8, "out_channels": 8},
            "latent channels (in_channels) is 4 in the large one and 8 in the small",
        ),
        ({"out_channels": 8}, "predicted channels (out_channels) is 4 in the large one and 8 in the small one"),
        ({"patch_size": 1}, "patch size (patch_size) is 2 in the large one and 1 in the small one"),
        (
            {"joint_attention_dim": 32},
            f"text width (joint_attention_dim) is {TEXT_WIDTH} in the large one and 32 in the",
        ),
        (
            {"pooled_projection_dim": 8},
            f"pooled text width (pooled_projection_dim) is {POOLED} in the large one and 8 in",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_models_that_do_not_match(changes, says):
    pipe = pipeline()
    with refused(PairError, "the two models do not match", says, SHARED, pipe=pipe):
        stitch(pipe, small(**changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scaling_factor": 2.0}, "VAE scale (scaling_factor) is 1.5 in the large one and 2.0 in the small one"),
        ({"shift_factor": 0.5}, "VAE shift (shift_factor) is 0.06 in the large one and 0.5 in the small one"),
        ({"latent_channels": 8}, "VAE channels (latent_channels) is 4 in the large one and 8 in the small one"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_autoencoders_that_do_not_match(changes, says):
    pipe, other = pipeline(), pipeline()
    other.register_modules(transformer=small(), vae=vae(**changes))
    with refused(PairError, "the two models do not match", says, SHARED, pipe=pipe):
        stitch(pipe, other)


FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


@pytest.mark.parametrize(
    ("mine", "theirs", "says"),
    [
        (
            FlowMatchEulerDiscreteScheduler(),
            DDIMScheduler(prediction_type="v_prediction"),
            "prediction type (prediction_type) is flow_prediction in the large one and v_prediction in the small one",
        ),
        (
            DPMSolverMultistepScheduler(**FLOW),
            DDIMScheduler(),
            "prediction type (prediction_type) is flow_prediction in the large one and epsilon in the small one",
        ),
        (
            FlowMatchEulerDiscreteScheduler(),
            FlowMatchEulerDiscreteScheduler(num_train_timesteps=500),
            "training timesteps (num_train_timesteps) is 1000 in the large one and 500 in the small one",
        ),
    ],
)
def test_predictions_that_do_not_match(mine, theirs, says):
    pipe, other = pipeline(scheduler=mine), pipeline(scheduler=theirs)
    other.register_modules(transformer=small())
    with refused(PairError, "the two models do not match", says, pipe=pipe):
        stitch(pipe, other, "L2 S*")


def test_another_class_of_scheduler_with_the_same_prediction_matches():
    pipe, other = pipeline(scheduler=DPMSolverMultistepScheduler(**FLOW)), pipeline()
    other.register_modules(transformer=small(), vae=None)
    stitch(pipe, other, "L2 S*")
    generate(pipe, steps=STEPS)


def test_a_folder_that_does_not_match(tmp_path):
    pipe = pipeline()
    small().save_pretrained(tmp_path / "transformer")
    DDIMScheduler().save_pretrained(tmp_path / "scheduler")
    with refused(
        PairError, "prediction type (prediction_type) is flow_prediction in the large one and epsilon", pipe=pipe
    ):
        stitch(pipe, tmp_path)


def test_a_folder_without_a_transformer(tmp_path):
    pipe = pipeline()
    says = (f"no transformer was found in {tmp_path}", "give a folder or hub id of a diffusers pipeline, or of an SD3")
    with refused(PairError, *says, pipe=pipe):
        stitch(pipe, tmp_path)


def test_the_large_model_as_its_own_small_one():
    pipe = pipeline()
    with refused(PairError, "the small model is the large model itself; give another module", pipe=pipe):
        stitch(pipe, pipe.transformer)


def test_a_small_model_of_another_kind():
    pipe = pipeline()
    with refused(
        PairError,
        "the small model is Linear, the large one SD3Transformer2DModel; give two models of the same class",
        pipe=pipe,
    ):
        stitch(pipe, nn.Linear(1, 1))


def test_a_small_model_that_is_large_elsewhere():
    pipe, other = pipeline(), stitched_pipeline()
    says = "the small model is the large one of another stitched pipeline; load it once more for this one"
    with refused(PairError, says, pipe=pipe):
        stitch(pipe, other.transformer.large)
    generate(other, steps=STEPS)


def test_a_small_model_in_another_dtype():
    pipe = pipeline()
    says = "the large model is in torch.float32, the small one in torch.bfloat16; convert it: small.to(torch.float32)"
    with refused(PairError, says, pipe=pipe):
        stitch(pipe, small().to(torch.bfloat16))


def test_a_small_model_on_another_device():
    pipe = pipeline()
    says = "the large model is on cpu, the small one on meta; move it: small.to('cpu')"
    with refused(PairError, says, pipe=pipe):
        stitch(pipe, small().to("meta"))


def test_open_pair_without_a_small_model(tmp_path):
    pipeline().save_pretrained(tmp_path)
    with refused(PairError, f"{tmp_path} holds one model; name the small one, as in open_pair('{tmp_path}', small=…)"):
        open_pair(tmp_path, **NO_TEXT)


def test_open_pair_of_a_saved_pair_with_another_small_model(tmp_path):
    stitched_pipeline().save_pretrained(tmp_path)
    says = f"{tmp_path} is a saved pair and brings its small model; leave `small` out, or unstitch it first"
    with refused(PairError, says):
        open_pair(tmp_path, small(), **NO_TEXT)


# --- masks that are not worth it: a warning with the numbers ---


@pytest.mark.parametrize("policy", [HybridStitch(masks=(0.95, 0.3), thresholds=(0.5, 0.4, 0.3)), "L2 H2@0.95 S*"])
def test_a_mask_that_is_not_worth_it(policy):
    with pytest.warns(
        StitchWarning, match=r"a mask of 0.95 is not worth it on this pair: a small step costs 0\.\d\d of a "
    ):
        stitch(pipeline(), small(), policy)


@pytest.mark.parametrize("policy", [HybridStitch(masks=(0.3,)), "L2 H2@0.3 S*", "L2 R2@0.95 S*", "L2 S*"])
def test_a_mask_that_is_worth_it_is_not_warned_of(policy):
    with warnings.catch_warnings():
        warnings.simplefilter("error", StitchWarning)
        stitch(pipeline(), small(), policy)


# --- policies that do not fit ---


def test_an_unknown_policy():
    pipe = pipeline()
    with refused(PolicyError, "there is no preset or policy 'hybridstich'; did you mean 'hybridstitch'?", pipe=pipe):
        stitch(pipe, small(), "hybridstich")


@pytest.mark.parametrize("policy", [0.3, HybridStitch, None])
def test_what_is_no_policy(policy):
    pipe = pipeline()
    with refused(PolicyError, "was given as a policy; give one such as hybridstitch.HybridStitch(), or its", pipe=pipe):
        stitch(pipe, small(), policy)


def test_another_policy_that_cannot_be_read_leaves_the_old_one():
    pipe = stitched_pipeline()
    with refused(PolicyError, "has no option 'mask'; did you mean 'masks'?", pipe=pipe):
        pipe.transformer.policy = "hybrid-stitch:mask=0.3"


@pytest.mark.parametrize(
    ("policy", "steps", "says"),
    [
        ("L2 S3", 6, ("the program 'L2 S3' fills 5 steps, this run has 6", "let one segment take the rest with '*'")),
        ("L2 S3", 4, ("the program 'L2 S3' fills 5 steps, this run has 4", "change a count")),
        ("L H@0.3 S3", 5, ("asks for a mask before step 2", "begin with at least 2 steps of L or S")),
        ("- S4", 5, ("repeats a prediction at step 0, where there is none", "begin with L or S")),
        (ADAPTIVE, 2, ("needs at least 3 of them, this run has 2", "use a program such as 'L S*'")),
        ("sr-diffusion", 2, ("sr-diffusion decides from the change between steps and needs at least 3",)),
    ],
)
def test_a_policy_that_does_not_fit_the_steps(policy, steps, says):
    pipe = stitched_pipeline(policy)
    with refused(PolicyError, *says, pipe=pipe, picture=False):
        generate(pipe, steps=steps)
    pipe.transformer.policy = "large"
    generate(pipe, steps=2)


def test_a_replay_of_another_run():
    pipe = stitched_pipeline("L2 S*")
    generate(pipe, steps=4)
    trace = pipe.transformer.trace
    pipe.transformer.policy = hybridstitch.Replay(trace.plans(masks=True))
    with refused(PolicyError, "the trace has 4 steps for image 0, this run has 5", pipe=pipe, picture=False):
        generate(pipe, steps=5)
    with refused(PolicyError, "the trace has 1 image(s), this run has image 1", pipe=pipe, picture=False):
        generate(pipe, steps=4, images=2)
    generate(pipe, steps=4)


# --- schedulers ---

STOCHASTIC = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
INVERTED = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
NOISY = DPMSolverMultistepScheduler(**FLOW, algorithm_type="sde-dpmsolver++")
UNMEASURED = [STOCHASTIC, INVERTED, NOISY]
EULER = "pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, stochastic_sampling=False)"


@pytest.mark.parametrize("scheduler", UNMEASURED, ids=["stochastic", "inverted", "multistep"])
@pytest.mark.parametrize("policy", [ADAPTIVE, "sr-diffusion", "L2 H2@0.3 S*"], ids=["hybrid", "sr", "masks"])
def test_steps_that_show_no_change(scheduler, policy):
    pipe = pipeline(scheduler=scheduler)
    name = type(scheduler).__name__
    with refused(SchedulerError, name, "decides from the change", EULER, "'L20 S*'", pipe=pipe, picture=False):
        stitch(pipe, small(), policy)


@pytest.mark.parametrize("scheduler", UNMEASURED[::2], ids=["stochastic", "multistep"])
def test_a_fixed_program_runs_on_any_first_order_scheduler(scheduler):
    pipe = stitched_pipeline("L2 S*", scheduler=scheduler)
    torch.manual_seed(0)
    assert generate(pipe, steps=STEPS).isfinite().all()
    drawn = [str(step.drawn) for step in pipe.transformer.trace.records]
    assert drawn == ["L", "L", "S", "S", "S"]
    assert all(step.distance is None for step in pipe.transformer.trace.records)


@pytest.mark.parametrize("policy", [ADAPTIVE, "L2 S*", "large"], ids=str)
def test_a_second_order_scheduler(policy):
    pipe = pipeline(scheduler=FlowMatchHeunDiscreteScheduler())
    says = (
        "FlowMatchHeunDiscreteScheduler is of order 2 and repeats timesteps; stitching needs one call a step",
        EULER,
    )
    with refused(SchedulerError, *says, pipe=pipe):
        stitch(pipe, small(), policy)


def test_a_scheduler_swapped_after_stitching():
    pipe = stitched_pipeline()
    found, pipe.scheduler = pipe.scheduler, FlowMatchHeunDiscreteScheduler()
    with refused(SchedulerError, "FlowMatchHeunDiscreteScheduler is of order 2", EULER, pipe=pipe, picture=False):
        generate(pipe, steps=STEPS)
    pipe.scheduler = found
    generate(pipe, steps=STEPS)


def test_a_policy_that_the_scheduler_cannot_serve():
    pipe = stitched_pipeline("L2 S*", scheduler=DPMSolverMultistepScheduler(**FLOW, thresholding=True))
    with refused(SchedulerError, "DPMSolverMultistepScheduler", EULER, "a program without masks", pipe=pipe):
        pipe.transformer.policy = ADAPTIVE


def test_the_advice_works():
    pipe = pipeline(scheduler=STOCHASTIC)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config, stochastic_sampling=False)
    stitch(pipe, small(), ADAPTIVE)
    generate(pipe, steps=STEPS)


# --- attention processors ---


def fuse(large):
    large.fuse_qkv_projections()


def ip_adapter(large):
    """As SD3's IP-Adapter does, without its weights: the processors are another class."""
    large.set_attn_processor({name: FusedJointAttnProcessor2_0() for name in large.attn_processors})


@pytest.mark.parametrize("replace", [fuse, ip_adapter])
def test_processors_replaced_before_stitching(replace):
    pipe = pipeline()
    replace(pipe.transformer)
    says = (
        "the large transformer has attention processors that are not diffusers' own "
        "(transformer_blocks.0.attn.processor has a FusedJointAttn",
        "`unfuse_qkv_projections()`",
        "`unload_ip_adapter()`",
        "`set_attn_processor(JointAttnProcessor2_0())`",
    )
    with refused(StitchError, *says, pipe=pipe, picture=False):
        stitch(pipe, small(), ADAPTIVE)
    pipe.transformer.set_attn_processor(JointAttnProcessor2_0())
    stitch(pipe, small(), ADAPTIVE)


def test_fused_projections_after_stitching():
    pipe = stitched_pipeline()
    before = generate(pipe, steps=STEPS)
    pipe.transformer.large.fuse_qkv_projections()
    says = (
        "attention processors were replaced after stitching (transformer_blocks.0.attn.processor has a FusedJointAttn",
        "fused QKV, PAG, IP-Adapter or set_attn_processor; undo that, or `unstitch(pipe)`, which puts the found",
    )
    with refused(StitchError, *says, pipe=pipe, picture=False):
        generate(pipe, steps=STEPS)
    pipe.transformer.large.unfuse_qkv_projections()
    assert torch.equal(generate(pipe, steps=STEPS), before)


def test_replaced_processors_are_mended_by_unstitching():
    """Whatever was put in, `unstitch` puts back what `stitch` found."""
    pipe = stitched_pipeline()
    before = generate(pipe, steps=STEPS)
    second, large = pipe.transformer.small, pipe.transformer.large
    ip_adapter(large)
    with refused(StitchError, "attention processors were replaced after stitching", pipe=pipe, picture=False):
        generate(pipe, steps=STEPS)
    unstitch(pipe)
    stitch(pipe, second, ADAPTIVE)
    assert torch.equal(generate(pipe, steps=STEPS), before)


def test_processors_of_the_stitched_model_cannot_be_set():
    pipe = stitched_pipeline()
    says = ("the attention processors of a stitched model cannot be replaced", "or set those of pipe.transformer.small")
    with refused(StitchError, *says, pipe=pipe):
        pipe.transformer.set_attn_processor(JointAttnProcessor2_0())


def test_an_ip_adapter_loaded_after_stitching():
    pipe = stitched_pipeline()
    weights = {"image_proj": {}, "ip_adapter": {}}
    with refused(StitchError, "IP-Adapter cannot be stitched yet; `unstitch(pipe)` before loading one", pipe=pipe):
        pipe.load_ip_adapter(weights, subfolder="", weight_name="", image_encoder_folder=None)


def pag_pipeline(pipe):
    parts = {name: part for name, part in pipe.components.items() if name not in ("image_encoder", "feature_extractor")}
    other = StableDiffusion3PAGPipeline(**parts, pag_applied_layers=["blocks.1"])
    other.set_progress_bar_config(disable=True)
    return other


def test_a_pipeline_of_perturbed_attention():
    pipe = pag_pipeline(pipeline())
    says = (
        "StableDiffusion3PAGPipeline swaps attention processors",
        "stitch `StableDiffusion3Pipeline.from_pipe(pipe)`",
    )
    with refused(StitchError, *says, pipe=pipe, pag_scale=0.0):
        stitch(pipe, small(), ADAPTIVE)
    plain = StableDiffusion3Pipeline.from_pipe(pipe)
    plain.set_progress_bar_config(disable=True)
    stitch(plain, small(), ADAPTIVE)
    generate(plain, steps=STEPS)


def test_perturbed_attention_around_a_stitched_model():
    """That pipeline swaps the processors of both models itself; nothing is drawn with them, and they can be mended."""
    pipe = stitched_pipeline()
    before, second = generate(pipe, steps=STEPS), pipe.transformer.small
    calls = Calls(pipe.transformer.large, second)
    with refused(StitchError, "attention processors were replaced after stitching (transformer_blocks.1.attn", "PAG"):
        generate(pag_pipeline(pipe), steps=STEPS, pag_scale=2.0)
    assert calls.count == 0
    unstitch(pipe)
    second.set_attn_processor(JointAttnProcessor2_0())
    stitch(pipe, second, ADAPTIVE)
    assert torch.equal(generate(pipe, steps=STEPS), before)


# --- ControlNet, parallelism, offloading ---


def controlnet_pipeline(pipe):
    config = {
        **{k: v for k, v in transformer().config.items() if not k.startswith("_")},
        "num_layers": 1,
        "extra_conditioning_channels": 0,
    }
    for name in ("qk_norm", "dual_attention_layers"):
        config.pop(name)
    parts = {name: part for name, part in pipe.components.items() if name not in ("image_encoder", "feature_extractor")}
    heads = {"num_attention_heads": 6, "caption_projection_dim": 48}
    other = StableDiffusion3ControlNetPipeline(**parts, controlnet=SD3ControlNetModel(**{**config, **heads}).eval())
    other.set_progress_bar_config(disable=True)
    return other


def test_a_controlnet_pipeline():
    pipe = controlnet_pipeline(pipeline())
    says = (
        "StableDiffusion3ControlNetPipeline has a ControlNet",
        "stitch a pipeline without one, or run this one unstitched",
    )
    with refused(StitchError, *says, pipe=pipe, picture=False):
        stitch(pipe, small(), ADAPTIVE)


def test_a_controlnet_around_a_stitched_model():
    pipe = stitched_pipeline()
    other = controlnet_pipeline(pipe)
    says = ("ControlNet residuals were passed; stitched steps cannot use them yet", "`unstitch(pipe)` for ControlNet")
    with refused(StitchError, *says, pipe=pipe):
        generate(other, steps=STEPS, control_image=torch.zeros(1, 3, 32, 32))


def test_context_parallelism_before_stitching():
    pipe = pipeline()
    pipe.transformer._parallel_config = object()
    says = "context parallelism is on; a masked step would split the wrong tokens: switch it off"
    with refused(StitchError, says, pipe=pipe):
        stitch(pipe, small(), ADAPTIVE)


def test_context_parallelism_of_the_small_model():
    pipe, second = pipeline(), small()
    second._parallel_config = object()
    with refused(PairError, "context parallelism is on in the small model; switch it off", pipe=pipe):
        stitch(pipe, second, ADAPTIVE)


@pytest.mark.parametrize("which", ["large", "small"])
def test_context_parallelism_after_stitching(which):
    pipe = stitched_pipeline()
    before = generate(pipe, steps=STEPS)
    getattr(pipe.transformer, which)._parallel_config = object()
    with refused(StitchError, "context parallelism is on", "switch it off", pipe=pipe, picture=False):
        generate(pipe, steps=STEPS)
    getattr(pipe.transformer, which)._parallel_config = None
    assert torch.equal(generate(pipe, steps=STEPS), before)


def test_offloading_before_stitching():
    pipe = pipeline()
    pipe._all_hooks = [object()]
    says = "CPU offloading is on already; stitch first, then `enable_model_cpu_offload()`"
    with refused(StitchError, says, pipe=pipe, picture=False):
        stitch(pipe, small(), ADAPTIVE)


# --- stitching and unstitching out of order ---


def test_stitching_twice():
    pipe = stitched_pipeline()
    says = "is stitched already; change pipe.transformer.policy, or `hybridstitch.unstitch(pipe)` first"
    with refused(StitchError, says, pipe=pipe):
        stitch(pipe, small(), ADAPTIVE)


def test_one_large_model_in_two_pipelines():
    pipe, other = stitched_pipeline(), pipeline()
    other.register_modules(transformer=pipe.transformer.large)
    says = (
        "this large transformer is stitched into another pipeline already",
        "(`Pipeline(**other.components)`) or unst",
    )
    with refused(StitchError, *says, pipe=pipe):
        stitch(other, small(), ADAPTIVE)
    assert other.transformer is pipe.transformer.large


def test_unstitching_what_was_not_stitched():
    pipe = pipeline()
    says = "this StableDiffusion3Pipeline is not stitched; `hybridstitch.stitch(pipe, small=…)` stitches it"
    with refused(StitchError, says, pipe=pipe):
        unstitch(pipe)


def test_unstitching_twice():
    pipe = stitched_pipeline()
    unstitch(pipe)
    with refused(StitchError, "is not stitched", pipe=pipe):
        unstitch(pipe)


def test_a_pipeline_without_a_transformer_this_release_knows():
    pipe = pipeline()
    pipe.transformer = None
    with refused(
        StitchError, "has NoneType as its transformer; this release stitches pipelines of SD3Transformer2DModel"
    ):
        stitch(pipe, small())
    with refused(StitchError, "Linear is not supported by this release; it stitches SD3Transformer2DModel"):
        family_of(nn.Linear(1, 1))


def test_a_scheduler_gets_its_own_step_back():
    """Also one that was replaced on the object before stitching."""
    pipe = pipeline()
    mine = pipe.scheduler.step = lambda *args, **kwargs: type(pipe.scheduler).step(pipe.scheduler, *args, **kwargs)
    before = generate(pipe, steps=STEPS)
    stitch(pipe, small(), "large")
    assert torch.equal(generate(pipe, steps=STEPS), before)
    unstitch(pipe)
    assert vars(pipe.scheduler)["step"] is mine


def test_a_family_knows_its_transformer():
    model = transformer()
    assert family_of(model).module() is model


def test_a_trace_before_the_first_picture():
    pipe = stitched_pipeline()
    with refused(
        StitchError, "no picture was drawn yet, so there is no trace; call the pipeline first", pipe=pipe, picture=False
    ):
        _ = pipe.transformer.trace


def test_a_stitched_transformer_that_follows_nobody():
    alone = StitchedTransformer(transformer(), small(), ADAPTIVE)
    with refused(StitchError, "follows no pipeline", "call `pipe.transformer.follow(pipe)`, or open the folder with"):
        alone(torch.zeros(1, 4, 8, 8), timestep=torch.tensor([1.0]))


# --- while a picture is drawn ---


def spoilt(model):
    """Make a model's predictions NaN until called again."""
    bias = model.proj_out.bias.data
    healthy = bias.clone()
    bias.fill_(float("nan"))
    return lambda: bias.copy_(healthy)


@pytest.mark.parametrize(
    ("policy", "which", "says"),
    [
        ("large", "large", "step 0 of image 0, drawn by L (L large, S small), came out NaN or infinite"),
        ("L2 S*", "small", "step 2 of image 0, drawn by S (L large, S small), came out NaN or infinite"),
        (ADAPTIVE, "small", "step 2 of image 0, drawn by S + L@0.3 (L large, S small), came out NaN or infinite"),
        (HybridStitch(thresholds=(5.0, 5.0)), "large", "step 0 of image 0, drawn by L"),
        ("S2 L*", "large", "step 2 of image 0, drawn by L"),
    ],
    ids=str,
)
def test_a_nan_in_the_middle_of_a_run(policy, which, says):
    pipe = stitched_pipeline(policy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StitchWarning)
        before, found = generate(pipe, steps=STEPS), state(pipe)
        heal = spoilt(getattr(pipe.transformer, which))
        with refused(RunError, says, "try a wider dtype", "each model alone (policies 'large' and 'small')"):
            generate(pipe, steps=STEPS)
        heal()
        assert state(pipe) == found
        assert torch.equal(generate(pipe, steps=STEPS), before)


def test_the_nan_of_one_image_names_that_image():
    pipe = stitched_pipeline("L2 S*")
    latents = torch.randn(2, 4, 16, 16)
    latents[1, 0, 0, 0] = float("inf")
    with refused(RunError, "step 0 of image 1, drawn by L", "came out NaN or infinite"):
        generate(pipe, images=2, steps=STEPS, latents=latents)


def test_a_loop_that_does_not_step_the_scheduler():
    pipe = stitched_pipeline("large")
    before = generate(pipe, steps=STEPS)
    pipe.scheduler.set_timesteps(4)
    call = {
        "hidden_states": torch.zeros(1, 4, 16, 16),
        "encoder_hidden_states": prompt()["prompt_embeds"],
        "pooled_projections": prompt()["pooled_prompt_embeds"],
    }
    pipe.transformer(**call, timestep=pipe.scheduler.timesteps[:1])
    says = (
        "step 1 began, but step 0 of the scheduler was not observed",
        "must step `pipe.scheduler`",
        "follow(other)",
    )
    with refused(RunError, *says, pipe=pipe, picture=False):
        pipe.transformer(**call, timestep=pipe.scheduler.timesteps[1:2])
    assert torch.equal(generate(pipe, steps=STEPS), before)


# --- the errors themselves ---


def test_errors_are_also_what_a_caller_who_does_not_know_them_catches():
    for kind in (PolicyError, PairError, SchedulerError, TraceError):
        assert issubclass(kind, HybridStitchError)
        assert issubclass(kind, ValueError)
    for kind in (StitchError, RunError):
        assert issubclass(kind, HybridStitchError)
        assert issubclass(kind, RuntimeError)
    assert issubclass(StitchWarning, UserWarning)


@pytest.mark.parametrize(
    ("word", "help_"),
    [("larg", "did you mean 'large'?"), ("xyz", "known: large, small"), ("", "known: large, small")],
)
def test_the_nearest_name(word, help_):
    assert nearest(word, ["small", "large"]) == help_


def test_every_public_name_can_be_reached_and_no_other():
    for name in hybridstitch.__all__:
        assert getattr(hybridstitch, name) is not None
    assert hybridstitch.ModelMixin is diffusers.ModelMixin  # diffusers looks for it here as it loads a saved pair
    with pytest.raises(AttributeError, match="module 'hybridstitch' has no attribute 'stich'"):
        _ = hybridstitch.stich
    assert isinstance(hybridstitch.policy_named("L2 S*"), Schedule)
