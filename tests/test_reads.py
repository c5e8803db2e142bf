"""A step waits for the device at most once, and sends it nothing: counted on a CPU, refused by CUDA where it is."""

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hybridstitch import HybridStitch, Replay, stitch
from hybridstitch.drawing.guard import Guard
from hybridstitch.pair.stitched import StitchedTransformer
from hybridstitch.policies.parse import parse
from small_models import generate, pipeline, small

STEPS = 10
READS = {"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::nonzero"}
UPLOADS = {"aten::lift_fresh", "aten::index", "aten::index_put_"}
HYBRID = HybridStitch(masks=(0.4, 0.2), thresholds=(0.65, 0.5, 0.3))
POLICIES = {
    "large": "large",
    "t-stitch": "t-stitch",
    "skip": "skip:large-steps=5",
    "sr-diffusion": "sr-diffusion:threshold=0.4",
    "sr-diffusion by its drop": "sr-diffusion:criterion=drop,signal=prediction,threshold=0.4",
    "reuse": "reuse:bound=0.3,of=sr-diffusion:threshold=0.2",
    "hybrid": str(HYBRID),
    "static": "hybrid-stitch:thresholds=0.65/0.3,update-mask=false",
    "full large": "hybrid-stitch:thresholds=0.65/0.3,masked-compute=false",
    "cached": "schedule:text=cached,program=L2 H4@0.3 S*",
    "conditional": "schedule:branches=cond,program=L2 H4@0.3 S*",
    "carried": "schedule:carry=0.9,follow=0.25,program=L2 H4@0.3 S*",
    "refresh": "L2 R3@0.3 -2 S*",
}


class Counts(TorchDispatchMode):
    """What is read from a device and sent to it while it is on, `tolist` included."""

    def __init__(self):
        super().__init__()
        self.reads, self.uploads = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        if name in READS:
            self.reads.append(name)
        if name in UPLOADS:
            self.uploads.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def counts(monkeypatch):
    """Of each call of ours, a forward or a step observed, how often it read, and what it sent."""
    found = []
    plain = torch.Tensor.tolist

    @contextmanager
    def counted():
        mode = Counts()

        def tolist(tensor):
            mode.reads.append("tolist")
            return plain(tensor)

        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", tolist)
            with mode:
                yield
        found.append((len(mode.reads), mode.uploads))

    def spied(method):
        def spy(self, *args, **kwargs):
            with counted():
                return method(self, *args, **kwargs)

        return spy

    for name in ("forward", "observe"):
        monkeypatch.setattr(StitchedTransformer, name, spied(getattr(StitchedTransformer, name)))
    return found


def test_what_waits_and_what_is_sent_is_seen():
    numbers = torch.arange(6.0)
    for waits in (lambda: float(numbers[1]), lambda: bool(numbers[0] == 1), lambda: torch.equal(numbers, numbers)):
        with Counts() as mode:
            waits()
        assert len(mode.reads) == 1
    for sends in (lambda: numbers[[0, 2]], lambda: torch.tensor([1, 2]), lambda: numbers.clone().__setitem__([1], 5.0)):
        with Counts() as mode:
            sends()
        assert mode.uploads


def made(policy, images, guard=None):
    pipe = pipeline()
    stitch(pipe, small(), policy)
    pipe.transformer.guard = guard
    return pipe


@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_step_reads_the_device_at_most_once_and_uploads_nothing(policy, images, counts):
    pipe = made(POLICIES[policy], images)
    generate(pipe, images=images, steps=STEPS)
    forwards, observed = counts[::2], counts[1::2]
    assert len(forwards) == len(observed) == STEPS
    adaptive = parse(POLICIES[policy]).adaptive
    assert [reads for reads, _ in forwards] == ([0, *[1] * (STEPS - 1)] if adaptive else [0] * STEPS)
    assert [reads for reads, _ in observed[:-1]] == [0] * (STEPS - 1)
    assert observed[-1][0] <= (3 if adaptive else 1)  # the run is over: distances; what an adaptive one warns of
    assert [uploads for _, uploads in counts if uploads] == []


def test_images_in_different_stages_copy_no_keys_and_values(counts, monkeypatch):
    """A group of some images of a batch attends to views of the memory."""
    copied = []
    monkeypatch.setattr(torch.Tensor, "index_select", lambda *given: copied.append(given) or torch.index_select(*given))
    pipe = made("large", 3)
    recorded = []
    for program in ("L*", "L3 H*@0.25", "L3 S*"):
        pipe.transformer.policy = program
        generate(pipe, steps=6, images=3)
        recorded.append(pipe.transformer.trace.plans(masks=True)[len(recorded)])
    pipe.transformer.policy = Replay(tuple(recorded))
    copied.clear(), counts.clear()
    generate(pipe, steps=6, images=3)
    largest = max((given[0].numel() for given in copied), default=0)
    length = 64 + 7
    assert largest < 6 * length * 48  # one layer's keys of all rows; the drawn tokens themselves may be gathered
    assert sum(reads for reads, _ in counts) == 1


def test_a_guard_reads_once_more_a_call(counts):
    generate(made("L2 H4@0.3 S*", 1, Guard()), steps=STEPS)
    assert [reads for reads, _ in counts[::2]] == [1, 1, 2, 2, 2, 2, 1, 1, 1, 1]


@pytest.mark.filterwarnings("ignore::hybridstitch.errors.StitchWarning")
@pytest.mark.parametrize("policy", POLICIES)
def test_cuda_waits_for_nothing_but_the_distances(policy, device, monkeypatch):
    if device.type != "cuda":
        pytest.skip("needs --device cuda")
    pipe = made(POLICIES[policy], 2)
    pipe.to(device)
    generate(pipe, images=2, steps=STEPS)  # memory and kernels are there
    plain = torch.Tensor.tolist

    def tolist(tensor):
        torch.cuda.set_sync_debug_mode("default")
        try:
            return plain(tensor)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    def strict(method):
        def call(self, *args, **kwargs):
            torch.cuda.set_sync_debug_mode("error")
            try:
                return method(self, *args, **kwargs)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return call

    monkeypatch.setattr(torch.Tensor, "tolist", tolist)
    monkeypatch.setattr(StitchedTransformer, "forward", strict(StitchedTransformer.forward))
    assert generate(pipe, images=2, steps=STEPS).isfinite().all()
