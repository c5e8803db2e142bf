"""How models are run: what cannot be meant is refused in a line; compiled runs draw the same, in three graphs."""

import copy
from dataclasses import fields

import pytest
import torch
import torch._inductor.config
from peft import LoraConfig
from torch._dynamo.utils import counters

import hybridstitch
from hybridstitch import Engine, HybridStitch, Replay, Schedule, parse_engine, stitch, unstitch
from hybridstitch.errors import EngineError
from hybridstitch.pair.prepared import check_device
from hybridstitch.pair.shelf import Shelf
from hybridstitch.policies.plan import Plan
from hybridstitch.policies.plan import large as large_stroke
from hybridstitch.policies.plan import small as small_stroke
from seen import calm, pair, plain
from small_models import generate, small, stitched

PROGRAM = "L3 H3@0.3 S2"


def drawn_by(pipe, engine):
    pipe.transformer.engine = engine
    return generate(pipe)


ENGINES = [
    Engine(),
    Engine(compile="whole", snap=64),
    Engine(compile="regional", backend="aot_eager", graphs=True),
    Engine(kv="bfloat16", offload=True),
    Engine(quantise="int8"),
]


@pytest.mark.parametrize("engine", ENGINES, ids=str)
def test_text_and_engine_are_inverses(engine):
    assert parse_engine(str(engine)) == engine
    assert str(Engine()) == ""


REFUSED = {
    "compile='all'": ({"compile": "all"}, "known: 'off', 'whole', 'regional'"),
    "kv": ({"kv": "int8"}, "known: 'same', 'bfloat16', 'float16'"),
    "quantise": ({"quantise": "int4"}, "known: 'off', 'int8', 'float8'"),
    "snap": ({"snap": 0}, "1 or more, as 16 or 64"),
    "graphs alone": ({"graphs": True}, "add compile='whole', or leave graphs out"),
    "graphs and offload": ({"compile": "whole", "graphs": True, "offload": True}, "leave one out"),
    "quantise and offload": ({"quantise": "int8", "offload": True}, "leave one out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_be_meant_are_refused_in_a_line(name):
    options, way_out = REFUSED[name]
    with pytest.raises(EngineError) as refused:
        Engine(**options)
    assert way_out in str(refused.value)
    assert "\n" not in str(refused.value)


def test_text_that_cannot_be_read_is_refused():
    with pytest.raises(EngineError, match="the engine has no option 'compiled'; did you mean 'compile'"):
        parse_engine("compiled=whole")
    with pytest.raises(EngineError, match="snap='many' cannot be read"):
        parse_engine("snap=many")


ABSENT = {
    "graphs": (Engine(compile="whole", graphs=True), "needs a CUDA device, the models are on cpu"),
    "offload": (Engine(offload=True), "off a GPU, the models are on cpu"),
    "backend": (Engine(compile="whole", backend="inductr"), "no backend 'inductr'; did you mean 'inductor'"),
}


@pytest.mark.parametrize("name", ABSENT)
def test_what_the_machine_lacks_is_said_in_a_line(name):
    engine, found = ABSENT[name]
    with pytest.raises(EngineError, match=found):
        check_device(engine, torch.device("cpu"))
    pipe = stitched(PROGRAM)
    with pytest.raises(EngineError, match=found):
        drawn_by(pipe, engine)
    pipe.transformer.engine = Engine()
    assert torch.equal(generate(pipe), generate(stitched(PROGRAM)))


def test_a_missing_compiler_is_said_before_anything_is_drawn():
    named = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})  # puts the found one back
    with named, pytest.raises(EngineError, match=r"needs a C\+\+ compiler \(no-such-compiler\), which is not there"):
        check_device(Engine(compile="whole"), torch.device("cpu"))


def test_torchao_is_asked_for_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr("hybridstitch.pair.prepared.find_spec", lambda name: None)
    with pytest.raises(EngineError, match="torchao, which is not installed: pip install torchao"):
        hybridstitch.open_pair("mini", engine=Engine(quantise="int8"))


