"""A speed, a closeness or a recipe in place of a policy: who serves it, what the call takes, and what is refused."""

import platform
import re
import warnings
from dataclasses import replace

import diffusers
import pytest
import torch
from peft import LoraConfig

from hybridstitch import StitchedTransformer, open_pair, stitch, unstitch
from hybridstitch.calibrate.conditions import Conditions, home_of
from hybridstitch.drawing.engine import Engine
from hybridstitch.drawing.guard import Guard
from hybridstitch.errors import PolicyError, StitchWarning
from hybridstitch.measure import machine
from hybridstitch.measure.intervals import Interval
from hybridstitch.measure.price import Prices
from hybridstitch.opening import check_recipe
from hybridstitch.policies.parse import parse
from hybridstitch.recipe import Point, Recipe, RecipeError, kind_of
from pipelines import PIPELINES
from small_models import generate, pipeline, prompt, small, transformer, vae, worded

PRICES = Prices(call=0.0, step=0.0, large=1.0, small=0.2, masked={"fresh": (0.1, 1.0)})
ABSENT = {f"{part}{number}": None for part in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")}
CALL = Conditions(width=32, height=32, steps=12, guidance=3.0)


def point(policy, steps, closeness):
    parsed = parse(policy)
    return Point(
        policy=str(parsed),
        steps=steps,
        kind=kind_of(parsed, steps, 12),
        predicted=12 / PRICES.seconds(parsed, steps),
        closeness=Interval(closeness, closeness, closeness, 6),
        psnr=Interval(30.0, 29.0, 31.0, 6),
    )


@pytest.fixture
def pipe():
    return pipeline()


@pytest.fixture(scope="module")
def recipe():
    pipe = pipeline()
    stitch(pipe, small(), "large")
    return Recipe(
        home=home_of(pipe, CALL),
        prices=PRICES,
        shares={},
        prompts={},
        seed=0,
        asked={},
        points=(point("large", 12, 1.0), point("large", 8, 0.95), point("L3 H2@0.3 S1", 6, 0.8)),
        verdict=("Fewer steps are closest.",),
    )


def called(pipe, **call):
    """The steps, size and guidance that reached the models, and the latent."""
    latent = pipe(
        **{k: v for k, v in prompt().items() if "negative" not in k or pipe_guides(pipe, call)},
        generator=torch.Generator().manual_seed(1),
        output_type="latent",
        return_dict=False,
        **call,
    )[0]
    return pipe.transformer.trace.steps, tuple(latent.shape[-2:]), latent


def pipe_guides(pipe, call):
    return call.get("guidance_scale", 3.0) > 1


def test_a_request_decides_policy_and_what_the_call_takes(pipe, recipe):
    stitch(pipe, small(), speed=2.7, recipe=recipe)
    assert str(pipe.transformer.policy) == "schedule:program=L3 H2@0.3 S1"
    assert pipe.transformer.call == {"num_inference_steps": 6, "guidance_scale": 3.0, "height": 32, "width": 32}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps, size, latent = called(pipe, **pipe.transformer.call)
    assert (steps, size) == (6, (16, 16))
    plain = pipeline()
    stitch(plain, small(), "L3 H2@0.3 S1")
    same = called(plain, num_inference_steps=6, guidance_scale=3.0, width=32, height=32)[2]
    assert torch.equal(latent, same)


def test_the_pipeline_keeps_its_class(pipe, recipe, tmp_path):
    kind = type(pipe)
    stitch(pipe, small(), closeness=0.95, recipe=recipe)
    assert type(pipe) is kind
    pipe.save_pretrained(tmp_path)
    saved = diffusers.DiffusionPipeline.load_config(tmp_path)
    assert saved["_class_name"] == "StableDiffusion3Pipeline"
    unstitch(pipe)
    assert type(pipe) is kind


def test_a_policy_that_no_recipe_or_preset_decided_asks_nothing_of_the_call(pipe, recipe):
    stitch(pipe, small(), closeness=0.95, recipe=recipe)
    pipe.transformer.policy = "L2 S*"
    assert pipe.transformer.call == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        called(pipe, num_inference_steps=5, guidance_scale=2.0, height=24, width=24)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("num_inference_steps", 6, "the number of steps is 8; in this run it is 6"),
        ("guidance_scale", 5.0, "the guidance is 3.0; in this run it is 5.0"),
        ("height", 24, "the size is 32×32; in this run it is 24×32"),
    ],
)
def test_a_call_with_other_numbers_is_drawn_and_warns_once(pipe, recipe, name, value, what):
    stitch(pipe, small(), closeness=0.95, recipe=recipe)
    call = {**pipe.transformer.call, name: value}
    says = rf"outside the setting of large in 8 steps: .*{what}.* `pipe\(prompt, \*\*pipe\.transformer\.call\)`"
    with pytest.warns(StitchWarning, match=says):
        steps = called(pipe, **call)[0]
    assert steps == call["num_inference_steps"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        called(pipe, **call)


def test_a_program_called_with_other_steps_says_what_to_call(pipe, recipe):
    stitch(pipe, small(), speed=2.7, recipe=recipe)
    with (
        pytest.warns(StitchWarning, match=r"pipe\.transformer\.call"),
        pytest.raises(PolicyError, match="fills 6 steps"),
    ):
        called(pipe, num_inference_steps=28)


def test_another_request_replaces_the_first(pipe, recipe):
    from hybridstitch.opening import follow_recipe

    stitch(pipe, small(), closeness=0.95, recipe=recipe)
    assert follow_recipe(pipe, recipe, closeness=0.7).steps == 6
    assert called(pipe, **pipe.transformer.call)[0] == 6


def test_a_recipe_of_another_pair_is_refused_and_the_pipeline_left_as_it_was(pipe, recipe):
    before = pipe.transformer
    with pytest.raises(RecipeError, match=r"another pair: its models have .* calibrate this pair: `hybridstitch cal"):
        stitch(pipe, transformer(heads=2), speed=2.7, recipe=recipe)
    assert pipe.transformer is before
    assert type(pipe).__name__ == "StableDiffusion3Pipeline"


def test_a_recipe_of_another_machine_or_schedule_warns(recipe):
    pipe = pipeline(scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0))
    with pytest.warns(
        StitchWarning, match=r"the scheduler was .*shift=3.0, now it is .*shift=1.0; measure again: `hyb"
    ):
        stitch(pipe, small(), speed=2.7, recipe=recipe)
    moved = replace(recipe, home=replace(recipe.home, machine={**recipe.home.machine, "torch": "1.0"}))
    with pytest.warns(StitchWarning, match=r"torch was 1\.0, now it is 2"):
        stitch(pipeline(), small(), speed=2.7, recipe=moved)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"policy": "large", "speed": 1.8}, "policy='large' and speed='1.8' were given; .* give one"),
        ({"speed": 1.8, "closeness": 0.9}, "ask for one"),
        ({"speed": 50.0, "recipe": True}, "cannot be reached"),
        ({"steps": 20}, "steps given, but nothing is calibrated here .*belong to speed"),
        ({"recipe": True, "prompts": ("a",)}, "prompts given, but nothing is calibrated here .*the recipe has its own"),
        ({"recipe": "nowhere.json"}, r"nowhere\.json cannot be read"),
    ],
)
def test_contradictions_are_refused_before_anything_is_done(pipe, recipe, arguments, complaint):
    arguments = {**arguments, **({"recipe": recipe} if arguments.get("recipe") is True else {})}
    with pytest.raises(RecipeError, match=complaint):
        stitch(pipe, small(), **arguments)
    assert not isinstance(pipe.transformer, StitchedTransformer)


