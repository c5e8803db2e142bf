"""Drop-in, the modules: offloading, LoRA and regional compilation reach both models."""

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from dropin import ADAPTIVE, HYBRID
from hybridstitch import HybridStitchError, Replay, Schedule, StitchWarning, stitch, unstitch
from hybridstitch.policies.seen import Seen
from small_models import generate, pipeline, small, stitched


def lora_of(transformer, seed):
    """A random LoRA that fits a transformer; its state, peft's names."""
    transformer.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v", "to_out.0"]), "made")
    generator = torch.Generator().manual_seed(seed)
    state = get_peft_model_state_dict(transformer, adapter_name="made")
    transformer.delete_adapters("made")
    return {name: torch.randn(value.shape, generator=generator) * 0.2 for name, value in state.items()}


@pytest.fixture
def lora(tmp_path):
    """A folder with two LoRAs for the large model."""
    for seed in (1, 2):
        StableDiffusion3Pipeline.save_lora_weights(
            tmp_path, transformer_lora_layers=lora_of(pipeline().transformer, seed), weight_name=f"{seed}.safetensors"
        )
    return tmp_path


@pytest.mark.dropin("model_cpu_offload")
def test_model_cpu_offload_after_stitching():
    expected = generate(pipeline()), generate(stitched(HYBRID))
    pipe = stitched()
    pipe.enable_model_cpu_offload(device="cpu")
    for policy, picture in zip(("large", HYBRID), expected, strict=True):
        pipe.transformer.policy = policy
        for _ in range(2):
            assert torch.equal(generate(pipe), picture)
    with pytest.raises(HybridStitchError, match=r"`pipe\.remove_all_hooks\(\)` first"):
        unstitch(pipe)
    assert torch.equal(generate(pipe), expected[1])
    pipe.remove_all_hooks()
    unstitch(pipe)
    assert torch.equal(generate(pipe), expected[0])


@pytest.mark.dropin("model_cpu_offload")
def test_model_cpu_offload_before_stitching_is_refused():
    pipe = pipeline()
    large = pipe.transformer
    pipe.enable_model_cpu_offload(device="cpu")
    with pytest.raises(HybridStitchError, match=r"stitch first, then `enable_model_cpu_offload\(\)`"):
        stitch(pipe, small(), HYBRID)
    assert pipe.transformer is large
    assert torch.equal(generate(pipe), generate(pipeline()))
    pipe.remove_all_hooks()
    stitch(pipe, small(), HYBRID)
    assert torch.equal(generate(pipe), generate(stitched(HYBRID)))


@pytest.mark.dropin("group offload")
@pytest.mark.parametrize(
    "how", [{"offload_type": "leaf_level"}, {"offload_type": "block_level", "num_blocks_per_group": 1}]
)
def test_group_offload(monkeypatch, how):
    if torch.accelerator.current_accelerator() is None:  # which diffusers 0.40 asks for, even to move nothing
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu"))
    for policy in ("large", ADAPTIVE):
        pipe = stitched(policy, "sd3.5-medium")
        expected = generate(pipe)
        pipe.transformer.enable_group_offload(torch.device("cpu"), torch.device("cpu"), **how)
        hooked = {
            name.split(".")[0] for name, m in pipe.transformer.named_modules() if hasattr(m, "_diffusers_hook") and name
        }
        assert hooked == {"large", "small"}
        assert torch.equal(generate(pipe), expected)
        assert torch.equal(generate(pipe), expected)
    unstitch(pipe)
    assert torch.equal(generate(pipe), generate(pipeline("sd3.5-medium")))


@pytest.mark.dropin("LoRA load, scale, unload on L")
@pytest.mark.filterwarnings("ignore:this LoRA reaches the large model only")
def test_lora_on_the_large_model(lora):
    plain, pipe = pipeline(), stitched()
    before = generate(plain)
    pictures = [before]

    def same(new=True, **call):
        expected = generate(plain, **call)
        assert torch.equal(generate(pipe, **call), expected)
        assert new != any(torch.equal(expected, picture) for picture in pictures)
        pictures.append(expected)

    def both(method, *args, **kwargs):
        results = [getattr(each, method)(*args, **kwargs) for each in (plain, pipe)]
        assert results[0] == results[1]

    both("load_lora_weights", lora, weight_name="1.safetensors", adapter_name="one")
    same()
    same(joint_attention_kwargs={"scale": 0.5})
    both("set_adapters", "one", 0.3)
    same()
    both("load_lora_weights", lora, weight_name="2.safetensors", adapter_name="two")
    both("set_adapters", ["one", "two"], [0.7, 0.4])
    same()
    both("get_active_adapters")
    both("get_list_adapters")
    both("disable_lora")
    same(new=False)
    both("enable_lora")
    same(new=False)
    both("delete_adapters", "one")
    same()
    both("fuse_lora", lora_scale=0.6)
    same()
    both("unfuse_lora")
    generate(pipe)
    both("unload_lora_weights")
    torch.testing.assert_close(generate(pipe), generate(plain), rtol=0, atol=0)
    assert not hasattr(pipe.transformer.large, "peft_config")

    pipe = stitched()
    pipe.load_lora_weights(lora, weight_name="1.safetensors")
    pipe.unload_lora_weights()
    assert torch.equal(generate(pipe), before)


