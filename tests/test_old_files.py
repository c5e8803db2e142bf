"""Files that release 0.1.0 wrote, see `files_of_0_1/README.md`: they open, replay, redraw and resume as before.

Where D comes out bit for bit as recorded, this machine computes as that one did, and pixels must be the same too;
elsewhere decisions are compared.
"""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image, ImageChops, ImageStat

import hybridstitch
from hybridstitch import Replay, StitchedTransformer, Trace, open_pair
from hybridstitch.batch.job import id_of
from hybridstitch.cli import main
from hybridstitch.policies.parse import parse
from hybridstitch.recipe import Recipe
from hybridstitch.report.metadata import pixel_digest
from hybridstitch.report.picture import read

FILES = Path(__file__).parent / "files_of_0_1"
TRACES = sorted(path.stem for path in (FILES / "traces").glob("*.json"))
PICTURES = {"hybrid": "a-big-dog-on-a-meadow-0", "few": "a-small-cat-in-the-snow-3"}
AS_USED = {"dtype": torch.float32, "text_encoder_3": None, "tokenizer_3": None}
PROMPTS = ["a big dog on a meadow", "a small cat in the snow"]  # of the traces


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A copy of the files, stood in; names of folders in them are relative."""
    shutil.copytree(FILES, tmp_path / "files")
    monkeypatch.chdir(tmp_path / "files")
    return tmp_path / "files"


@pytest.fixture
def installed_then(there, monkeypatch):
    """Make believe that the packages are those of then: ids of jobs hold their versions."""
    versions = json.loads((there / "batch" / "batch.json").read_text())["setting"]["versions"]
    for package in ("hybridstitch", "torch", "diffusers", "transformers"):
        folder = there / "packages" / f"{package}-{versions[package]}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Name: {package}\nVersion: {versions[package]}\n")
    monkeypatch.syspath_prepend(there / "packages")


def decided(trace):
    """What was decided and drawn, where, of each step."""
    return [(s.image, s.index, s.plan, s.drawn, s.large_tokens, s.fallback) for s in trace.records]


def distances(trace):
    return [step.distance for step in trace.records]


def recorded(name):
    """The trace that `generate --json` printed."""
    return Trace.from_json(json.loads((FILES / "pictures" / f"{name}.json").read_text())["trace"][0])


# --- a saved pair, and traces of it ---


def draw_two(pipe):
    """The latents that the traces are of."""
    return pipe(
        PROMPTS, num_inference_steps=10, guidance_scale=4.0, width=32, height=32, output_type="latent",
        generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
    ).images  # fmt: skip


@pytest.fixture(scope="module")
def pipe():
    from hybridstitch.mini.opened import open_mini

    pipe = open_mini(folder=FILES / "pair")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_saved_pair_opens_with_its_policy_and_draws():
    pipe = open_pair(FILES / "pair", **AS_USED)
    assert str(pipe.transformer.policy) == "hybrid-stitch:thresholds=0.9/0.2,min-large=0.2"
    assert [model.config["num_layers"] for model in (pipe.transformer.large, pipe.transformer.small)] == [3, 2]
    image = pipe("a big dog", num_inference_steps=4, width=32, height=32, max_sequence_length=0).images[0]
    assert image.size == (32, 32)
    assert len(pipe.transformer.trace.records) == 4


def test_a_pair_names_no_module_that_may_move(tmp_path):
    """Of 0.1.0 it names `hybridstitch.stitched`, which is no more; from now on the package."""
    pipe = StableDiffusion3Pipeline.from_pretrained(FILES / "pair", **AS_USED)
    assert isinstance(pipe.transformer, StitchedTransformer)
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["transformer"] == ["hybridstitch", "StitchedTransformer"]
    again = StableDiffusion3Pipeline.from_pretrained(tmp_path, **AS_USED)
    assert isinstance(again.transformer, StitchedTransformer)


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_replays_to_the_plans_it_recorded(name):
    trace = Trace.load(FILES / "traces" / f"{name}.json")
    planned = tuple(tuple(step.plan for step in trace.of(image)) for image in range(trace.images))
    assert trace.replay(parse(trace.policy)) == planned
    assert str(parse(trace.policy)) == trace.policy
    assert trace.summary()
    masks = [step.mask for step in trace.records if step.drawn.strokes and step.drawn.strokes[-1].masked]
    assert all(mask is None for mask in masks) == (name in {"hybrid-without-masks", "reuse"})
    assert Trace.from_json(json.loads(json.dumps(trace.to_json(masks=True)))) == trace


@pytest.mark.parametrize("name", [name for name in TRACES if name != "guarded"])
def test_a_trace_is_drawn_again(name, pipe):
    trace = Trace.load(FILES / "traces" / f"{name}.json")
    pipe.transformer.policy = Replay(trace.plans(masks=True))
    replayed = draw_two(pipe)
    again = pipe.transformer.trace
    assert [s.mask for s in again.records] == [s.mask for s in trace.records] or name == "hybrid-without-masks"
    torch.testing.assert_close(
        torch.tensor(distances(again)[2:]), torch.tensor(distances(trace)[2:]), rtol=1e-2, atol=1e-3
    )
    pipe.transformer.policy = trace.policy
    assert torch.equal(draw_two(pipe), replayed)  # deciding for itself, it decides as it did
    assert decided(pipe.transformer.trace) == decided(trace)


def test_a_guarded_trace_says_why_it_fell_back():
    trace = Trace.load(FILES / "traces" / "guarded.json")
    assert trace.fallbacks == {"D left the calibrated range: large model, dense": 8}


# --- pictures ---


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_drawn_again_from_its_file(name, there, capsys):
    old = read(there / "pictures" / f"{PICTURES[name]}.png")
    assert main(["generate", "--from", f"pictures/{PICTURES[name]}.png", "--out", "again", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    new = read(found["images"][0]["path"])
    for field in ("prompt", "negative", "pair", "small", "models", "policy", "seed", "steps", "shift", "guidance"):
        assert getattr(new, field) == getattr(old, field), field
    trace = Trace.from_json(found["trace"][0])
    check_drawn(trace, recorded(name), there / "pictures" / f"{PICTURES[name]}.png", found["images"][0]["path"])


def check_drawn(trace, before, old, new):
    """A picture is as it was, bit for bit where D is."""
    assert decided(trace) == decided(before)
    with Image.open(old) as a, Image.open(new) as b:
        assert pixel_digest(a) == read(old).pixels
        assert max(ImageStat.Stat(ImageChops.difference(a.convert("RGB"), b.convert("RGB"))).mean) < 1
        if distances(trace) == distances(before):
            assert pixel_digest(b) == pixel_digest(a)


@pytest.mark.parametrize("name", PICTURES)
def test_the_large_models_picture_says_how_it_was_drawn(name):
    old = read(FILES / "pictures" / f"{PICTURES[name]}.large.png")
    beside = read(FILES / "pictures" / f"{PICTURES[name]}.png")
    assert (old.policy, old.seed, old.steps, old.shift) == ("large", beside.seed, beside.steps, beside.shift)
    assert old.shift == {"hybrid": None, "few": 5.0}[name]


# --- a recipe ---


def test_the_recipe_serves_speed_and_closeness(there):
    recipe = Recipe.load("recipe.json")
    assert [(str(point.policy), point.steps) for point in recipe.points][:3] == [
        ("large", 10),
        ("large", 9),
        ("skip:large-steps=6,early=1.5", 10),
    ]
    assert recipe.at(speed=1.67).policy == "large"
    assert recipe.at(closeness=0.94).policy == "skip:large-steps=6,early=1.5"
    pipe = open_pair(
        "pair", recipe="recipe.json", closeness=0.94, dtype=torch.float32, text_encoder_3=None, tokenizer_3=None
    )
    assert str(pipe.transformer.policy) == "skip:large-steps=6,early=1.5"
    pipe("a big dog", max_sequence_length=0, **pipe.transformer.call)
    assert len(pipe.transformer.trace.records) == 10


def test_generate_draws_by_the_recipe(there, capsys):
    words = ["generate", "a big dog", "--pair", "pair", "--recipe", "recipe.json", "--speed", "1.67"]
    assert main([*words, "--out", "served", "--json"]) == 0
    drawn = read(json.loads(capsys.readouterr().out)["images"][0]["path"])
    assert (drawn.policy, drawn.steps, drawn.width) == ("large", 5, 32)


# --- a batch that was killed ---


def test_a_picture_in_the_batch_knows_its_job(there):
    pictures = sorted((there / "batch").glob("*.png"))
    assert [id_of(read(path)) for path in pictures] == [path.stem for path in pictures]
    assert len(pictures) == 2


@pytest.mark.parametrize("verify", [[], ["--verify"]])
def test_the_batch_goes_on_where_it_was_killed(verify, there, installed_then, capsys):
    before = {path.name: path.read_bytes() for path in (there / "batch").glob("*.png")}
    asked = [json.loads(line) for line in (there / "batch" / "jobs.jsonl").read_text().splitlines()]
    words = ["batch", "jobs.jsonl", "--pair", "pair", "--steps", "6", "--size", "32x32", "--out", "batch", "--json"]
    assert main([*words, *verify]) == 1  # the first job fails again
    found = json.loads(capsys.readouterr().out)
    assert (found["jobs"], found["there"], found["drawn"], found["failed"]) == (5, 2, 2, 1)
    drawn = {path.name: path.read_bytes() for path in (there / "batch").glob("*.png")}
    assert before.items() <= drawn.items()
    assert sorted(drawn) == sorted(job["file_name"] for job in asked[1:])
    shards = (there / "batch" / "manifest").iterdir()
    rows = [json.loads(line) for path in shards for line in path.read_text().splitlines()]
    done = {row["id"]: row for row in rows if row["status"] == "done"}
    assert sorted(done) == sorted(job["id"] for job in asked[1:])
    assert all(row["sha256"] == hashlib.sha256(drawn[row["file"]]).hexdigest() for row in done.values())
    failed = {(row["id"], row["error_class"]) for row in rows if row["status"] == "error"}
    assert failed == {(asked[0]["id"], "RunError")}


def test_the_files_are_those_of_then():
    assert {read(path).versions["hybridstitch"] for path in FILES.rglob("*.png")} == {"0.1.0"}
    assert sum(path.stat().st_size for path in FILES.rglob("*") if path.is_file()) < 1_500_000
    assert Path(hybridstitch.__file__).is_relative_to(Path(__file__).parents[1])