def test_a_request_without_a_recipe_calibrates_now_and_says_so_when_no_mask_serves_best():
    pipe = worded(pipeline())
    with pytest.warns(StitchWarning, match="serves this request better than any plan with masks"):
        stitch(pipe, small(), closeness=1.0, prompts=("abc", "dog", "cab", "bed"), steps=4, size=(32, 32))
    assert str(pipe.transformer.policy) == "large"
    assert pipe("cab", output_type="latent", **pipe.transformer.call).images.shape[-1] == 16
    assert pipe.transformer.trace.steps == 4


def test_a_calibration_that_is_refused_leaves_the_pipeline_unstitched():
    pipe = worded(pipeline())
    with pytest.raises(RecipeError, match=r"1 prompt\(s\)"):
        stitch(pipe, small(), speed=1.5, prompts=("abc",), steps=4)
    assert not isinstance(pipe.transformer, StitchedTransformer)


def test_a_recipe_names_the_pair_that_is_opened(recipe, tmp_path):
    pipe = pipeline()
    stitch(pipe, small(), "large")
    pipe.save_pretrained(tmp_path / "pair")
    named = replace(recipe, home=replace(recipe.home, pair=str(tmp_path / "pair")))
    named.save(tmp_path / "recipe.json")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StitchWarning)
        opened = open_pair(recipe=tmp_path / "recipe.json", speed=2.7, **ABSENT)
    opened.set_progress_bar_config(disable=True)
    assert called(opened, **opened.transformer.call)[0] == 6
    with pytest.raises(RecipeError, match="no pair was named"):
        open_pair()
    with pytest.raises(RecipeError, match="no pair was named"):
        open_pair(recipe=replace(recipe, home=replace(recipe.home, pair=None)))