@pytest.mark.dropin("LoRA load, scale, unload on L")
def test_lora_reaches_the_large_model_only_and_says_so(lora):
    pipe = stitched(HYBRID)
    only_small = generate(stitched("small"))
    before = generate(pipe)
    with pytest.warns(StitchWarning, match=r"large model only.*pipe\.transformer\.small\.load_lora_adapter"):
        pipe.load_lora_weights(lora, weight_name="1.safetensors")
    assert not torch.equal(generate(pipe), before)
    pipe.transformer.policy = "small"
    assert torch.equal(generate(pipe), only_small)
    pipe.unload_lora_weights()
    pipe.transformer.policy = HYBRID
    assert torch.equal(generate(pipe), before)


@pytest.mark.dropin("LoRA load, scale, unload on S")
def test_lora_on_the_small_model():
    state = lora_of(small(), 3)
    plain, pipe = pipeline(), stitched("small")
    plain.register_modules(transformer=small())
    before = generate(plain)
    for model in (plain.transformer, pipe.transformer.small):
        model.load_lora_adapter(state, prefix=None, adapter_name="ours")
    loaded = generate(plain)
    assert not torch.equal(loaded, before)
    assert torch.equal(generate(pipe), loaded)
    assert torch.equal(
        generate(pipe, joint_attention_kwargs={"scale": 0.5}), generate(plain, joint_attention_kwargs={"scale": 0.5})
    )
    for model in (plain.transformer, pipe.transformer.small):
        model.set_adapters("ours", 0.5)
    assert torch.equal(generate(pipe), generate(plain))

    pipe.transformer.policy = HYBRID
    assert not torch.equal(generate(pipe), generate(stitched(HYBRID)))
    pipe.transformer.policy = "large"
    assert torch.equal(generate(pipe), generate(pipeline()))
    pipe.transformer.small.unload_lora()
    pipe.transformer.policy = "small"
    assert torch.equal(generate(pipe), before)


def at(step):
    return Seen(step=step, steps=8, stage=0, distances=())


@pytest.fixture
def dynamo():
    """The compiler's settings and counters, started afresh and left so."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo
    torch._dynamo.reset()


@pytest.mark.dropin("regional torch.compile of the blocks")
@pytest.mark.parametrize("kind", ["sd3", "sd3.5-medium"])
def test_regional_compilation_compiles_each_kind_of_block_once(dynamo, kind):
    pipe = stitched(HYBRID, kind)
    expected = [generate(pipe, seed=seed) for seed in (7, 8)]
    blocks = pipe.transformer.large.transformer_blocks
    for block in blocks:
        block.compile(fullgraph=True, backend="eager")
    assert torch.equal(generate(pipe, seed=7), expected[0])
    masks = [step.mask for step in pipe.transformer.trace.records if step.mask]
    kinds = len({(block.context_pre_only, block.use_dual_attention) for block in blocks})
    assert dynamo.utils.counters["stats"]["unique_graphs"] == 2 * kinds  # dense and masked, however many layers
    with dynamo.config.patch(error_on_recompile=True):
        assert torch.equal(generate(pipe, seed=8), expected[1])
        assert [step.mask for step in pipe.transformer.trace.records if step.mask] != masks
        pipe.transformer.policy = "L4 H1@0.3 L1 H2@0.3"
        generate(pipe)


@pytest.mark.dropin("regional torch.compile of the blocks")
def test_regional_compilation_of_both_models_with_images_in_mixed_stages(dynamo):
    programs = [Schedule("L3 H3@0.3 S2"), Schedule("L2 H4@0.3 S2")]
    pipe = stitched(Replay(tuple(tuple(p.decide(at(step)) for step in range(8)) for p in programs)))
    expected = [generate(pipe, images=2, seed=seed) for seed in (7, 8)]
    for model in (pipe.transformer.large, pipe.transformer.small):
        for block in model.transformer_blocks:
            block.compile(fullgraph=True, backend="eager")
    with dynamo.config.patch(recompile_limit=64):  # groups of several sizes, two widths: more graphs than torch's 8
        assert torch.equal(generate(pipe, images=2, seed=7), expected[0])
        with dynamo.config.patch(error_on_recompile=True):
            assert torch.equal(generate(pipe, images=2, seed=8), expected[1])
