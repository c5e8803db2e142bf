"""The examples, each on models small enough for a test; `algorithm1*.py` have tests of their own, `server_client.py` is
tried where there is a server, in `test_serve.py`."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from examples import flux2, own_loop, own_policy, wan
from hybridstitch import open_pair
from pipelines import PIPELINES, words
from wan_folder import pipeline as wan_pipeline

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_a_loop_of_ones_own_draws_the_pipelines_picture():
    pipe = open_pair("mini", policy="L2 H2@0.3 S")
    call = {"num_inference_steps": 5, "guidance_scale": 4.0, "generator": torch.Generator().manual_seed(3)}
    expected = pipe("a big dog on a meadow", **call, output_type="latent").images
    trace = pipe.transformer.trace
    drawn = own_loop.draw(pipe, "a big dog on a meadow", steps=5, seed=3)
    assert torch.equal(drawn, expected)
    assert [str(step.drawn) for step in pipe.transformer.trace.of(0)] == [str(step.drawn) for step in trace.of(0)]
    assert own_loop.decode(pipe, drawn).size == (128, 128)


def test_a_policy_of_ones_own_fades():
    policy = own_policy.Fading(alone=2, most=0.4)
    pipe = open_pair("mini", policy=policy)
    pipe("a big dog on a meadow", num_inference_steps=6, output_type="latent")
    drawn = [str(step.drawn) for step in pipe.transformer.trace.of(0)]
    assert drawn == ["L", "L", "S + L@0.4", "S + L@0.3", "S + L@0.2", "S + L@0.1"]


def test_flux2_draws_with_klein():
    dev, klein = PIPELINES["flux2"], PIPELINES["flux2-klein"]
    if dev.lacking or klein.lacking:
        pytest.skip(dev.lacking or klein.lacking)
    small = replace(klein, config={**klein.config, "joint_attention_dim": 16})
    large = dev.build()
    pipe = flux2.stitched(large, small.build(vae=large.vae, is_distilled=False))
    mine, its, negative = words(1, 7, 24), words(1, 5, 16), words(1, 5, 16, seed=4)
    pipe.transformer.words.remember(mine, its, negative)
    call = {"num_inference_steps": 10, "height": 16, "width": 12, "output_type": "latent"}
    assert pipe(prompt_embeds=mine, **call).images.isfinite().all()
    assert [str(step.drawn) for step in pipe.transformer.trace.of(0)] == ["L"] * 2 + ["S + L@0.3"] * 4 + ["S"] * 4


def test_wan_draws_a_video_with_both_models():
    pipe = wan.stitched(wan_pipeline(), PIPELINES["wan"].transformer(1), kv="bfloat16")
    pipe.set_progress_bar_config(disable=True)
    call = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 10, "output_type": "latent"}
    pipe("a big dog runs on a meadow", **call)
    assert [str(step.drawn) for step in pipe.transformer.trace.of(0)] == ["L"] * 2 + ["S + L@0.3"] * 3 + ["S"] * 5


@pytest.mark.parametrize(
    "example", sorted(EXAMPLES.glob("*.py"), key=lambda path: path.name), ids=lambda path: path.name
)
def test_an_example_can_be_imported_without_doing_anything(example):
    assert runpy.run_path(str(example), run_name="an import")["__doc__"]
