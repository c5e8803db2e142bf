"""The shipped weights: a folder plain diffusers opens, small enough to ship, and able to draw what is asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

from hybridstitch.mini import show, weights_dir
from hybridstitch.mini.scenes import Scene, heldout_prompts
from hybridstitch.mini.score import MiniClip, Others, distractors, interval
from hybridstitch.mini.train.data import tokens


@pytest.fixture(scope="module")
def pipe() -> StableDiffusion3Pipeline:
    return StableDiffusion3Pipeline.from_pretrained(weights_dir(), dtype=torch.float32, **show.NO_T5)


@pytest.fixture(scope="module")
def clip() -> MiniClip:
    return MiniClip.load()


def test_the_folder_is_small_and_has_a_model_card() -> None:
    files = [file for file in weights_dir().rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 40_000_000
    assert (weights_dir() / "MODEL_CARD.md").read_text().startswith("# ")


def test_large_and_small_fit_the_same_pipeline(pipe: StableDiffusion3Pipeline) -> None:
    small = SD3Transformer2DModel.from_pretrained(weights_dir() / "small")
    keys = ("sample_size", "patch_size", "in_channels", "joint_attention_dim", "pooled_projection_dim")
    assert {key: small.config[key] for key in keys} == {key: pipe.transformer.config[key] for key in keys}
    assert small.num_parameters() < 0.25 * pipe.transformer.num_parameters()
    index = json.loads((weights_dir() / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusion3Pipeline"
    assert index["text_encoder_3"] == index["tokenizer_3"] == [None, None]


def test_the_saved_tokenizer_pools_at_the_end_of_a_caption(pipe: StableDiffusion3Pipeline) -> None:
    ids = tokens(pipe.tokenizer, ["a big dog on a meadow"])
    assert ids.shape == (1, 24)
    eos = pipe.text_encoder.config.eos_token_id
    assert eos == pipe.tokenizer.eos_token_id != 2
    assert (ids == eos).sum() == 1
    assert ids.max() < pipe.text_encoder.config.vocab_size


def test_the_vae_gives_a_scene_back(pipe: StableDiffusion3Pipeline) -> None:
    image = Scene.parse("a big fox above a big crab in the fog").render()
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        latent = pipe.vae.encode(pixels).latent_dist.mode()
        error = (pipe.vae.decode(latent).sample - pixels).square().mean()
    assert latent.shape == (1, 16, 32, 32)
    assert -10 * torch.log10(error / 4) > 27  # dB


def test_clip_tells_real_scenes_apart(clip: MiniClip) -> None:
    prompts = heldout_prompts(60)
    images = show.real(prompts, 1, 0)
    assert clip.retrieval(images, prompts, others="far").share >= 0.95
    wrong = clip.retrieval(images, prompts[1:] + prompts[:1], others="far")
    assert wrong.share <= 0.05
    assert clip.scores(images, prompts).mean() > clip.scores(images, prompts[1:] + prompts[:1]).mean() + 0.3


@pytest.mark.parametrize("others", ["near", "far"])
def test_distractors_describe_other_scenes(others: Others) -> None:
    prompts = heldout_prompts(3, seed=9)
    rows = distractors(prompts, 99, 0, others)
    assert [len(row) for row in rows] == [99] * 3
    for prompt, row in zip(prompts, rows, strict=True):
        assert Scene.parse(prompt).key not in {Scene.parse(text).key for text in row}


def test_the_interval_holds_the_share() -> None:
    accuracy = interval(np.array([True] * 80 + [False] * 20))
    assert accuracy.low < accuracy.share == 0.8 < accuracy.high
    assert accuracy.high - accuracy.low == pytest.approx(0.156, abs=0.02)


@pytest.mark.slow
def test_the_large_model_draws_the_prompt(clip: MiniClip) -> None:
    prompts = heldout_prompts(8, seed=21)
    images = show.METHODS["large"](prompts, 12, 0)
    assert clip.retrieval(images, prompts, n=20, others="far").share >= 0.5
