"""The server when something breaks: one request pays, the others are drawn, and readiness tells the truth."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from serving import FAULTS, serving

SLOW = {"prompt": "slow", "num_inference_steps": 40, "policy": "small"}


@pytest.fixture(scope="module")
def here(tmp_path_factory, mini):
    """A server whose worker fails when a prompt says so."""
    folder = tmp_path_factory.mktemp("faults")
    variables = {"FAULTS": str(folder / "died"), "HYBRIDSTITCH_STUCK_SECONDS": "1"}
    with serving(folder, mini, "--size", "32x16", command=FAULTS, **variables) as running:
        running.draw(policy="small")  # so that its seconds are known
        yield running


@pytest.fixture(scope="module")
def short(tmp_path_factory, mini):
    """A server that lets nobody wait long."""
    folder = tmp_path_factory.mktemp("short")
    with serving(folder, mini, "--size", "32x16", "--max-wait", "4.5", command=FAULTS) as running:
        yield running


def idle(here):
    here.until(lambda: here.get("/health/ready").json().get("drawing") == 0)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("memory", 503, "memory"), ("disk", 503, "disk"), ("bug", 500, "error"), ("poison", 503, "device")],
)
def test_a_fault_costs_one_request(here, fault, status, code):
    with ThreadPoolExecutor(3) as pool:
        failing = pool.submit(here.draw, prompt=f"a dog {fault}")
        others = [pool.submit(here.draw, seed=seed) for seed in (1, 2)]
        answer = failing.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert "secret" not in answer.text
        if fault == "poison":
            assert here.get("/health/ready").status_code == 503  # at once, not when its process has ended
        assert [other.result().status_code for other in others] == [200, 200]
    here.until(lambda: here.get("/health/ready").status_code == 200)


def test_after_a_fault_pictures_are_the_same(here):
    before = here.draw(policy="L2 H2@0.3", num_inference_steps=4).json()["data"]
    here.draw(prompt="a dog memory", policy="L2 H2@0.3", num_inference_steps=4)
    assert here.draw(policy="L2 H2@0.3", num_inference_steps=4).json()["data"] == before


def test_a_picture_whose_worker_is_killed_is_drawn_again_once(here):
    with ThreadPoolExecutor(3) as pool:
        killed = pool.submit(here.draw, prompt="a dog once")
        others = [pool.submit(here.draw, seed=seed) for seed in (3, 4)]
        here.until(lambda: here.get("/health/ready").status_code == 503)
        refused = here.get("/health/ready")
        assert int(refused.headers["retry-after"]) >= 1
        assert here.get("/health/live").status_code == 200
        assert [answer.result().status_code for answer in (killed, *others)] == [200, 200, 200]
    assert here.get("/health/ready").status_code == 200
    assert here.get("/metrics").text.count("hybridstitch_workers_lost_total 0.0") == 0


def test_a_picture_that_kills_two_workers_is_given_up(here):
    answer = here.draw(prompt="a dog dies")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "died")
    assert int(answer.headers["retry-after"]) >= 1
    assert here.draw().status_code == 200


def test_kill_9_from_outside(here):
    worker = here.get("/health/ready").json()["workers"][0]["pid"]
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(here.draw, **{**SLOW, "num_inference_steps": 10})
        here.until(lambda: here.get("/health/ready").json()["drawing"] == 1)
        os.kill(worker, signal.SIGKILL)
        assert drawing.result().status_code == 200
    assert here.get("/health/ready").json()["workers"][0]["pid"] != worker


def stopped_in(here, ask):
    """Seconds until the worker is free, after what is asked for began to be drawn and was left."""
    idle(here)
    ask(lambda: here.until(lambda: here.get("/health/ready").json()["drawing"] == 1))
    begun = time.monotonic()
    idle(here)
    return time.monotonic() - begun


def test_a_client_that_leaves_stops_its_run(here):
    def ask(begun):
        with httpx.Client(timeout=2) as client, pytest.raises(httpx.ReadTimeout):
            client.post(f"{here.url}/v1/images/generations", json={**SLOW, "size": "32x16"})

    assert stopped_in(here, lambda begun: ask(begun)) < 1  # of 4 s


def test_a_client_that_leaves_a_stream_stops_its_run(here):
    def ask(begun):
        with httpx.stream(
            "POST",
            f"{here.url}/v1/images/generations",
            json={**SLOW, "size": "32x16", "stream": True, "partial_images": 1},
        ) as answer:
            next(answer.iter_lines())

    assert stopped_in(here, ask) < 1


def test_delete_stops_a_run_and_what_waits(here):
    header = {"x-client-request-id": "to-be-stopped"}
    waiting = {"x-client-request-id": "never-begun"}
    with ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(
                httpx.post, f"{here.url}/v1/images/generations", json={**SLOW, "size": "32x16"}, headers=h, timeout=30
            )
            for h in (header, waiting)
        ]
        here.until(lambda: here.get("/health/ready").json().get("waiting") == 1)
        state = here.get("/v1/requests/never-begun").json()
        other = here.get("/v1/requests/to-be-stopped").json()
        if state["state"] == "drawing":
            state, other = other, state
        assert (state["place"], other["place"]) == (1, 0)
        assert state["predicted_wait_seconds"] > 0
        for key in ("never-begun", "to-be-stopped"):
            assert httpx.delete(f"{here.url}/v1/requests/{key}").json()["state"] == "stopped"
        begun = time.monotonic()
        assert [answer.result().status_code for answer in asked] == [410, 410]
        assert asked[0].result().headers["x-should-retry"] == "false"
        idle(here)
        assert time.monotonic() - begun < 1


def test_a_timeout_ends_a_request_in_time(here):
    idle(here)
    begun = time.monotonic()
    answer = here.draw(prompt="a dog slow", num_inference_steps=30, policy="small", timeout=1.0)
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "deadline")
    assert time.monotonic() - begun < 2
    idle(here)
    assert time.monotonic() - begun < 2.5


def test_a_timeout_that_cannot_be_kept_is_refused(here):
    idle(here)
    for _ in range(3):
        here.draw(prompt="a dog slow", num_inference_steps=12, policy="small")
    answer = here.draw(prompt="a dog", num_inference_steps=12, policy="small", timeout=0.01)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "timeout_too_short")


def test_a_worker_that_hangs_is_replaced(here):
    answer = here.draw(prompt="a dog hangs", timeout=1.0)
    assert answer.status_code == 408
    here.until(lambda: here.lines(event="a worker does not stop"))
    here.until(lambda: here.get("/health/ready").status_code == 200)
    assert here.draw().status_code == 200


SECOND = {"prompt": "slow", "size": "32x16", "extra_body": {"num_inference_steps": 10, "policy": "small"}}


def test_what_would_wait_too_long_is_refused_with_a_truthful_retry_after(short):
    idle(short)
    client = openai.OpenAI(base_url=f"{short.url}/v1", api_key="none", max_retries=0)
    for _ in range(2):
        client.images.generate(**SECOND)  # so that its seconds are known

    def ask(_):
        try:
            return client.images.generate(**SECOND)
        except openai.RateLimitError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        begun = time.monotonic()
        answers = list(pool.map(ask, range(8)))
    refused = [answer.response for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert 1 <= len(refused) <= 4
    assert refused[0].headers["x-should-retry"] == "true"
    time.sleep(max(begun + int(refused[0].headers["retry-after"]) - time.monotonic(), 0))
    client.images.generate(**SECOND)  # it was the truth


def test_sigterm_drains(short):  # last: it ends the server
    idle(short)
    client = openai.OpenAI(base_url=f"{short.url}/v1", api_key="none", max_retries=0)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(client.images.generate, **SECOND) for _ in range(2)]
        short.until(lambda: short.get("/health/ready").json()["waiting"] == 1)
        short.process.send_signal(signal.SIGTERM)
        short.until(lambda: short.get("/health/ready").status_code == 503, 2)
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            client.images.generate(**SECOND)
        assert [len(one.result().data) for one in asked] == [1, 1]
    assert short.process.wait(20) == 0
