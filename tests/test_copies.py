"""A copy of the folder at an address: sent as it grows, fetched where it is lacking, the same bytes in the end."""

import hashlib
import json
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import fsspec
import pytest

from batch_workers import full
from hybridstitch.batch import folder, ledger, packing
from hybridstitch.batch.copies import Copy
from hybridstitch.batch.drawing import draw_all
from hybridstitch.batch.executor import Here
from hybridstitch.batch.job import JobsError, WorkError
from hybridstitch.cli import main
from hybridstitch.disk import files as disk
from hybridstitch.mini import opened
from mini_folder import save
from test_batch import SETTING, check, desks, some

JOBS = ('{"prompt": "a big dog on a meadow", "seed": 1}', '{"prompt": "a small cat", "seed": 2}')
SHORT = ("--steps", "3", "--size", "16", "--policy", "large", "--json")


@pytest.fixture
def memory():
    """An address in this process."""
    return f"memory://{uuid.uuid4().hex}/pictures"


@pytest.fixture(scope="module")
def s3():
    """A bucket of a server on this machine."""
    if find_spec("moto") is None or find_spec("s3fs") is None:
        pytest.skip("moto and s3fs are not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stderr=subprocess.DEVNULL)
    settings = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        fsspec.config.set_conf_env(fsspec.config.conf)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket/pictures"
    fsspec.config.conf.pop("s3", None)
    server.kill()
    server.wait()


def there(url):
    store, root = fsspec.url_to_fs(url)
    return {path.rpartition("/")[2]: store.cat_file(path) for path in store.find(root)}


def pictures(out):
    return {path.name: path.read_bytes() for path in out.glob("*.png")}


def drawn(out, jobs, url):
    """What `hybridstitch batch --copy-to` does, without its words."""
    out.mkdir(exist_ok=True)
    copy = Copy.at(url)
    copy.fetch(out, lambda name: True)
    found = folder.look(out, jobs, SETTING, verify=False)
    folder.begin(out, jobs, SETTING, {}, found)
    desk = replace(desks(out)[0], copy=copy)
    left = {key: job for key, job in jobs.items() if key not in found.done}
    return found, draw_all(left, Here(desk), lambda outcome: None)


def test_each_picture_is_sent_as_it_is_kept(tmp_path, memory):
    jobs = some("a", "b", "c")
    drawn(tmp_path, jobs, memory)
    assert there(memory) == pictures(tmp_path)


def test_another_machine_goes_on_from_the_address(tmp_path, memory):
    jobs = some("a", "b", "c", "d")
    first = dict(list(jobs.items())[:2])
    drawn(tmp_path / "one", first, memory)
    found, result = drawn(tmp_path / "two", jobs, memory)
    assert (set(found.done), set(result.done)) == (set(first), set(jobs) - set(first))
    check(tmp_path / "two", jobs)
    assert pictures(tmp_path / "one").items() <= there(memory).items()


def test_what_is_torn_at_the_address_is_drawn_again(tmp_path, memory):
    jobs = some("a", "b")
    drawn(tmp_path / "one", jobs, memory)
    store, root = fsspec.url_to_fs(memory)
    first = next(iter(jobs))
    store.pipe_file(f"{root}/{first}.png", b"\x89PNG half")
    found, result = drawn(tmp_path / "two", jobs, memory)
    assert (dict(found.broken), set(result.done)) == ({first: "is not what was drawn"}, {first})
    assert there(memory) == pictures(tmp_path / "one") == pictures(tmp_path / "two")


def test_what_could_not_be_sent_is_sent_at_the_end(tmp_path, memory, monkeypatch):
    jobs = some("a", "b")
    with monkeypatch.context() as patch:
        patch.setattr(type(fsspec.url_to_fs(memory)[0]), "pipe_file", lambda *_: full(0, b""))
        drawn(tmp_path, jobs, memory)
        with pytest.raises(WorkError, match=r"memory://.* cannot be written to \(OSError: .*No space left on device"):
            Copy(memory).send(tmp_path, ["jobs.jsonl"])
    assert there(memory) == {}
    names = [path.relative_to(tmp_path).as_posix() for path in folder.files(tmp_path, jobs)]
    Copy(memory).catch_up(tmp_path, names)
    assert there(memory).keys() == {name.rpartition("/")[2] for name in names}
    assert len(names) == 5  # two pictures, two lists, a shard of the manifest


def test_a_full_folder_is_not_the_addresss_fault(tmp_path, memory, monkeypatch):
    drawn(tmp_path / "one", some("a"), memory)
    (tmp_path / "two").mkdir()
    monkeypatch.setattr(disk, "pour", full)
    with pytest.raises(OSError, match="No space left"):
        Copy(memory).fetch(tmp_path / "two", lambda name: True)
    assert list((tmp_path / "two").iterdir()) == []


def test_of_what_is_fetched_little_is_in_memory_and_an_error_ends_it(tmp_path, memory, monkeypatch):
    store, root = fsspec.url_to_fs(memory)
    for k in range(200):
        store.pipe_file(f"{root}/{k}.png", b"x")
    read = []
    monkeypatch.setattr(Copy, "read", lambda self, name: read.append(name) or b"x")

    def pour(file, data):
        time.sleep(0.02)  # a slow disk, which is full after a while
        if len(list(tmp_path.glob("*.png"))) > 20:
            full(file, data)

    monkeypatch.setattr(disk, "pour", pour)
    with pytest.raises(OSError, match="No space left"):
        Copy(memory).fetch(tmp_path, lambda name: True)
    assert len(read) < 100


def shard(out, name, data, of):
    (out / name).write_bytes(data)
    return packing.Shard(name=name, pictures=1, of=of, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def test_shards_at_an_address_are_those_of_the_last_call(tmp_path, memory, monkeypatch):
    first = [
        shard(tmp_path, "a.tar", b"one", "1"),
        shard(tmp_path, "b.tar", b"two", "2"),
        shard(tmp_path, "c.tar", b"3", "3"),
    ]
    packing.send(Copy(memory), tmp_path, first)
    assert there(memory) == {"a.tar": b"one", "b.tar": b"two", "c.tar": b"3", packing.INDEX: packing._index_of(first)}

    second = [first[0], shard(tmp_path, "b.tar", b"TWO", "4"), shard(tmp_path, "d.tar", b"4", "5")]  # as long as before
    sent, send = [], Copy.send
    monkeypatch.setattr(Copy, "send", lambda self, out, names: (sent.append(list(names)), send(self, out, names)))
    packing.send(Copy(memory), tmp_path, second)
    assert there(memory) == {"a.tar": b"one", "b.tar": b"TWO", "d.tar": b"4", packing.INDEX: packing._index_of(second)}
    assert sent == [["b.tar", "d.tar"]]


@pytest.mark.parametrize("broken", range(1, 6))
def test_sending_shards_that_was_broken_off_goes_on(broken, tmp_path, memory, monkeypatch):
    monkeypatch.setattr(packing, "AT_ONCE", 1)
    old = [shard(tmp_path, f"{name}.tar", name.encode(), "1") for name in "abc"]
    packing.send(Copy(memory), tmp_path, old)
    new = [shard(tmp_path, f"{name}.tar", name.upper().encode(), "2") for name in "abx"]
    put, calls = Copy._put, []

    def dies(self, files):
        calls.append(1)
        if len(calls) == broken:
            raise WorkError("the connection is gone")
        put(self, files)

    with monkeypatch.context() as patch:
        patch.setattr(Copy, "_put", dies)
        with pytest.raises(WorkError):
            packing.send(Copy(memory), tmp_path, new)
    packing.send(Copy(memory), tmp_path, new)
    assert there(memory) == {"a.tar": b"A", "b.tar": b"B", "x.tar": b"X", packing.INDEX: packing._index_of(new)}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s9://bucket/x", "s9://bucket/x cannot be reached: Protocol not known: s9"),
        ("dropbox://x", "dropbox://x cannot be reached: .*install"),
    ],
)
def test_addresses_that_nobody_knows(url, said):
    with pytest.raises(JobsError, match=said):
        Copy.at(url)


