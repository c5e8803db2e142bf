"""What a Wan pair costs and keeps, known before it is loaded: by torch's counter, and bytes by tensors."""

from importlib.util import find_spec

import diffusers
import pytest
import torch
from diffusers import WanTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.live import Live
from hybridstitch import StitchWarning, stitch
from hybridstitch.errors import PairError
from hybridstitch.families.known import facts_of, family_of, shape_of
from hybridstitch.pair.fits import check_fits
from hybridstitch.pair.memory import outline
from pipelines import PIPELINES, wan_vae

SIZE, TEXT = (17, 128, 96), 40  # 5 · 8 · 6 tokens
SIZES = {"14B": {"num_attention_heads": 40, "ffn_dim": 13824}, "1.3B": {"num_attention_heads": 12, "ffn_dim": 8960}}
FACTS = facts_of("WanTransformer3DModel")
VAE = {"scale_factor_temporal": 4, "scale_factor_spatial": 8}


def model(name, **changes):
    """Of Wan's own widths, ten blocks of them, without weights."""
    with torch.device("meta"):
        return WanTransformer3DModel(**{"num_layers": 10, **SIZES[name], **changes}).eval()


def call(channels=16, **more):
    latent = torch.empty(2, channels, 5, 16, 12, device="meta")
    words = torch.empty(2, TEXT, 4096, device="meta")
    return {"hidden_states": latent, "timestep": torch.empty(2, device="meta"), "encoder_hidden_states": words, **more}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("drawn", [None, 72], ids=["dense", "masked"])
@torch.no_grad()
def test_operations_are_those_counted(name, drawn):
    transformer, inputs = model(name), call()
    family = family_of(transformer)
    family.attach()
    memory = family.room(inputs)
    with FlopCounterMode(display=False) as counter:
        if drawn is None:
            family.dense(inputs, memory=memory)
        else:
            tokens = torch.arange(drawn, device="meta").expand(2, -1)
            family.masked(inputs, tokens, memory, None, text="fresh")
    predicted = 2 * shape_of(transformer, FACTS.tokens(transformer.config, VAE, SIZE), TEXT).flops(drawn)
    assert predicted == pytest.approx(counter.get_total_flops(), rel=0.02)


@torch.no_grad()
def test_a_picture_to_begin_with_adds_its_tokens():
    transformer = model("1.3B", num_layers=30, in_channels=36, image_dim=1280, added_kv_proj_dim=1536)
    sight = torch.empty(2, 257, 1280, device="meta")
    inputs = call(36, encoder_hidden_states_image=sight)
    inputs["encoder_hidden_states"] = torch.empty(2, 512, 4096, device="meta")
    with FlopCounterMode(display=False) as counter:
        transformer(**inputs)
    assert 2 * shape_of(transformer, 240).flops() == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_keys_and_values_are_those_a_run_keeps(dtype):
    family = family_of(model("1.3B"))
    family.attach()
    room = family.room(call(), dtype)
    held = sum(tensor.nbytes for pair in room for tensor in pair)
    assert shape_of(family.module(), 240).kv_bytes(element_bytes=dtype.itemsize) == held


