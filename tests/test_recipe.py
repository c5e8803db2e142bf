"""The recipe file: what it serves, what it refuses, and that it survives the disk."""

import json
from dataclasses import replace

import pytest

from hybridstitch.measure.intervals import Interval
from hybridstitch.measure.price import Prices
from hybridstitch.policies.methods import LargeOnly
from hybridstitch.policies.parse import parse
from hybridstitch.policies.skip import Skip, drawn_steps
from hybridstitch.recipe import Home, Point, Recipe, RecipeError, Trial, kind_of
from hybridstitch.recipe.between import between
from hybridstitch.recipe.file import VERSION
from hybridstitch.recipe.point import folded

PRICES = Prices(call=0.0, step=0.0, large=1.0, small=0.2, masked={"fresh": (0.1, 1.0)})
HOME = Home(
    pair="mini",
    small=None,
    models={"large": "files 1234"},
    parameters=(1000, 100),
    width=128,
    height=128,
    steps=50,
    guidance=4.0,
    scheduler="FlowMatchEulerDiscreteScheduler shift=1.0",
    machine={"device": "cpu", "threads": "1"},
)


def point(policy, steps, closeness, **changes):
    parsed = parse(policy)
    predicted = 50 / PRICES.seconds(parsed, steps)
    return Point(
        policy=str(parsed),
        steps=steps,
        kind=kind_of(parsed, steps, 50),
        predicted=predicted,
        closeness=Interval(closeness, closeness - 0.01, closeness + 0.01, 6),
        psnr=Interval(30.0, 29.0, 31.0, 6),
        **changes,
    )


POINTS = (
    replace(point("large", 50, 1.0), closeness=Interval(1.0, 1.0, 1.0, 6)),
    point("large", 40, 0.99),
    point("large", 25, 0.96),
    point("L2 H4@0.3 S6", 12, 0.85),
    point("L2 H1@0.3 S2", 5, 0.7),
)
RECIPE = Recipe(
    home=HOME,
    prices=PRICES,
    shares={"0.3": 0.7},
    prompts={"searched": 6, "checked": 2, "sha256": "ab"},
    seed=0,
    asked={},
    points=POINTS,
    trials=(Trial("large", 30, "fewer steps", 1.67, 0.97, 2),),
    verdict=("Fewer steps serve best.",),
)


def test_a_closeness_is_served_by_the_fastest_point_whose_lower_bound_reaches_it():
    assert RECIPE.at(closeness=0.95).steps == 25
    assert RECIPE.at(closeness=0.951).steps == 40
    assert RECIPE.at(closeness=1.0).kind == "large"
    assert RECIPE.at().steps == 25  # 0.9 when nothing was asked for
    assert replace(RECIPE, asked={"speed": 1.25}).at().steps == 40


@pytest.mark.parametrize("speed", [1.2, 1.3, 1.5, 1.8, 2.0, 9.0, 11.0])
def test_a_speed_is_served_within_its_tolerance(speed):
    found = RECIPE.at(speed=speed)
    seconds = PRICES.seconds(parse(found.policy), found.steps)
    assert found.predicted == pytest.approx(50 / seconds)
    assert abs(50 / seconds / speed - 1) <= 0.04


def test_of_points_near_a_speed_the_closest_serves_but_a_much_nearer_one_goes_before():
    slower, nearer = replace(POINTS[2], measured=1.93), replace(point("large", 24, 0.955), measured=2.01)
    recipe = replace(RECIPE, points=(*POINTS[:2], slower, nearer, *POINTS[3:]))
    assert recipe.at(speed=2.0) == nearer
    assert recipe.at(speed=1.98) == nearer
    assert recipe.at(speed=1.96) == slower  # both are as near: the closest
    assert replace(recipe, points=(*POINTS[:2], slower, *POINTS[3:])).at(speed=2.0) == slower
    near = replace(recipe, points=(*POINTS[:2], replace(slower, measured=1.97), nearer, *POINTS[3:]))
    assert near.at(speed=2.0) == nearer  # the other would do, were it not for this one


@pytest.mark.parametrize(
    ("measured", "closeness", "serves"), [(1.955, 0.966, True), (1.955, 0.96, False), (1.94, 0.966, False)]
)
def test_a_point_that_is_clearly_closer_goes_before_a_nearer_one(measured, closeness, serves):
    farther = replace(point("large", 26, closeness), measured=measured)
    nearer = replace(point("large", 24, 0.955), measured=2.01)
    recipe = replace(RECIPE, points=(*POINTS[:2], farther, nearer, *POINTS[3:]))
    assert recipe.at(speed=2.0) == (farther if serves else nearer)


