"""`hybridstitch calibrate`, and drawing by its recipe, on an untrained pair: files, lines and refusals."""

import json
import re
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image

from batch_workers import command_line
from hybridstitch.cli import main
from hybridstitch.cli.calibrate import _tell as told
from hybridstitch.cli.served import measuring
from hybridstitch.mini import opened
from hybridstitch.recipe import Recipe
from hybridstitch.report import picture
from hybridstitch.report.card import write_card
from hybridstitch.report.front import front_page

PROMPTS = ["a big dog on a meadow", "a unicorn in the snow", "a pizza at night", "a small cat on a beach"]
SHORT = ("--steps", "4", "--size", "32x32", "--minutes", "0.1")
RESULTS = Path(__file__).parents[1] / "docs/results/calibration"


@pytest.fixture
def here(mini, monkeypatch, tmp_path):
    """An empty folder with a file of prompts, where "mini" is the untrained pair."""
    monkeypatch.setenv(opened.FOLDER, str(mini))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n\n".join(PROMPTS) + "\n")
    return tmp_path


@pytest.fixture(scope="module")
def calibrated(mini, tmp_path_factory):
    """The folder of one calibration, and what it said."""
    folder = tmp_path_factory.mktemp("calibrated")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv(opened.FOLDER, str(mini))
        patch.chdir(folder)
        assert main(["calibrate", "--prompts", "prompts.txt", *SHORT, "--card", "card"]) == 0, err.getvalue()
    return folder, out.getvalue(), err.getvalue()


def test_a_recipe_its_picture_its_page_and_a_card_are_written(calibrated):
    folder, out, err = calibrated
    recipe = Recipe.load(folder / "recipe.json")
    assert recipe.home.pair == "mini"
    assert (recipe.home.steps, recipe.home.width) == (4, 32)
    assert err == ""
    assert "open this page: recipe.html" in out
    assert all(point.name in out for point in recipe.points)
    assert all(sentence in out for sentence in recipe.verdict)
    assert Image.open(folder / "recipe.png").size[0] > 1000
    page = (folder / "recipe.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)  # nothing is fetched
    assert all(point.name in page for point in recipe.points)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("card", "prompts.txt", "recipe.html", "recipe.json", "recipe.png")
    ]


def test_the_card_can_be_published(calibrated, mini):
    folder = calibrated[0] / "card"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "front.html", "front.png", "recipe.json"]
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: hybridstitch\n")
    assert 'open_pair(recipe="recipe.json")' in text
    assert str(mini) not in text + (folder / "recipe.json").read_text()
    assert Recipe.load(folder / "recipe.json").points == Recipe.load(calibrated[0] / "recipe.json").points


