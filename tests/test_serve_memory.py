"""A server that remembers pictures: what begins with one drawn before, what never does, and what is forgotten."""

import base64
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx
import pytest
from PIL import Image

from hybridstitch.cli import main
from hybridstitch.mini import opened
from hybridstitch.recipe import Band, Recall
from serving import FAULTS, SIZE, recipe, serving

ANY = Recall(clip="mini", policy="small", bands=(Band(similarity=-1.0, step=3, level=0.6, kept=1.0, pairs=20),))


@pytest.fixture(scope="module")
def here(tmp_path_factory, mini):
    """A server to which every picture of its setting is near."""
    folder = tmp_path_factory.mktemp("memory")
    words = ("--recipe", str(recipe(folder / "recipe.json", ANY)), "--closeness", "1", "--images-per-call", "4")
    with serving(folder, mini, *words, "--remember", str(folder / "kept"), "--remember-most", "6", command=FAULTS,
                 FAULTS="") as running:  # fmt: skip
        running.folder = folder / "kept"
        yield running


@pytest.fixture(autouse=True)
def forgotten(here):
    settled(here)
    assert httpx.delete(f"{here.url}/v1/memory").status_code == 200


def settled(here):
    """Wait until what was drawn is kept: the worker is then free."""
    here.until(lambda: here.get("/health/ready").json().get("drawing") == 0)