def test_of_points_more_than_two_percent_off_on_both_sides_the_closest_goes_before_an_unmeasured_one():
    slower, faster = replace(POINTS[2], measured=1.953), replace(point("large", 23, 0.957), measured=2.045)
    recipe = replace(RECIPE, points=(*POINTS[:2], slower, faster, *POINTS[3:]))
    assert recipe.at(speed=2.0) == slower
    farther = replace(recipe, points=(*POINTS[:2], replace(slower, measured=1.945), faster, *POINTS[3:]))
    assert farther.at(speed=2.0) == faster


def test_between_points_on_both_sides_goes_what_is_nearer_than_they_are():
    slower, faster = replace(POINTS[2], measured=1.93), replace(point("large", 23, 0.95), measured=2.07)
    recipe = replace(RECIPE, points=(*POINTS[:2], slower, faster, *POINTS[3:]))
    found = recipe.at(speed=2.0)
    assert found.measured is None
    assert found.speed == pytest.approx(2.0, rel=0.01)
    assert found.closeness == faster.closeness  # no closer than that, as nothing drew it
    assert recipe.at(speed=1.94) == slower
    assert replace(recipe, asked={"speed": 2.0}).at(speed=2.0) == slower  # searched for this speed
    assert replace(recipe, points=(*POINTS[:2], faster, *POINTS[3:])).at(speed=2.0) == faster


def test_between_two_points_of_a_make_its_programs_serve_as_close_as_the_faster_one():
    found = RECIPE.at(speed=1.5)
    assert (found.policy, found.steps) == ("skip:large-steps=33,early=1.0", 40)
    assert (found.closeness.mean, found.measured, found.kind) == (0.96, None, "fewer steps")
    mixed = RECIPE.at(speed=10.5)
    assert mixed.policy.startswith("schedule:program=L")
    assert mixed.closeness.mean == 0.7
    assert mixed.kind == "region mask"


def test_between_two_counts_of_large_steps_lie_those_of_the_slower_one_some_of_them_repeated():
    assert between((LargeOnly(), 17), (LargeOnly(), 15)) == [(Skip(16, 1.0), 17)]
    assert between((LargeOnly(), 20), (LargeOnly(), 16)) == [(Skip(n, 1.0), 20) for n in (19, 18, 17)]
    assert between((LargeOnly(), 17), (LargeOnly(), 16)) == []
    assert drawn_steps(Skip(16, 1.0), 17) == {*range(17)} - {8}


def test_between_two_points_that_skip_lie_other_numbers_of_large_steps():
    ends = ((Skip(30, 1.25), 50), (Skip(26, 1.25), 50))
    assert between(*ends) == [(Skip(n, 1.25), 50) for n in (29, 28, 27)]
    assert between((Skip(30, 1.25), 50), (Skip(26, 1.5), 50)) == []
    assert between((Skip(30, 1.25), 50), (Skip(26, 1.25), 40)) == []
    assert kind_of(Skip(30, 1.25), 50, 50) == "fewer steps"


def test_between_neighbouring_counts_of_large_steps_a_mask_in_the_middle_serves_where_the_pair_can_mask():
    ten, nine = point("large", 10, 0.9), point("large", 9, 0.89)
    recipe = replace(RECIPE, points=(POINTS[0], ten, nine))
    speed = (ten.predicted * nine.predicted) ** 0.5
    found = recipe.at(speed=speed)
    assert found.policy.startswith("schedule:text=cached,program=L5 R@")
    assert found.predicted == pytest.approx(speed, rel=0.04)
    with pytest.raises(RecipeError, match="within 4 %"):
        replace(recipe, prices=replace(PRICES, masked={})).at(speed=speed)


def test_a_measured_speed_goes_before_a_predicted_one():
    slow = replace(POINTS[2], measured=1.9)
    recipe = replace(RECIPE, points=(*POINTS[:2], slow, *POINTS[3:]))
    assert recipe.at(speed=1.9) == slow
    with pytest.raises(RecipeError, match="within 4 %"):
        recipe.at(speed=2.1)


