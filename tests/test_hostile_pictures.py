"""Pictures made to do harm: each is refused in one sentence, by `read`, by `inspect` and by a batch that is resumed."""

import json
import struct
import zlib

import pytest
from PIL import Image

from hybridstitch.batch.folder import says_it_is
from hybridstitch.cli import main
from hybridstitch.report.metadata import PictureError
from hybridstitch.report.picture import CHUNK, read
from test_picture import DRAWN

HEAD = b"\x89PNG\r\n\x1a\n"
GOOD = DRAWN.to_json()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks, width=8, height=8, pixels=None):
    """A grey picture with these chunks before its pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(9 * 8)) if pixels is None else pixels
    return HEAD + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def saying(text):
    return png(chunk(b"tEXt", CHUNK.encode() + b"\0" + text.encode("latin-1")))


def with_fields(**changes):
    return saying(json.dumps({**GOOD, **changes}))


HOSTILE = {
    "empty": b"",
    "no PNG": b"#!/bin/sh\nrm -rf /\n",
    "a head alone": HEAD,
    "cut short": saying(json.dumps(GOOD))[:-30],
    "a chunk longer than the file": HEAD + struct.pack(">I", 2**31 - 1) + b"IHDR",
    "a broken checksum": saying(json.dumps(GOOD)).replace(b"IDAT", b"IDAX"),
    "broken pixels": png(chunk(b"tEXt", b"hybridstitch\0{}"), pixels=b"\xff" * 20),
    "10^10 pixels": png(width=10**5, height=10**5),
    "10^8 pixels": png(width=10**4, height=10**4),
    "no pixels": png(width=0, height=0),
    "a compressed bomb": png(chunk(b"zTXt", b"hybridstitch\0\0" + zlib.compress(b"[" * 10**8))),
    "an international bomb": png(chunk(b"iTXt", b"hybridstitch\0\1\0\0\0" + zlib.compress(b"[" * 10**8))),
    "compressed rubbish": png(chunk(b"zTXt", b"hybridstitch\0\0" + b"\xff" * 9)),
    "a long text": saying(json.dumps({**GOOD, "prompt": "a" * 2**21})),
    "deep lists": saying("[" * 100_000),
    "deep objects": saying('{"version": ' * 50_000),
    "a list": saying(json.dumps([GOOD])),
    "a number of a million digits": saying('{"version": ' + "9" * 10**6 + "}"),
    "no JSON": saying("{'version': 1}"),
    "a version of lists": with_fields(version=[[[1]]]),
    "a prompt of numbers": with_fields(prompt=[1, 2]),
    "half a surrogate pair": with_fields(prompt="\ud800"),
    "steps of text": with_fields(steps="5"),
    "steps below one": with_fields(steps=0),
    "true steps": with_fields(steps=True),
    "endless steps": with_fields(steps=10**18),
    "a seed with a fraction": with_fields(seed=0.5),
    "a negative seed": with_fields(seed=-1),
    "a negative size": with_fields(width=-128),
    "a huge size": with_fields(height=10**9),
    "no number for guidance": with_fields(guidance=float("nan")),
    "infinite guidance": with_fields(guidance=float("inf")),
    "a guidance of 400 digits": with_fields(guidance=10**400),
    "a shift of nothing": with_fields(shift=0),
    "levels of text": with_fields(levels=["1", "0"]),
    "levels that are no list": with_fields(levels=1),
    "levels of another number of steps": with_fields(levels=[1.0, 0.5]),
    "levels that rise": with_fields(steps=2, levels=[0.5, 1.0]),
    "no levels": with_fields(levels=[]),
    "a shift and levels": with_fields(steps=2, shift=2, levels=[1.0, 0.5]),
    "models in a list": with_fields(models=["large"]),
    "a model of numbers": with_fields(models={"large": 1}),
    "versions of lists": with_fields(versions={"torch": []}),
    "a small model of numbers": with_fields(small=3),
    "something missing": saying(json.dumps({"version": 1, "prompt": "a"})),
}


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE.keys())
def hostile(request, tmp_path):
    path = tmp_path / "hostile.png"
    path.write_bytes(request.param)
    return path


@pytest.mark.filterwarnings("error")
def test_it_is_refused_in_one_sentence(hostile, capsys):
    with pytest.raises(PictureError) as caught:
        read(hostile)
    assert len(str(caught.value)) < 600
    assert main(["inspect", str(hostile)]) == main(["generate", "--from", str(hostile)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_batch_that_is_resumed_draws_it_again(hostile):
    assert not says_it_is(hostile, "0" * 64)


def test_the_picture_these_are_made_from_is_fine(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(saying(json.dumps(GOOD)))
    assert read(path) == DRAWN
    Image.open(path).load()


@pytest.mark.parametrize("policy", ["no-such-policy", "reuse:of=" * 5000, "L" * 5000, "\x1b[31mlarge"])
def test_a_policy_that_cannot_be_read_is_refused(tmp_path, policy, capsys):
    path = tmp_path / "a.png"
    path.write_bytes(with_fields(policy=policy))
    assert main(["generate", "--from", str(path)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "\x1b" not in said
    assert not says_it_is(path, "0" * 64)


def test_what_would_steer_a_terminal_is_not_printed(tmp_path, capsys):
    path = tmp_path / "a.png"
    evil = "\x1b]0;owned\x07 \x9b31m \u202egnp.exe\r hidden"
    path.write_bytes(with_fields(prompt=evil, pair=evil, policy=evil, models={evil: evil}, versions={evil: evil}))
    assert main(["inspect", str(path)]) == 0
    assert main(["inspect", str(path), "--json"]) == 0
    assert main(["generate", "--from", str(path)]) == 2
    said = "".join(capsys.readouterr())
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(said)
    assert "gnp.exe" in said


@pytest.mark.parametrize("pair", ["evil/pair", "evil", "../nowhere", "a\0b", "x" * 5000, "~/x", "https://evil/x"])
def test_a_strangers_file_fetches_no_models(tmp_path, capsys, pair, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(with_fields(pair=pair, small=f"{pair}-small", policy="large"))
    assert main(["generate", "--from", "a.png"]) == 2
    said = capsys.readouterr().err
    assert "which this machine does not have; models are never downloaded because a picture names them" in said
    assert "if you trust them, add --pair" in said
