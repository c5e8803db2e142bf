"""A model put away and fetched: every change survives, whoever made it and how, and nobody waits.

On a CPU a shelf copies between two places of one device; with --device cuda the same tests move weights for real.
"""

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hybridstitch.pair.shelf import ALIGNED, Shelf
from small_models import transformer


def model_on(device):
    return transformer().to(device)


def same(first, second):
    theirs = dict(second.state_dict())
    return all(torch.equal(tensor.cpu(), theirs[name].cpu()) for name, tensor in first.state_dict().items())


def test_what_was_put_away_comes_back_changes_included(device):
    model, twin = model_on(device), model_on(device)
    parameters = list(model.parameters())
    shelf = Shelf(model, device)
    for change in (0.0, 1.0):
        for each in (model, twin):
            with torch.no_grad():
                each.proj_out.bias += change
        shelf.put_away()
        assert shelf.away
        assert all(tensor.device.type == "cpu" for tensor in (*model.parameters(), *model.buffers()))
        shelf.put_away()  # once is enough
        shelf.ready()
        assert not shelf.away
        assert all(tensor.device.type == device.type for tensor in model.parameters())
        assert same(model, twin)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


# --- changes of every make ---


def data_added(weight, change):
    weight.data += change  # peft merges so: neither address nor version moves


def added(weight, change):
    with torch.no_grad():
        weight.add_(change)


def data_replaced(weight, change):
    weight.data = weight.data + change


def copied_into(weight, change):
    weight.detach().copy_(weight.detach() + change)


def entry_set(weight, change):
    weight.data[0] = change


def transposed(weight, change):
    if weight.ndim == 4:
        weight.data = weight.data.contiguous(memory_format=torch.channels_last) * change


CHANGES = (data_added, added, data_replaced, copied_into, entry_set, transposed)
PLACES = st.sampled_from(["proj_out.weight", "pos_embed.proj.weight", "transformer_blocks.1.attn.to_q.weight"])
EDITS = st.lists(st.tuples(st.sampled_from(CHANGES), PLACES, st.sampled_from([0.5, -1.0, 2.0])), max_size=3)


@settings(max_examples=25)
@given(rounds=st.lists(st.tuples(EDITS, EDITS), min_size=1, max_size=4))
def test_no_change_is_ever_lost(device, rounds):
    """Edits at home and edits while away, in any order."""
    model, twin = model_on(device), model_on(device)
    shelf = Shelf(model, device)

    def edit(edits):
        for change, name, value in edits:
            for each in (model, twin):
                change(each.get_parameter(name), value)

    for at_home, while_away in rounds:
        edit(at_home)
        shelf.put_away()
        if device.type == "cuda":
            torch.cuda.synchronize()  # nobody may touch them before they have landed
        edit(while_away)
        shelf.fetch()
    shelf.close()
    assert same(model, twin)
    for name, parameter in model.named_parameters():
        assert parameter.stride() == twin.get_parameter(name).stride()


def test_weights_that_come_and_go(device):
    """Adapters are loaded and unloaded between pictures, layers replaced, buffers added."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(device)
    shelf = Shelf(model, device)
    shelf.put_away()
    shelf.fetch()
    model.append(nn.Linear(2, 5, dtype=torch.float64).to(device))
    model.register_buffer("count", torch.tensor(7, device=device))
    model[0].weight = nn.Parameter(torch.ones(6, 3, device=device, dtype=torch.bfloat16))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shelf.put_away()
    shelf.ready()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    del model[2]
    shelf.put_away()
    model.append(nn.Linear(2, 1))  # loaded while the others were away
    shelf.ready()
    assert {parameter.device.type for parameter in model.parameters()} == {device.type}


def test_memory_is_taken_once_and_no_more_than_needed(device, monkeypatch):
    taken, empty = [], torch.empty

    def counted(*shape, **options):
        made = empty(*shape, **options)
        if options.get("dtype") == torch.uint8:
            taken.append(made.nbytes)
        return made

    monkeypatch.setattr(torch, "empty", counted)
    model = model_on(device)
    tensors = (*model.parameters(), *model.buffers())
    shelf = Shelf(model, device)
    for _ in range(3):
        shelf.put_away()
        shelf.fetch()
    assert len(taken) == 1
    assert 0 <= taken[0] - sum(tensor.nbytes for tensor in tensors) < ALIGNED * len(tensors)


def test_a_shelf_that_goes_gives_its_memory_back(device):
    shelf = Shelf(model_on(device), device)
    shelf.put_away()
    shelf.close()
    assert not shelf.away
    assert not shelf._places
    shelf = Shelf(model_on(device), device)
    shelf.put_away()
    lies = next(shelf.model.parameters()).data
    del shelf
    gc.collect()
    assert lies.isfinite().all()  # whoever holds a weight keeps its memory
    assert not lies.is_pinned()


# --- on a GPU ---


@pytest.fixture
def gpu(device):
    if device.type != "cuda":
        pytest.skip("needs --device cuda")
    return device


def busy(device, times=200):
    """Keeps the current stream busy for a while."""
    much = torch.ones(4096, 4096, device=device)
    for _ in range(times):
        much = (much @ much).clamp(0, 1)
    return much


def test_neither_way_makes_the_host_wait(gpu):
    shelf = Shelf(model_on(gpu), gpu)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        done = torch.cuda.Event()
        busy(gpu)
        shelf.put_away()
        shelf.fetch()
        done.record()
        assert not done.query()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_weights_are_read_behind_their_last_change_and_used_behind_their_arrival(gpu):
    """Also where others take the memory at home as soon as it is let go."""
    model, twin = (nn.Linear(4096, 4096).to(gpu) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    shelf = Shelf(model, gpu)
    for _ in range(5):
        for each in (model, twin):
            each.weight.data += busy(gpu, 20)[0, 0]
        shelf.put_away()
        others = [torch.full((4096, 4096), float("nan"), device=gpu) for _ in range(4)]
        shelf.fetch()
        del others
        again = torch.full((4096, 4096), float("nan"), device=gpu)
        assert torch.equal(model.weight, twin.weight)
        del again


def test_page_locked_memory_is_exact(gpu):
    shelf = Shelf(nn.Linear(5000, 5000).to(gpu), gpu)
    shelf.put_away()
    torch.cuda.synchronize()
    assert shelf.model.weight.is_pinned()
    shelf.close()
