"""The same server on Ray Serve: what a client of the local one meets, replicas that are killed, several recipes."""

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from serving import recipe, serving_on_ray

pytest.importorskip("ray", reason="ray is not installed")
pytest.importorskip("grpc", reason="ray[serve] is not installed")

from test_serve import (  # noqa: F401
    test_a_drawn_request_tells_who_drew_what,
    test_a_page_of_another_site_cannot_call_this_machine,
    test_a_picture_is_the_file_that_generate_writes,
    test_hostile_bodies_are_refused_at_once,
    test_hostile_pictures_are_refused_at_once,
    test_ids_that_are_paths_are_nobodys,
    test_metrics_count,
    test_openai_edits_all_of_a_picture_or_where_the_mask_is_transparent,
    test_openai_generates,
    test_openai_lists_the_pair,
    test_openai_meets_errors_it_knows,
    test_openai_streams_the_small_models_sketch_first,
    test_openapi_holds_and_no_case_breaks_the_server,
    test_other_files_are_smaller_the_harder_they_are_compressed,
    test_the_example_watches_and_asks_for_a_speed,
    test_the_log_is_json_without_prompts,
    test_what_generate_would_warn_of_is_noted,
)

pytestmark = pytest.mark.soak
REPLICA = "ray::ServeReplica:hybridstitch:Replica"
SLOW = {"policy": "large", "num_inference_steps": 150}


@pytest.fixture(scope="module")
def here(tmp_path_factory, mini):
    """As in `test_serve`, on a cluster of its own."""
    folder = tmp_path_factory.mktemp("serve")
    words = ("--recipe", str(recipe(folder / "recipe.json")), "--timeout", "60")
    limits = {"HYBRIDSTITCH_MAX_STEPS": "12", "HYBRIDSTITCH_MAX_IMAGES": "3", "HYBRIDSTITCH_MAX_BODY_MIB": "2"}
    with serving_on_ray(folder, mini, *words, **limits, HYBRIDSTITCH_MAX_PIXELS="1000000") as running:
        yield running


@pytest.fixture(scope="module")
def client(here):
    return openai.OpenAI(base_url=f"{here.url}/v1", api_key="none is asked for", max_retries=0)


@pytest.fixture(scope="module")
def two(tmp_path_factory, mini):
    """Two replicas."""
    with serving_on_ray(tmp_path_factory.mktemp("two"), mini, "--size", "32x16", "--num-workers", "2") as running:
        running.until(lambda: len(running.log.processes(REPLICA)) == 2, 120)
        yield running


def test_neither_the_ingress_nor_a_replica_holds_torch(here):
    for title in (REPLICA, "ray::ServeReplica:hybridstitch:Ingress"):
        (pid,) = here.log.processes(title)
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()


def test_a_request_is_followed_and_stopped_whichever_replica_is_asked(two):
    own = {"prompt": "a dog", "size": "32x16", **SLOW}
    with ThreadPoolExecutor(1) as pool:
        url, header = f"{two.url}/v1/images/generations", {"x-client-request-id": "my-own-id-1"}
        asked = pool.submit(httpx.post, url, json=own, headers=header, timeout=60)
        two.until(lambda: two.get("/v1/requests/my-own-id-1").status_code == 200)
        states = [two.get("/v1/requests/my-own-id-1") for _ in range(12)]
        assert {state.status_code for state in states} == {200}
        assert {state.json()["id"] for state in states} == {"my-own-id-1"}
        assert httpx.delete(f"{two.url}/v1/requests/my-own-id-1").json()["state"] in ("stopped", "done")
        assert asked.result().status_code in (410, 200)
    key = two.draw().headers["x-request-id"]
    assert {two.get(f"/v1/requests/{key}").json()["state"] for _ in range(12)} == {"done"}
    assert {two.get("/v1/requests/nobody-s-id").status_code for _ in range(4)} == {404}


def ask(two, key, **fields):
    """A request that takes a while, known by an id."""
    body = {"prompt": "a dog", "size": "32x16", "seed": 1, **SLOW, **fields}
    return httpx.post(f"{two.url}/v1/images/generations", json=body, headers={"x-client-request-id": key}, timeout=120)


def drawn_or_waiting(two, key):
    """Whether a replica has a request in hand."""
    return two.get(f"/v1/requests/{key}").json().get("state") in ("drawing", "waiting")


def kill_all(two):
    """Kill every replica, and see them gone."""
    killed = two.log.processes(REPLICA)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    two.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in killed))


def both(two):
    """Wait until two replicas are ready, whoever was killed before."""
    seen = set()

    def look():
        seen.update(worker["pid"] for worker in two.get("/health/ready").json().get("workers", ()))
        return len([pid for pid in seen if Path(f"/proc/{pid}").exists()]) == 2

    two.until(look, 120)


def test_what_a_killed_replica_had_in_hand_is_drawn_by_another(two):
    plain = [two.draw(prompt="a dog", seed=seed, **SLOW).json()["data"] for seed in range(2)]
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask, two, f"in-hand-{seed}", seed=seed) for seed in range(6)]
        two.until(lambda: all(two.get(f"/v1/requests/in-hand-{seed}").status_code == 200 for seed in range(6)))
        os.kill(two.log.processes(REPLICA)[0], signal.SIGKILL)
        answers = [each.result() for each in asked]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert [answer.json()["data"] for answer in answers[:2]] == plain
    assert two.log.read_text().count('"event": "a replica was lost"') > 0
    assert all(two.draw(seed=seed).status_code == 200 for seed in range(4))
    both(two)


def test_kill_after_kill_under_load_loses_nothing(two):
    lost = '"event": "a replica was lost"'
    end, before = time.monotonic() + 30, two.log.read_text().count(lost)

    def client(seed):
        answers = []
        while time.monotonic() < end:
            answers.append(two.draw(seed=seed, num_inference_steps=30))
        return answers

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client, seed) for seed in range(4)]
        while time.monotonic() < end - 10:
            time.sleep(8)
            os.kill(two.log.processes(REPLICA)[0], signal.SIGKILL)
        answers = [answer for each in asked for answer in each.result()]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) <= two.log.read_text().count(lost) - before  # at most what was in hand
    assert {answer.json()["error"]["code"] for answer in refused} <= {"died"}
    assert len(answers) > 20
    both(two)


def test_a_request_that_two_replicas_died_over_is_refused(two):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, two, "killer-of-two")
        for _ in range(2):
            two.until(lambda: drawn_or_waiting(two, "killer-of-two"), 120)
            kill_all(two)
        refused = asked.result()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "died")
    assert int(refused.headers["retry-after"]) >= 1
    both(two)


def test_a_stream_whose_replica_is_killed_ends_with_an_error(two):
    body = {"prompt": "a dog", "size": "32x16", **SLOW, "stream": True, "partial_images": 1}
    said = []
    with httpx.stream("POST", f"{two.url}/v1/images/generations", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            said.append(line)
            if len(said) == 2:  # its sketch
                kill_all(two)
    events = [line.removeprefix("event: ") for line in said if line.startswith("event: ")]
    assert events == ["image_generation.partial_image", "error"]
    (last,) = [line for line in said if line.startswith("data: ")][1:]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "died"
    assert two.draw().status_code == 200  # as soon as a replica is there


def test_sigterm_drains(two):  # last: it ends the server
    with ThreadPoolExecutor(1) as pool:
        last = pool.submit(two.draw, seed=9, **SLOW)
        time.sleep(0.5)
        two.process.send_signal(signal.SIGTERM)
        assert last.result().status_code == 200
    assert two.process.wait(60) == 0
    with pytest.raises(httpx.HTTPError):
        two.draw()