# --- the commands ---


@pytest.fixture
def run(tmp_path_factory, tmp_path, monkeypatch, capsys):
    """Run `batch jobs.jsonl` with an address: exit code, what was said."""
    monkeypatch.setenv(opened.FOLDER, str(save(tmp_path_factory.mktemp("mini"))))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.jsonl").write_text("\n".join(JOBS))
    capsys.readouterr()

    def command(*words, options=SHORT):
        code = main([*words, *options])
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=json.loads(said.out or "{}"), err=said.err)

    return command


@pytest.mark.parametrize("kind", ["memory", "file", "s3"])
def test_a_batch_is_whole_at_its_address_and_goes_on_from_there(kind, run, memory, tmp_path, request):
    url = request.getfixturevalue("s3") if kind == "s3" else {"memory": memory, "file": f"file://{tmp_path}/copy"}[kind]
    said = run("batch", "jobs.jsonl", "--out", "one", "--copy-to", url)
    assert (said.code, said.err, said.out["drawn"]) == (0, "", 2)
    found = there(url)
    assert found.keys() == {path.name for path in (tmp_path / "one").rglob("*.*") if path.name != ".lock"}
    assert pictures(tmp_path / "one").items() <= found.items()

    said = run("batch", "jobs.jsonl", "--out", "two", "--copy-to", url)
    assert (said.code, said.out["drawn"], said.out["there"]) == (0, 0, 2)
    assert said.err == f"note: 3 files were fetched from {url}\n"
    assert pictures(tmp_path / "two") == pictures(tmp_path / "one")
    assert len(ledger.read(tmp_path / "two")[0]) == 2
    dry = run("batch", "jobs.jsonl", "--out", "three", "--copy-to", url, "--dry-run")
    assert (dry.code, dry.out["missing"]) == (0, 0)

    assert run("pack", "two", "--out", "shards", "--copy-to", f"{url}-packed", options=("--json",)).code == 0
    packed = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir() if path.name != ".lock"}
    assert there(f"{url}-packed") == packed


def test_an_address_as_a_folder_and_one_that_cannot_be_written(run, tmp_path):
    said = run("batch", "jobs.jsonl", "--out", "s3://bucket/x")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "is an address; draw into a folder, and name the address with --copy-to" in said.err
    (tmp_path / "copy").write_text("a file")
    said = run("batch", "jobs.jsonl", "--copy-to", f"file://{tmp_path}/copy/below")
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "copy/below cannot be " in said.err
    assert list(tmp_path.glob("out/*.png")) == []  # before anything was drawn


def test_what_the_pictures_show_is_that_of_the_last_call_at_the_address_too(run, memory, tmp_path):
    for seed in (1, 3):
        (tmp_path / "jobs.jsonl").write_text(JOBS[0].replace('"seed": 1', f'"seed": {seed}'))
        assert run("batch", "jobs.jsonl", "--out", "one", "--copy-to", memory).code == 0
        assert there(memory)["metadata.jsonl"] == (tmp_path / "one" / "metadata.jsonl").read_bytes()
