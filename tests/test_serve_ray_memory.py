"""A server on Ray Serve that remembers pictures: as on one machine, and whichever replica drew them."""

import os
import signal

import pytest

from serving import FAULTS, recipe, serving_on_ray

pytest.importorskip("ray", reason="ray is not installed")
pytest.importorskip("grpc", reason="ray[serve] is not installed")

from test_serve_memory import (  # noqa: F401
    ANY,
    ask,
    forgotten,
    memories,
    test_a_damaged_folder_fails_no_request,
    test_a_near_prompt_begins_with_a_picture_drawn_before,
    test_no_prompt_is_written_down,
    test_the_oldest_go_and_requests_are_forgotten_by_id,
    test_who_wants_it_is_neither_read_nor_kept,
)
from test_serve_ray import REPLICA

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def here(tmp_path_factory, mini):
    """As in `test_serve_memory`, on a cluster of its own."""
    folder = tmp_path_factory.mktemp("memory")
    words = ("--recipe", str(recipe(folder / "recipe.json", ANY)), "--closeness", "1", "--images-per-call", "4")
    kept = ("--remember", str(folder / "kept"), "--remember-most", "6")
    with serving_on_ray(folder, mini, *words, *kept, command=FAULTS, FAULTS="") as running:
        running.folder = folder / "kept"
        yield running


def test_a_replica_in_the_place_of_a_killed_one_remembers_what_that_one_drew(here):
    ask(here)
    (before,) = here.log.processes(REPLICA)
    os.kill(before, signal.SIGKILL)
    (memory,) = memories(ask(here, prompt="a small dog on a meadow", seed=2))
    assert memory["hit"]


def test_a_killed_holder_of_the_folder_takes_it_up_again(here):
    ask(here)
    (holder,) = here.log.processes("ray::AlbumActor")
    os.kill(holder, signal.SIGKILL)
    assert ask(here, seed=3)["data"]  # drawn, with or without
    here.until(lambda: here.get("/v1/memory").status_code == 200, 60)
    assert here.get("/v1/memory").json()["pictures"] >= 1
