"""Keys and values in float8, and with the host: half the memory at a known closeness, and the same picture."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import flux_models
import small_models
from hybridstitch import Engine, HybridStitch, stitch
from hybridstitch.errors import EngineError, RunError
from hybridstitch.families.held import FLOAT8, held, room, told
from pipelines import PIPELINES

MASKED = "L2 H3@0.3 S*"
MIXED = HybridStitch(masks=(0.3,), thresholds=(9.0, 1e-9))  # some images drawn dense while others are masked


def sd3(engine, policy=MASKED, device="cpu", steps=6):
    """Latents of three pictures."""
    pipe = small_models.stitched(policy).to(device)
    pipe.transformer.engine = engine
    return small_models.generate(pipe, images=3, steps=steps), pipe


def flux(engine, policy=MASKED, device="cpu", steps=6):
    pipe = flux_models.stitched(policy).to(device)
    pipe.transformer.engine = engine
    return flux_models.generate(pipe, images=2, steps=steps), pipe


def wan(engine, policy=MASKED, device="cpu", steps=6):
    piped = PIPELINES["wan"]
    pipe = piped.build()
    stitch(pipe, piped.transformer(1), policy, engine)
    return piped.draw(pipe.to(device), 2, steps=steps), pipe


DRAWN = {"sd3": sd3, "flux": flux, "wan": wan}


def worst(one, other):
    """The largest difference, over the largest value."""
    return ((one - other).abs().max() / other.abs().max()).item()


# --- float8 ---


@given(st.floats(1e-6, 1e4), st.integers(0, 99))
def test_what_is_held_is_told_within_a_sixteenth_of_each_number(size, seed):
    """Three bits of fraction: half a step is 1/16 of a number, or of the least that its head can hold."""
    numbers = size * torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(seed))
    memory = room((2, 5, 3, 8), FLOAT8, torch.device("cpu"))
    memory.copy_(held(numbers, memory))
    again = told(memory, torch.float32)
    least = numbers.abs().amax(-1, keepdim=True) * 2**-14 + 2**-23
    assert ((again - numbers).abs() <= numbers.abs() * (1 / 16 + 1e-3) + least).all()


def test_zeros_and_other_dtypes_are_held_exactly():
    zeros = torch.zeros(1, 2, 3, 4)
    assert torch.equal(told(held(zeros, torch.empty(0, dtype=torch.uint8)), torch.float32), zeros)
    numbers = torch.randn(1, 2, 3, 4).bfloat16()
    assert torch.equal(told(held(numbers, numbers), torch.bfloat16), numbers)


def test_memory_is_a_byte_a_number_and_two_a_head():
    half, eighth = (room((4, 9, 3, 64), dtype, torch.device("cpu")).nbytes for dtype in (torch.bfloat16, FLOAT8))
    assert eighth / half == 66 / 128


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_are_close_and_the_memory_is_smaller(name, monkeypatch):
    once = {"policy": "L2 H*@0.3", "steps": 3}  # random models amplify what differs from step to step
    plain, pipe = DRAWN[name](Engine(), **once)
    sizes, room_of = [], type(pipe.transformer.family).room

    def counted(*args, **kwargs):
        layers = room_of(*args, **kwargs)
        sizes.append(sum(tensor.nbytes for pair in layers for tensor in pair))
        return layers

    monkeypatch.setattr(type(pipe.transformer.family), "room", counted)
    again, _ = DRAWN[name](Engine(), **once)
    assert torch.equal(again, plain)
    full = max(sizes)
    sizes.clear()
    drawn, pipe = DRAWN[name](Engine(kv="float8"), **once)
    assert max(sizes) < 0.32 * full  # of float32, heads of 8 and more
    assert not torch.equal(drawn, plain)
    assert worst(drawn, plain) < 0.05
    assert any(step.mask for step in pipe.transformer.trace.records)


@pytest.mark.parametrize("name", DRAWN)
def test_dense_steps_are_exact(name):
    plain, _ = DRAWN[name](Engine(), "large")
    assert torch.equal(DRAWN[name](Engine(kv="float8"), "L4 S*")[0], DRAWN[name](Engine(), "L4 S*")[0])
    assert torch.equal(DRAWN[name](Engine(kv="float8"), "large")[0], plain)


# --- with the host ---


@pytest.mark.parametrize("kv", ["same", "float8"])
@pytest.mark.parametrize("name", DRAWN)
def test_kept_with_the_host_pictures_are_the_same(name, kv):
    expected, _ = DRAWN[name](Engine(kv=kv))
    assert torch.equal(DRAWN[name](Engine(kv=kv, kv_host=True))[0], expected)


@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
@pytest.mark.parametrize("name", DRAWN)
def test_kept_with_the_host_for_some_images_of_a_batch(name):
    expected, _ = DRAWN[name](Engine(), MIXED)
    assert torch.equal(DRAWN[name](Engine(kv_host=True), MIXED)[0], expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("kv", ["same", "float8"])
@pytest.mark.parametrize("name", DRAWN)
def test_kept_with_the_host_of_a_gpu_pictures_are_the_same(name, kv):
    expected, _ = DRAWN[name](Engine(kv=kv), device="cuda")
    drawn, pipe = DRAWN[name](Engine(kv=kv, kv_host=True), device="cuda")
    assert torch.equal(drawn, expected)
    call = {"hidden_states": torch.zeros(1, 4, 8, 8, device="cuda")}
    if name == "sd3":
        call["encoder_hidden_states"] = torch.zeros(1, 7, 5, device="cuda")
        keys, _ = pipe.transformer.family.room(call, host=True)[0]
        assert keys.is_pinned()


# --- refused ---


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(EngineError, match="kv_host=True moves keys and values between the layers"):
        Engine(kv_host=True, compile="whole")
    with pytest.raises(EngineError, match="kv='float4' was given; known: 'same', 'bfloat16', 'float16', 'float8'"):
        Engine(kv="float4")


def test_no_room_is_one_line_with_the_way_out(monkeypatch):
    pipe = small_models.stitched(MASKED)

    def none(*args, **kwargs):
        raise torch.OutOfMemoryError("tried to allocate 25.00 GiB\nand more words")

    monkeypatch.setattr(type(pipe.transformer.family), "room", none)
    with pytest.raises(RunError, match=r"no memory for the keys and values .* 25\.00 GiB\); draw fewer") as refused:
        small_models.generate(pipe)
    assert "\n" not in str(refused.value)
