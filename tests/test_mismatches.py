"""Pairs that are none: of two families, two VAEs, or two text encoders; one line each, and the pipeline as it was."""

import json
from dataclasses import replace

import diffusers
import pytest
from huggingface_hub.errors import EntryNotFoundError

import flux_models
import pipelines
from hybridstitch import open_pair, stitch
from hybridstitch.calibrate.conditions import conditions_of
from hybridstitch.cli import main
from hybridstitch.errors import PairError
from hybridstitch.families.known import facts_of
from hybridstitch.pair.checks import check_named
from hybridstitch.pair.limits import SizeError
from hybridstitch.pair.memory import Outline
from hybridstitch.pair.source import Source
from pipelines import PIPELINES
from seen import kept_bytes

MASKED = [name for name, row in PIPELINES.items() if facts_of(row.kind).masks and not row.experts]


@pytest.fixture(params=MASKED)
def piped(request):
    """A row that can be built here."""
    return PIPELINES[request.param].here()


def refused(piped, other, says):
    """A small model, or its pipeline, is refused in one line, and nothing has changed."""
    pipe = piped.build()
    before, attending = pipe.transformer, [getattr(m, "processor", None) for m in pipe.transformer.modules()]
    with pytest.raises(PairError, match=says) as error:
        stitch(pipe, other(pipe), "L2 S*")
    assert "\n" not in str(error.value)
    assert pipe.transformer is before
    assert [getattr(m, "processor", None) for m in pipe.transformer.modules()] == attending
    assert "step" not in vars(pipe.scheduler)
    assert "encode_prompt" not in vars(pipe)


def test_a_pair_of_two_families(piped):
    strange = PIPELINES["pixart"].transformer(1)
    refused(
        piped, lambda pipe: strange, f"small model is PixArtTransformer2DModel, the large one {piped.kind}; give two"
    )


def test_a_folder_of_another_family(piped, tmp_path):
    PIPELINES["pixart"].transformer(1).save_pretrained(tmp_path)
    refused(piped, lambda pipe: tmp_path, f"small model is PixArtTransformer2DModel, the large one {piped.kind}; give")


def test_two_text_encoders(piped, tmp_path):
    """A pipeline brings its own words where branches of guidance are told apart; in one tensor they are not."""
    facts = facts_of(piped.kind)
    if not facts.words:
        pytest.skip("it is told no words")
    key = sorted(facts.words)[0]
    says = rf"{facts.same[key]} \({key}\) is 24 in the large one and 99 in the small one; .* of the large one"
    way = ", or give the small one's pipeline" if facts.guided(piped.config)[1] == 1 else "$"

    def other(pipe):
        small = piped.transformer(1)
        small.register_to_config(**{key: 99})
        return small

    refused(piped, other, says + way)
    model = other(None)
    model.save_pretrained(tmp_path)
    refused(piped, lambda pipe: tmp_path, says + way)


VAES = {
    "flux2": (lambda: pipelines.flux2_vae()["vae"], {"latent_channels": 8}, r"VAE channels \(latent_channels\) is 4"),
    "wan": (lambda: pipelines.wan_vae()["vae"], {"latents_std": [2.0] * 16}, r"VAE deviations \(latents_std\) is"),
    "ltx": (
        lambda: pipelines.ltx_vae()["vae"],
        {"spatio_temporal_scaling": (True, True, True, False)},
        r"VAE grid \(spatio_temporal_scaling\) is \(True, True, False, False\) in the large one and \(True, True, T",
    ),
    "qwen-image": (pipelines.qwen_vae, {"latents_mean": [0.5] * 4}, r"VAE means \(latents_mean\) is"),
}


@pytest.mark.parametrize("name", VAES)
def test_two_vaes(name):
    make, changes, says = VAES[name]
    piped = PIPELINES[name].here()

    def other(pipe):
        pipe.register_modules(vae=make())
        theirs = make()
        theirs.register_to_config(**changes)
        return piped.build(vae=theirs, transformer=piped.transformer(1))

    refused(piped, other, says)