@pytest.mark.parametrize("size", [16, 64])
def test_k_is_rounded_to_a_multiple(size):
    engine = Engine(snap=size)
    for tokens in range(1, 257):
        k = engine.count(tokens, 256)
        assert k % size == 0
        assert k == size or abs(k - tokens) <= size / 2
    assert engine.count(5, 10) == 10
    assert [Engine().count(tokens, 10) for tokens in (1, 5, 10)] == [1, 5, 10]


def test_a_run_draws_as_many_tokens_as_the_engine_rounds_to():
    pipe = stitched("L3 H3@0.3 S2")
    pipe.transformer.engine = Engine(snap=16)
    generate(pipe)
    masks = [step for step in pipe.transformer.trace.records if step.drawn.strokes[-1].masked]
    assert [len(step.mask) for step in masks] == [16] * 3  # of 64; 0.3 of them are 19
    assert [step.large_tokens for step in masks] == [16] * 3


@pytest.mark.parametrize("compile", ["whole", "regional"])
def test_three_graphs_serve_a_run_its_masks_and_the_next_image(compile):
    torch._dynamo.reset()
    counters.clear()
    engine = Engine(compile=compile, backend="eager")
    pipe = pair(HybridStitch(masks=(0.4,), thresholds=(0.9, 0.1), text="cached"), "sd3.5-large")
    pipe.transformer.engine = engine
    drawn = [generate(pipe, seed=seed) for seed in (7, 8)]
    kinds = {str(step.drawn) for step in pipe.transformer.trace.records}
    assert kinds == {"L", "S + L@0.4"}
    masks = {step.mask for step in pipe.transformer.trace.records}
    assert len(masks) > 3
    graphs = {"whole": 3, "regional": 6}[compile]  # the last block, whose text goes nowhere, is a kind of its own
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
    pipe.transformer.engine = Engine()
    for seed, compiled in zip((7, 8), drawn, strict=True):
        torch.testing.assert_close(compiled, generate(pipe, seed=seed), rtol=1e-4, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == graphs  # eager again, for good
    twin = copy.deepcopy(pipe)
    twin.transformer.engine = engine
    torch.testing.assert_close(generate(twin, seed=8), drawn[1], rtol=1e-4, atol=1e-4)
    unstitch(pipe)
    assert torch.equal(generate(pipe), generate(plain("sd3.5-large")))


@pytest.mark.slow
def test_group_sizes_of_a_mixed_batch_share_a_graph():
    """Each model draws 1, 2, 3 or 4 images of a batch: a graph for the first size, then one a model for all others."""
    torch._dynamo.reset()
    counters.clear()
    switches = (1, 2, 3, 5)
    policy = Replay(tuple((Plan((large_stroke(),)),) * s + (Plan((small_stroke(),)),) * (5 - s) for s in switches))
    pipe, beside = (stitched(policy) for _ in range(2))
    pipe.transformer.engine = Engine(compile="whole", backend="eager")
    call = {"images": 4, "steps": 5}
    torch.testing.assert_close(generate(pipe, **call), generate(beside, **call), rtol=1e-4, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == 3  # of 7 pairs of a model and a size
    assert not counters["graph_break"]


@pytest.mark.slow
def test_inductor_draws_the_same():
    pipe = plain("sd3", num_layers=2)  # a first block and a last one: C++ is compiled for each
    stitch(pipe, calm(small(num_layers=2)), PROGRAM)
    expected = generate(pipe)
    pipe.transformer.engine = Engine(compile="whole")
    torch.testing.assert_close(generate(pipe), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["sd3", "sd3.5-medium"])
def test_keys_and_values_in_bfloat16_draw_nearly_the_same(kind):
    pipe = pair(Schedule(PROGRAM, update_mask=False), kind)  # one mask, chosen before anything was rounded
    expected = generate(pipe)
    pipe.transformer.engine = Engine(kv="bfloat16")
    drawn = generate(pipe)
    assert not torch.equal(drawn, expected)
    assert (drawn - expected).norm() < 0.02 * expected.norm()


def test_the_large_model_is_put_away_after_its_last_stroke_and_fetched_when_the_picture_is_done(monkeypatch):
    monkeypatch.setattr(
        "hybridstitch.pair.prepared.check_device", lambda engine, device: None
    )  # two places on one device
    told = []
    for name in ("put_away", "fetch"):
        method = getattr(Shelf, name)
        monkeypatch.setattr(Shelf, name, lambda self, n=name, m=method: (told.append((n, self.away)), m(self))[1])
    policy = HybridStitch(masks=(0.4,), thresholds=(0.9, 0.8))
    expected = generate(stitched(policy))
    for decided in (policy, PROGRAM, "small", "large"):
        pipe = stitched(decided)
        pipe.transformer.engine = Engine(offload=True)
        told.clear()
        drawn = generate(pipe)
        first, *later = [away for name, away in told if name == "put_away"]
        assert not first
        assert all(later)
        assert told[-1] == ("fetch", True)
        assert not pipe.transformer._prepared._shelf.away
        small_alone = sum(str(step.drawn) == "S" for step in pipe.transformer.trace.records)
        if decided == PROGRAM:
            assert len(later) == small_alone == 2  # after the last masked step and each step of the small model
        if decided is policy:
            assert small_alone > 0
            assert torch.equal(drawn, expected)


def with_lora(pipe):
    """A random LoRA in the large model."""
    pipe.transformer.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v", "to_out.0"]), "ours")
    torch.manual_seed(4)
    for name, parameter in pipe.transformer.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return pipe


@pytest.mark.parametrize("policy", [PROGRAM, "large"])
def test_an_offloaded_model_keeps_a_merged_lora(monkeypatch, policy):
    """Peft merges by `weight.data += …`, which moves neither the weight's address nor its version."""
    monkeypatch.setattr("hybridstitch.pair.prepared.check_device", lambda engine, device: None)
    pipe, beside = (with_lora(stitched(policy)) for _ in range(2))
    pipe.transformer.engine = Engine(offload=True)
    for change in (lambda p: p.fuse_lora(lora_scale=0.6), lambda p: p.unfuse_lora(), lambda p: p.disable_lora()):
        for each in (pipe, beside):
            change(each)
        for seed in (7, 8):
            assert torch.equal(generate(pipe, seed=seed), generate(beside, seed=seed))


def test_a_lora_is_merged_at_home_after_a_run_that_broke_off(monkeypatch):
    monkeypatch.setattr("hybridstitch.pair.prepared.check_device", lambda engine, device: None)
    pipe, beside = (with_lora(stitched(PROGRAM)) for _ in range(2))
    pipe.transformer.engine = Engine(offload=True)

    def break_off(pipe, step, timestep, tensors):
        if step == 6:  # two steps of the small model alone are left
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        generate(pipe, callback_on_step_end=break_off)
    assert pipe.transformer._prepared._shelf.away
    for each in (pipe, beside):
        each.fuse_lora()
    assert not pipe.transformer._prepared._shelf.away
    assert torch.equal(generate(pipe), generate(beside))


def test_offloading_twice_is_refused():
    pipe = stitched(PROGRAM)
    pipe.transformer.engine = Engine(offload=True)
    pipe._all_hooks = [object()]  # what enable_model_cpu_offload leaves; it needs a GPU
    with pytest.raises(EngineError, match="diffusers' CPU offloading move the same weights"):
        generate(pipe)


def test_a_quantised_large_model_draws_nearly_the_same_for_good():
    pytest.importorskip("torchao")
    pipe = pair(PROGRAM)
    expected = generate(pipe)
    size = sum(p.nbytes for p in small().parameters())
    pipe.transformer.engine = Engine(quantise="int8")
    drawn = generate(pipe)
    assert not torch.equal(drawn, expected)
    assert (drawn - expected).norm() < 0.1 * expected.norm()
    assert sum(p.nbytes for p in pipe.transformer.small.parameters()) == size
    with pytest.raises(EngineError, match="quantised to int8, which cannot be undone; load the pair again"):
        pipe.transformer.engine = Engine()


def test_every_field_is_described():
    assert all(f"{field.name}:" in Engine.__doc__ for field in fields(Engine))
