"""Every pipeline is asked by the names its call has, and what it cannot be asked is refused in a line."""

import diffusers
import pytest
import torch

import pipelines
from hybridstitch.cli.artist import Artist
from hybridstitch.errors import PairError, StitchError
from hybridstitch.measure.calls import clocked
from hybridstitch.measure.lockstep import draw_together
from hybridstitch.measure.start import prepare
from hybridstitch.pair.asking import asked, check_asked, guided, listening, takes
from hybridstitch.policies.parse import parse

GUIDES, EMBEDS, TRUE = {"guidance_scale", "negative_prompt"}, {"guidance_scale"}, {"true_cfg_scale", "negative_prompt"}
NAMES = {
    **dict.fromkeys(("StableDiffusion3Pipeline", "WanPipeline", "LTXPipeline", "LTXConditionPipeline"), GUIDES),
    **dict.fromkeys(("SanaPipeline", "CogVideoXPipeline", "PixArtAlphaPipeline", "ChromaPipeline"), GUIDES),
    **dict.fromkeys(("Kandinsky5T2VPipeline", "Lumina2Pipeline", "Cosmos2TextToImagePipeline"), GUIDES),
    **dict.fromkeys(("FluxPipeline", "FluxImg2ImgPipeline", "HunyuanVideoPipeline", "Flux2Pipeline"), EMBEDS),
    **dict.fromkeys(("QwenImagePipeline", "QwenImageImg2ImgPipeline"), TRUE),
}


def bare(name):
    """A pipeline without parts."""
    kind = getattr(diffusers, name, None) or pytest.skip(f"no {name} here")
    return object.__new__(kind)


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_is_asked_by_names_it_has(name):
    pipe, names = bare(name), NAMES[name]
    told = asked(pipe, ["a dog", "a cat"], guidance=4.0)
    assert told.keys() <= takes(type(pipe)).keys()
    assert told.keys() == {"prompt", *names - ({"negative_prompt"} if names != TRUE else set())}
    if "negative_prompt" in names:
        assert asked(pipe, ["a", "b"], guidance=4.0, negative=["", "rain"])["negative_prompt"] == ["", "rain"]
    else:
        with pytest.raises(PairError, match=f"{name} draws with guidance that is an input of its model, and hears of"):
            asked(pipe, "a", guidance=4.0, negative="rain")


def test_qwen_image_guides_by_its_true_scale_and_not_without_a_negative_prompt():
    pipe = bare("QwenImagePipeline")
    assert asked(pipe, "a", guidance=3.0) == {"prompt": "a", "true_cfg_scale": 3.0, "negative_prompt": " "}
    assert asked(pipe, ["a", "b"], guidance=3.0)["negative_prompt"] == [" ", " "]
    assert asked(pipe, "a", guidance=1.0) == {"prompt": "a", "true_cfg_scale": 1.0}
    assert asked(pipe, None, guidance=3.0) == {"prompt": None, "true_cfg_scale": 3.0}
    assert guided(pipe, 3.0) == {"true_cfg_scale": 3.0, "negative_prompt": " "}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("DiTPipeline", "DiTPipeline is asked for classes, not prompts; call it yourself, stitched in Python"),
        ("WanImageToVideoPipeline", "WanImageToVideoPipeline begins with image, and a prompt is all that it is told"),
        ("LTXImageToVideoPipeline", "LTXImageToVideoPipeline begins with a picture, and a prompt is all that it is"),
    ],
)
def test_what_a_prompt_is_not_enough_for_is_refused(name, said):
    with pytest.raises(PairError, match=said):
        check_asked(type(bare(name)))


def test_steps_that_nobody_is_told_of_cannot_be_timed():
    pipe = bare("PixArtAlphaPipeline")
    assert listening(pipe, print) == {}
    with pytest.raises(StitchError, match="PixArtAlphaPipeline tells nobody of its steps, so that they cannot be"):
        listening(pipe, print, needed=True)


# --- drawn ---


def flux2(monkeypatch):
    """FLUX.2's pipeline takes a picture first."""
    row = pipelines.PIPELINES["flux2"].here()
    told = pipelines.text(1, negative=False)["prompt_embeds"]
    ids = torch.zeros(1, pipelines.TEXT, 4)

    def encode(self, prompt, **more):
        count = len(prompt) if isinstance(prompt, list) else 1
        return told.repeat(count, 1, 1), ids.expand(count, -1, -1)

    monkeypatch.setattr(diffusers.Flux2Pipeline, "encode_prompt", encode)
    return row.stitched(), (12, 16)


def qwen(monkeypatch):
    """Qwen-Image's guides by two calls."""
    row = pipelines.PIPELINES["qwen-image"].here()

    def encode(self, prompt, **more):
        words = [prompt] if isinstance(prompt, str) else prompt
        told = torch.cat([pipelines.words(1, pipelines.TEXT, pipelines.WIDTH, seed=len(word)) for word in words])
        return told, torch.ones(len(words), pipelines.TEXT, dtype=torch.bool)

    monkeypatch.setattr(diffusers.QwenImagePipeline, "encode_prompt", encode)
    pipe = row.build(vae=pipelines.qwen_vae())
    pipelines.stitch(pipe, row.transformer(1), "large")
    return pipe, (48, 64)


def artist(pipe, size, guidance=4.0):
    return Artist(pipe=pipe, policy=parse("L2 H1@0.3 S*"), negative="", steps=4, guidance=guidance, size=size)


@pytest.mark.parametrize("made", [flux2, qwen])
def test_a_prompt_is_drawn_timed_and_measured(made, monkeypatch):
    pipe, size = made(monkeypatch)
    asked_for = {"steps": 4, "guidance": 4.0, "seed": 3, "width": size[0], "height": size[1]}
    drawn = artist(pipe, size)
    first, second = drawn.draw_all(["a dog", "a cat runs"], [3, 4])
    assert first.image.size == size
    assert [str(step.drawn) for step in first.trace.of(0)] == ["L", "L", "S + L@0.3", "S"]
    assert first.image != second.image
    assert len(drawn.draw("a dog", 3, frames=True).frames) == 4
    assert clocked(pipe, "a dog", **asked_for).image.size == size
    start = prepare(pipe, "a dog", **asked_for)
    assert len(start.calls) == (1 if made is flux2 else 2)


@pytest.mark.parametrize("made", [flux2, qwen])
def test_policies_drawn_together_are_what_the_pipeline_draws(made, monkeypatch):
    """Qwen-Image's guided tokens are as long as the conditional ones."""
    pipe, (width, height) = made(monkeypatch)
    call = {"width": width, "height": height}
    start = prepare(pipe, "a dog", steps=4, guidance=3.0, seed=7, **call)
    policies = {text: parse(text) for text in ("large", "L2 H1@0.3 S*", "L2 S*")}
    for text, found in draw_together(pipe, start, policies).items():
        pipe.transformer.policy = policies[text]
        noise = {"generator": torch.Generator().manual_seed(7), "num_inference_steps": 4, "output_type": "latent"}
        latents = pipe(**asked(pipe, "a dog", guidance=3.0), **call, **noise).images
        if made is qwen:
            assert torch.equal(found.latent, latents)
        assert found.trace.plans(masks=True) == pipe.transformer.trace.plans(masks=True)


def test_guidance_reaches_qwen_image(monkeypatch):
    pipe, size = qwen(monkeypatch)
    pictures = [artist(pipe, size, guidance).draw("a dog", 3).image for guidance in (1.0, 2.0, 4.0)]
    assert pictures[0] != pictures[1] != pictures[2]
