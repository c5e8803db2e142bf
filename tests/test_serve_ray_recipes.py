"""One server on Ray Serve over several recipes: requests choose by `model`, and pairs come and go."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hybridstitch.cli import main
from serving import recipe, serving_on_ray

pytest.importorskip("ray", reason="ray is not installed")
pytest.importorskip("grpc", reason="ray[serve] is not installed")

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def several(tmp_path_factory, mini):
    """One replica, one pair at a time, two recipes."""
    folder = tmp_path_factory.mktemp("several")
    words = [word for name in ("good", "fast") for word in ("--recipe", str(recipe(folder / f"{name}.json")))]
    with serving_on_ray(folder, mini, *words, "--speed", "3") as running:
        yield running


def test_requests_choose_a_recipe_by_model_and_its_pair_takes_the_place_of_the_last_one(several):
    def workers():
        return {look["pid"] for look in several.get("/health/ready").json()["workers"]}

    ask = {"policy": None, "num_inference_steps": None}
    first, begun = several.draw(**ask), workers()
    assert first.status_code == 200
    assert [model["id"] for model in several.get("/v1/models").json()["data"]] == ["good", "fast"]
    assert several.draw(**ask, model="good").json()["data"] == first.json()["data"]
    assert workers() == begun
    second = several.draw(**ask, model="fast")
    assert second.json()["data"] == first.json()["data"]  # the same pair and point
    assert [model["id"] for model in several.get("/v1/models").json()["data"]] == ["fast", "good"]
    assert not workers() & begun
    assert not any(Path(f"/proc/{pid}").exists() for pid in begun)
    with ThreadPoolExecutor(4) as pool:  # what is in hand is drawn before its pair goes
        both = [pool.submit(several.draw, model=name, seed=1) for name in ("fast", "good", "fast", "good")]
        assert [each.result().status_code for each in both] == [200] * 4


def test_a_model_that_nobody_has_is_refused(several):
    refused = several.draw(model="fsat")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert "did you mean 'fast'?" in refused.json()["error"]["message"]


def test_two_recipes_of_one_name_are_refused(tmp_path, capsys):
    words = ("--recipe", str(tmp_path / "one.json"), "--recipe", str(tmp_path / "other" / "one.json"))
    assert main(["serve", "--on", "ray", *words]) == 2
    assert "two recipes are called one, by which requests ask for them" in " ".join(capsys.readouterr().err.split())
