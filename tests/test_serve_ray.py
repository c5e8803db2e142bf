"""The same server as a deployment of Ray Serve: what a client of the local one meets, and a replica that is killed."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from serving import recipe, serving

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
    test_what_generate_would_warn_of_is_noted,
)

pytestmark = pytest.mark.soak
RAY = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def here(tmp_path_factory, mini):
    """As in `test_serve`, on a cluster of its own."""
    folder = tmp_path_factory.mktemp("serve")
    words = ("--recipe", str(recipe(folder / "recipe.json")), "--timeout", "60", "--on", "ray", "--address", "local")
    limits = {"HYBRIDSTITCH_MAX_STEPS": "12", "HYBRIDSTITCH_MAX_IMAGES": "3", "HYBRIDSTITCH_MAX_BODY_MIB": "2"}
    with serving(folder, mini, *words, **limits, **RAY, HYBRIDSTITCH_MAX_PIXELS="1000000") as running:
        yield running
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(60)


@pytest.fixture(scope="module")
def client(here):
    return openai.OpenAI(base_url=f"{here.url}/v1", api_key="none is asked for", max_retries=0)


def replicas():
    """Process ids of the replicas on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::ServeReplica:hybridstitch"):
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory, mini):
    """Two replicas."""
    words = ("--size", "32x16", "--on", "ray", "--address", "local", "--num-workers", "2")
    before = set(replicas())
    with serving(tmp_path_factory.mktemp("two"), mini, *words, **RAY) as running:
        running.replicas = lambda: sorted(set(replicas()) - before)
        running.until(lambda: len(running.replicas()) == 2, 120)
        yield running


SLOW = {"policy": "large", "num_inference_steps": 150}


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


def test_a_killed_replica_costs_the_requests_it_had_in_hand_and_sigterm_drains(two):
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(two.draw, seed=seed, **SLOW) for seed in range(6)]
        time.sleep(1)
        os.kill(two.replicas()[0], signal.SIGKILL)
        codes = [each.result().status_code for each in asked]
    assert set(codes) <= {200, 500, 503}
    assert codes.count(200) > 0
    assert all(two.draw(seed=seed).status_code == 200 for seed in range(4))
    two.until(lambda: len(two.replicas()) == 2, 120)

    with ThreadPoolExecutor(1) as pool:
        last = pool.submit(two.draw, seed=9, **SLOW)
        time.sleep(0.5)
        two.process.send_signal(signal.SIGTERM)
        assert last.result().status_code == 200
    assert two.process.wait(60) == 0
    with pytest.raises(httpx.HTTPError):
        two.draw()