def ask(here, **fields):
    body = {"prompt": "a big dog on a meadow", "size": "32x16", "seed": 1, **fields}
    answer = httpx.post(f"{here.url}/v1/images/generations", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    settled(here)
    return answer.json()


def memories(answer):
    return [image["memory"] for image in answer["hybridstitch"]["images"]]


def files(answer):
    return [each["b64_json"] for each in answer["data"]]


def test_a_near_prompt_begins_with_a_picture_drawn_before(here):
    first = ask(here)
    assert memories(first) == [{"hit": False, "start": 0, "similarity": None}]
    assert first["hybridstitch"]["images"][0]["drew"] == {"L": 6}
    assert here.get("/v1/memory").json()["pictures"] == 1
    second = ask(here, prompt="a small dog on a meadow", seed=2)
    (memory,) = memories(second)
    assert memory["hit"]
    assert (memory["policy"], memory["steps"]) == ("small", 6)
    assert 0 < memory["start"] < 6
    assert -1 <= memory["similarity"] <= 1
    assert second["hybridstitch"]["images"][0]["drew"] == {"S": 6 - memory["start"]}
    assert (second["hybridstitch"]["speed"], second["hybridstitch"]["closeness"]) == (None, None)
    assert ask(here, prompt="a small dog on a meadow", seed=2)["data"] == second["data"]
    assert here.get("/v1/memory").json()["pictures"] == 1  # what began with a picture is not kept itself
    metrics = here.get("/metrics").text
    assert 'hybridstitch_recalled_total{result="hit"}' in metrics
    assert 'hybridstitch_recalled_total{result="miss"}' in metrics


def test_a_picture_that_begins_with_noise_is_generates(here, mini, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(opened.FOLDER, str(mini))
    drawn = ask(here, policy="L2 H2@0.3 S2", num_inference_steps=6)
    words = ("--policy", "L2 H2@0.3 S2", "--steps", "6", "--size", "32x16", "--seed", "1", "--out", str(tmp_path))
    assert main(["generate", "a big dog on a meadow", *words]) == 0, capsys.readouterr().err
    (file,) = tmp_path.glob("*.png")
    assert base64.b64decode(files(drawn)[0]) == file.read_bytes()


@pytest.mark.parametrize(
    "other",
    [{"size": "16x16"}, {"guidance_scale": 2.0}, {"negative_prompt": "a cat"}, {"closeness": 0.99}, {"quality": "max"}],
    ids=str,
)
def test_another_setting_or_a_wish_for_closeness_begins_with_noise(here, other):
    ask(here)
    (image,) = ask(here, seed=2, **other)["hybridstitch"]["images"]
    assert not (image["memory"] or {}).get("hit")
    assert image["drew"].get("L", 0) + image["drew"].get("S+L", 0) > 0


def test_who_wants_it_is_neither_read_nor_kept(here):
    ask(here, remember=False)
    assert here.get("/v1/memory").json()["pictures"] == 0
    ask(here)
    assert memories(ask(here, seed=2, remember=False)) == [None]


def test_a_policy_that_was_asked_for_draws_the_rest(here):
    ask(here)
    (image,) = ask(here, seed=2, policy="large", num_inference_steps=4)["hybridstitch"]["images"]
    assert image["memory"]["policy"] == "large"
    assert image["drew"] == {"L": 4 - image["memory"]["start"]}
    (image,) = ask(here, seed=2, policy="L2 H1@0.3 S1", num_inference_steps=4)["hybridstitch"]["images"]
    assert not image["memory"]["hit"]  # it cannot fill fewer steps
    assert image["drew"] == {"L": 2, "S+L": 1, "S": 1}


def test_pictures_of_one_request_begin_with_different_ones(here):
    alone = [files(ask(here, seed=seed, remember=False))[0] for seed in (5, 6, 7)]
    ask(here, seed=5, n=2)
    assert here.get("/v1/memory").json()["pictures"] == 2
    both = ask(here, seed=5, n=3)
    assert [memory["hit"] for memory in memories(both)] == [True, True, False]
    assert len(set(files(both))) == 3
    far = Image.open(BytesIO(base64.b64decode(files(both)[2])))  # drawn in a call of its own
    assert far.tobytes() == Image.open(BytesIO(base64.b64decode(alone[2]))).tobytes()


def test_requests_drawn_together_begin_each_as_it_can(here):
    ask(here)
    begun = ask(here, seed=9)

    def busy():
        ask(here, prompt="slow", policy="large", num_inference_steps=6, remember=False)

    with ThreadPoolExecutor(4) as pool:
        pool.submit(busy)
        here.until(lambda: here.get("/health/ready").json()["drawing"] == 1)
        hit, fresh, fast = pool.map(lambda more: ask(here, seed=9, **more), [{}, {"remember": False}, {"speed": 1.6}])
    assert memories(hit)[0]["start"] == memories(begun)[0]["start"] > 0
    assert memories(fresh) == [None]
    assert memories(fast)[0]["hit"]
    near = [Image.open(BytesIO(base64.b64decode(files(answer)[0]))).convert("RGB") for answer in (hit, begun)]
    assert max(abs(a - b) for a, b in zip(near[0].tobytes(), near[1].tobytes(), strict=True)) <= 2


def test_partials_of_a_picture_that_begins_with_one_drawn_before(here):
    ask(here)
    body = {"prompt": "a dog", "size": "32x16", "seed": 3, "stream": True, "partial_images": 2}
    with httpx.stream("POST", f"{here.url}/v1/images/generations", json=body, timeout=60) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("event")]
    assert lines[-1] == "event: image_generation.completed"
    assert 2 <= len(lines) <= 3


def test_a_deadline_ends_a_picture_that_begins_with_one_drawn_before(here):
    ask(here, num_inference_steps=12, policy="small")
    slow = {"prompt": "a dog slow", "size": "32x16", "policy": "small", "num_inference_steps": 12}
    answer = httpx.post(f"{here.url}/v1/images/generations", json={**slow, "timeout": 0.35}, timeout=60)
    assert answer.status_code in (408, 422)
    settled(here)
    assert ask(here, seed=4)["data"]


def test_edits_are_neither_read_nor_kept(here):
    file = BytesIO()
    Image.new("RGB", SIZE, "red").save(file, "PNG")
    answer = httpx.post(
        f"{here.url}/v1/images/edits", data={"prompt": "a red star", "num_inference_steps": "3"},
        files={"image": file.getvalue()}, timeout=60,
    )  # fmt: skip
    assert memories(answer.json()) == [None]
    settled(here)
    assert here.get("/v1/memory").json()["pictures"] == 0


def test_the_oldest_go_and_requests_are_forgotten_by_id(here):
    for seed in range(4):
        ask(here, n=2, seed=10 * seed, quality="max")
    assert here.get("/v1/memory").json()["pictures"] == 6
    last = ask(here, seed=99, quality="max")["hybridstitch"]["id"]
    assert httpx.delete(f"{here.url}/v1/memory/{last}").json() == {"forgotten": 1}
    assert httpx.delete(f"{here.url}/v1/memory/nobodys-request").json() == {"forgotten": 0}
    assert httpx.delete(f"{here.url}/v1/memory/..%2f..").status_code == 404
    assert httpx.delete(f"{here.url}/v1/memory").json() == {"forgotten": 5}
    assert not list((here.folder / "pictures").iterdir())


def test_a_damaged_folder_fails_no_request(here):
    ask(here)
    (path,) = (here.folder / "pictures").iterdir()
    path.write_bytes(b"not a picture")
    assert memories(ask(here, seed=2))[0]["hit"] is False  # and is kept
    rows = here.folder / "album.sqlite3"
    whole = rows.read_bytes()
    rows.write_bytes(b"garbage" * 1000)
    assert memories(ask(here, seed=3))[0]["hit"] is False
    assert here.get("/v1/memory").status_code == 503
    assert here.lines(level="warning")
    rows.write_bytes(whole)
    for path in (here.folder / "pictures").iterdir():
        path.unlink()
    assert memories(ask(here, seed=4))[0]["hit"] is False


def test_no_prompt_is_written_down(here):
    ask(here, prompt="a secret dog", negative_prompt="a hidden cat")
    for path in (here.folder / "album.sqlite3", *(here.folder / "pictures").iterdir()):
        assert b"secret" not in path.read_bytes()
        assert b"hidden" not in path.read_bytes()


def test_the_page_learns_that_pictures_are_remembered(here):
    assert here.get("/v1/models").json()["data"][0]["hybridstitch"]["remembers"]
    assert here.get("/v1/memory/some-request").status_code == 405
