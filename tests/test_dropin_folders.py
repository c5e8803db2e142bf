"""Drop-in, folders: pairs saved and opened, by this library and by diffusers itself."""

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from dropin import ADAPTIVE, HYBRID, quiet
from hybridstitch import HybridStitchError, StitchedTransformer, open_pair, unstitch
from small_models import generate, pipeline, small, stitched

NO_TEXT = dict.fromkeys([f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")])


@pytest.mark.dropin("save_pretrained, open_pair(folder)")
@pytest.mark.parametrize("policy", [HYBRID, ADAPTIVE])
def test_a_saved_pair_opens_with_its_policy(tmp_path, policy):
    pipe = stitched(policy, "sd3.5-large")
    expected = generate(pipe)
    pipe.save_pretrained(tmp_path)
    opened = quiet(open_pair(tmp_path, **NO_TEXT))
    assert type(opened) is type(pipe)
    assert opened.transformer.policy == pipe.transformer.policy
    assert torch.equal(generate(opened), expected)
    unstitch(opened)
    assert torch.equal(generate(opened), generate(pipeline("sd3.5-large")))

    opened = open_pair(tmp_path, policy="small", dtype=torch.bfloat16, **NO_TEXT)
    assert str(opened.transformer.policy) == "small"
    assert {model.dtype for model in (opened.transformer.large, opened.transformer.small)} == {torch.bfloat16}


@pytest.mark.dropin("variant= of save_pretrained and open_pair")
def test_a_pair_is_saved_and_opened_as_a_variant(tmp_path):
    pipe = stitched(HYBRID)
    drawn = generate(pipe)
    pipe.save_pretrained(tmp_path, variant="fp16")
    assert [path.name for path in sorted(tmp_path.rglob("*.safetensors"))] == [
        "diffusion_pytorch_model.fp16.safetensors"
    ] * 3
    opened = quiet(open_pair(tmp_path, variant="fp16", **NO_TEXT))
    assert torch.equal(generate(opened), drawn)


def test_a_variant_that_was_not_saved_is_refused(tmp_path):
    stitched(HYBRID).save_pretrained(tmp_path)
    with pytest.raises(HybridStitchError, match=r"is a saved pair without a variant 'fp16'; leave variant='fp16' out"):
        open_pair(tmp_path, variant="fp16", **NO_TEXT)


@pytest.mark.dropin("open_pair(large, small)")
@pytest.mark.parametrize("bare", [True, False])
def test_a_pair_opens_from_two_folders(tmp_path, bare):
    pipeline().save_pretrained(tmp_path / "large")
    other = small() if bare else pipeline()  # the small model's folder: the model alone, or its pipeline
    if not bare:
        other.register_modules(transformer=small())
    other.save_pretrained(tmp_path / "small")
    pipe = quiet(open_pair(tmp_path / "large", tmp_path / "small", HYBRID, **NO_TEXT))
    assert torch.equal(generate(pipe), generate(stitched(HYBRID)))


@pytest.mark.dropin("from_pretrained of a saved pair")
def test_a_pair_opened_by_diffusers_itself_asks_to_be_followed(tmp_path):
    pipe = stitched(HYBRID)
    expected = generate(pipe)
    pipe.save_pretrained(tmp_path)
    opened = quiet(StableDiffusion3Pipeline.from_pretrained(tmp_path, **NO_TEXT))
    assert isinstance(opened.transformer, StitchedTransformer)
    with pytest.raises(HybridStitchError, match=r"pipe\.transformer\.follow\(pipe\)"):
        generate(opened)
    opened.transformer.follow(opened)
    assert torch.equal(generate(opened), expected)
