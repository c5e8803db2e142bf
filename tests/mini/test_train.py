"""A training run that was killed ends with the very weights of one that was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybridstitch.mini import parts
from hybridstitch.mini.scenes import Scene
from hybridstitch.mini.train import loop, precision
from hybridstitch.mini.train.data import ScenePool, draw, make_pool
from hybridstitch.mini.train.flow import FlowTask, start_at_zero
from hybridstitch.mini.train.judge import ALIKE, JudgeTask, recast
from hybridstitch.mini.train.loop import Clock, TrainingRecipe, rate_factor, train
from hybridstitch.mini.words import OBJECTS

CPU = torch.device("cpu")
RECIPE = TrainingRecipe(images=16, batch=4, warmup_steps=2)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ScenePool:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pool")
    vae = parts.autoencoder()
    make_pool(folder, vae, 8, CPU, batch=4)
    with open(folder / "latents.f16", "ab") as file:
        file.write(b"half a batch")  # what a kill leaves behind
    make_pool(folder, vae, 16, CPU, batch=4)
    return ScenePool.open(folder)


def flow(pool: ScenePool) -> FlowTask:
    torch.manual_seed(1)
    words = parts.tokenizer()
    model = parts.transformer("small")
    start_at_zero(model)
    encoders = [parts.text_encoder(words) for _ in range(2)]
    return FlowTask(model, pool, encoders, parts.autoencoder(), CPU)


def test_a_teacher_is_what_is_learned(pool: ScenePool) -> None:
    task = flow(pool)
    torch.manual_seed(2)
    task.teacher = parts.transformer("small")
    taught = task.loss(np.random.default_rng(0), 4)[1]["flow"]
    task.modules["model"].load_state_dict(task.teacher.state_dict())
    assert taught > 0
    assert task.loss(np.random.default_rng(0), 4)[1]["flow"] == 0
    task.teacher = None
    assert task.loss(np.random.default_rng(0), 4)[1]["flow"] > 0


@pytest.mark.parametrize("dtype", precision.CHOICES)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    pool: ScenePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(loop, "fastest", lambda device: dtype)
    whole = train(flow(pool), RECIPE, tmp_path / "whole.pt", CPU)
    train(flow(pool), RECIPE, tmp_path / "broken.pt", CPU, stop_after_steps=2)
    other = next(choice for choice in precision.CHOICES if choice != dtype)
    monkeypatch.setattr(loop, "fastest", lambda device: other)  # as on another machine: it keeps its own
    broken = train(flow(pool), RECIPE, tmp_path / "broken.pt", CPU)
    assert whole.keys() == broken.keys()
    for name, value in whole.items():
        torch.testing.assert_close(broken[name], value, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("faster", precision.CHOICES)
def test_the_faster_dtype_is_chosen(monkeypatch: pytest.MonkeyPatch, faster: torch.dtype) -> None:
    now, taken = 0.0, 0.0

    def clock() -> float:  # of each pass: the start, then the end
        nonlocal now, taken
        now, taken = now + taken, 0.0
        return now

    def linear(given: Tensor, weight: Tensor) -> Tensor:
        nonlocal taken
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        taken = 1.0 if dtype == faster else 2.0
        return weight

    monkeypatch.setattr(precision, "perf_counter", clock)
    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    assert precision.fastest(CPU) == faster


def test_the_pool_goes_on_after_a_kill(pool: ScenePool) -> None:
    assert len(pool) == 16 == len(pool.latents) == len(pool.layouts)
    assert {Scene.from_key(key).split for key in pool.keys} == {"train"}
    assert np.isfinite(pool.latents.astype(np.float32)).all()


def test_the_object_map_lies_on_the_objects() -> None:
    scene = Scene.parse("a dog left of a cat in the fog")
    image, layout = draw(scene, np.random.default_rng(0))
    assert set(np.unique(layout)) == {0, 1, 2}
    assert set(np.unique(layout[:, :8])) == {0, 1}
    pixels = np.asarray(image, np.int16)
    empty = np.asarray(scene.render(), np.int16)[:, :1]  # the gradient alone
    busy = (np.abs(pixels - empty).max(-1) > 40).reshape(16, 8, 16, 8).mean((1, 3))
    assert busy[layout == 0].mean() < 0.05
    assert busy[layout > 0].mean() > 0.5


def test_the_first_prediction_is_zero(pool: ScenePool) -> None:
    model = flow(pool).modules["model"]
    out = model(torch.randn(1, 16, 32, 32), torch.randn(1, 24, 256), torch.randn(1, 256), torch.tensor([500.0]))
    assert out.sample.abs().max() == 0


class Line:
    """One number, pulled towards 3."""

    def __init__(self) -> None:
        self.modules = nn.ModuleDict({"one": nn.Linear(1, 1, bias=False)})

    def loss(self, rng: np.random.Generator, batch: int) -> tuple[Tensor, dict[str, float]]:
        return (self.modules["one"].weight - 3).square().sum(), {"drawn": float(rng.random())}


def test_the_loop_reaches_the_goal_of_a_simple_task(tmp_path: Path) -> None:
    recipe = TrainingRecipe(images=400, batch=1, other_rate=0.1, ema=0.9, warmup_steps=5)
    values = train(Line(), recipe, tmp_path / "line.pt", CPU)
    assert abs(float(values["one.weight"]) - 3) < 0.05


def test_the_rate_warms_up_holds_and_falls_to_zero() -> None:
    recipe = TrainingRecipe(images=1000)
    assert rate_factor(0.0, 0, recipe) == pytest.approx(0.01)
    assert rate_factor(0.5, 500, recipe) == 1
    assert rate_factor(0.8, 800, recipe) == pytest.approx(0.5)
    assert rate_factor(1.0, 999, recipe) == 0
    assert Clock(images=500).progress(recipe) == 0.5
    assert Clock(seconds=30).progress(TrainingRecipe(minutes=1)) == 0.5


def test_the_judge_learns_from_captions_that_are_easily_confused() -> None:
    torch.manual_seed(2)
    words = parts.tokenizer()
    task = JudgeTask(parts.image_tower(), [parts.text_encoder(words) for _ in range(2)], CPU)
    task.find_alike()
    assert {*task.alike} == {*OBJECTS}
    assert all(len({*others} - {name}) == ALIKE for name, others in task.alike.items())
    rng = np.random.default_rng(3)
    scene = Scene.parse("a dog left of a cat in the fog")
    own = [thing.name for thing in scene.things]
    found = dict.fromkeys(own, 0)
    for _ in range(100):
        other = recast(scene, rng, task.alike)
        (changed,) = (k for k, thing in enumerate(other.things) if thing.name != own[k])
        assert other.split == "train"
        found[own[changed]] += other.things[changed].name in task.alike[own[changed]]
    assert sum(found.values()) > 40  # 10 if all objects were equally likely
    loss, figures = task.loss(rng, 8)
    loss.backward()
    assert figures.keys() == {"right"}
    assert all(part.grad is not None for part in task.modules["join"].parameters())