def test_what_cannot_be_served_is_refused_with_the_limit_or_the_nearest():
    with pytest.raises(RecipeError, match=r"speed=60 cannot be reached: the fastest .* ask for at most 16.67"):
        RECIPE.at(speed=60)
    with pytest.raises(RecipeError, match=r"ask for 2\.00 or 8\.93, or measure .*`hybridstitch calibrate .*--speed 5`"):
        RECIPE.at(speed=5)
    for wrong in ({"speed": 1.0}, {"speed": 0.5}, {"speed": float("nan")}, {"closeness": 0}, {"closeness": 1.1}):
        with pytest.raises(RecipeError, match="was asked for"):
            RECIPE.at(**wrong)
    with pytest.raises(RecipeError, match=r"speed=1\.8 and closeness=0\.9 .*ask for one of the two"):
        RECIPE.at(speed=1.8, closeness=0.9)


def test_a_closeness_that_no_point_reaches_is_refused_with_the_closest():
    without = replace(RECIPE, points=POINTS[1:])
    with pytest.raises(RecipeError, match=r"closeness=0\.99 cannot be reached: .* large in 40 steps, is 0\.980 close"):
        without.at(closeness=0.99)


def test_a_recipe_without_the_large_model_itself_is_refused_on_load(tmp_path):
    replace(RECIPE, points=POINTS[1:]).save(tmp_path / "r.json")
    with pytest.raises(RecipeError, match=r"r\.json cannot be used: .*the large model itself, .* is not among"):
        Recipe.load(tmp_path / "r.json")


