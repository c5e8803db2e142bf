"""FLUX.1's and Wan's pipelines draw what the plain loop of `examples/algorithm1_tokens.py` draws, bit for bit."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import flux_models
from examples.algorithm1_tokens import LargeModel, algorithm1
from hybridstitch import HybridStitch, stitch
from pipelines import CLIP, PIPELINES, euler, text
from tokenwise import attention, token_by_token_in

EXAMPLE = Path(__file__).parents[1] / "examples" / "algorithm1_tokens.py"
STEPS = 8
MASKS = (0.4, 0.2)
SIGMAS = np.linspace(1.0, 1 / STEPS, STEPS)


@pytest.fixture(autouse=True)
def token_by_token(monkeypatch):
    """Products that sum each token by itself, in the pipeline as in the loop."""
    token_by_token_in(monkeypatch, "hybridstitch.families.lent.attention")

    def attend(query, key, value, attn_mask=None, **unused):
        return attention(*(tensor.transpose(1, 2) for tensor in (query, key, value))).transpose(1, 2)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)


def flux(policy):
    """Two pictures by the pipeline, its trace, and of each what the loop is given."""
    pipe, told = flux_models.pipeline(), flux_models.embeddings(2, torch.float32)
    loop = LargeModel(flux_models.pipeline().transformer), flux_models.small(), euler()
    stitch(pipe, flux_models.small(), policy)
    noise = torch.randn(2, 48, 16, generator=torch.Generator().manual_seed(7))
    drawn = flux_models.generate(pipe, images=2, steps=STEPS, latents=noise)
    loop[2].set_timesteps(sigmas=SIGMAS)
    places = torch.cartesian_prod(torch.zeros(1), torch.arange(8.0), torch.arange(6.0))
    shared = {"img_ids": places, "txt_ids": torch.zeros(flux_models.TEXT, 3), "guidance": torch.full((1,), 3.5)}
    texts = zip(told["prompt_embeds"].split(1), told["pooled_prompt_embeds"].split(1), strict=True)
    words = [[{**shared, "encoder_hidden_states": t, "pooled_projections": pooled}] for t, pooled in texts]
    return drawn, pipe.transformer.trace, loop, noise, words, 1000, 1.0


def wan(policy):
    """The same of one video, guided by two calls; convolutions of several sum in another order."""
    piped, told = PIPELINES["wan"], text(1)
    pipe = piped.build(scheduler=euler())
    loop = LargeModel(piped.transformer(0)), piped.transformer(1), euler()
    stitch(pipe, piped.transformer(1), policy)
    noise = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(7))
    call = {"num_inference_steps": STEPS, "latents": noise, "output_type": "latent", "return_dict": False}
    drawn = pipe(**told, **CLIP, **call, guidance_scale=4.0)[0]
    loop[2].set_timesteps(STEPS)
    words = [{"encoder_hidden_states": told[name]} for name in ("prompt_embeds", "negative_prompt_embeds")]
    return drawn, pipe.transformer.trace, loop, noise, [words], 1, 4.0


@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
@pytest.mark.parametrize(("family", "tau"), [(flux, (0.6, 0.3, 0.05)), (wan, (0.6, 0.4, 0.1))])
def test_the_pipeline_is_the_plain_loop_bit_for_bit(family, tau):
    drawn, trace, loop, noise, words, unit, g = family(HybridStitch(masks=MASKS, thresholds=tau))
    assert {0, 1, 2} <= {step.plan.stage for step in trace.records}
    for image, steps in enumerate(map(trace.of, range(trace.images))):
        x, decisions, distances = algorithm1(*loop, noise[image, None], words[image], unit, g, MASKS, tau)
        assert [stage for stage, _ in decisions] == [step.plan.stage for step in steps]
        masks = [None if mask is None else tuple(mask.nonzero()[:, 0].tolist()) for _, mask in decisions]
        assert masks == [step.mask for step in steps]
        assert distances == pytest.approx([step.distance for step in steps][1:], rel=1e-4)
        assert torch.equal(x[0], drawn[image])
        loop[0].kept.clear()


def test_the_example_is_short_independent_and_runs(capsys, monkeypatch):
    monkeypatch.undo()
    source = EXAMPLE.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 120
    assert "hybridstitch" not in source
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out.startswith("stages [0, 0, 1")