def test_a_branch_of_the_14b_at_480p_keeps_25_gib():
    config = {**model("14B").config, "num_layers": 40}
    tokens = FACTS.tokens(config, VAE, FACTS.native(config, VAE))
    assert tokens == 21 * 30 * 52
    assert FACTS.shape(config, tokens, 512).kv_bytes(branches=1) / 2**30 == pytest.approx(25, abs=0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved pair."""
    path = tmp_path_factory.mktemp("wan")
    pipe = PIPELINES["wan"].build(**wan_vae())
    stitch(pipe, PIPELINES["wan"].transformer(1), "large")
    pipe.save_pretrained(path)
    return path


def test_a_saved_pair_says_its_needs_before_it_is_loaded(folder):
    need = outline(str(folder), element_bytes=4).need((9, 32, 48))
    assert need.keys_values == 2 * 2 * 2 * 18 * 48 * 4  # branches, keys and values, layers, tokens, width, bytes
    assert need.decoding is None
    assert need.total == sum(need.weights.values()) + need.keys_values + need.step


def test_what_does_not_fit_is_refused_with_what_would(folder, monkeypatch):
    known = outline(str(folder), element_bytes=4)
    weights = sum(known.weights.values())
    half = known.need((17, 64, 96)).keys_values // 2
    monkeypatch.setattr("hybridstitch.pair.fits.capacity", lambda device: weights + half)
    check_fits(known, "cpu", (9, 32, 48))
    with pytest.raises(PairError, match=r"keys and values beside .* what fits: ") as refused:
        check_fits(known, "cpu", (17, 64, 96))
    said = str(refused.value)
    for way in ("96x64 of 17 frames", 'Engine(kv="float8")', "5 frames", "64x48 of 17 frames", "whole steps"):
        assert way in said
    assert "\n" not in said
    with pytest.raises(PairError, match="what fits: 2 at once") as refused:
        check_fits(known, "cpu", (17, 64, 96), kv_bytes=1, images=9)
    assert "Engine" not in str(refused.value)
    with pytest.raises(PairError, match=r"what fits: Engine\(kv=\"float8\"\), Engine\(kv_host=True\), if the host"):
        check_fits(known, "cuda", (17, 64, 96))


def test_a_mask_that_is_not_worth_it_warns():
    pipe = PIPELINES["wan"].build(**wan_vae())
    with pytest.warns(StitchWarning, match=r"a mask of 0\.6 is not worth it .* at 32760 tokens"):
        stitch(pipe, PIPELINES["wan"].transformer(1), "L2 H2@0.6 S*")


def filmed(kind, config, latent, text, **more):
    """A transformer of published widths without weights, two blocks of them, and what a call gives it."""
    given = {"hidden_states": latent, "timestep": (2,), "encoder_hidden_states": (2, *text)}
    return pytest.param(kind, {"num_layers": 2, **config}, given, more, id=f"{kind} {latent}")


COSMOS = filmed(
    "CosmosTransformer3DModel", {"extra_pos_embed_type": None}, (2, 16, 4, 88, 160), (512, 1024),
    padding_mask=(1, 1, 88, 160), fps=None,
)  # fmt: skip
FILMED = [
    filmed("WanTransformer3DModel", SIZES["14B"], (2, 16, 5, 60, 104), (512, 4096)),
    filmed("WanTransformer3DModel", SIZES["1.3B"], (2, 16, 5, 60, 104), (512, 4096)),
    filmed(
        "LTXVideoTransformer3DModel", {}, (2, 6144, 128), (128, 4096),
        encoder_attention_mask=(2, 128), num_frames=16, height=16, width=24,
    ),
    pytest.param(*COSMOS.values, id=COSMOS.id, marks=pytest.mark.skipif(
        find_spec("torchvision") is None, reason="no torchvision here"
    )),
]  # fmt: skip


LARGE = {"LTXVideoTransformer3DModel": {"attention_head_dim": 128, "cross_attention_dim": 4096}}
SMALL = {"CosmosTransformer3DModel": {"num_attention_heads": 16}}


def called(kind, config, given, more, dtype=torch.float32):
    """An attached family without weights, and what a call gives it."""
    with torch.device("meta"):
        transformer = getattr(diffusers, kind)(**config).eval().to(dtype)
        shaped = {**given, **{name: size for name, size in more.items() if isinstance(size, tuple)}}
        inputs = {**more, **{name: torch.empty(size, dtype=dtype) for name, size in shaped.items()}}
    family = family_of(transformer)
    family.attach()
    return family, inputs


@pytest.mark.parametrize("which", ["large", "small"])
@pytest.mark.parametrize("share", [None, 0.3], ids=["dense", "masked"])
@pytest.mark.parametrize(("kind", "config", "given", "more"), FILMED[2:])
@torch.no_grad()
def test_operations_of_published_widths_are_those_counted(kind, config, given, more, share, which):
    changes = (LARGE if which == "large" else SMALL).get(kind, {})
    family, inputs = called(kind, {**config, **changes}, given, more)
    memory, tokens = family.room(inputs), family.layout.count(inputs["hidden_states"])
    drawn = None if share is None else round(share * tokens)
    with FlopCounterMode(display=False) as counter:
        if drawn is None:
            family.dense(inputs, memory=memory)
        else:
            family.masked(inputs, torch.arange(drawn, device="meta").expand(2, -1), memory, None, text="fresh")
    told = shape_of(family.module(), tokens, given["encoder_hidden_states"][1])
    assert 2 * told.flops(drawn) == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert told.kv_bytes(element_bytes=4) == sum(tensor.nbytes for pair in memory for tensor in pair)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("kind", "config", "given", "more"), FILMED)
@torch.no_grad()
def test_activations_are_what_a_dense_step_holds(kind, config, given, more, dtype, flash):
    family, inputs = called(kind, config, given, more, dtype)
    with torch.device("meta"):
        memory = family.room(inputs)
        with Live() as live:
            family.dense(inputs, memory=memory)
    tokens, text = family.layout.count(inputs["hidden_states"]), given["encoder_hidden_states"][1]
    predicted = shape_of(family.module(), tokens, text).activation_bytes(element_bytes=dtype.itemsize)
    assert predicted == pytest.approx(live.peak, rel=0.05)