def test_a_recipe_of_another_processor_warns_that_its_speeds_are_another_s(pipe, recipe):
    stitch(pipe, small(), "large")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_recipe(pipe, recipe)
    there = {"the device": "Some Processor with AVX512"}
    elsewhere = replace(recipe, home=replace(recipe.home, machine={**recipe.home.machine, **there}))
    here = f"{machine.device_name('cpu')} with {torch.backends.cpu.get_cpu_capability()}"
    said = re.escape(f"the device was Some Processor with AVX512, now it is {here}; measure again: `hybridstitch cal")
    with pytest.warns(StitchWarning, match=said):
        check_recipe(pipe, elsewhere)


@pytest.mark.parametrize(
    ("cpuinfo", "named"),
    [("processor\t: 0\nmodel name\t: AMD EPYC\nmodel name\t: other\n", "AMD EPYC"), ("processor\t: 0\n", None)],
)
def test_a_processor_is_named_by_its_model_where_the_system_says_it(cpuinfo, named, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert machine.device_name("cpu") == (named or platform.processor() or platform.machine())
    assert machine.device_name("meta") == "meta"


def test_a_saved_pair_s_recipe_names_the_pair_alone(tmp_path):
    pipe = pipeline()
    stitch(pipe, small(), "large")
    pipe.save_pretrained(tmp_path / "pair")
    home = home_of(open_pair(tmp_path / "pair", **ABSENT), CALL)
    assert (home.pair, home.small, [*home.models]) == (str(tmp_path / "pair"), None, ["large"])


def test_a_recipe_s_noise_levels_are_part_of_the_call(pipe, recipe):
    levels = (1.0, 0.9, 0.6, 0.2, 0.1, 0.05)
    for shift, free in ((6.0, None), (None, levels)):
        stitched_at = replace(recipe.points[2], shift=shift, levels=free)
        stitch(pipe, small(), recipe=replace(recipe, points=(*recipe.points[:2], stitched_at)), speed=2.7)
        called(pipe, **pipe.transformer.call)
        sigmas = [step.sigma for step in pipe.transformer.trace.of(0)]
        assert sigmas == pytest.approx([6 * k / (6 + 5 * k) for k in range(6, 0, -1)] if free is None else [*levels])
        unstitch(pipe)


def test_a_guard_is_asked_for_and_knows_the_recipe_s_ranges(pipe, recipe):
    bands = (None, (0.5, 1.0), *[(0.1, 0.2)] * 4)
    points = (*recipe.points[:2], replace(recipe.points[2], distances=bands))
    stitch(pipe, small(), speed=2.7, recipe=replace(recipe, points=points), guard=True)
    assert pipe.transformer.guard.bands == bands
    unstitch(pipe)
    stitch(pipe, small(), "L2 S*", guard=True)
    assert pipe.transformer.guard.bands == ()
    unstitch(pipe)
    stitch(pipe, small(), "L2 S*")
    assert pipe.transformer.guard is None


def test_another_policy_is_held_to_no_range_and_another_point_to_its_own(pipe, recipe):
    from hybridstitch.opening import follow_recipe

    bands = (None, (0.5, 1.0), *[(0.1, 0.2)] * 4)
    banded = replace(recipe, points=(*recipe.points[:2], replace(recipe.points[2], distances=bands)))
    stitch(pipe, small(), speed=2.7, recipe=banded, guard=True)
    pipe.transformer.guard = replace(pipe.transformer.guard, slack=3.0)
    pipe.transformer.policy = "L2 S*"
    assert pipe.transformer.guard == Guard(slack=3.0)
    follow_recipe(pipe, banded, speed=2.7)
    assert pipe.transformer.guard == Guard(bands=bands, slack=3.0)
    follow_recipe(pipe, banded, closeness=0.95)
    assert pipe.transformer.guard == Guard(slack=3.0)


def test_a_pair_whose_steps_are_drawn_whole_opens_by_a_recipe(recipe, tmp_path):
    row = PIPELINES["auraflow"].here()
    row.build(vae=vae()).save_pretrained(tmp_path / "large")
    row.transformer(1).save_pretrained(tmp_path / "small")
    points = (point("large", 12, 1.0), point("L3 S3", 6, 0.8))
    found = replace(recipe, home=home_of(row.stitched(), CALL), points=points)
    absent = dict.fromkeys(("text_encoder", "tokenizer"))
    opened = open_pair(tmp_path / "large", tmp_path / "small", recipe=found, speed=3.3, **absent)
    assert str(opened.transformer.policy) == "schedule:program=L3 S3"


@pytest.mark.parametrize("levels", [{"shift": 6.0}, {"levels": (1.0, 0.9, 0.6, 0.2, 0.1, 0.05)}])
def test_a_call_at_other_noise_levels_warns(pipe, recipe, levels):
    stitched_at = replace(recipe.points[2], **levels)
    stitch(pipe, small(), recipe=replace(recipe, points=(*recipe.points[:2], stitched_at)), speed=2.7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        called(pipe, **pipe.transformer.call)
    without = {name: value for name, value in pipe.transformer.call.items() if name != "sigmas"}
    says = r"where the noise level of step 1 is 0\.9\d+; in this run it is .*pipe\.transformer\.call"
    with pytest.warns(StitchWarning, match=says):
        called(pipe, **without)


def test_a_preset_of_few_steps_called_at_the_pipeline_s_levels_warns(pipe):
    stitch(pipe, small(), "mini-few-3")
    with pytest.warns(StitchWarning, match=r"mini-few-3 was measured where the noise level of step 1 is"):
        generate(pipe, steps=6)
    again = pipeline()
    stitch(again, small(), "mini-few-3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(again, steps=6, sigmas=again.transformer.call["sigmas"])


def test_a_pair_with_a_lora_is_the_same_pair(pipe, recipe):
    pipe.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"]), "style")
    stitch(pipe, small(), speed=2.7, recipe=recipe)
    assert pipe.transformer.call["num_inference_steps"] == 6


def test_what_measures_again_measures_as_the_pair_is_run(pipe, recipe):
    with pytest.warns(
        StitchWarning, match=r"the engine was plain, now it is kv=bfloat16; .*--guidance 3 --kv bfloat16`"
    ):
        stitch(pipe, small(), speed=2.7, recipe=recipe, engine=Engine(kv="bfloat16"))
