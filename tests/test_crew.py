"""Tasks side by side: all are done, errors come through, and no process outlives whoever waits for it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from hybridstitch.batch.crew import LocalCrew
from hybridstitch.errors import RunError

ENDLESS = """
import os, time
from hybridstitch.batch.crew import LocalCrew

def work(desk, task):
    os.write(1, b"%d\\n" % os.getpid())  # in one piece
    time.sleep(600)

if __name__ == "__main__":
    with LocalCrew(int, 2, START) as crew:
        list(crew.map(work, [0, 1]))
"""


def _double(desk, number):
    if number == 13:
        raise ValueError("unlucky")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 600:
        time.sleep(number)
    return desk * number


def _ignores_interruptions_with_one_thread(desk, task):
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN, torch.get_num_threads()


def test_a_crew_does_all_tasks_and_passes_errors_on():
    for count in (1, 2):
        with LocalCrew(lambda: 2, count) as crew:
            assert sorted(crew.map(_double, [1, 2, 3, 4, 5])) == [(0, 2), (1, 4), (2, 6), (3, 8), (4, 10)]
            with pytest.raises(ValueError, match="unlucky"):
                list(crew.map(_double, [1, 13, 3, 4]))
            assert sorted(crew.map(_double, [1, 2])) == [(0, 2), (1, 4)]


def test_an_error_shows_where_it_happened_in_its_process():
    with LocalCrew(lambda: 2, 2) as crew, pytest.raises(ValueError, match="unlucky") as error:
        list(crew.map(_double, [13]))
    assert 'raise ValueError("unlucky")' in str(error.value.__cause__)


def test_members_leave_interruptions_to_their_caller():
    with LocalCrew(lambda: 2, 2) as crew:
        assert list(crew.map(_ignores_interruptions_with_one_thread, [0])) == [(0, (True, 1))]


def test_members_are_let_go_in_the_middle_of_a_task(monkeypatch):
    monkeypatch.setattr("hybridstitch.batch.pool.PATIENCE_SECONDS", 0.1)
    start = time.monotonic()
    with LocalCrew(lambda: 2, 2) as crew, pytest.raises(ValueError, match="unlucky"):
        list(crew.map(_double, [600, 13]))
    assert time.monotonic() - start < 30


def test_a_killed_process_is_told():
    with LocalCrew(lambda: 2, 2) as crew, pytest.raises(RunError, match="was killed"):
        list(crew.map(_double, [99]))


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("start", ["fork", "fresh"])
def test_members_do_not_outlive_a_killed_parent(how, start, tmp_path):
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS.replace("START", repr(start)))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
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
    except (FileNotFoundError, ProcessLookupError):  # before, or while, it is read
        return False
