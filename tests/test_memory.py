"""What a pair needs is read from its files: weights and K/V exactly, activations as followed operation by operation."""

import json

import pytest
import torch

import hybridstitch
from benchmarks.live import Live
from hybridstitch.cli import main
from hybridstitch.errors import PairError
from hybridstitch.families.known import shape_of
from hybridstitch.families.sd3 import SD3Family
from hybridstitch.mini.opened import open_mini
from hybridstitch.pair.fits import check_weights
from hybridstitch.pair.memory import gibibytes, outline
from hybridstitch.pair.source import Source
from mini_folder import save
from small_models import KINDS, POOLED, TEXT_WIDTH, pipeline, small, stitched, transformer

PARTS = ("vae", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("pair"))


def held(*modules):
    """Bytes of parameters and of the buffers that are saved."""
    return sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_are_those_of_the_opened_pair(folder, dtype):
    need = outline(str(folder), element_bytes=dtype.itemsize)
    pipe = open_mini(folder=folder, dtype=dtype)
    loaded = {"large": pipe.transformer.large, "small": pipe.transformer.small}
    loaded |= {name: getattr(pipe, name) for name in PARTS}
    assert dict(need.weights) == {name: held(module) for name, module in loaded.items()}


def test_weights_of_saved_pairs_and_of_two_folders(tmp_path):
    pipe, other = pipeline(), small()
    pipe.save_pretrained(tmp_path / "large")
    other.save_pretrained(tmp_path / "small", max_shard_size="20KB")
    assert len(list((tmp_path / "small").glob("*.safetensors"))) > 1
    need = outline(str(tmp_path / "large"), str(tmp_path / "small"), element_bytes=4)
    expected = {"large": held(pipe.transformer), "small": held(other), "vae": held(pipe.vae)}
    assert dict(need.weights) == expected
    hybridstitch.stitch(pipe, other, "large")
    pipe.save_pretrained(tmp_path / "both")
    assert dict(outline(str(tmp_path / "both"), element_bytes=4).weights) == expected


def test_a_variant_is_the_files_of_that_name(tmp_path):
    model = transformer().half()
    model.save_pretrained(tmp_path, variant="fp16")
    assert Source(str(tmp_path)).weights("", 2, "fp16") == held(model)
    with pytest.raises(PairError, match="no safetensors files of the model"):
        Source(str(tmp_path)).weights("", 2)


def test_a_damaged_file_is_named(tmp_path):
    transformer().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(PairError, match=r"diffusion_pytorch_model\.safetensors is damaged .*download or save it again"):
        Source(str(tmp_path)).weights("", 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_keys_and_values_are_those_a_run_keeps(kind, dtype):
    family = SD3Family(transformer(kind))
    inputs = {"hidden_states": torch.zeros(4, 4, 8, 12), "encoder_hidden_states": torch.zeros(4, 7, 5)}
    family.attach()
    room = family.room(inputs, dtype)
    shape = shape_of(family.transformer, 24, 7)
    bytes_kept = sum(tensor.nbytes for pair in room for tensor in pair)
    assert shape.kv_bytes(images=2, element_bytes=dtype.itemsize) == bytes_kept


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_activations_are_what_a_dense_step_holds(kind):
    dual = {"dual_attention_layers": (0, 1, 2)} if kind == "sd3.5-medium" else {}
    family = SD3Family(transformer(kind, heads=16, sample_size=32, pos_embed_max_size=32, **dual))
    family.attach()
    inputs = {
        "hidden_states": torch.randn(2, 4, 32, 32),
        "encoder_hidden_states": torch.randn(2, 40, TEXT_WIDTH),
        "pooled_projections": torch.randn(2, POOLED),
        "timestep": torch.full((2,), 500.0),
    }
    memory = family.room(inputs)
    with Live() as live:
        family.dense(inputs, memory=memory)
    shape = shape_of(family.transformer, 256, 40)
    assert shape.activation_bytes(element_bytes=4) == pytest.approx(live.peak, rel=0.02)


@torch.no_grad()
def test_decoding_is_what_the_vae_holds(folder):
    pipe = open_mini(folder=folder)
    need = outline(str(folder), element_bytes=4).need((64, 128))
    with Live() as live:
        pipe.vae.decode(torch.randn(1, 16, 16, 32))
    assert need.decoding == pytest.approx(live.peak, rel=0.05)


def test_the_most_at_once_is_drawing_or_decoding(folder):
    few, many = (outline(str(folder)).need(images=n) for n in (1, 3))
    weights = sum(few.weights.values())
    assert few.total == weights + max(few.keys_values + few.step, few.decoding)
    assert (many.keys_values, many.step, many.decoding) == (3 * few.keys_values, 3 * few.step, 3 * few.decoding)
    assert outline(str(folder)).need(kv_bytes=4).keys_values == 2 * few.keys_values


def test_a_pair_that_cannot_fit_is_refused_before_it_is_loaded(folder, monkeypatch):
    known = outline(str(folder), element_bytes=4)
    weights = sum(known.weights.values())
    check_weights(known.weights, "cpu")
    monkeypatch.setattr("hybridstitch.pair.fits.capacity", lambda device: weights - 1)
    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", lambda *a, **k: pytest.fail("was loaded"))
    with pytest.raises(PairError, match=f"weights take {gibibytes(weights)} and cpu has") as refused:
        hybridstitch.open_pair(folder, folder / "small", dtype=torch.float32)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_both_names_of_the_dtype_decide_what_a_pair_takes(folder, monkeypatch, name):
    half = sum(outline(str(folder), element_bytes=2).weights.values())
    monkeypatch.setattr("hybridstitch.pair.fits.capacity", lambda device: half - 1)
    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", lambda *a, **k: pytest.fail("was loaded"))
    with pytest.raises(PairError, match=f"weights take {gibibytes(half)} and cpu has"):
        hybridstitch.open_pair(folder, folder / "small", **{name: torch.bfloat16})


def test_doctor_prints_what_a_pair_needs(folder, capsys, monkeypatch):
    assert main(["doctor", "--pair", str(folder), "--size", "64", "--batch", "2", "--dtype", "bf16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["memory"]
    need = outline(str(folder)).need((64, 64), images=2, text_tokens=24)
    assert told["weights"] == need.weights
    assert told["keys and values"] == need.keys_values
    assert told["total"] == need.total
    assert main(["doctor", "--pair", str(folder)]) == 0
    text = capsys.readouterr().out
    for word in ("large", "small", "vae", "keys and values", "activations", "at most at once", "fits"):
        assert word in text
    monkeypatch.setattr("hybridstitch.pair.memory.capacity", lambda device: 10)
    assert main(["doctor", "--pair", str(folder)]) == 1
    assert "does not fit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pair", "mini", "--batch", "0"], "--batch 0 was given"),
        (["--batch", "2"], "belong to --pair"),
        (["--pair", "no/such/folder"], "is no folder"),
        (["--pair", "mini", "--size", "100"], "multiples of"),
    ],
)
def test_doctor_refuses_in_a_line(words, said, capsys):
    assert main(["doctor", *words]) == 2
    error = capsys.readouterr().err
    assert said in error.replace("\n", " ")


def test_a_stitched_pipeline_is_no_larger_than_its_parts():
    pipe = stitched()
    assert held(pipe.transformer) == held(pipe.transformer.large) + held(pipe.transformer.small)
