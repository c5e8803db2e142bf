"""SPEC §5, call by call: what every stroke of every program puts into the prediction, before guidance."""

import pytest
import torch
import torch.nn.functional as F

from examples.algorithm1 import LargeModel
from hybridstitch import HybridStitch, Plan, Region, Replay, Schedule, Stroke
from seen import SIZES, calm, pair, same, watch
from small_models import KINDS, prompt, small, transformer

IMAGES = 2
NO_KV = "no keys and values of the previous step: large model, dense"
NO_PREDICTION = "no previous prediction to repeat: large model, dense"


class CachedText(LargeModel):
    """The plain loop's large model with the text's keys and values of the last dense step in masked ones."""

    def __init__(self, model):
        super().__init__(model)
        self.words, self.cached = {}, False

    def attend(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        def heads(x, norm=None):
            x = x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            return norm(x) if norm else x

        x, text = hidden_states, encoder_hidden_states
        if text is not None and self.mask is None:
            self.words[attn] = heads(attn.add_k_proj(text), attn.norm_added_k), heads(attn.add_v_proj(text))
        if text is None or self.mask is None or not self.cached:
            return super().attend(attn, x, text)
        k, v = heads(attn.to_k(x), attn.norm_k), heads(attn.to_v(x))
        self.kept[attn] = [self.join(new, old) for new, old in zip((k, v), self.kept[attn], strict=True)]
        k, v = (torch.cat(both, 2) for both in zip(self.kept[attn], self.words[attn], strict=True))
        seen = F.scaled_dot_product_attention(heads(attn.to_q(x), attn.norm_q), k, v)
        return attn.to_out[0](seen.transpose(1, 2).flatten(2)), text


class Follower:
    """One image drawn again from the inputs of each call, one large model for each guidance branch."""

    def __init__(self, kind):
        self.small = calm(small(kind))
        self.large = {branch: CachedText(calm(transformer(kind, heads=6, seed=1))) for branch in "uc"}
        self.canvas = self.last = None

    @torch.no_grad()
    def draw(self, call, step):
        """The prediction of a call (rows u, c or c alone) under the strokes that the trace says were drawn."""
        branches = "uc"[-len(call.x) :]
        rows = {branch: [part[row, None] for part in call.inputs] for row, branch in enumerate(branches)}
        canvas = None if self.canvas is None else {b: self.canvas[b] for b in branches}
        before, alone = canvas, None
        for stroke in step.drawn.strokes:
            drawn, inside = {}, None
            if not stroke.region.everywhere:
                inside = torch.zeros(call.x.shape[-2] * call.x.shape[-1] // 4, dtype=torch.bool)
                inside[list(step.mask)] = True
            for branch in "c" if stroke.branches == "cond" and stroke.masked else branches:
                if stroke.model == "S":
                    drawn[branch] = self.small(*rows[branch], return_dict=False)[0]
                    alone = {**(alone or {}), branch: drawn[branch]}
                else:
                    self.large[branch].cached = stroke.text == "cached"
                    drawn[branch] = self.large[branch](*rows[branch], inside if stroke.masked else None)
            if stroke.model == "S" and before is not None:
                then = alone if self.last is None else self.last
                drawn = {
                    b: before[b] + stroke.follow * (alone[b] - then[b]) - (1 - stroke.carry) * (before[b] - then[b])
                    for b in branches
                }
            if drawn.keys() == {"c"} and "u" in branches:
                drawn["u"] = drawn["c"] - (canvas["c"] - canvas["u"])
            if inside is not None:
                where = inside.view(call.x.shape[-2] // 2, -1).repeat_interleave(2, 0).repeat_interleave(2, 1)
                drawn = {branch: torch.where(where, drawn[branch], canvas[branch]) for branch in branches}
            canvas = drawn
        self.canvas = canvas
        if alone is not None or any(stroke.region.everywhere for stroke in step.drawn.strokes):
            self.last = alone
        return torch.cat([canvas[branch] for branch in branches])


def check(pipe, kind, images=IMAGES, **call):
    """Draw, and draw each image's every call again; returns the trace."""
    calls, _ = watch(pipe, images=images, **call)
    calls = [c for c in calls if c.skip is None]
    trace = pipe.transformer.trace
    for image in range(images):
        follower = Follower(kind)
        for called, step in zip(calls, trace.of(image), strict=True):
            mine = called.of(image, images)
            same(mine.out, follower.draw(mine, step), 1e-5)
    return trace


def drew(trace, image=0):
    """What was drawn in each step, and why it was not what was decided."""
    steps = trace.of(image)
    return [str(s.drawn) for s in steps], {s.index: s.fallback for s in steps if s.fallback}


OPTIONS = [
    {},
    {"text": "cached"},
    {"branches": "cond"},
    {"text": "cached", "branches": "cond"},
    {"masked_compute": False},
    {"update_mask": False},
]


@pytest.mark.parametrize(
    ("kind", "size", "options"),
    [
        ("sd3", "square", {}),
        *((kind, "odd", options) for kind in KINDS for options in OPTIONS[:2]),
        *(("sd3.5-medium", "odd", options) for options in OPTIONS[2:]),
    ],
    ids=str,
)
def test_every_option_of_the_masked_stage(kind, size, options):
    trace = check(pair(Schedule("L3 H3@0.3 H1@0.05 S1", **options), kind), kind, size=SIZES[size])
    assert drew(trace) == (["L"] * 3 + ["S + L@0.3"] * 3 + ["S + L@0.05", "S"], {})
    masks = [step.mask for step in trace.of(0)[3:7]]
    if "update_mask" in options:
        assert masks[0] == masks[1] == masks[2]
        assert len(masks[3]) < len(masks[2])  # chosen again when the next stage is entered
    else:
        assert len(set(masks)) == 4


CARRYING = [{"carry": 0.9}, {"carry": 0.95, "follow": 0.25}, {"carry": 1.0, "branches": "cond", "text": "cached"}]


@pytest.mark.parametrize("options", CARRYING, ids=str)
def test_what_the_small_model_lacked_is_carried_along(options):
    """In hybrid steps, where the large model draws the whole over it, after, and after repeats and whole steps."""
    program = "L3 H2@0.3 H1@1 S2 L1 S1 -1 S1"
    expected = ["L"] * 3 + ["S + L@0.3"] * 2 + ["S + L", "S", "S", "L", "S", "-", "S"]
    pipe = pair(Schedule(program, **options), "sd3.5-medium")
    assert drew(check(pipe, "sd3.5-medium", steps=12, size=SIZES["odd"])) == (expected, {})
    with_it, _ = watch(pipe, steps=12)
    without, _ = watch(pair(Schedule(program, **{**options, "carry": 0.0, "follow": 1.0}), "sd3.5-medium"), steps=12)
    apart = [not torch.equal(a.out, b.out) for a, b in zip(with_it, without, strict=True)]
    assert apart == [False] * 3 + [True] * 9


@pytest.mark.parametrize("options", [*OPTIONS[:4], CARRYING[1]], ids=str)
def test_every_option_without_guidance(options):
    check(pair(Schedule("L3 H3@0.3 S2", **options), "sd3.5-medium"), "sd3.5-medium", guidance_scale=1.0)


PROGRAMS = {
    "L2 -2 L1 R2@0.3 -1": (["L", "L", "-", "-", "L", "L@0.3", "L@0.3", "-"], {}),
    "L2 H1@0.3 S2 H2@0.3 S1": (["L", "L", "S + L@0.3", "S", "S", "L", "S + L@0.3", "S"], {5: NO_KV}),
    "L2 H1@0.3 -1 H2@0.3 S2": (["L", "L", "S + L@0.3", "-", "L", "S + L@0.3", "S", "S"], {4: NO_KV}),
    "S3 H3@0.5 L1 H1@0.5": (["S", "S", "S", "L", "S + L@0.5", "S + L@0.5", "L", "S + L@0.5"], {3: NO_KV}),
    "L2 H1@1 S2 L1 S1 -1": (["L", "L", "S + L", "S", "S", "L", "S", "-"], {}),
    "L2 R2@0.2 H2@0.3 S1 R1@0.3": (["L", "L", "L@0.2", "L@0.2", "S + L@0.3", "S + L@0.3", "S", "L"], {7: NO_KV}),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_kind_of_program(program):
    """Repeats, refreshes, and masks whose keys and values are older than one step: those steps are dense."""
    trace = check(pair(program, "sd3.5-medium"), "sd3.5-medium", size=SIZES["odd"])
    assert drew(trace) == PROGRAMS[program]
    assert [s.large_tokens for s in trace.of(0) if s.fallback] == [35] * len(PROGRAMS[program][1])


def test_a_repeated_prediction_is_the_same_bits():
    calls, _ = watch(pair("L2 -2 S1 -1"), steps=6)
    assert torch.equal(calls[1].out, calls[2].out)
    assert torch.equal(calls[1].out, calls[3].out)
    assert torch.equal(calls[4].out, calls[5].out)


@pytest.mark.parametrize("options", [{}, {"branches": "cond"}, CARRYING[1]], ids=str)
def test_images_in_different_stages_are_drawn_as_each_alone(options):
    policy = HybridStitch(masks=(0.4, 0.2), thresholds=(0.51, 0.5, 0.4), **options)
    trace = check(pair(policy, "sd3.5-medium"), "sd3.5-medium", images=3, steps=10, size=SIZES["odd"])
    stages = [{trace.of(image)[i].plan.stage for image in range(3)} for i in range(10)]
    assert max(map(len, stages)) > 1


def tokens(*some):
    """Large strokes on given tokens, over the small model."""
    return lambda **how: Plan((Stroke("S"), Stroke("L", Region(len(some) / 35, tokens=some), **how)))


def test_plans_that_no_policy_makes():
    large, part, other = Plan((Stroke("L"),)), tokens(1, 4, 30), tokens(2, 3, 4, 5)
    refresh = Plan((Stroke("L", Region(0.1, tokens=(3,)), dense=True),))
    plans = {
        "dense fills the cache": ([large, large, part(dense=True), other(), part()], {}),
        "one branch, then both": ([large, large, part(branches="cond"), other(), part()], {3: NO_KV}),
        "both, then one": ([large, large, part(), other(branches="cond"), part(branches="cond")], {}),
        "the first step masked": ([part(), other(), part(), large, part()], {0: NO_KV}),
        "nothing to repeat": ([Plan(()), large, Plan(()), Plan(()), part()], {0: NO_PREDICTION, 4: NO_KV}),
        "nothing to refresh": ([refresh, refresh, large, large, large], {0: NO_PREDICTION}),
    }
    for name, (steps, fallbacks) in plans.items():
        trace = check(pair(Replay((tuple(steps),) * IMAGES)), "sd3", steps=5, size=SIZES["odd"])
        assert drew(trace)[1] == fallbacks, name


def test_a_batch_that_changes_in_mid_run_is_dense_once():
    def unguided(pipe, step, timestep, tensors):
        if step != 3:
            return {}
        pipe._guidance_scale = 1.0
        return {name: value.chunk(2)[1] for name, value in tensors.items() if name != "latents"}

    call = {
        "callback_on_step_end": unguided,
        "callback_on_step_end_tensor_inputs": ["prompt_embeds", "pooled_prompt_embeds"],
    }
    trace = check(pair("L3 H3@0.3 S1 -1", "sd3.5-medium"), "sd3.5-medium", **call)
    assert drew(trace) == (["L", "L", "L", "S + L@0.3", "L", "S + L@0.3", "S", "-"], {4: NO_KV})
    trace = check(pair("L4 -2 R1@0.3 L1"), "sd3", **call)
    assert drew(trace) == (["L"] * 5 + ["-", "L", "L"], {4: NO_PREDICTION, 6: NO_KV})


@pytest.mark.parametrize("program", ["L3 H3@0.3 S2", "L3 R2@0.3 -1 S2", "S2 L2 H2@0.5 S2"])
@torch.no_grad()
def test_skip_layer_guidance_pushes_away_from_the_large_model_only_where_it_drew(program):
    pipe, plain = pair(program, "sd3.5-medium"), calm(transformer("sd3.5-medium", heads=6, seed=1))
    runs = []
    hook = pipe.transformer.large.register_forward_hook(lambda *_: runs.append(1))
    call = {"skip_guidance_layers": [1], "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
    calls, _ = watch(pipe, images=IMAGES, **call)
    hook.remove()
    trace, main, drawn, step = pipe.transformer.trace, None, 0, -1
    for called in calls:
        if called.skip is None:
            main, step = called, step + 1
            drawn += any(s.model == "L" for s in trace.of(0)[step].drawn.strokes)
            continue
        text = main.out[IMAGES:]
        without = plain(*called.inputs, skip_layers=[1], return_dict=False)[0]
        drawn += any(s.model == "L" for s in trace.of(0)[step].drawn.strokes)
        for image in range(IMAGES):
            record = trace.of(image)[step]
            inside = torch.zeros(64, dtype=torch.bool)
            inside[list(record.mask or range(64 if record.large_tokens else 0))] = True
            where = inside.view(8, 8).repeat_interleave(2, 0).repeat_interleave(2, 1)
            same(called.out[image], torch.where(where, without[image], text[image]), 1e-5)
            assert torch.equal(called.out[image][:, ~where], text[image][:, ~where])
    assert len(calls) == 8 + 7
    assert len(runs) == drawn  # where the small model drew alone, the large one did not run for it


def test_prompts_differ_between_images():
    """What the tests above rest on: no image is drawn with the text of another."""
    words = prompt(IMAGES)
    assert not torch.equal(words["prompt_embeds"][0], words["prompt_embeds"][1])