def test_a_recipe_survives_the_disk(tmp_path):
    recipe = replace(RECIPE, points=(*POINTS[:-1], replace(POINTS[-1], distances=(None, (0.1, 0.5)), held_out=0.7)))
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is no JSON"),
        ("[]", "holds no recipe"),
        ('{"version": "new"}', "holds no recipe"),
        ('{"version": 0}', "which does not exist"),
        (
            json.dumps({**RECIPE.to_json(), "version": VERSION + 1}),
            f"version {VERSION + 1} .* up to {VERSION}; upgrade",
        ),
        (json.dumps({**RECIPE.to_json(), "points": []}), "damaged"),
        (json.dumps({**RECIPE.to_json(), "prices": {}}), "damaged"),
        (json.dumps({**RECIPE.to_json(), "points": [{**RECIPE.to_json()["points"][0], "policy": "x"}]}), "damaged"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path, text, complaint):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(RecipeError, match=complaint) as refusal:
        Recipe.load(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_recipe_of_version_1_is_read_as_one_without_trials(tmp_path):
    old = {**RECIPE.to_json(), "version": 1}
    del old["trials"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert Recipe.load(tmp_path / "old.json") == replace(RECIPE, trials=())


def test_a_missing_file_says_what_writes_it(tmp_path):
    with pytest.raises(RecipeError, match=r"cannot be read .*`hybridstitch calibrate --out .*nowhere\.json` writes it"):
        Recipe.load(tmp_path / "nowhere.json")


LEVELLED = (
    replace(point("L2 S2", 4, 0.7), shift=5.0),
    replace(point("L2 S1", 3, 0.6), levels=(1.0, 0.8, 0.3)),
)


def test_noise_levels_are_part_of_a_point_and_of_its_preset(tmp_path):
    recipe = replace(RECIPE, points=(*POINTS, *LEVELLED), trials=(RECIPE.trials[0], TRIED))
    recipe.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == recipe
    assert [p.name for p in LEVELLED] == ["L2 S2 in 4 steps at shift 5", "L2 S1 in 3 steps at 1 0.8 0.3"]
    presets = [recipe.preset(p) for p in LEVELLED]
    assert [(p.steps, p.shift, p.levels) for p in presets] == [(4, 5.0, None), (3, None, (1.0, 0.8, 0.3))]
    assert not {"shift", "levels"} & POINTS[0].to_json().keys()


TRIED = Trial("large", 3, "fewer steps", 16.7, 0.5, 2, levels=(1.0, 0.8, 0.3))


def test_between_points_at_one_shift_programs_keep_it_and_free_levels_have_nothing_between():
    ends = [replace(point("L12", 12, 0.9), shift=5.0), replace(point("L4", 4, 0.6), shift=5.0)]
    found = replace(RECIPE, points=(POINTS[0], *ends)).at(speed=50 / 8)
    assert (found.policy, found.steps, found.shift) == ("schedule:program=L8", 8, 5.0)
    for apart in ({"shift": 4.0}, {"shift": None, "levels": (1.0, 0.8, 0.3, 0.1)}):
        other = replace(ends[1], **apart)
        with pytest.raises(RecipeError, match="no policy of this recipe"):
            replace(RECIPE, points=(POINTS[0], ends[0], other)).at(speed=50 / 8)


@pytest.mark.parametrize("broken", [{"levels": [1, 0.5]}, {"shift": 0}, {"shift": 2, "levels": [1]}, {"levels": 3}])
def test_levels_that_no_run_can_have_are_refused_on_load(broken):
    data = replace(RECIPE, points=(*POINTS, LEVELLED[1])).to_json()
    data["points"][-1] |= broken
    with pytest.raises(RecipeError, match="damaged"):
        Recipe.from_json(data)


@pytest.mark.parametrize(
    ("pair", "small", "kept"),
    [
        ("pairs/mine", "pairs/mine/transformer/small", False),
        ("me/mine", "/cache/models--me--mine/snapshots/12ab/transformer/small", False),
        ("pairs/mine", "pairs/other", True),
        (None, None, False),
    ],
)
def test_of_a_saved_pair_an_older_recipe_named_the_small_model_too(pair, small, kept):
    old = {**RECIPE.to_json(), "version": 2}
    old["home"] |= {"pair": pair, "small": small}
    assert Recipe.from_json(old).home.small == (small if kept else None)


@pytest.mark.parametrize(("device", "read"), [("x86_64", "unknown"), ("NVIDIA H100 80GB HBM3",) * 2, ("mps",) * 2])
def test_an_older_recipe_knew_a_processor_by_its_architecture_alone(device, read):
    old = {**RECIPE.to_json(), "version": 3}
    old["home"] |= {"machine": {"the device": device, "the dtype": "float32"}}
    assert Recipe.from_json(old).home.machine == {"the device": read, "the dtype": "float32"}


def test_what_measures_again_names_dtype_and_engine():
    plain = "hybridstitch calibrate --pair mini --size 128x128 --steps 50 --guidance 4"
    assert HOME.command == plain
    for machine, flags in (
        ({"the number of threads": "2", "the dtype": "float32", "the engine": "plain"}, ""),
        ({"the number of threads": "2", "the dtype": "bfloat16"}, " --dtype bfloat16"),
        (
            {"the engine": "compile=regional,snap=16,kv=float8,kv-host=true,offload=true"},
            " --compile regional --kv float8 --kv-host --offload",
        ),
    ):
        assert replace(HOME, machine=machine).command == plain + flags
    on_gpu = {"the number of threads": "unknown", "the dtype": "bfloat16", "the engine": "plain"}
    assert "--dtype" not in replace(HOME, pair="large", small="small", machine=on_gpu).command
    assert replace(HOME, machine=on_gpu).command == f"{plain} --dtype bfloat16"  # the miniature pair's own is float32


def test_what_was_asked_for_may_not_be_served():
    assert RECIPE.served == RECIPE.at()
    assert replace(RECIPE, asked={"speed": 60.0}).served is None


def test_another_setting_is_named():
    assert HOME.differences(HOME) == []
    assert HOME.differences(replace(HOME, guidance=7.0, models={})) == ["the guidance was 4.0, now it is 7.0"]
    moved = replace(HOME, width=96, machine={"device": "cuda", "threads": "unknown"})
    assert HOME.differences(moved) == ["the size was 128x128, now it is 96x128", "device was cpu, now it is cuda"]


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("S L R@0.3 L R@0.3 L R@0.3 L", "S (L R@0.3)×3 L"),
        ("L S L R@0.3 L R@0.3", "L S L R@0.3 L R@0.3"),
        ("L S L S L S H2@0.3 H@0.15 H2@0.3 H@0.15 H2@0.3 H@0.15", "(L S)×3 (H2@0.3 H@0.15)×3"),
        ("L10 S40", "L10 S40"),
    ],
)
def test_a_block_that_is_repeated_is_written_once_for_readers(words, read):
    assert folded(words.split()) == read
    name = replace(RECIPE.points[0], policy=f"schedule:program={words}", steps=9).name
    assert name == f"{read} in 9 steps"


def test_points_are_presets_at_home_in_the_recipe_s_setting():
    presets = RECIPE.presets()
    assert [p.name for p in presets] == [f"{p.speed:.2f}x" for p in POINTS]
    assert presets[2].policy == parse("large")
    home = presets[3].made_for
    assert (home.large, home.size, home.steps, home.guidance) == ("mini", (128, 128), 12, 4.0)
