"""A small model with text encoders of its own is told every prompt in its own words, and nothing else changes."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel

from flux_models import POOLED, TEXT, generate, pipeline, transformer
from hybridstitch import Replay, open_pair, stitch, unstitch
from hybridstitch.errors import PairError, StitchError, StitchWarning
from hybridstitch.families.known import facts_of, shape_of
from hybridstitch.measure.profile import follow
from hybridstitch.pair.memory import outline
from hybridstitch.policies.plan import Plan, Region, Stroke
from pipelines import PIPELINES, words
from seen import same

LETTERS = [*map(chr, range(ord("a"), ord("z") + 1))]
VOCABULARY = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
PROMPTS = ["cat", "mouse"]


def told(pipe, width, seed):
    """A pipeline with random text encoders, whose tokens are letters."""
    vocabulary = {word: place for place, word in enumerate(VOCABULARY)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=TEXT)
    torch.manual_seed(seed)
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary), hidden_size=POOLED, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=TEXT, eos_token_id=len(vocabulary) - 1,
        )
    )  # fmt: skip
    t5 = T5EncoderModel(T5Config(vocab_size=len(vocabulary), d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    texts = {
        "text_encoder": clip.eval(),
        "tokenizer": tokenizer,
        "text_encoder_2": t5.eval(),
        "tokenizer_2": tokenizer,
    }
    pipe = type(pipe)(**{**pipe.components, **texts})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pair():
    """A pipeline and a smaller one that is told by narrower text encoders."""
    small = pipeline()
    small.transformer = transformer(heads=3, layers=1, seed=2, text_width=16)
    return told(pipeline(), 24, 11), told(small, 16, 12)


def draw(pipe, prompt=PROMPTS, **call):
    """Latents by prompts, with guidance by two calls."""
    asked = {"prompt": prompt, "negative_prompt": ["fog"] * len(PROMPTS), "true_cfg_scale": 2.0}
    absent = {"prompt_embeds": None, "pooled_prompt_embeds": None, "max_sequence_length": TEXT}
    return generate(pipe, **{**absent, **asked, **call})


def test_each_model_is_told_in_its_own_words_bit_for_bit():
    large, small = pair()
    plain, tiny = draw(large), draw(small)
    stitch(large, small, "large")
    assert torch.equal(draw(large), plain)
    large.transformer.policy = "small"
    assert torch.equal(draw(large), tiny)
    assert torch.equal(draw(copy.deepcopy(large)), tiny)
    unstitch(large)
    assert "encode_prompt" not in vars(large)
    assert torch.equal(draw(large), plain)


@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
def test_masks_and_images_that_go_their_own_ways():
    large, small = pair()
    stitch(large, small, "L2 H2@0.3 S2")
    assert draw(large).isfinite().all()
    every, tiny = (Plan((Stroke(model),)) for model in "LS")
    part = Region(1.0, tokens=tuple(range(48)))
    large.transformer.policy = Replay(((every,) * 3, (every, tiny, tiny)))
    mixed = draw(large, steps=3)
    large.transformer.policy = Replay(((every, every, Plan((Stroke("S"), Stroke("L", part)))),) * 2)
    masked = draw(large, steps=3)
    large.transformer.policy = "large"
    plain = draw(large, steps=3)
    large.transformer.policy = "L1 S*"
    assert (mixed[0] - plain[0]).abs().max() <= 1e-4 * plain.abs().max()
    assert (mixed[1] - draw(large, steps=3)[1]).abs().max() <= 1e-4 * plain.abs().max()
    assert torch.equal(masked, plain)


@torch.no_grad()
def test_embeddings_of_the_caller_are_remembered_or_refused():
    large, small = pair()
    stitch(large, small, "small")
    told_large, told_small = (pipe.encode_prompt(PROMPTS, max_sequence_length=TEXT)[:2] for pipe in (pair()[0], small))
    mine = dict(zip(("prompt_embeds", "pooled_prompt_embeds"), told_large, strict=True))
    with pytest.raises(StitchError, match=r"there is no encoding by them for this encoder_hidden_states.*remember"):
        draw(large, prompt=None, **mine, negative_prompt=None)
    large.transformer.words.remember(told_large, told_small)
    expected = draw(small, negative_prompt=None)
    assert torch.equal(draw(large, prompt=None, **mine, negative_prompt=None), expected)


def test_words_of_its_own_come_with_a_pipeline_and_stay_with_it(tmp_path):
    large, small = pair()
    with pytest.raises(PairError, match=r"text width \(joint_attention_dim\) is 24 in the large one and 16"):
        stitch(large, small.transformer)
    stitch(large, small, "L2 S*")
    large.transformer.words.guidance, large.transformer.words.negative = 3.0, "rain"
    drawn = draw(large)
    large.save_pretrained(tmp_path)
    opened = open_pair(tmp_path)
    opened.set_progress_bar_config(disable=True)
    assert opened.transformer.words.small.transformer is None
    same(draw(opened), drawn, 1e-5)
    large.transformer.words.guidance = None
    assert (draw(large) - drawn).abs().max() > 1e-3
    assert small.transformer is large.transformer.small


def test_a_folder_with_words_of_its_own_is_opened_with_them(tmp_path):
    """And what they weigh is known before, of two folders and of the saved pair."""
    large, small = pair()
    drawn = draw(small)
    large.save_pretrained(tmp_path / "large")
    small.save_pretrained(tmp_path / "small")
    stitch(large, tmp_path / "small", "small")
    same(draw(large), drawn, 1e-5)
    assert large.transformer.words.guidance is None
    large.save_pretrained(tmp_path / "pair")
    own = [large.transformer.words.small.text_encoder, large.transformer.words.small.text_encoder_2]
    modules = [part for part in large.components.values() if isinstance(part, torch.nn.Module)]
    tensors = [tensor for part in (*modules, *own) for tensor in part.state_dict().values()]
    held = sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())  # some are tied
    for folders in (("large", "small"), ("pair",)):
        known = outline(*(str(tmp_path / name) for name in folders), element_bytes=4)
        assert sum(known.weights.values()) == held
        assert {"small, text_encoder", "small, text_encoder_2"} <= known.weights.keys()
    opened = open_pair(tmp_path / "large", tmp_path / "small", "small")
    opened.set_progress_bar_config(disable=True)
    same(draw(opened), drawn, 1e-5)


@pytest.mark.parametrize(("distilled", "guidance"), [(True, None), (False, 4.0)])
def test_klein_guides_itself_under_dev_unless_it_was_distilled(distilled, guidance):
    dev, klein = PIPELINES["flux2"].here(), PIPELINES["flux2-klein"].here()
    large = dev.build()
    small = replace(klein, config={**klein.config, "joint_attention_dim": 16})
    stitch(large, small.build(vae=large.vae, is_distilled=distilled), "L2 S*")
    assert large.transformer.words.guidance == guidance


def latents(pipe, embeds, **call):
    """Of FLUX.2; klein unpacks what it returns."""
    last = {}
    pipe(
        prompt_embeds=embeds,
        num_inference_steps=4,
        output_type="latent",
        height=16,
        width=12,
        generator=torch.Generator().manual_seed(7),
        callback_on_step_end=lambda pipe, step, time, given: last.update(given) or {},
        **call,
    )
    return last["latents"]


def test_flux2_dev_and_klein_whose_texts_differ_in_width_and_length():
    dev, klein = PIPELINES["flux2"], PIPELINES["flux2-klein"]
    if dev.lacking or klein.lacking:
        pytest.skip(dev.lacking or klein.lacking)
    large = dev.build()
    small = replace(klein, config={**klein.config, "joint_attention_dim": 16}).build(vae=large.vae, is_distilled=True)
    mine, its = words(2, 7, 24), words(2, 5, 16)
    own = latents(small, its)
    stitch(large, small, "L2 S*")
    large.transformer.words.remember(mine, its)
    assert latents(large, mine).isfinite().all()
    large.transformer.policy = "small"
    assert torch.equal(latents(large, mine), own)


def test_a_small_model_guides_itself_under_embedded_guidance():
    dev, klein = PIPELINES["flux2"], PIPELINES["flux2-klein"]
    if dev.lacking or klein.lacking:
        pytest.skip(dev.lacking or klein.lacking)
    large = dev.build()
    small = replace(klein, config={**klein.config, "joint_attention_dim": 16}).build(vae=large.vae, is_distilled=False)
    mine, its, negative = words(2, 7, 24), words(2, 5, 16), words(2, 5, 16, seed=4)
    own = latents(small, its, negative_prompt_embeds=negative, guidance_scale=3.0)
    plain = latents(large, mine)
    stitch(large, small, "small")
    told = large.transformer.words
    told.guidance = 3.0
    told.remember(mine, its)
    with pytest.raises(StitchError, match="guides itself and has no negative embeddings of its own"):
        latents(large, mine)
    told.remember(mine, its, negative)
    assert torch.equal(latents(large, mine), own)
    large.transformer.policy = "large"
    assert torch.equal(latents(large, mine), plain)
    every, tiny = (Plan((Stroke(model),)) for model in "LS")
    part = Plan((Stroke("S"), Stroke("L", Region(1.0, tokens=tuple(range(12))))))
    large.transformer.policy = Replay(((every, every, part, part), (every, tiny, tiny, tiny)))
    mixed = latents(large, mine)
    assert (mixed[0] - plain[0]).abs().max() <= 1e-4 * plain.abs().max()
    assert not torch.equal(mixed[1], plain[1])


def test_a_small_model_that_guides_itself_is_told_each_prompt_and_none():
    large, small = pair()
    stitch(large, small, "small")
    large.transformer.words.guidance = 2.0
    large.transformer.words.negative = "fog"
    guided = draw(large, negative_prompt=None)
    assert torch.equal(guided, draw(small))
    assert torch.equal(draw(copy.deepcopy(large), negative_prompt=None), guided)


def test_a_small_model_that_guides_itself_counts_twice_where_a_mask_is_not_worth_it():
    large, small = pair()
    model, vae = large.transformer, large.vae
    tokens = facts_of("FluxTransformer2DModel").tokens(model.config, vae.config, (1024, 1024))
    costs = [shape_of(each, tokens).flops() for each in (small.transformer, model)]
    between = round(1 - 1.5 * costs[0] / costs[1], 3)  # worth it with one call of the small model, not with two
    with warnings.catch_warnings():
        warnings.simplefilter("error", StitchWarning)
        stitch(large, small, f"L2 H2@{between} S*")
        draw(large)
    large.transformer.words.guidance = 2.0
    with pytest.warns(StitchWarning, match=rf"a mask of {between} is not worth it .* with its two calls"):
        draw(large, negative_prompt=None)


@pytest.mark.parametrize("guided", [False, True])
def test_a_measured_pair_asks_the_small_model_in_its_own_words(guided):
    large, small = pair()
    stepped = []
    asked = {"num_inference_steps": 4, "guidance_scale": 3.5, "true_cfg_scale": 2.0 if guided else 1.0}
    draw(
        small, ["cat"], negative_prompt=["fog"] if guided else None, **asked,
        callback_on_step_end=lambda pipe, step, time, given: stepped.append(given["latents"]) or {},
    )  # fmt: skip
    stitch(large, small, "large")
    if guided:
        large.transformer.words.guidance, large.transformer.words.negative = 2.0, "fog"
    way = follow(large, "cat", steps=4, guidance=3.5, seed=7, height=32, width=24, max_sequence_length=TEXT)
    span = large.scheduler.sigmas[1] - large.scheduler.sigmas[0]
    same(way.latents[0] + span * way.small[0], stepped[0][0], 1e-5)
    assert not torch.equal(way.small[0], way.large[0])