def test_cogvideox_of_another_scale_of_latents_and_noise(tmp_path):
    """As 5B and 2B, whose latents and noise levels are not each other's, and of whose positions one adds, one turns."""
    piped = PIPELINES["cogvideox"]

    def other(scale, shift):
        vae = pipelines.clip_vae()["vae"]
        vae.register_to_config(scaling_factor=scale)
        scheduler = diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction", snr_shift_scale=shift)
        return {"vae": vae, "scheduler": scheduler, "transformer": piped.transformer(1)}

    for scale, shift, says in (
        (1.15258, 1.0, r"VAE scale \(scaling_factor\) is 0\.7 in the large one and 1\.15258 in the small one"),
        (0.7, 3.0, r"SNR shift \(snr_shift_scale\) is 1\.0 in the large one and 3\.0 in the small one"),
    ):
        large, small = piped.build(**other(0.7, 1.0)), piped.build(**other(scale, shift))
        for given in (small, tmp_path):
            small.save_pretrained(tmp_path)
            with pytest.raises(PairError, match=says):
                stitch(large, given, "L2 S*")
    model = piped.transformer(1)
    model.register_to_config(use_rotary_positional_embeddings=True)
    refused(piped, lambda pipe: model, r"rotary positions \(use_rotary_positional_embeddings\) is False in the large")


