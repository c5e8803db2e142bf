"""Calibration of pairs beside Stable Diffusion 3: one that draws parts of a picture, one of whole steps."""

import diffusers
import pytest
import torch

import flux_models
import pipelines
from hybridstitch import stitch
from hybridstitch.calibrate import calibrate
from hybridstitch.policies.parse import parse
from small_models import vae

PROMPTS = ("abc", "dog", "cab", "bed")


def flux(monkeypatch):
    def encode(self, prompt, prompt_2=None, **more):
        told = flux_models.embeddings(1, torch.float32)
        return told["prompt_embeds"], told["pooled_prompt_embeds"], torch.zeros(flux_models.TEXT, 3)

    monkeypatch.setattr(diffusers.FluxPipeline, "encode_prompt", encode)
    return flux_models.stitched()


def auraflow(monkeypatch):
    told = pipelines.text(1, mask="attention_mask")

    def encode(self, prompt, **more):
        names = ("prompt_embeds", "prompt_attention_mask")
        return tuple(told[kind + name] for kind in ("", "negative_") for name in names)

    monkeypatch.setattr(diffusers.AuraFlowPipeline, "encode_prompt", encode)
    row = pipelines.PIPELINES["auraflow"].here()
    pipe = row.build(vae=vae())
    stitch(pipe, row.transformer(1), "large")
    return pipe


PAIRS = {"flux": (flux, (24, 32), 3.5), "auraflow": (auraflow, (16, 16), 4.0)}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_of_another_family_is_calibrated(name, monkeypatch):
    made, size, guidance = PAIRS[name]
    pipe = made(monkeypatch)
    recipe = calibrate(pipe, PROMPTS, steps=6, guidance=guidance, size=size, minutes=0)
    assert recipe.points[0].policy == "large"
    assert len(recipe.points) > 2
    masks = pipe.transformer.family.facts.masks
    assert set(recipe.prices.masked) == ({"fresh", "cached"} if masks else set())  # no other branch of guidance
    assert any(parse(trial.policy).can_mask for trial in recipe.trials) == masks
