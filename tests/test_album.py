"""Pictures drawn before, in a folder that may be killed over, full, damaged, or somebody else's."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from io import BytesIO
from threading import Thread

import numpy as np
import pytest
from PIL import Image

from hybridstitch.disk import files
from hybridstitch.errors import ServeError
from hybridstitch.serve.album import Album, Page
from hybridstitch.serve.shared_album import SharedAlbum, door

SIZE = (32, 16)


def png(shade=0, size=SIZE):
    file = BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def vector(angle):
    return np.array([np.cos(angle), np.sin(angle), 0], np.float32)


def page(angle=0.0, setting="here", request="one"):
    return Page(request=request, setting=setting, embedding=vector(angle), policy="large", steps=4, seed=1)


@pytest.fixture(params=["alone", "shared"])
def album(tmp_path, request):
    """An album, and the same asked from another process."""
    own = Album.begin(tmp_path / "album", most=5)
    if request.param == "alone":
        yield own
        return
    asked = SharedAlbum(album=own, host="127.0.0.1", port=0, key="a key")
    with door(asked) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield replace(asked, port=server.server_port)
        server.shutdown()


def near(album, least=-1.0):
    return album.near("here", vector(0.0), least)


def kept(album):
    return sorted(path.name for path in (album.folder / "pictures").iterdir())


def test_what_is_near_is_found_by_similarity_within_its_setting(album):
    for angle in (1.0, 0.1, 0.5):
        album.keep(png(round(100 * angle)), page(angle))
    album.keep(png(), page(0.0, setting="elsewhere"))
    found = near(album)
    assert [round(similarity, 5) for similarity, _ in found] == [round(float(np.cos(a)), 5) for a in (0.1, 0.5, 1.0)]
    assert album.picture(found[1][1], SIZE).getpixel((0, 0)) == (50, 0, 0)
    assert len(near(album, least=0.9)) == 1
    assert album.count() == (4, sum(map(len, (png(100), png(10), png(50), png()))))


def test_the_oldest_go_first(album):
    for shade in range(8):
        album.keep(png(shade), page(0.1 * shade))
    shades = {album.picture(name, SIZE).getpixel((0, 0))[0] for _, name in near(album)}
    assert shades == {3, 4, 5, 6, 7}
    assert len(kept(album)) == 5


def test_forgetting_leaves_nothing(album):
    for request in ("one", "two", "two"):
        album.keep(png(), page(request=request))
    marker = page().embedding.tobytes()
    assert marker in (album.folder / "album.sqlite3").read_bytes()
    assert album.forget("two") == 2
    assert album.forget() == 1
    assert (near(album), album.count(), kept(album)) == ([], (0, 0), [])
    assert marker not in (album.folder / "album.sqlite3").read_bytes()


def test_pictures_outlive_the_process(album):
    album.keep(png(7), page())
    again = Album.begin(album.folder, most=5)
    assert again.picture(near(again)[0][1], SIZE).getpixel((0, 0)) == (7, 0, 0)


@pytest.mark.parametrize(
    "harm",
    ["missing", "empty", "cut", "other size", "no picture", "link", "pipe", "folder", "huge"],
)
def test_a_file_that_is_not_ours_is_no_picture_and_its_row_goes(album, tmp_path, harm):
    album.keep(png(), page())
    ((_, name),) = near(album)
    path = album.folder / "pictures" / name
    path.unlink()
    match harm:
        case "empty":
            path.touch()
        case "cut":
            path.write_bytes(png()[:50])
        case "other size":
            path.write_bytes(png(size=(16, 32)))
        case "no picture":
            path.write_bytes(b"GIF89a nothing")
        case "link":
            (tmp_path / "secret.png").write_bytes(png())
            path.symlink_to(tmp_path / "secret.png")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "huge":
            with path.open("wb") as file:
                file.write(png())
                file.truncate(1 << 30)
    begun = time.monotonic()
    assert album.picture(name, SIZE) is None
    assert time.monotonic() - begun < 1
    assert near(album) == []


def insert(album, **changes):
    values = {
        "file": "0" * 32 + ".png", "request": "x", "setting": "here", "embedding": vector(0.0).tobytes(), "bytes": 1,
        "created": 0.0, "policy": "x", "steps": 1, "seed": 1, **changes,
    }  # fmt: skip
    with sqlite3.connect(album.folder / "album.sqlite3") as rows:
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        rows.execute(f"INSERT INTO pictures ({names}) VALUES ({marks})", tuple(values.values()))


@pytest.mark.parametrize(
    "row",
    [
        {"file": "../../../../etc/passwd"},
        {"file": "/etc/passwd"},
        {"file": b"\xff\xfe"},
        {"embedding": b"short"},
        {"embedding": np.full(3, np.nan, np.float32).tobytes()},
        {"embedding": np.full(3, 1e9, np.float32).tobytes()},
        {"embedding": "text"},
        {"setting": "elsewhere"},
    ],
)
def test_a_row_that_is_not_ours_is_not_found(album, row):
    insert(album, **row)
    assert near(album) == []
    album.keep(png(3), page())
    assert len(near(album)) == 1
    assert album.forget() == 2
    assert os.path.exists("/etc/passwd")


def test_rows_that_cannot_be_read_are_put_aside(album):
    album.keep(png(), page())
    (album.folder / "album.sqlite3").write_bytes(b"no database at all " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        near(album)
    again = Album.begin(album.folder, most=5)
    assert near(again) == []
    again.keep(png(), page())
    assert len(near(again)) == 1
    assert len(list(album.folder.glob("album.sqlite3.damaged-*"))) == 1


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ServeError, match=r"pictures cannot be remembered in .*; choose another folder"):
        Album.begin(tmp_path / "file", most=5)


def test_a_full_disk_keeps_nothing(album, monkeypatch):
    def full(file, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "pour", full)
    with pytest.raises(OSError, match="No space"):
        album.keep(png(), page())
    monkeypatch.undo()
    assert (near(album), kept(album)) == ([], [])


def test_files_without_a_row_go_once_nobody_can_be_writing_one(album):
    (album.folder / "pictures" / "notes.txt").touch()
    for name, age in (("a" * 32 + ".png", 7200), ("b" * 32 + ".png", 0)):
        path = album.folder / "pictures" / name
        path.write_bytes(png())
        os.utime(path, (time.time() - age,) * 2)
    Album.begin(album.folder, most=5)
    assert kept(album) == ["b" * 32 + ".png", "notes.txt"]


def test_nobody_asks_without_the_key_and_one_that_is_gone_is_an_error_of_the_system(tmp_path):
    asked = SharedAlbum(album=Album.begin(tmp_path / "album", most=5), host="127.0.0.1", port=0, key="a key")
    with door(asked) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        here = replace(asked, port=server.server_port)
        assert here.count() == (0, 0)
        with pytest.raises(ConnectionError, match="answered 403"):
            replace(here, key="another").count()
        with pytest.raises(ConnectionError, match="answered 404"):
            here._ask("__init__", tmp_path, 5)
        server.shutdown()
    with pytest.raises(OSError, match="refused"):
        here.count()


KILLED = """
import sys, pathlib
from test_album import page, png
from hybridstitch.serve.album import Album
album = Album(pathlib.Path(sys.argv[1]), 20)
album.keep(png(), page())
print("begun", flush=True)
while True:
    album.keep(png(), page())
"""


def test_a_kill_leaves_every_row_its_file(album):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, os.path.dirname(__file__)])}
    for wait in (0.05, 0.21):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(album.folder)], stdout=subprocess.PIPE, env=environment
        )
        process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        again = Album.begin(album.folder, most=20)
        found = near(again)
        assert 0 < len(found) <= 20
        assert all(again.picture(name, SIZE) is not None for _, name in found)
        assert len(kept(again)) - len(found) <= 3  # files whose row was not written, or whose row went before them
        assert not [name for name in kept(again) if name.endswith(".part")]
