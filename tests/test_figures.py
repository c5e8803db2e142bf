"""Figures: what they compute against numbers made by hand, and that every one is written with its data beside it."""

import csv
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image

import flux_models
from hybridstitch import open_pair
from hybridstitch.batch.crew import LocalCrew
from hybridstitch.evaluate.scores import mean_score
from hybridstitch.measure.intervals import Interval
from hybridstitch.measure.price import Prices
from hybridstitch.measure.profile import follow
from hybridstitch.policies.latency import Shape
from hybridstitch.policies.methods import HybridStitch, TStitch
from hybridstitch.policies.plan import Plan, Region, Stroke
from hybridstitch.policies.presets import TABLE_1
from hybridstitch.policies.srdiffusion import SRDiffusion
from hybridstitch.policies.trace import Step, Trace
from hybridstitch.report.colours import BOTH, METHODS
from hybridstitch.reproduce.equipment import Equipment
from hybridstitch.reproduce.figures import devices, front, grid, masked, spread, style, switching, tradeoff, where
from hybridstitch.reproduce.figures.differences import Difference, measured
from hybridstitch.reproduce.pareto import Contender, chances
from hybridstitch.reproduce.results import Results
from hybridstitch.reproduce.settings import ReproductionError, Settings
from hybridstitch.reproduce.variants import variants
from small_models import stitched, worded

PRICES = Prices(large=1.0, small=0.2)
ROWS = [preset.name for preset in TABLE_1]


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def written(paths, folder, name):
    """PNG, SVG and CSV are there, the PNG is a picture with something on it; returns the CSV."""
    assert [path.name for path in paths] == [f"{name}.{ending}" for ending in ("png", "svg", "csv")]
    image = np.asarray(Image.open(folder / f"{name}.png").convert("L"))
    assert image.std() > 5
    return table(folder / f"{name}.csv")


# --- the look ---


def test_a_method_has_one_colour_in_every_figure():
    assert style.colour("t-stitch") == style.colour("t-stitch at hybridstitch-30") == METHODS["t-stitch"]
    assert style.colour("fewer-steps at sr-diffusion") == style.colour("large 14 steps") == METHODS["fewer-steps"]
    assert style.colour("large") == METHODS["large"] != style.colour("large 14 steps")
    assert style.colour("hybridstitch-30") == style.colour("hybridstitch-30 early") == BOTH
    assert len({style.colour(name) for name in ROWS}) == len(ROWS)
    assert [style.label(name) for name in ("hybridstitch-30", "hybridstitch-20-10", "hybridstitch-10-static")] == [
        "HybridStitch 30 %",
        "HybridStitch 20 %-10 %",
        "HybridStitch 10 % static",
    ]


def test_the_same_figure_is_the_same_file(tmp_path):
    for folder in ("a", "b"):
        figure = style.figure(2, 2)
        figure.subplots().plot([0, 1])
        style.save(figure, tmp_path / folder, "line", [{"x": 0}], about={"one": 1})
    for ending in ("png", "svg", "csv", "json"):
        assert (tmp_path / "a" / f"line.{ending}").read_bytes() == (tmp_path / "b" / f"line.{ending}").read_bytes()
    assert json.loads((tmp_path / "a" / "line.json").read_text()) == {"one": 1}


# --- figures 1b and 2 ---


def difference(prompt="a big dog on a meadow", seed=0, rows=8):
    rng = np.random.default_rng(seed)
    tokens = rng.random((10, rows, 8), dtype=np.float32)
    return Difference(
        prompt=prompt,
        picture=rng.integers(0, 255, (rows * 8, 64, 3), dtype=np.uint8),
        tokens=tokens,
        steps=np.array([2, 6, 10]),
        values=np.abs(rng.normal(size=(3, 500))).astype(np.float32),
        size=np.ones(3, dtype=np.float32),
    )


