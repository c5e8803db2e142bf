"""Presets: every row of the paper's tables, the rivals, names, and the setting that thresholds are at home in."""

import subprocess
import sys
import warnings

import pytest

from hybridstitch.errors import PolicyError, StitchWarning
from hybridstitch.policies.methods import HybridStitch, LargeOnly, Schedule, SmallOnly, TStitch
from hybridstitch.policies.parse import POLICIES, parse
from hybridstitch.policies.presets import FEW, PAPER, PRESETS, TABLE_1, TABLE_2, TABLE_3, outside, policy_named, preset
from hybridstitch.policies.program import fill
from hybridstitch.policies.srdiffusion import SRDiffusion
from small_models import generate, stitched

ONE = {10: (0.3, 0.25), 20: (0.35, 0.25), 30: (0.5, 0.3), 40: (0.4, 0.3)}
EXPECTED = {
    "large": LargeOnly(),
    "small": SmallOnly(),
    "t-stitch": TStitch(0.4),
    "sr-diffusion": SRDiffusion(threshold=0.005, reduction="norm", signal="denoised", min_large=0.1),
    **{f"hybridstitch-{m}": HybridStitch(masks=(m / 100,), thresholds=t) for m, t in ONE.items()},
    **{
        f"hybridstitch-{m}-static": HybridStitch(masks=(m / 100,), thresholds=t, update_mask=False)
        for m, t in ONE.items()
    },
    **{
        f"hybridstitch-{m}-full-large": HybridStitch(masks=(m / 100,), thresholds=t, masked_compute=False)
        for m, t in ONE.items()
    },
    "hybridstitch-20-10": HybridStitch(masks=(0.2, 0.1), thresholds=(0.5, 0.3, 0.2)),
    "hybridstitch-30-10": HybridStitch(masks=(0.3, 0.1), thresholds=(0.5, 0.3, 0.2)),
    "hybridstitch-40-30": HybridStitch(masks=(0.4, 0.3), thresholds=(0.6, 0.5, 0.3)),
    "modm": Schedule("L20% S*"),
    "flowblending": Schedule("L20% S* L15%"),
    "mini-few-3": Schedule("S2 L R@0.45 R@0.15 S", text="cached"),
    "mini-few-4": Schedule("S2 L R@0.3 R@0.15 L R@0.45", text="cached"),
    "mini-few-5": Schedule("S L R@0.15 R@0.45 - L R@0.3 R@0.15 L", text="cached"),
    "mini-few-6": Schedule("L S L R@0.45 - L R@0.45 R@0.15 L", text="cached"),
    "mini-stacked": Schedule(
        "L S L R@0.3 -3 L R@0.3 -2 L R@0.3 -3 L R@0.3 -3 L R@0.3 -3 L R@0.3 -4 L R@0.3 -4 L R@0.3 -4 L R@0.3 -4",
        text="cached",
    ),
    "hybridstitch": HybridStitch(masks=(0.2,), thresholds=(0.13, 0.09), min_large=0.16, patience=2, text="cached"),
    "mini-carried": HybridStitch(
        masks=(0.2,), thresholds=(0.3, 0.015), min_large=0.14, patience=2, text="cached", carry=0.95, follow=0.25
    ),
    "region-adaptive": Schedule("L14% R28%@0.5 L R25%@0.5 L R*@0.5", signal="latent"),
}


def test_every_row_of_the_paper_and_every_rival_has_its_policy():
    assert {name: p.policy for name, p in PRESETS.items()} == EXPECTED
    assert (len(TABLE_1), len(TABLE_2), len(TABLE_3)) == (7, 8, 3)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_name_leads_to_its_policy_and_so_does_its_string(name):
    assert preset(name).name == name
    assert policy_named(name) == EXPECTED[name]
    assert policy_named(str(EXPECTED[name])) == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("large", (27.64, 31.81, None, 20.72, 1.0)),
        ("hybridstitch-30", (30.43, 31.84, 0.42, 11.31, 1.83)),
        ("hybridstitch-30-static", (31.88, 31.79, 0.45, 9.95, 2.08)),
        ("hybridstitch-10-full-large", (31.14, 31.83, 0.34, 13.82, 1.5)),
        ("hybridstitch-30-10", (30.02, 31.79, 0.41, 12.49, 1.66)),
    ],
)
def test_the_paper_s_figures(name, figures):
    row = preset(name).paper
    assert (row.fid, row.clip, row.lpips, row.latency_seconds, row.speedup) == figures


