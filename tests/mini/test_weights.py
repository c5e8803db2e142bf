"""The shipped weights: a folder plain diffusers opens, small enough to ship, and able to draw what is asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from PIL import Image

from hybridstitch.mini import show, weights_dir
from hybridstitch.mini.scenes import Scene, heldout_prompts
from hybridstitch.mini.score import MiniClip, Others, distractors
from hybridstitch.mini.train.data import tokens


@pytest.fixture(scope="module")
def pipe() -> StableDiffusion3Pipeline:
    return StableDiffusion3Pipeline.from_pretrained(
        weights_dir(), dtype=torch.float32, text_encoder_3=None, tokenizer_3=None
    )


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
    prompts = heldout_prompts(20)
    images = show.real(prompts)
    choices = clip.choices(prompts, 20, others="objects")
    assert clip.hits(images, choices).mean() >= 0.95
    assert clip.hits(images[1:] + images[:1], choices).mean() <= 0.1
    assert clip.scores(images, prompts).mean() > clip.scores(images, prompts[1:] + prompts[:1]).mean() + 0.3


@pytest.mark.parametrize("others", ["object", "objects", "near", "far"])
def test_distractors_describe_other_scenes(others: Others) -> None:
    prompts = heldout_prompts(6, seed=9)
    rows = distractors(prompts, 99, 0, others)
    assert [len(row) for row in rows] == [99] * 6
    for prompt, row in zip(prompts, rows, strict=True):
        keys = {Scene.parse(text).key for text in row}
        assert len(keys) == 99
        assert Scene.parse(prompt).key not in keys


def test_distractors_of_the_object_question_change_the_objects_and_little_else() -> None:
    prompts = heldout_prompts(6, seed=9)
    for prompt, row in zip(prompts, distractors(prompts, 99, others="objects"), strict=True):
        scene = Scene.parse(prompt)
        own = {thing.name for thing in scene.things}
        for place, other in enumerate(map(Scene.parse, row)):
            assert (other.layout, other.background) == (scene.layout, scene.background)
            assert not own & {thing.name for thing in other.things}
            if len(own) > 1 or place < 59:  # one object has 59 others of its size
                assert [thing.size for thing in other.things] == [thing.size for thing in scene.things]


def test_distractors_of_the_stricter_question_replace_one_object() -> None:
    prompts = heldout_prompts(6, seed=9)
    for prompt, row in zip(prompts, distractors(prompts, 99), strict=True):
        scene = Scene.parse(prompt)
        for place, other in enumerate(map(Scene.parse, row)):
            changed = [one for one, was in zip(other.things, scene.things, strict=True) if one != was]
            assert (other.layout, other.background) == (scene.layout, scene.background)
            assert len(changed) == 1
            assert changed[0].name not in {thing.name for thing in scene.things}
            if len(scene.things) > 1 or place < 59:  # one object has 59 others of its size
                assert [thing.size for thing in other.things] == [thing.size for thing in scene.things]


def test_a_picture_is_right_if_its_own_caption_beats_all_others(clip: MiniClip) -> None:
    prompts = heldout_prompts(4, seed=3)
    images = show.real(prompts)
    choices = clip.choices(prompts, 6, others="far")
    scores = torch.einsum("bd,bnd->bn", clip.steady_features(images), choices)
    assert choices.shape == (4, 6, 128)
    torch.testing.assert_close(choices[:, 0], clip.text_features([Scene.parse(text).caption() for text in prompts]))
    assert clip.hits(images, choices).tolist() == (scores.argmax(1) == 0).tolist() == [True] * 4
    assert clip.hits(images, choices.flip(1)).tolist() == [False] * 4
    assert clip.retrieval(images, prompts, 6, others="far").number == 4


def test_a_picture_shifted_a_little_keeps_its_steady_feature(clip: MiniClip) -> None:
    image = show.real(heldout_prompts(1, seed=3))[0]
    shifted = Image.fromarray(np.roll(np.asarray(image), 2, axis=1))
    one, other = clip.steady_features([image, shifted])
    plain, moved = clip.image_features([image, shifted])
    assert one.norm() == pytest.approx(1)
    assert one @ other > plain @ moved


@pytest.mark.slow
def test_the_large_model_draws_the_prompt(clip: MiniClip, pipe: StableDiffusion3Pipeline) -> None:
    prompts = heldout_prompts(8, seed=21)
    images = show.draw(pipe, prompts, 12)
    assert clip.retrieval(images, prompts, n=20, others="far").mean >= 0.5