def test_the_largest_tokens_and_their_share_of_the_difference():
    tokens = np.array([[1, 5, 2], [2, 0, 0]], dtype=np.float32)
    mask, share = where.largest(tokens, 0.5)
    assert mask.tolist() == [[False, True, True], [True, False, False]]
    assert share == pytest.approx(0.9)
    seen = where.through(np.full((4, 6, 3), 7, dtype=np.uint8), mask)
    assert (seen[..., 0] == 7 * mask.repeat(2, 0).repeat(2, 1)).all()


def test_where_the_models_differ_is_drawn_and_told(tmp_path):
    shown = [difference(), difference("a small cat at night", 1)]
    rows = written(where.plot(shown, tmp_path), tmp_path, "fig1b")
    assert [(row["image"], row["step"]) for row in rows] == [(i, s) for i in "01" for s in ("2", "6", "10")]
    mask = np.zeros(64, dtype=bool)
    mask[[int(token) for token in rows[4]["tokens"].split()]] = True
    assert mask.sum() == Region(0.4).count(64)
    tokens = shown[1].tokens[5].ravel()
    assert float(rows[4]["share"]) == pytest.approx(np.sort(tokens)[-26:].sum() / tokens.sum(), abs=1e-4)


def test_the_spread_of_the_difference_is_counted(tmp_path):
    shown = [difference(), difference(seed=1, rows=4)]
    rows = written(spread.plot(shown, tmp_path), tmp_path, "fig2")
    bins = [row for row in rows if row["panel"] == "distribution" and row["step"] == "6"]
    low, high = float(bins[3]["from"]), float(bins[3]["to"])
    by_hand = [((d.values[1] >= low) & (d.values[1] < high)).mean() for d in shown]
    assert float(bins[3]["mean"]) == pytest.approx(np.mean(by_hand), abs=1e-6)
    held = [row for row in rows if row["panel"] == "held by the largest" and row["step"] == "6"]
    half = [np.sort(d.tokens[5].ravel())[::-1][: d.tokens[5].size // 2].sum() / d.tokens[5].sum() for d in shown]
    assert float(held[50]["mean"]) == pytest.approx(np.mean(half), abs=1e-5)
    assert (float(held[0]["mean"]), float(held[-1]["mean"])) == (0, 1)


def settings(out, open_pair, n=2, steps=3):
    prompts = ("a big dog on a meadow", "a small cat at night", "a robot above a pizza at sunset")[:n]
    return Settings(
        pair="mini", small=None, mini=True, open=open_pair, models={}, prompts=prompts, origin={}, latency_n=1, seed=5,
        steps=steps, guidance=4.0, size=(128, 128), device="cpu", dtype="float32", calibrate=False, weights={},
        real=None, out=out,
    )  # fmt: skip


def test_what_the_models_differ_in_is_measured_once_and_kept(tmp_path):
    opened = []

    def opens():
        opened.append(open_pair("mini"))
        opened[-1].set_progress_bar_config(disable=True)
        return opened[-1]

    with LocalCrew(partial(Equipment, settings(tmp_path, opens)), 1) as crew:
        found = measured(crew)
        kept = tmp_path / "figures" / "differences" / "0001.npz"
        before = kept.stat().st_mtime_ns
        kept.with_name("0000.npz").write_bytes(b"cut off")
        again = measured(crew)
    assert kept.stat().st_mtime_ns == before
    assert np.array_equal(again[0].tokens, found[0].tokens)
    assert found[0].steps.tolist() == [1, 2, 3]
    way = follow(opened[0], "a small cat at night", steps=3, guidance=4.0, seed=6, width=128, height=128)
    apart = (way.large - way.small).numpy()  # (T, C, 16 p, 16 p)
    assert found[1].values == pytest.approx(np.abs(apart).reshape(3, -1), abs=1e-6)
    tokens = (apart[1] ** 2).reshape(apart.shape[1], 16, 2, 16, 2).sum((0, 2, 4))
    assert way.layout.patch == (2, 2)
    assert found[1].tokens[1] == pytest.approx(tokens, rel=1e-4)
    assert found[1].picture.shape == (128, 128, 3)
    assert len(opened) == 1


# --- figure 4 ---


def boxes(path, colours):
    """Left, top, right and bottom of each colour in a picture."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    found = [np.nonzero((pixels == colour).all(-1)) for colour in colours]
    return [(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in found]


@pytest.mark.parametrize(("width", "height"), [(48, 32), (32, 48), (64, 16)])
def test_the_grid_shows_every_method_of_every_prompt(tmp_path, width, height):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)]
    a, b, c, d = (Image.new("RGB", (width, height), colour) for colour in colours)
    cells = [("a big dog " * 20, [(a, ""), (b, "24.1 dB")]), ("a cat", [(c, ""), (d, "9 dB")])]
    columns = [("large", "1.00×"), ("hybridstitch-30", "1.83×\nKID-mini 0.012")]
    assert written(grid.plot(cells, columns, [{"image": 0}], tmp_path), tmp_path, "fig4") == [{"image": "0"}]
    found = boxes(tmp_path / "fig4.png", colours)
    for left, top, right, bottom in found:
        assert right - left > 120  # pixels
        assert (right - left) / (bottom - top) == pytest.approx(width / height, rel=0.05)
    one, two, three, four = found
    assert one[2] < two[0]
    assert three[2] < four[0]
    assert max(one[3], two[3]) < min(three[1], four[1])
    assert (one[0], two[0]) == pytest.approx((three[0], four[0]), abs=1)


def test_where_a_packed_pair_differs_has_rows_and_columns(tmp_path, monkeypatch):
    def encode(self, prompt, prompt_2=None, **more):
        told = flux_models.embeddings(1, torch.float32)
        return told["prompt_embeds"], told["pooled_prompt_embeds"], torch.zeros(flux_models.TEXT, 3)

    monkeypatch.setattr(FluxPipeline, "encode_prompt", encode)
    asked = replace(settings(tmp_path, flux_models.stitched, n=1), size=(24, 32))
    with LocalCrew(partial(Equipment, asked), 1) as crew:
        (found,) = measured(crew)
    assert found.picture.shape == (32, 24, 3)
    assert found.tokens.shape == (3, 8, 6)
    assert len(written(where.plot([found], tmp_path), tmp_path, "fig1b")) == 3
    written(spread.plot([found], tmp_path), tmp_path, "fig2")


# --- figure 5 ---


def machine(folder, name, pace):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"hardware": {"name": name}}))
    lines = ["method,image,denoising_seconds,total_seconds,predicted_seconds"]
    for k, method in enumerate(ROWS):
        lines += [f"{method},{i},{pace * (10 - k + 0.1 * i)},1,1" for i in range(5)]
    (folder / "latency.csv").write_text("\n".join(lines) + "\n")


def test_machines_are_merged_and_speedups_are_those_of_medians(tmp_path):
    machine(tmp_path / "here", "Some CPU", 1.0)
    machine(tmp_path / "there", "Some GPU", 0.01)
    machines = [devices.read(tmp_path / name) for name in ("here", "there")]
    rows = written(devices.plot(machines, tmp_path), tmp_path, "fig5")
    assert [row["device"] for row in rows] == ["Some CPU"] * 7 + ["Some GPU"] * 7
    hybrid = rows[7 + ROWS.index("hybridstitch-30")]
    assert float(hybrid["seconds"]) == pytest.approx(0.01 * (10 - 5 + 0.2))
    assert float(hybrid["speedup"]) == pytest.approx(10.2 / 5.2, abs=1e-4)
    assert float(hybrid["speedup_low"]) < 10.2 / 5.2 < float(hybrid["speedup_high"])
    assert float(rows[0]["speedup_low"]) == 1.0  # the large model over itself, drawn again together


def test_of_calls_that_were_timed_again_the_last_one_counts(tmp_path):
    machine(tmp_path / "here", "Some CPU", 1.0)
    with (tmp_path / "here/latency.csv").open("a") as file:
        file.write("".join(f"large,{image},{20 + image},1,1\n" for image in range(5)))
    found = devices.read(tmp_path / "here").seconds
    assert found["large"] == [20, 21, 22, 23, 24]
    assert len(found["t-stitch"]) == 5


def test_result_folders_that_cannot_be_merged_are_one_clear_line(tmp_path):
    with pytest.raises(ReproductionError, match=r"config\.json is missing: figure 5 needs"):
        devices.read(tmp_path)
    machine(tmp_path / "a", "CPU", 1.0)
    (tmp_path / "a" / "latency.csv").write_text("method,image,denoising_seconds\nsmall,0,1\n")
    with pytest.raises(ReproductionError, match="no timings of the large model"):
        devices.read(tmp_path / "a")
    (tmp_path / "a" / "latency.csv").write_text("method,image,denoising_seconds\nlarge,0,often\n")
    with pytest.raises(ReproductionError, match="holds no timings"):
        devices.read(tmp_path / "a")


# --- figure 6 ---


def spot(name, seconds, score):
    return front.Spot(name=name, seconds=seconds, score=Interval(score, score - 1, score + 1, 8))


def test_the_front_is_what_nothing_beats():
    spots = [spot("a", 3, 9), spot("b", 1, 5), spot("c", 2, 4), spot("d", 2, 7), spot("e", 3, 8), spot("f", 4, 9)]
    assert [s.name for s in front.front(spots, "higher")] == ["b", "d", "a"]
    assert [s.name for s in front.front(spots, "lower")] == ["b", "c"]
    points = {s.name: Contender(time=s.seconds, value=s.score.mean, replicates=np.array([s.score.mean])) for s in spots}
    assert {s.name for s in front.front(spots, "higher")} == {
        name for name, chance in chances(points).items() if chance
    }
    axes = style.figure(3, 3).subplots()
    assert front.plot_front(axes, spots, better="lower") == front.front(spots, "lower")
    assert axes.yaxis_inverted()


def test_quality_against_latency_has_a_front_for_each_score(tmp_path):
    rng = np.random.default_rng(0)
    names = [*ROWS, "hybridstitch-30 early", "sr-diffusion x0.5", "large 8 steps", "large 20 steps", "large 50 steps"]
    seconds = dict(zip(names, (8.0, 5.0, 4.5, 4, 4.1, 4.2, 4.3, 3.0, 5.5, 1.3, 3.2, 8.0), strict=True))

    def scores(name):
        near = rng.normal(seconds[name], 1, 16)
        closeness = np.full(16, 99.0) if seconds[name] == 8.0 else 20 + near
        psnr = mean_score(closeness, metric="PSNR", better="higher", references="", numerics="")
        kid = mean_score(1 - near / 10, metric="KID-mini", better="lower", references="", numerics="")
        return {"KID-mini": replace(kid, each=None), "PSNR": psnr}

    every = {name: scores(name) for name in names}
    rows = written(tradeoff.plot(seconds, every, tmp_path), tmp_path, "fig6")
    assert {row["method"] for row in rows if row["metric"] == "KID-mini"} == {*names} - {"large 50 steps"}
    assert {row["method"] for row in rows if row["metric"] == "PSNR"} == {*names} - {"large 50 steps", "large"}
    paired = every["t-stitch"]["KID-mini"].ahead(every["large"]["KID-mini"])
    found = next(row for row in rows if (row["metric"], row["method"]) == ("KID-mini", "t-stitch"))
    assert [float(found[key]) for key in ("shown", "low", "high")] == pytest.approx(
        [-paired.mean, -paired.high, -paired.low], rel=1e-4
    )
    for metric, sign in (("KID-mini", -1), ("PSNR", 1)):
        mine = [
            (float(r["seconds"]), sign * float(r["score"]), int(r["on_front"])) for r in rows if r["metric"] == metric
        ]
        for time, score, on in mine:
            assert on == (not any(t <= time and s >= score and (t, s) != (time, score) for t, s, _ in mine))


def test_variants_switch_earlier_later_and_stay_hybrid_longer():
    found = variants({})
    base = next(p.policy for p in TABLE_1 if p.name == "hybridstitch-30")
    curve = [None, *np.linspace(1.2, 0.1, 49)]
    records = tuple(
        Step(
            index=i, image=0, sigma=None, plan=Plan((Stroke("L"),)), drawn=Plan((Stroke("L"),)), distance=d,
            seconds=0.0, large_tokens=0,
        )
        for i, d in enumerate(curve)
    )  # fmt: skip
    trace = Trace(policy="", steps=50, images=1, grid=(4, 4), records=records)

    def switches(policy):
        plans = trace.replay(policy)[0]
        return [next((i for i, plan in enumerate(plans) if plan.stage == stage), 50) for stage in (1, 2)]

    early, late, long = (switches(found[f"hybridstitch-30 {kind}"]) for kind in ("early", "late", "long"))
    middle = switches(base)
    assert early[0] == long[0] < middle[0] < late[0]
    assert early[1] < middle[1] < late[1]
    assert middle[1] < long[1]
    assert {type(policy) for policy in found.values()} == {HybridStitch, SRDiffusion, TStitch}
    tight = variants({"hybridstitch-30": replace(base, thresholds=(0.1, 0.1))})["hybridstitch-30 late"]
    assert tight.thresholds == (0.085, 0.085)  # they never rise from stage to stage
    mine = variants({"hybridstitch-30": replace(base, thresholds=(0.2, 0.1))})
    assert mine["hybridstitch-30 early"].thresholds == pytest.approx((0.28, 0.125))


# --- figure 7 ---


def test_masked_steps_are_timed_beside_their_operations(tmp_path, monkeypatch):
    told, asked = [], replace(settings(tmp_path, lambda: worded(stitched())), prompts=("dog",), size=(32, 32))
    plot = masked.plot
    monkeypatch.setattr(masked, "measure", partial(masked.measure, rounds=3))
    monkeypatch.setattr(masked, "plot", lambda found, folder: told.append(found) or plot(found, folder))
    results = Results(settings=asked, methods=(), policies={}, prices=PRICES, rows={}, times={})
    with LocalCrew(partial(Equipment, asked), 1) as crew:
        paths = masked.draw(results, crew)
    (found,) = told
    assert {len(times) for times in (found.large, found.small, *found.masked.values())} == {3}
    empty = 256  # tokens that the pipeline adds where there is no third text encoder
    assert found.shape == Shape(width=48, layers=4, image_tokens=64, text_tokens=7 + empty)
    rows = written(paths, tmp_path / "figures", "fig7")
    row = next(row for row in rows if (row["text"], row["mask"]) == ("cached", "0.3"))
    dense = 1e3 * np.median(found.large)
    assert float(row["ms"]) == pytest.approx(1e3 * np.median(found.masked["cached", 0.3]), abs=1e-4)
    assert float(row["M_times_large_ms"]) == pytest.approx(0.3 * dense, abs=1e-4)
    operations = found.shape.flops(19, text="cached") / found.shape.flops()
    assert float(row["operations_ms"]) == pytest.approx(operations * dense, abs=1e-4)


# --- figure 8 ---


def test_switch_steps_of_every_prompt_are_in_the_data(tmp_path):
    rng = np.random.default_rng(0)
    switches = {"sr-diffusion": [(int(step),) for step in rng.integers(20, 30, 12)]}
    switches["hybridstitch-30"] = [(int(a), int(a) + 9) for a in rng.integers(8, 14, 10)] + [(12,), ()]
    switches["hybridstitch-10"] = [()] * 12
    rows = written(switching.plot(switches, 50, tmp_path), tmp_path, "fig8")
    second = [row["step"] for row in rows if (row["method"], row["switch"]) == ("hybridstitch-30", "2")]
    assert second == [str(mine[1]) if len(mine) > 1 else "" for mine in switches["hybridstitch-30"]]
    assert len(rows) == 12 * (1 + 2 + 2)