def test_the_paper_s_speedups_follow_from_its_latencies():
    """To the two digits printed, sometimes cut, sometimes rounded."""
    seconds = preset("large").paper.latency_seconds
    rows = [p for p in PRESETS.values() if p.paper]
    assert len(rows) == 18
    for row in rows:
        assert row.paper.speedup == pytest.approx(seconds / row.paper.latency_seconds, abs=0.011), row.name


@pytest.mark.parametrize("steps", [8, 20, 28, 50])
def test_programs_fit_any_usual_number_of_steps(steps):
    for name in ("modm", "flowblending", "region-adaptive"):
        preset(name).policy.check(steps)


def test_region_adaptive_is_the_published_script_at_28_steps():
    """Half of the tokens from step 4, all at steps 12 and 20."""
    assert fill(preset("region-adaptive").policy.program, 28) == (4, 8, 1, 7, 1, 7)


def test_flowblending_spares_57_percent_of_a_2b_13b_pair():
    first, middle, last = fill(preset("flowblending").policy.program, 100)
    assert 1 - (first + last + middle * 2 / 13) / 100 == pytest.approx(0.57, abs=0.025)


# --- names ---


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        (" hybridstitch-30 ", HybridStitch()),
        ("hybrid-stitch:text=cached", HybridStitch(text="cached")),
        ("L10 H15@0.3 S25", Schedule("L10 H15@0.3 S25")),
        ("t-stitch:ratio=0.2", TStitch(0.2)),
    ],
)
def test_policy_named_reads_presets_strings_and_programs(text, policy):
    assert policy_named(text) == policy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hybridstitch-3O", "there is no preset or policy 'hybridstitch-3O'; did you mean 'hybridstitch-30'?"),
        ("tstitch", "there is no preset or policy 'tstitch'; did you mean 't-stitch'?"),
        ("flow-blending", "did you mean 'flowblending'?"),
        ("zzz", f"there is no preset or policy 'zzz'; known: {', '.join(sorted({*PRESETS, *POLICIES}))}"),
        (
            "hybridstitch-30:text=cached",
            "preset 'hybridstitch-30' takes no options; write its policy out and change that",
        ),
        ("hybrid-stitch:mask=0.3", "policy 'hybrid-stitch' has no option 'mask'; did you mean 'masks'?"),
        ("", "there is no preset or policy ''; known: "),
    ],
)
def test_a_name_that_means_nothing_is_refused(text, says):
    with pytest.raises(PolicyError) as caught:
        policy_named(text)
    assert says in str(caught.value)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(PolicyError, match=r"there is no preset 'hybridstitch-33'; did you mean 'hybridstitch-30'\?"):
        preset("hybridstitch-33")


def test_presets_need_no_torch():
    code = "import sys, hybridstitch; hybridstitch.policy_named('hybridstitch-30'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- at home ---


def test_a_run_in_the_paper_s_setting_is_at_home():
    assert outside(preset("hybridstitch-30")) == []
    home = {"large": PAPER.large, "small": PAPER.small, "size": (768, 768), "steps": 50, "scheduler": PAPER.scheduler}
    assert outside(preset("hybridstitch-30"), **home, guidance=7.0) == []


def test_thresholds_of_the_miniature_pair_are_at_home_there():
    home = {"large": "mini", "size": (128, 128), "steps": 50, "guidance": 4.0}
    assert outside(preset("mini-carried"), **home) == []
    assert outside(preset("mini-carried"), **{**home, "large": "mine", "steps": 28}) == [
        "The thresholds of 'mini-carried' were chosen where the large model is mini; in this run it is mine.",
        "The thresholds of 'mini-carried' were chosen where the number of steps is 50; in this run it is 28.",
    ]


