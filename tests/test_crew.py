"""Tasks side by side: all are done, errors come through, and no process outlives whoever waits for it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hybridstitch.batch.crew import Crew
from hybridstitch.errors import RunError

ENDLESS = """
import os, time
from hybridstitch.batch.crew import Crew

def work(desk, task):
    print(os.getpid(), flush=True)
    time.sleep(600)

with Crew(int, 2) as crew:
    list(crew.map(work, [0, 1]))
"""


def _double(desk, number):
    if number == 13:
        raise ValueError("unlucky")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return desk * number


def test_a_crew_does_all_tasks_and_passes_errors_on():
    for count in (1, 2):
        with Crew(lambda: 2, count) as crew:
            assert sorted(crew.map(_double, [1, 2, 3, 4, 5])) == [(0, 2), (1, 4), (2, 6), (3, 8), (4, 10)]
            with pytest.raises(ValueError, match="unlucky"):
                list(crew.map(_double, [1, 13]))


def test_a_killed_process_is_told():
    with Crew(lambda: 2, 2) as crew, pytest.raises(RunError, match="was killed"):
        list(crew.map(_double, [99]))


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_members_do_not_outlive_a_killed_parent(how):
    parent = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    members = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(Path(f"/proc/{member}").exists() for member in members)
    parent.send_signal(how)
    parent.wait(10)
    deadline = time.monotonic() + 10
    while any(_runs(member) for member in members) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(member) for member in members)


def _runs(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
