"""The parts are a stock Stable Diffusion 3 pipeline with 24 text tokens, and the tokenizer knows every
word whole.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from hybridstitch.mini import parts
from hybridstitch.mini.scenes import Scene
from hybridstitch.mini.train.data import tokens
from hybridstitch.mini.words import vocabulary


@pytest.fixture(scope="module")
def pipe() -> StableDiffusion3Pipeline:
    torch.manual_seed(0)
    words = parts.tokenizer()
    encoders = [parts.text_encoder(words) for _ in range(2)]
    pipe = parts.pipeline(parts.transformer("small"), parts.autoencoder(), *encoders, words)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_each_known_word_is_one_token_and_other_text_is_spelled() -> None:
    words = parts.tokenizer()
    assert [word for word in vocabulary() if len(words(word).input_ids) != 3] == []
    ids = words("Zygote\u00e9 42!").input_ids
    assert words.unk_token_id not in ids[1:-1]
    assert len(ids) > 6


def test_the_tokenizer_is_the_same_every_time() -> None:
    assert parts.tokenizer().get_vocab() == parts.tokenizer().get_vocab()


def test_captions_fit_and_are_pooled_at_their_end() -> None:
    words = parts.tokenizer()
    rng = np.random.default_rng(0)
    captions = [Scene.sample(rng).caption(rng) for _ in range(500)]
    lengths = [len(ids) for ids in words(captions).input_ids]
    assert max(lengths) <= parts.TEXT_TOKENS == words.model_max_length
    encoder = parts.text_encoder(words).eval()
    assert encoder.config.eos_token_id == words.eos_token_id != 2
    ids = tokens(words, captions[:8])
    with torch.no_grad():
        out = encoder(ids)
        ends = torch.tensor(lengths[:8]) - 1
        expected = encoder.text_projection(out.last_hidden_state[torch.arange(8), ends])
    assert (ids[torch.arange(8), ends] == words.eos_token_id).all()
    torch.testing.assert_close(out.text_embeds, expected)


def test_only_24_text_tokens_reach_the_transformer(pipe: StableDiffusion3Pipeline) -> None:
    seen: list[torch.Size] = []
    hook = pipe.transformer.context_embedder.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    image = pipe("a dog at night", max_sequence_length=0, num_inference_steps=2, guidance_scale=4.0).images[0]
    hook.remove()
    assert seen == [(2, parts.TEXT_TOKENS, 2 * parts.TEXT_WIDTH)] * 2
    assert parts.TEXT_TOKENS <= 32
    assert image.size == (128, 128)


def test_training_encodes_text_as_the_pipeline_does(pipe: StableDiffusion3Pipeline) -> None:
    from hybridstitch.mini.train.flow import encode_text

    prompts = ["a big dog above a small cat at sunset", ""]
    made = pipe.encode_prompt(prompts[0], None, None, max_sequence_length=0)
    words, pooled = encode_text([pipe.text_encoder, pipe.text_encoder_2], tokens(pipe.tokenizer, prompts))
    for place, (embeds, pools) in enumerate(((made[0], made[2]), (made[1], made[3]))):
        torch.testing.assert_close(words[place : place + 1], embeds)
        torch.testing.assert_close(pooled[place : place + 1], pools)