def test_a_run_elsewhere_is_told_so_in_sentences():
    sentences = outside(preset("sr-diffusion"), small="mine", size=(512, 768), steps=28, scheduler="Heun")
    assert sentences == [
        "The thresholds of 'sr-diffusion' were chosen where the small model is "
        "stabilityai/stable-diffusion-3-medium-diffusers; in this run it is mine.",
        "The thresholds of 'sr-diffusion' were chosen where the size is 768×768; in this run it is 512×768.",
        "The thresholds of 'sr-diffusion' were chosen where the number of steps is 50; in this run it is 28.",
        "The thresholds of 'sr-diffusion' were chosen where the scheduler is FlowMatchEulerDiscreteScheduler; in this "
        "run it is Heun.",
    ]


def test_programs_have_no_thresholds_to_carry_over():
    for name in ("large", "t-stitch", "modm", "flowblending"):
        assert preset(name).made_for is None
        assert outside(preset(name), size=(64, 64), steps=4) == []
    homes = {name: p.made_for for name, p in PRESETS.items() if p.policy.adaptive}
    assert homes.pop("mini-carried").large == homes.pop("hybridstitch").large == "mini"
    assert set(homes.values()) == {PAPER}


def test_a_policy_string_reads_back_through_a_stitch_s_own_reader():
    assert all(parse(str(p.policy)) == p.policy for p in PRESETS.values())


def test_presets_of_few_steps_fill_them_and_bring_their_levels():
    class Scheduler:
        class config:
            shift = 2.0

    for few in FEW:
        assert sum(fill(few.policy.program, few.steps)) == few.steps
        few.policy.check(few.steps)
        call = few.call(Scheduler)
        assert call["num_inference_steps"] == few.steps == len(call["sigmas"])
        s = [2 * level / (1 + level) for level in call["sigmas"]]  # what the scheduler's own shift makes of them
        assert s[1] == pytest.approx(few.shift * (u := 1 - 1 / few.steps) / (1 + (few.shift - 1) * u))
    assert preset("large").call(Scheduler) == {}


# --- from Python, in a pipeline ---


def warned(pipe, **call):
    """What a run warns of."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        generate(pipe, **call)
    return [str(w.message) for w in found if issubclass(w.category, StitchWarning) and "outside" in str(w.message)]


@pytest.mark.parametrize("door", ["stitch", "policy", "preset"])
def test_a_preset_named_from_python_warns_once_outside_its_setting(door):
    pipe = stitched("sr-diffusion" if door == "stitch" else "large")
    if door != "stitch":
        pipe.transformer.policy = "sr-diffusion" if door == "policy" else preset("sr-diffusion")
    assert pipe.transformer.policy == preset("sr-diffusion").policy
    assert warned(pipe, steps=8) == [
        "outside the setting of sr-diffusion: The thresholds of 'sr-diffusion' were chosen where the size is 768×768; "
        "in this run it is 32×32. The thresholds of 'sr-diffusion' were chosen where the number of steps is 50; in "
        "this run it is 8."
    ]
    assert warned(pipe, steps=8) == warned(pipe, steps=9) == []


def test_a_policy_that_was_not_named_by_a_preset_warns_of_nothing():
    assert warned(stitched(preset("hybridstitch-30").policy)) == []
    assert warned(stitched("hybrid-stitch:masks=0.3,thresholds=0.5/0.3,min_large=0.1")) == []


def test_a_preset_s_call_is_at_hand_in_the_pipeline():
    pipe = stitched("mini-few-4")
    assert pipe.transformer.call == preset("mini-few-4").call(pipe.scheduler)
    assert len(pipe.transformer.call["sigmas"]) == 7
    pipe.transformer.policy = "large"
    assert pipe.transformer.call == {}
