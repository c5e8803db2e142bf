"""Batches in a Ray cluster of two nodes on this machine: workers, a node and the driver killed, and no picture lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future
from csv import DictReader
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from batch_workers import Flat
from hybridstitch.batch import folder, ledger
from hybridstitch.batch.drawing import draw_all
from hybridstitch.batch.job import WorkError
from hybridstitch.cli import main
from hybridstitch.cli.asked import BadInput
from hybridstitch.cli.batch_place import WorkPlace
from hybridstitch.cli.batch_studio import JobStudio
from hybridstitch.cli.pairs import Pair
from hybridstitch.drawing.engine import PLAIN
from hybridstitch.errors import PairError
from hybridstitch.mini import opened
from hybridstitch.policies.methods import LargeOnly
from test_batch import SETTING, check, desks, some

pytest.importorskip("ray", reason="ray is not installed")
import ray
from ray.cluster_utils import Cluster
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayTaskError

from hybridstitch.batch.on_ray import QUIET, RaySeat, check_place, connected, on_ray
from hybridstitch.batch.ray_crew import RayCrew
from hybridstitch.report.metadata import PACKAGES, versions

JOBS, STEPS = 16, 12  # of so many steps that a kill falls amid the work
OPTIONS = ("--size", "32", "--policy", "large")
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}
QUICK = {
    "worker_niceness": 0,
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
}
HERE = replace(SETTING, versions={**SETTING.versions, **versions()})


@pytest.fixture(scope="module")
def cluster(mini):
    """Two nodes; their workers find the tests and the untrained pair."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", opened.FOLDER: str(mini)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        head = {**NODE, "include_dashboard": False, "_system_config": QUICK}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(**NODE)
        yield cluster
        cluster.shutdown()


def complete(cluster):
    """Both nodes, whoever was killed before."""
    while len(cluster.list_all_nodes()) < 2:
        cluster.add_node(**NODE)


def pictures(out):
    return {path.name: path.read_bytes() for path in out.glob("*.png")}


def wait_for(count, out, driver):
    soon = time.monotonic() + 300
    while len(list(out.glob("*.png"))) < count:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < soon
        time.sleep(0.02)


