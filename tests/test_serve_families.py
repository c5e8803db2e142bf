"""Edits, pictures drawn on from others and partial pictures, in families whose pipelines have others beside them."""

from dataclasses import replace
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import flux_models
import pipelines
from hybridstitch import stitch
from hybridstitch.cli.artist import Artist
from hybridstitch.cli.serve_album import Start
from hybridstitch.cli.serve_pipes import Pipes, Wanted, groups, starting
from hybridstitch.cli.serve_studio import Studio
from hybridstitch.errors import PairError
from hybridstitch.policies.parse import parse
from hybridstitch.report.frames import Latest
from hybridstitch.serve.orders import Edit, Order, Rest
from serve_flat import drawn as flat

POOLED = "pooled_prompt_embeds"


def flux(monkeypatch):
    def encode(self, prompt, prompt_2=None, **more):
        told = flux_models.embeddings(1, torch.float32)
        text, pooled = (told[name].expand(len(prompt), *told[name].shape[1:]) for name in ("prompt_embeds", POOLED))
        return text, pooled, torch.zeros(flux_models.TEXT, 3)

    for kind in ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"):
        monkeypatch.setattr(getattr(diffusers, kind), "encode_prompt", encode)
    return flux_models.stitched()


def qwen(monkeypatch):
    def encode(self, prompt, **more):
        told = pipelines.text(1, negative=False, mask="embeds_mask")
        return told["prompt_embeds"].repeat(len(prompt), 1, 1), told["prompt_embeds_mask"].repeat(len(prompt), 1)

    for kind in ("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"):
        monkeypatch.setattr(getattr(diffusers, kind), "encode_prompt", encode)
    row = pipelines.PIPELINES["qwen-image"].here()
    torch.manual_seed(5)
    vae = pipelines.qwen_vae()
    vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.8, 1.2, 1.0, 0.9])
    pipe = row.build(vae=vae)
    stitch(pipe, row.transformer(1), "large")
    return pipe


FAMILIES = {"flux": (flux, (24, 32)), "qwen-image": (qwen, (48, 64))}


@pytest.fixture(params=FAMILIES)
def opened(request, monkeypatch):
    made, size = FAMILIES[request.param]
    return Pipes(made(monkeypatch)), size


def noise(size, seed=1):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8))


def order(size, **changes):
    plain = {"prompt": "a dog", "negative": "", "policy": "L2 S2", "steps": 4, "shift": None, "levels": None}
    return Order(id="one", guidance=4.0, size=size, seed=3, **{**plain, **changes})


def artist(pipe, order, starts=(None,)):
    start = starting(order, starts)
    steps = order.steps if starts[0] is None else order.rest.steps - starts[0].step
    return Artist(
        pipe=pipe, policy=parse(order.policy), negative="", steps=steps, guidance=4.0, size=order.size, start=start
    )


def drawn(pipe, order, starts=(None,)):
    """Pictures, who drew each step, and what the last partial picture would be."""
    latest = Latest(pipe, order.size)
    seen = []
    takes = artist(pipe, order, starts).draw_all(
        ["a dog"] * len(starts), range(3, 3 + len(starts)), on_step=lambda step: seen.append(latest.picture())
    )
    return takes, [str(step.drawn) for step in takes[0].trace.of(0)], seen


def alike(one, other):
    return np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1


def test_the_last_partial_picture_is_the_picture(opened):
    pipes, size = opened
    (take,), drew, seen = drawn(pipes.of(None), order(size))
    assert drew == ["L", "L", "S", "S"]
    assert len(seen) == 4
    assert take.image.size == seen[0].size == size
    assert alike(seen[-1], take.image)
    assert not alike(seen[0], take.image)


@pytest.mark.parametrize("masked", [False, True])
def test_pictures_are_edited(opened, masked):
    pipes, size = opened
    hole = np.zeros((size[1], size[0]), np.uint8)
    hole[:, size[0] // 2 :] = 255
    edit = Edit(picture=noise(size).tobytes(), mask=hole.tobytes() if masked else None, strength=0.6)
    (take,), drew, seen = drawn(pipes.of(edit), order(size, edit=edit))
    assert drew == ["L", "L", "S", "S"]  # all steps that were asked for
    assert take.image.size == size
    assert masked or alike(seen[-1], take.image)
    (plain,), drew, _ = drawn(pipes.of(None), order(size))
    assert drew == ["L", "L", "S", "S"]  # the pipeline that begins with noise draws on as before
    assert not alike(plain.image, take.image)


def test_pictures_of_one_call_are_drawn_on_each_from_its_own(opened):
    pipes, size = opened
    rest = Rest(policy="small", steps=6, shift=None, levels=None)
    asked = order(size, policy="small", rest=rest)
    starts = [Start(image=noise(size, seed), step=4, similarity=0.5) for seed in (1, 2)]
    takes, drew, _ = drawn(pipes.of(None, starts[0]), asked, starts)
    assert drew == ["S", "S"]
    (alone,), _, _ = drawn(pipes.of(None, starts[0]), asked, starts[:1])
    assert alike(alone.image, takes[0].image)
    assert not alike(takes[0].image, takes[1].image)


def test_what_begins_and_goes_on_alike_is_drawn_in_one_call():
    rest = Rest(policy="small", steps=6, shift=None, levels=None)
    one, other = order((8, 8), rest=rest), order((8, 8), rest=Rest(policy="large", steps=6, shift=None, levels=None))
    near, far = (Start(image=noise((8, 8)), step=step, similarity=0.5) for step in (4, 2))
    wanted = [Wanted(*each) for each in ((one, 1, None), (one, 2, near), (other, 3, near), (one, 4, far),
                                          (one, 5, near), (other, 6, None), (one, 7, None))]  # fmt: skip
    found = [[each.seed for each in group] for group in groups(wanted, 2)]
    assert found == [[1, 6], [7], [2, 5], [3], [4]]


def test_a_pair_that_draws_from_noise_only_says_so():
    row = pipelines.PIPELINES["flux2"].here()
    with pytest.raises(
        PairError, match=r"Flux2Pipeline has no image-to-image here; use a pair of Stable Diffusion 3, FLUX"
    ):
        Pipes(row.stitched()).of(Edit(picture=b"", mask=None, strength=0.5))


def test_other_families_show_no_later_partials():
    row = pipelines.PIPELINES["flux2"].here()
    pipe = row.stitched()
    latest = Latest(pipe, (64, 48))
    row.draw(pipe)
    assert latest.picture() is None


def test_what_is_drawn_one_by_one_after_a_call_of_all_failed_is_kept(monkeypatch):
    kept = []
    studio = object.__new__(Studio)
    studio._drawn, studio._faults, studio.about = [], [], SimpleNamespace(together=2)
    studio._keeper = SimpleNamespace(
        keep=lambda order, images, seeds: kept.append((order.id, seeds)), starts=lambda order, *_: [None] * order.count
    )
    studio._pipes = SimpleNamespace(plain=SimpleNamespace(scheduler=None))

    def call(group, on_step, on_partial):
        if len(group) > 1:
            raise MemoryError
        return [SimpleNamespace(image="a picture")]

    monkeypatch.setattr(studio, "_call", call)
    monkeypatch.setattr(studio, "_picture", lambda each, take: flat(each.seed))
    one, two = (replace(order((32, 32), remember=True), id=name, seed=k + 1) for k, name in enumerate(("one", "two")))
    with pytest.raises(MemoryError):
        studio.draw((one, two), None, None)
    for each in (one, two):
        studio.draw((each,), None, None)
    studio.keep()
    assert kept == [("one", [1]), ("two", [2])]