def test_the_card_s_lines_draw_a_picture(calibrated, mini, monkeypatch):
    monkeypatch.setenv(opened.FOLDER, str(mini))
    monkeypatch.chdir(calibrated[0] / "card")
    (lines,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    told = {}
    exec(lines, told)
    assert told["image"].size == (32, 32)
    assert told["pipe"].transformer.trace.steps == told["pipe"].transformer.call["num_inference_steps"]


def test_a_card_of_a_video_takes_its_frames(calibrated, tmp_path):
    recipe = Recipe.load(calibrated[0] / "recipe.json")
    write_card(replace(recipe, home=replace(recipe.home, frames=9)), tmp_path, command="hybridstitch calibrate")
    assert 'video = pipe("a prompt", **pipe.transformer.call).frames[0]' in (tmp_path / "README.md").read_text()


def test_a_speed_that_whole_calls_did_not_reach_is_told_and_written(calibrated, tmp_path, capsys):
    recipe = replace(Recipe.load(calibrated[0] / "recipe.json"), asked={"speed": 5000.0})
    recipe.save(tmp_path / "recipe.json")
    front_page(recipe, tmp_path / "recipe.html", command="hybridstitch calibrate --speed 5000")
    assert "not reached" in (tmp_path / "recipe.html").read_text()
    write_card(recipe, tmp_path / "card", command="hybridstitch calibrate --speed 5000")
    (speed,) = re.findall(r"open_pair\(.*, (\w+=[\d.]+)\)", (tmp_path / "card/README.md").read_text())
    name, value = speed.split("=")
    assert recipe.at(**{name: float(value)}) in recipe.points
    assert main(["policies", "--recipe", str(tmp_path / "recipe.json")]) == 0
    capsys.readouterr()
    told(recipe, tmp_path / "recipe.json", None)
    assert "served: nothing; speed=5000 cannot be reached" in " ".join(capsys.readouterr().out.split())


def test_an_equal_size_is_no_other_size(calibrated, here, capsys):
    words = ["generate", PROMPTS[0], "--recipe", str(calibrated[0] / "recipe.json"), "--closeness", "1"]
    assert main([*words, "--size", "32"]) == 0
    assert "was given" not in capsys.readouterr().err
    assert main([*words, "--size", "32x40"]) == 0
    assert "--size 32x40 was given" in capsys.readouterr().err


def test_policies_lists_what_a_recipe_serves(calibrated, here, capsys):
    path = calibrated[0] / "recipe.json"
    recipe = Recipe.load(path)
    assert main(["policies", "--recipe", str(path)]) == 0
    out = capsys.readouterr().out
    assert all(f"{point.name} " in out and f"{point.speed:.2f}×" in out for point in recipe.points)
    assert all(sentence in out for sentence in recipe.verdict)
    assert "FID" not in out
    assert main(["policies", "--recipe", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["policy"] for point in found["points"]] == [point.policy for point in recipe.points]
    assert found["verdict"] == list(recipe.verdict)
    assert main(["policies", "--recipe", "nowhere.json"]) == 2
    assert "nowhere.json" in capsys.readouterr().err


def test_no_name_and_no_number_is_cut(capsys):
    path = RESULTS / "recipe.json"
    assert max(len(point.name) for point in Recipe.load(path).points) > 40
    assert main(["policies", "--recipe", str(path)]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    assert all(f"{point.name} " in out and f" {point.speed:.2f}× " in out for point in Recipe.load(path).points)


@pytest.mark.parametrize("noise", [{"shift": 5.0}, {"levels": (1.0, 0.8, 0.5, 0.2)}])
def test_a_point_s_noise_levels_go_into_pictures_and_batches_and_come_back(calibrated, here, capsys, noise):
    recipe = Recipe.load(calibrated[0] / "recipe.json")
    large, last = recipe.points[0], recipe.points[-1]
    policy = "schedule:program=L2 R@0.3 S,text=cached"
    served = replace(last, policy=policy, steps=4, predicted=9.0, measured=None, shift=None, levels=None, distances=())
    plain, served = served, replace(served, **noise)
    wanted = (noise.get("shift"), noise.get("levels"))

    def drawn(*words):
        assert main([*map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    def of(path):
        found = picture.read(path)
        return (found.shift, found.levels), found.pixels

    by = ("--recipe", "recipe.json", "--speed", "9")
    replace(recipe, points=(large, plain)).save(here / "recipe.json")
    without = of(drawn("generate", PROMPTS[0], *by, "--seed", 3)["images"][0]["path"])
    replace(recipe, points=(large, served)).save(here / "recipe.json")
    assert main(["policies", "--recipe", "recipe.json"]) == 0
    assert served.name in " ".join(capsys.readouterr().out.split())

    one = drawn("generate", PROMPTS[0], *by, "--seed", 3, "--n", 2, "--compare")["images"]
    assert (of(one[0]["path"])[0], without[0]) == (wanted, (None, None))
    assert of(one[0]["large"])[0] == (None, None)  # the reference, which has the pipeline's own levels
    assert of(one[0]["path"])[1] != without[1]
    for name in (one[0]["path"], one[0]["large"]):
        assert of(drawn("generate", "--from", name, "--out", "again")["images"][0]["path"]) == of(name)
    again = drawn("generate", "--from", one[0]["path"], "--out", "again", "--policy", "L2 S2")["images"][0]["path"]
    assert of(again)[0] == (None, None)
    pair = drawn("generate", PROMPTS[0], *by, "--seed", 3, "--n", 2, "--images-per-call", 2, "--out", "two")["images"]
    assert [of(image["path"])[0] for image in pair] == [wanted, wanted]

    rows = [{"prompt": PROMPTS[0], "seed": 3}, {"prompt": PROMPTS[0], "seed": 4, "policy": "L2 S2"}]
    (here / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows[:1])))
    batch = ("batch", "jobs.jsonl", *by, "--out", "pictures")
    assert drawn(*batch)["drawn"] == 1
    (path,) = (here / "pictures").glob("*.png")
    assert of(path) == of(one[0]["path"])
    (here / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert drawn(*batch)["drawn"] == 1  # it goes on, and the other row has levels of its own policy
    assert {of(path)[0] for path in (here / "pictures").glob("*.png")} == {wanted, (None, None)}


def test_what_a_recipe_serves_is_compared_with_its_reference(calibrated, here, capsys):
    recipe = Recipe.load(calibrated[0] / "recipe.json")
    point = replace(
        recipe.points[-1], policy="small", steps=2, predicted=9.0, measured=None, shift=3.0, levels=None, distances=()
    )
    replace(recipe, points=(recipe.points[0], point)).save(here / "recipe.json")

    def drawn(*words):
        assert main(["generate", PROMPTS[0], *words]) == 0
        return capsys.readouterr().out

    out = drawn("--recipe", "recipe.json", "--speed", "9", "--compare", "--explain")
    assert ", large model (4 steps) " in out
    assert "large model (4 steps)" in (here / "out/index.html").read_text()
    large = picture.read(next((here / "out").glob("*.large.png")))
    assert (large.policy, large.steps, large.shift) == ("large", 4, None)
    drawn("--policy", "large", "--steps", "4", "--size", "32", "--out", "alone")
    assert picture.read(next((here / "alone").glob("*-0.png"))).pixels == large.pixels
    out = drawn("--recipe", "recipe.json", "--speed", "9", "--compare", "--steps", "3", "--out", "own")
    assert ", large model " in out  # nothing was measured against that
    assert "(" not in out
    assert picture.read(next((here / "own").glob("*.large.png"))).steps == 3


def test_pictures_are_drawn_by_a_recipe(calibrated, here, capsys):
    """By predicted speeds: of so small a pair measured ones follow whatever else the machine does."""
    recipe = Recipe.load(calibrated[0] / "recipe.json")
    recipe = replace(recipe, points=tuple(replace(point, measured=None) for point in recipe.points))
    recipe.save(here / "recipe.json")
    asked = f"{recipe.points[-1].speed:.6f}"
    served = recipe.at(speed=float(asked))  # of points that are nearly as fast the closest
    words = ["generate", PROMPTS[0], "--recipe", "recipe.json", "--json"]
    assert main([*words, "--speed", asked]) == 0
    said = capsys.readouterr()
    drawn = picture.read(json.loads(said.out)["images"][0]["path"])
    assert (drawn.policy, drawn.steps, drawn.guidance) == (served.policy, served.steps, 4.0)
    assert (drawn.width, drawn.height, drawn.pair) == (32, 32, "mini")
    assert main([*words, "--closeness", "1", "--steps", "3"]) == 0
    assert "warning: --steps 3 was given; large in 4 steps was measured with --steps 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["calibrate", "--speed", "1.8", "--closeness", "0.9"], "each determines the other: ask for one of the two"),
        (["calibrate", "--speed", "0.5"], "a speed is above 1"),
        (["generate", "a dog", "--speed", "0"], "speed=0 was asked for"),
        (["generate", "a dog", "--recipe", "RECIPE", "--closeness", "0"], "closeness=0 was asked for"),
        (["calibrate", "--speed", "5000", *SHORT, "--prompts", "prompts.txt"], "cannot be reached: the small model"),
        (["calibrate", "--prompts", "nowhere.txt"], "cannot be read"),
        (["calibrate", "--prompts", "empty.txt"], "holds no prompt"),
        (["calibrate", "--prompts", "three.txt"], "3 prompt(s) were given to calibrate with; give 4 to 16"),
        (["calibrate", "--steps", "2"], "below 3 steps"),
        (["calibrate", "--out", "recipe.txt"], "a recipe is a .json file"),
        (["calibrate", "--size", "33x33"], "multiples of 8"),
        (["generate", "a dog", "--speed", "1.8"], "`hybridstitch calibrate --speed 1.8 --out recipe.json`"),
        (
            ["generate", "a dog", "--pair", "one", "two", "--speed", "1.8"],
            "`hybridstitch calibrate --pair one two --speed 1.8 --out recipe.json`",
        ),
        (["generate", "a dog", "--recipe", "nowhere.json"], "`hybridstitch calibrate --out nowhere.json` writes it"),
        (["generate", "a dog", "--recipe", "prompts.txt"], "is no JSON"),
        (["generate", "a dog", "--recipe", "new.json"], "upgrade hybridstitch"),
        (
            ["generate", "a dog", "--recipe", "RECIPE", "--policy", "large"],
            "each decides who draws what: give one of the two",
        ),
        (["generate", "a dog", "--recipe", "RECIPE", "--speed", "999"], "ask for at most"),
        (["generate", "a dog", "--recipe", "other.json", "--closeness", "0.9"], "of another pair"),
        (["generate", "a dog", "--recipe", "unnamed.json", "--closeness", "0.9"], "does not name its pair"),
    ],
)
def test_bad_input_is_one_line_and_code_2(calibrated, here, capsys, words, complaint):
    recipe = Recipe.load(calibrated[0] / "recipe.json")
    (here / "empty.txt").write_text("\n \n")
    (here / "three.txt").write_text("\n".join(PROMPTS[:3]))
    (here / "new.json").write_text(json.dumps({**recipe.to_json(), "version": 99}))
    replace(recipe, home=replace(recipe.home, parameters=(5, 4))).save(here / "other.json")
    replace(recipe, home=replace(recipe.home, pair=None)).save(here / "unnamed.json")
    assert main([str(calibrated[0] / "recipe.json") if word == "RECIPE" else word for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert complaint in said.err
    assert len([line for line in said.err.splitlines() if line.startswith("error: ")]) == 1


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ((None, None), "`hybridstitch calibrate --memory --out recipe.json`"),
        (("mini", None), "`hybridstitch calibrate --memory --out recipe.json`"),
        (("saved", None), "`hybridstitch calibrate --pair saved --memory --out recipe.json`"),
        (("a large", "small"), "`hybridstitch calibrate --pair 'a large' small --memory --out recipe.json`"),
    ],
)
def test_the_advice_to_calibrate_names_the_pair(pair, said):
    assert measuring(*pair, "--memory") == said


def test_a_server_without_a_recipe_says_what_measures_its_pair(here, capsys):
    for words in (["--target-seconds", "1"], ["--remember", "album"], ["--speed", "2"]):
        assert main(["serve", "--pair", "one", "two", *words]) == 2
        assert "`hybridstitch calibrate --pair one two " in capsys.readouterr().err


def test_a_killed_calibration_goes_on(mini, here, server, capsys):
    words = ["calibrate", "--prompts", "prompts.txt", *SHORT]
    run = server.Process(target=command_line, args=(words, {opened.FOLDER: str(mini)}, "never"))
    run.start()
    state = here / ".recipe.state"
    while run.is_alive() and not (state.is_file() and '"scores"' in state.read_text()):
        time.sleep(0.05)
    run.kill()
    run.join()
    before = state.read_text().splitlines()
    assert main(words) == 0
    assert "holds an unfinished calibration" in capsys.readouterr().err
    assert not state.exists()
    prices = next(json.loads(line)["prices"] for line in before if '"prices"' in line)
    assert Recipe.load(here / "recipe.json").prices.to_json() == prices