INPUTS = {  # that a pipeline gives, or not, by the large model's configuration
    "wan-i2v": ("image_dim", None, r"width of what a picture is seen as \(image_dim\) is 20 in the large one and None"),
    "kandinsky5": ("visual_cond", True, r"room for a picture \(visual_cond\) is False in the large one and True"),
    "sana": ("guidance_embeds", True, r"guidance as an input \(guidance_embeds\) is False in the large one and True"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_a_small_model_that_would_be_given_what_it_does_not_take(name):
    key, value, says = INPUTS[name]
    piped = PIPELINES[name].here()
    model = piped.transformer(1)
    model.register_to_config(**{key: value})
    refused(piped, lambda pipe: model, says)


def test_guidance_that_one_of_two_flux_models_takes():
    pipe = flux_models.pipeline()
    says = r"guidance as an input \(guidance_embeds\) is True in the large one and False in the small one"
    with pytest.raises(PairError, match=says):
        stitch(pipe, flux_models.small(guided=False))


SIZES = {  # and what is near, or most
    "flux2": ((30, 24), None, "--size 30x24 was given; this pair draws multiples of 4 pixels .*: 32x24 is near"),
    "qwen-image": ((40, 64), None, "--size 40x64 was given; this pair draws multiples of 16 pixels .*: 32x64 is near"),
    "wan": ((48, 32), 10, "--frames 10 was given; this pair draws one more than multiples of 4 frames: 9 is near"),
    "wan-i2v": ((5000, 32), 9, "this pair draws at most 512x512 pixels and 125 frames|multiples of 16 pixels"),
    "ltx": ((48, 30), 9, "--size 48x30 was given; this pair draws multiples of 4 pixels .*: 48x32 is near"),
    "cosmos": ((48, 72), None, "--size 48x72 was given; this pair draws multiples of 16 pixels .*: 48x64 is near"),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_a_pair_cannot_draw(name):
    size, frames, says = SIZES[name]
    pipe = PIPELINES[name].here().stitched()
    if name == "qwen-image":
        pipe.register_modules(vae=pipelines.qwen_vae())
    with pytest.raises(SizeError, match=says) as error:
        conditions_of(pipe, size, frames, steps=4, guidance=4.0)
    assert "\n" not in str(error.value)


# --- what a run keeps, told before ---


def outlined(pipe):
    """What is known of a pair."""
    model = pipe.transformer.large
    facts = facts_of(type(model).__name__)
    vae = {} if pipe.vae is None else pipe.vae.config
    return Outline(
        weights={}, transformer=model.config, vae=vae, facts=facts, native=facts.native(model.config, vae),
        element_bytes=4,
    )  # fmt: skip


def test_keys_and_values_of_a_run_are_those_told_before(piped, monkeypatch):
    """In as many branches, and as many calls, as its pipeline guides by."""
    pipe = piped.build(**({"vae": pipelines.qwen_vae()} if piped.kind.startswith("Qwen") else {}))
    stitch(pipe, piped.transformer(1), "L2 H1@0.3 S*")
    kept = kept_bytes(monkeypatch, pipe)
    asked = piped.inputs(1)
    if "Klein" in piped.pipeline:
        del asked["image"]  # a reference, which is not known before
    replace(piped, inputs=lambda n: asked).draw(pipe)
    size = tuple(asked[side] for side in ("num_frames", "height", "width") if side in asked)
    text = 0 if "class_labels" in asked else pipelines.TEXT
    assert outlined(pipe).need(size or None, text_tokens=text).keys_values == sum(kept)


def test_guidance_that_is_an_input_keeps_one_branch():
    pipe = flux_models.stitched("L2 H1@0.3 S*")
    known = outlined(pipe)
    assert known.need((32, 24)).keys_values == known.need((32, 24), branches=1).keys_values
    two = outlined(PIPELINES["wan"].stitched())
    assert two.need((9, 32, 48)).keys_values == 2 * two.need((9, 32, 48), branches=1).keys_values
    assert two.need((9, 32, 48)).step == two.need((9, 32, 48), branches=1).step  # its calls come one after the other


def test_a_picture_of_a_family_of_videos_is_one_frame():
    facts = facts_of("CosmosTransformer3DModel")
    config = {**PIPELINES["cosmos"].config, "patch_size": (1, 2, 2)}
    assert facts.tokens(config, {}, (64, 48)) == facts.tokens(config, {}, (1, 64, 48)) == 12


@pytest.fixture
def named(tmp_path, piped, monkeypatch):
    """A pipeline and a transformer of its class on disk, whose weights nobody may read."""
    large, small = tmp_path / "large", tmp_path / "small"
    piped.build().save_pretrained(large)
    piped.transformer(1).save_pretrained(small)
    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", lambda *a, **k: pytest.fail("was loaded"))
    return large, small


def strange(folder, piped):
    """Give a saved transformer another value of what a pair must share, and say how that is refused."""
    facts = facts_of(piped.kind)
    key = sorted(facts.same.keys() - facts.words)[0]
    altered(folder, **{key: 99})
    return rf"do not match: {facts.same[key]} \({key}\) is .* in the large one and 99 in the small one"


def altered(folder, **values):
    """Change what a saved transformer's configuration says."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_names_are_compared_before_anything_is_loaded(named, piped, capsys):
    large, small = named
    assert check_named(Source(str(large)), Source(str(small)))
    says = strange(small, piped)
    with pytest.raises(PairError, match=says) as error:
        open_pair(large, small)
    assert "\n" not in str(error.value)
    assert main(["doctor", "--pair", str(large), str(small)]) == 2
    assert "do not match" in " ".join(capsys.readouterr().err.split())
    altered(small, _class_name="StrangeTransformer2DModel")
    with pytest.raises(PairError, match=f"the small model is StrangeTransformer2DModel, the large one {piped.kind};"):
        open_pair(large, small)


def test_names_on_the_hub(named, piped, monkeypatch):
    """Only configurations are asked for, with the caller's options."""
    large, small = named
    asked = {}

    def fetched(name, file, **options):
        asked[name, file] = options
        path = {"a/large": large, "a/small": small}[name] / file
        if not path.is_file():
            raise EntryNotFoundError(file)
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetched)
    says = strange(small, piped)
    with pytest.raises(PairError, match=says):
        open_pair("a/large", "a/small", revision="main", token="t")
    assert asked["a/large", "transformer/config.json"] == {"revision": "main", "token": "t"}
    assert asked["a/small", "config.json"] == {"token": "t"}
    assert all(file.endswith(".json") for _, file in asked)


def test_what_lies_in_the_cache_is_compared_without_the_hub(named, piped, tmp_path, monkeypatch):
    for name, folder in zip(("large", "small"), named, strict=True):
        cached = tmp_path / f"models--a--{name}"
        for file in folder.rglob("*.json"):
            put(cached / "snapshots" / "12ab" / file.relative_to(folder), file.read_text())
        put(cached / "refs" / "main", "12ab")
        if not (folder / "transformer").is_dir():  # as the hub said once
            put(cached / ".no_exist" / "12ab" / "transformer" / "config.json", "")

    def away(*names, **options):
        raise ConnectionError("the hub is away")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", away)
    cache = {"cache_dir": str(tmp_path)}
    assert check_named(Source("a/large", cache), Source("a/small", cache))
    says = strange(tmp_path / "models--a--small" / "snapshots" / "12ab", piped)
    with pytest.raises(PairError, match=says):
        open_pair("a/large", "a/small", **cache)
    with pytest.raises(ConnectionError):
        check_named(Source("a/large", {**cache, "revision": "other"}), Source("a/small", cache))


def put(file, text):
    """Write a file into folders that may not be there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_where_nothing_can_be_compared_loading_says_why(monkeypatch):
    def away(*names, **options):
        raise ConnectionError("the hub is away")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", away)
    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", away)
    with pytest.raises(ConnectionError, match="the hub is away"):
        open_pair("a/large", "a/small")
