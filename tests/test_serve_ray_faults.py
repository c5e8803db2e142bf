"""The server on Ray Serve when a worker of a replica breaks: as on one machine."""

import pytest

from serving import FAULTS, serving_on_ray

pytest.importorskip("ray", reason="ray is not installed")
pytest.importorskip("grpc", reason="ray[serve] is not installed")

from test_serve_faults import (  # noqa: F401
    test_a_client_that_leaves_a_stream_stops_its_run,
    test_a_client_that_leaves_stops_its_run,
    test_a_fault_costs_one_request,
    test_a_picture_that_kills_two_workers_is_given_up,
    test_a_picture_whose_worker_is_killed_is_drawn_again_once,
    test_a_timeout_ends_a_request_in_time,
    test_a_timeout_that_cannot_be_kept_is_refused,
    test_a_worker_that_hangs_is_replaced,
    test_after_a_fault_pictures_are_the_same,
    test_delete_stops_a_run_and_what_waits,
    test_kill_9_from_outside,
    test_what_would_wait_too_long_is_refused_with_a_truthful_retry_after,
)

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def here(tmp_path_factory, mini):
    """As in `test_serve_faults`, on a cluster of its own."""
    folder = tmp_path_factory.mktemp("faults")
    variables = {"FAULTS": str(folder / "died"), "HYBRIDSTITCH_STUCK_SECONDS": "1"}
    with serving_on_ray(folder, mini, "--size", "32x16", command=FAULTS, **variables) as running:
        running.draw(policy="small")  # so that its seconds are known
        yield running


@pytest.fixture(scope="module")
def short(tmp_path_factory, mini):
    """The same."""
    folder = tmp_path_factory.mktemp("short")
    with serving_on_ray(folder, mini, "--size", "32x16", "--max-wait", "4.5", command=FAULTS) as running:
        yield running
