"""Files that are there whole or not at all, and folders held by one process, on poor disks too."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from hybridstitch.disk import files
from hybridstitch.disk.lock import LOCK, alone
from hybridstitch.errors import BusyError

HOLDER = """
import sys, time
from pathlib import Path
from hybridstitch.disk.lock import alone
with alone(Path(sys.argv[1]), "another batch"):
    print("held", flush=True)
    time.sleep(600)
"""


# --- files ---


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    for data in (b"one", b"two" * 1_000_000):
        files.keep(tmp_path / "a.png", data)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.png": data}


@pytest.mark.parametrize("broken", ["pour", "settle", "rename"])
def test_what_cannot_be_written_leaves_the_old_file(broken, tmp_path, monkeypatch):
    files.keep(tmp_path / "a.png", b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, broken, full)
    with pytest.raises(OSError, match="No space left"):
        files.keep(tmp_path / "a.png", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.png": b"old"}


def test_a_write_in_pieces_is_whole(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))
    files.keep(tmp_path / "a.png", b"0123456789")
    assert (tmp_path / "a.png").read_bytes() == b"0123456789"


def test_a_disk_that_cannot_sync_folders_does_not_stop_work(tmp_path, monkeypatch):
    fsync = os.fsync

    def of_files_only(file):
        if os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(file)

    monkeypatch.setattr(os, "fsync", of_files_only)
    files.keep(tmp_path / "a.png", b"a")
    assert (tmp_path / "a.png").read_bytes() == b"a"


def test_a_sweep_takes_what_kills_left_and_nothing_else(tmp_path):
    for name in (".a.png.1.part", "a.part", ".hidden", "a.png"):
        (tmp_path / name).touch()
    files.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.part", ".hidden", "a.png"}


# --- locks ---


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_held_folder_is_refused_and_a_killed_holder_holds_nothing(holder, tmp_path):
    with pytest.raises(BusyError, match=f"another batch is drawing into {tmp_path}"), alone(tmp_path, "another batch"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with alone(tmp_path, "another batch"):
        pass


def test_an_error_inside_lets_the_folder_go(tmp_path):
    with pytest.raises(ValueError, match="inside"), alone(tmp_path, "another batch"):
        raise ValueError("inside")
    with alone(tmp_path, "another batch"):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_disk_without_locks_does_not_stop_work(code, tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):  # and leaves nothing that would stop the next
        entered = False
        with alone(tmp_path, "another batch"):
            entered = True
        assert entered


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / LOCK).mkdir()
    with pytest.raises(OSError, match="Is a directory"), alone(tmp_path, "another batch"):
        pass