def members(raylet):
    """Process ids of the workers of a node that draw."""
    children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    return [int(pid) for pid in children if b"WorkerActor" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def raylet_of(node):
    return node.all_processes["raylet"][0].process.pid


def test_pictures_are_sent_back_errors_are_told_and_work_is_tried_again(cluster, tmp_path):
    jobs = {HERE.id_of(job): job for job in some("a", "dies", "fails", "d").values()}
    (desk,) = (replace(desk, setting=HERE, sends=True) for desk in desks(tmp_path))
    folder.begin(tmp_path, jobs, HERE, {}, folder.look(tmp_path, jobs, HERE, verify=False))
    with on_ray(desk, address=cluster.address, workers=None, gpus=0, most=9) as executor:
        drawn = draw_all(jobs, executor, lambda outcome: None)
    assert set(drawn.done) == set(jobs)
    check(tmp_path, jobs)
    errors = Counter(row.error_class for row in ledger.read(tmp_path)[0] if row.status == "error")
    assert errors["ValueError"] == 1
    assert set(errors) <= {"ValueError", "WorkerDied"}  # another may have drawn it before anybody noticed
    assert len(list((tmp_path / ledger.FOLDER).iterdir())) == 1  # the driver's

    nowhere = replace(desk, device="nowhere")
    with (
        pytest.raises(WorkError, match="the worker on nowhere cannot open the pair: RuntimeError: no such device"),
        on_ray(nowhere, address=cluster.address, workers=1, gpus=0, most=9) as executor,
    ):
        draw_all(jobs, executor, lambda outcome: None)
    with (
        pytest.raises(WorkError, match="no node of the cluster has room for a worker with 1 CPU and 1 GPUs"),
        on_ray(desk, address=cluster.address, workers=None, gpus=1, most=9),
    ):
        pass
    older = replace(desk, setting=replace(HERE, versions={**HERE.versions, "torch": "1.0"}))
    with (
        pytest.raises(WorkError, match=r"the worker on cpu runs on .* with torch .*, not 1\.0"),
        on_ray(older, address=cluster.address, workers=1, gpus=0, most=9) as executor,
    ):
        draw_all(jobs, executor, lambda outcome: None)


def test_nothing_is_lost_or_doubled_when_driver_worker_and_node_are_killed(cluster, tmp_path):
    batch = ["batch", listed(tmp_path, JOBS), *OPTIONS, "--steps", str(STEPS), "--json"]
    assert main([*batch, "--out", str(tmp_path / "alone")]) == 0
    kill_and_compare(cluster, batch, tmp_path / "out", tmp_path / "alone", first=3, second=2)


@pytest.mark.soak
def test_nothing_is_lost_or_doubled_wherever_the_kills_fall(cluster, tmp_path):
    batch = ["batch", listed(tmp_path, 200), *OPTIONS, "--steps", "3", "--json"]
    assert main([*batch, "--out", str(tmp_path / "alone")]) == 0
    for seed in range(5):
        rng = Random(seed)
        out = tmp_path / f"out-{seed}"
        kill_and_compare(cluster, batch, out, tmp_path / "alone", first=rng.randrange(90), second=rng.randrange(1, 60))


def listed(folder, jobs):
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": "a big dog", "seed": seed}) for seed in range(jobs)))
    return str(path)


def kill_and_compare(cluster, batch, out, alone, *, first, second):
    """The driver is killed after `first` pictures; after `second` more a worker and a node at once."""
    there = ["--on", "ray", "--address", cluster.address, "--num-workers", "2", "--out", str(out)]
    complete(cluster)
    head, other = cluster.list_all_nodes()

    def drive():
        command = [sys.executable, "-m", "hybridstitch", *batch, *there]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    whole = pictures(alone)
    driver = drive()
    wait_for(first, out, driver)
    driver.kill()
    driver.wait()
    assert len(pictures(out)) < len(whole)
    driver = drive()
    wait_for(len(pictures(out)) + second, out, driver)
    for pid in (*members(raylet_of(head)), raylet_of(other), *members(raylet_of(other))):
        os.kill(pid, signal.SIGKILL)
    assert len(pictures(out)) < len(whole)
    said, errors = driver.communicate(timeout=300)
    cluster.remove_node(other)
    assert driver.returncode == 0, errors
    assert json.loads(said)["failed"] == 0
    assert pictures(out) == whole
    assert list(out.glob(".*.part")) == []
    rows, damaged = ledger.read(out)
    assert damaged == 0
    assert {f"{row.id}.png" for row in rows if row.status == "done"} == set(whole)
    assert {row.error_class for row in rows if row.status == "error"} <= {"WorkerDied"}


def test_a_slow_worker_does_not_hold_the_end(cluster, tmp_path):
    complete(cluster)
    jobs = {HERE.id_of(job): job for job in some("a", "stalls", "c", "d").values()}
    (desk,) = (replace(desk, setting=HERE) for desk in desks(tmp_path))
    folder.begin(tmp_path, jobs, HERE, {}, folder.look(tmp_path, jobs, HERE, verify=False))
    with on_ray(desk, address=cluster.address, workers=2, gpus=0, most=9) as executor:
        drawn = draw_all(jobs, executor, lambda outcome: None)
    assert set(drawn.done) == set(jobs)
    check(tmp_path, jobs)


# --- a crew ---


def crew_task(desk, task):
    """Twice the number; None is killed at its first try."""
    if isinstance(task, Path):
        if not task.exists():
            task.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "again"
    if task == 13:
        raise ValueError("unlucky")
    return desk * task


def test_a_crew_does_all_tasks_passes_errors_on_and_outlives_its_members(cluster, tmp_path):
    complete(cluster)
    with RayCrew(partial(int, 2), versions(), folder=tmp_path, address=cluster.address, workers=2) as crew:
        assert sorted(crew.map(crew_task, [1, 2, 3, 4, 5])) == [(0, 2), (1, 4), (2, 6), (3, 8), (4, 10)]
        with pytest.raises(ValueError, match="unlucky"):
            list(crew.map(crew_task, [1, 13, 3]))
        assert sorted(crew.map(crew_task, [tmp_path / "killed", 7])) == [(0, "again"), (1, 14)]
        assert crew.here == 2
    assert [path.name for path in tmp_path.iterdir()] == ["killed"]
    older = {**versions(), "torch": "1.0"}
    with (
        pytest.raises(WorkError, match=r"runs on .* with torch .*, not 1\.0"),
        RayCrew(partial(int, 2), older, address=cluster.address, workers=1) as crew,
    ):
        list(crew.map(crew_task, [1]))


def test_a_reproduction_draws_and_scores_in_the_cluster_what_it_does_here(cluster, tmp_path, capsys):
    complete(cluster)
    words = ["reproduce", "steps", "--n", "2", "--steps", "6", "--size", "32", "--no-calibrate", "--out"]
    assert main([*words, str(tmp_path / "here")]) == 0
    there = ["--on", "ray", "--address", cluster.address, "--num-workers", "2"]
    assert main([*words, str(tmp_path / "there"), *there]) == 0
    assert f"workers of {cluster.address} draw; what is timed is timed by this process, on " in capsys.readouterr().err
    found = {
        name: {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.png")}
        for name in ("here", "there")
    }
    assert found["here"] == found["there"] != {}
    columns = [
        [
            [cell for name, cell in row.items() if name != "cost"]
            for row in DictReader((tmp_path / name / "raw.csv").open())
        ]
        for name in found
    ]
    assert columns[0] == columns[1] != []


def test_a_calibration_draws_in_the_cluster(cluster, tmp_path, capsys):
    complete(cluster)
    (tmp_path / "prompts.txt").write_text("a dog\na cat\na cow\na big dog\n")
    words = ["calibrate", "--prompts", str(tmp_path / "prompts.txt"), "--steps", "6", "--size", "32", "--minutes", "0"]
    there = ["--on", "ray", "--address", cluster.address, "--num-workers", "2"]
    assert main([*words, *there, "--out", str(tmp_path / "recipe.json")]) == 0
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert len(recipe["points"]) > 1
    assert "what is timed is timed by this process" in capsys.readouterr().err


# --- refused before or at the first job ---


def test_an_address_that_is_not_there_is_one_line(mini, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(opened.FOLDER, str(mini))
    (tmp_path / "jobs.jsonl").write_text('{"prompt": "a dog"}')
    words = ["batch", str(tmp_path / "jobs.jsonl"), *OPTIONS, "--out", str(tmp_path / "out")]
    assert main([*words, "--on", "ray", "--address", "127.0.0.1:1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: there is no Ray cluster at 127.0.0.1:1 (")


def test_a_cluster_of_its_own_reports_nothing_unless_it_is_told_to(monkeypatch):
    told = {}
    for name in QUIET:
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_enable_metrics_collection", "1")
    monkeypatch.setattr(ray, "init", lambda **_: told.update(os.environ))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with connected(None):
        pass
    assert {name: told[name] for name in QUIET} == {**QUIET, "RAY_enable_metrics_collection": "1"}


def test_a_cluster_of_another_ray_is_one_line(cluster, monkeypatch):
    monkeypatch.setattr(ray, "__version__", "2.1.0")
    with pytest.raises(WorkError, match=r"cannot work on Ray at .*: Version mismatch: .*2\.1\.0") as error:
        connected(cluster.address).__enter__()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("full", [ObjectStoreFullError("2 GiB"), OutOfDiskError("2 GiB")])
def test_a_full_object_store_is_one_line(full):
    seat = object.__new__(RaySeat)
    for error in (full, RayTaskError("do", "trace", full)):
        future = Future()
        future.set_exception(error)
        with pytest.raises(WorkError, match="the object store of its node is full") as told:
            seat.outcomes(future)
        assert "\n" not in str(told.value)


class Huge(Flat):
    """Draws noise, which no file makes smaller."""

    def __call__(self, device):
        draw, noise = super().__call__(device), np.random.default_rng(0).integers(0, 256, (5600, 5600, 3), np.uint8)
        return lambda jobs: [replace(take, image=Image.fromarray(noise)) for take in draw(jobs)]


@pytest.mark.soak
def test_a_picture_larger_than_an_object_store_with_no_disk_behind_it_is_one_line(cluster, tmp_path):
    """A store of 80 MB is sent a file of 94 MB, where the disk may be filled to a thousandth only."""
    full = {**QUICK, "local_fs_capacity_threshold": 0.001}
    options = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False, "_system_config": full}
    small = Cluster(initialize_head=True, head_node_args=options)
    jobs, (desk,) = some("a"), desks(tmp_path)
    desk = replace(desk, setting=HERE, sends=True, open=Huge(tmp_path))
    try:
        with (
            pytest.raises(WorkError, match="the worker on cpu cannot send what it drew: the object store of its node"),
            on_ray(desk, address=small.address, workers=1, gpus=0, most=1) as executor,
        ):
            draw_all(jobs, executor, lambda outcome: None)
    finally:
        small.shutdown()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_worker_with_another_package_is_refused(package, tmp_path):
    (tmp_path / "mark").touch()
    (desk,) = (replace(desk, setting=HERE) for desk in desks(tmp_path))
    check_place(desk, "mark")
    other = replace(desk, setting=replace(HERE, versions={**HERE.versions, package: "0"}))
    with pytest.raises(WorkError, match=f"with {package} .*, not 0; install what the driver has"):
        check_place(other, "mark")


def test_a_worker_that_does_not_see_the_folder_is_refused_unless_it_sends(tmp_path):
    (desk,) = (replace(desk, setting=HERE) for desk in desks(tmp_path))
    with pytest.raises(WorkError, match=r"does not see the folder .* of the driver"):
        check_place(desk, "mark")
    check_place(replace(desk, sends=True), "mark")


def test_a_worker_with_another_model_is_refused(mini, monkeypatch):
    monkeypatch.setenv(opened.FOLDER, str(mini))
    studio = JobStudio(
        named=Pair.of("mini", None), policy=LargeOnly(), dtype="float32", engine=PLAIN, models={"large": "content 0"}
    )
    with pytest.raises(PairError, match=r"the large model is content .* here and content 0 where the command runs"):
        studio("cpu")


FLAGS = {"address": None, "num_workers": None, "gpus_per_worker": None, "collect": False, "dry_run": False}


@pytest.mark.parametrize(
    ("on", "device", "flags", "said"),
    [
        ("rey", None, {}, "did you mean 'ray'"),
        ("here", None, {"num_workers": 2}, "--num-workers is for a cluster: add --on ray"),
        ("ray", None, {"dry_run": True}, "leave --on ray out"),
        ("ray", "cuda:1", {}, "all of one kind: cpu or cuda"),
        ("ray", "cpu", {"gpus_per_worker": 1.0}, "leave one of them out"),
    ],
)
def test_flags_that_cannot_be_meant(on, device, flags, said):
    with pytest.raises(BadInput, match=said):
        WorkPlace.of(on, device, **{**FLAGS, **flags})


def test_a_driver_without_gpus_can_ask_for_workers_with_some():
    place = WorkPlace.of("ray", None, **{**FLAGS, "gpus_per_worker": 1.0})
    assert (place.devices, place.gpus_per_worker) == (["cuda"], 1.0)


def test_ray_is_imported_by_nobody_who_does_not_ask_for_it():
    code = "import hybridstitch, hybridstitch.cli, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
