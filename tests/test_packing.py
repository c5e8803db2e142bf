"""Lists from Parquet, `metadata.jsonl`, and shards: whole or not there, written once, the same bytes each time."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace

import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

from batch_workers import full
from hybridstitch.batch import imagefolder, listing, packing, shards
from hybridstitch.batch.job import JobsError
from hybridstitch.batch.ledger import ManifestRow
from hybridstitch.batch.packing import INDEX, pack
from hybridstitch.cli import main
from hybridstitch.disk import files as disk
from test_batch import DEFAULTS, JOB, SETTING, run, some


def table(path, rows):
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    return path


# --- lists ---


def test_parquet_and_jsonl_say_the_same(tmp_path):
    rows = [
        {"prompt": "a dog, wet", "seed": 1, "size": "32", "guidance": 2.5, "levels": None, "policy": None},
        {"prompt": "a cat", "seed": None, "size": "64x32", "guidance": None, "policy": "small"},
        {"prompt": "a cow", "steps": 2, "levels": [1.0, 0.5], "policy": ""},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({k: v for k, v in row.items() if v}) for row in rows))
    columns = dict.fromkeys(name for row in rows for name in row)
    found = listing.read(table(tmp_path / "a.parquet", [{**columns, **row} for row in rows]), DEFAULTS)
    assert found.jobs == listing.read(tmp_path / "a.jsonl", DEFAULTS).jobs
    assert found.origin["file"] == "a.parquet"


def test_a_column_of_whole_numbers_with_gaps_is_read(tmp_path):
    rows = {"prompt": ["a", "b"], "seed": arrow.array([3.0, float("nan")], arrow.float64())}
    parquet.write_table(arrow.table(rows), tmp_path / "a.parquet")
    assert [job.seed for job in listing.read(tmp_path / "a.parquet", DEFAULTS).jobs] == [3, DEFAULTS.seed]


def test_parquet_that_cannot_be_meant(tmp_path):
    for rows, said in (
        ([{"promt": "a"}], r"a.parquet: there is no column 'promt'; did you mean 'prompt'\?"),
        ([{"prompt": "a"}, {"prompt": None}], "a.parquet row 2 has no prompt"),
        ([{"prompt": "a", "seed": 1.5}], "row 1: seed is 1.5"),
    ):
        with pytest.raises(JobsError, match=said):
            listing.read(table(tmp_path / "a.parquet", rows), DEFAULTS)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(JobsError, match=r"b\.parquet is not Parquet"):
        listing.read(tmp_path / "b.parquet", DEFAULTS)


# --- metadata ---


@pytest.fixture
def drawn(tmp_path):
    """Seven pictures in a folder."""
    jobs = some(*"abcdefg")
    (tmp_path / "in").mkdir()
    _, result = run(tmp_path / "in", jobs)
    imagefolder.describe(tmp_path / "in", jobs, result.done)
    return tmp_path / "in", jobs


def test_each_picture_says_what_it_shows(drawn):
    out, jobs = drawn
    lines = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(jobs)
    for line, job in zip(lines, jobs.values(), strict=True):
        assert (out / line["file_name"]).is_file()
        assert (line["text"], line["seed"], line["policy"]) == (job.prompt, job.seed, str(job.policy))
    before = (out / "metadata.jsonl").read_bytes()
    imagefolder.describe(out, jobs, run(out, jobs)[0].done)
    assert (out / "metadata.jsonl").read_bytes() == before


# --- shards ---


def packed(source, out, **options):
    out.mkdir(exist_ok=True)
    return pack(source, out, **{"to": "webdataset", "per_shard": 3, **options})


def contents(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}


def test_webdataset_shards_hold_every_picture_once(drawn, tmp_path):
    source, jobs = drawn
    result = packed(source, tmp_path / "out")
    assert [shard.pictures for shard in result.shards] == [3, 3, 1]
    keys = []
    for shard in result.shards:
        with tarfile.open(tmp_path / "out" / shard.name) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        for name, data in members.items():
            key, _, kind = name.partition(".")
            if kind == "png":
                keys.append(key)
                assert data == (source / name).read_bytes()
            elif kind == "txt":
                assert data.decode() == jobs[key].prompt
            else:
                assert json.loads(data)["seed"] == jobs[key].seed
        assert len(members) == 3 * shard.pictures
    assert keys == list(jobs)


def test_parquet_shards_hold_every_picture_once_and_are_lists_of_pictures(drawn, tmp_path, monkeypatch):
    source, jobs = drawn
    monkeypatch.setattr(shards, "ROWS", 2)
    result = packed(source, tmp_path / "out", to="parquet", per_shard=5)
    files = [parquet.ParquetFile(tmp_path / "out" / shard.name) for shard in result.shards]
    assert [file.metadata.num_row_groups for file in files] == [3, 1]
    rows = [row for file in files for row in file.read().to_pylist()]
    assert [row["id"] for row in rows] == list(jobs)
    for row, (key, job) in zip(rows, jobs.items(), strict=True):
        assert row["image"] == {"bytes": (source / f"{key}.png").read_bytes(), "path": f"{key}.png"}
        assert (row["text"], row["seed"], row["guidance"]) == (job.prompt, job.seed, job.guidance)
        assert Image.open(io.BytesIO(row["image"]["bytes"])).getpixel((0, 0)) == (job.seed, 2, 3)
    features = json.loads(files[0].schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert set(features) == set(files[0].schema_arrow.names)


@pytest.mark.parametrize("to", shards.FORMATS)
def test_a_pack_that_is_killed_goes_on_and_gives_the_same_bytes(to, drawn, tmp_path, monkeypatch):
    source, _ = drawn
    packed(source, tmp_path / "whole", to=to)
    whole = contents(tmp_path / "whole")

    def stop(done, count):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(source, tmp_path / "out", to=to, on_shard=stop)
    names = sorted(path.name for path in (tmp_path / "out").glob("pictures-*"))
    assert names == sorted(name for name in whole if name != INDEX)[:2]
    (tmp_path / "out" / f".{names[0]}.0123.part").write_text("half")
    again = packed(source, tmp_path / "out", to=to)
    assert again.written == 1
    assert contents(tmp_path / "out") == whole
    assert packed(source, tmp_path / "out", to=to).written == 0

    (tmp_path / "out" / INDEX).unlink()  # nobody knows what they are
    assert packed(source, tmp_path / "out", to=to).written == 3
    (tmp_path / "out" / names[1]).write_bytes(b"torn")
    assert packed(source, tmp_path / "out", to=to).written == 1
    assert contents(tmp_path / "out") == whole


def test_another_list_makes_other_shards_and_leaves_none_of_before(drawn, tmp_path):
    source, _ = drawn
    packed(source, tmp_path / "out")
    result = packed(source, tmp_path / "out", per_shard=4)
    assert {path.name for path in (tmp_path / "out").glob("pictures-*")} == {shard.name for shard in result.shards}
    run(source, some(*"abcdefgh"))
    assert packed(source, tmp_path / "out", per_shard=4).written == 1  # the first holds the same four


def test_a_full_disk_leaves_no_half_of_a_shard(drawn, tmp_path, monkeypatch):
    source, _ = drawn
    out = tmp_path / "out"
    packed(source, out)
    before = contents(out)
    monkeypatch.setattr(disk, "settle", lambda file: full(file, b""))
    with pytest.raises(OSError, match="No space left"):
        packed(source, out, per_shard=2)
    assert contents(out) == before


def test_missing_and_damaged_pictures_are_refused(drawn, tmp_path):
    source, jobs = drawn
    first, second, *_ = jobs
    (source / f"{first}.png").unlink()
    with pytest.raises(JobsError, match=r"1 of 7 pictures are not in .*; draw them .* or say --without-missing"):
        packed(source, tmp_path / "out")
    result = packed(source, tmp_path / "out", without_missing=True, per_shard=1, to="parquet")
    assert (result.missing, [shard.pictures for shard in result.shards]) == (1, [0, *[1] * 6])
    assert parquet.read_table(tmp_path / "out" / result.shards[0].name).num_rows == 0
    (source / f"{second}.png").write_bytes(b"torn")
    with pytest.raises(JobsError, match="is not what was drawn; run the command that drew it with --verify"):
        packed(source, tmp_path / "out2", without_missing=True)
    with pytest.raises(JobsError, match="is no folder of `hybridstitch batch`"):
        packed(tmp_path / "out", tmp_path / "out2")


def test_videos_are_packed_with_their_middle_frame(drawn, tmp_path):
    source, _ = drawn
    job = replace(JOB, frames=5, fps=8.0)
    key = SETTING.id_of(job)
    rows = [{"id": key, "file_name": f"{key}.webp", **job.to_json()}]
    (source / "jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (source / f"{key}.webp").write_bytes(b"moving")
    (source / f"{key}.png").write_bytes(b"still")
    digest = imagefolder.facts(row := video_row(key, job), job.to_json())
    (source / "manifest" / "9.jsonl").write_bytes(row.line())
    for to in shards.FORMATS:
        packed(source, tmp_path / to, to=to)
    with tarfile.open(tmp_path / "webdataset" / "pictures-00000-of-00001.tar") as tar:
        assert tar.getnames() == [f"{key}.{kind}" for kind in ("webp", "png", "txt", "json")]
    (found,) = parquet.read_table(tmp_path / "parquet" / "pictures-00000-of-00001.parquet").to_pylist()
    assert found["video"] == {"bytes": b"moving", "path": f"{key}.webp"}
    assert (found["frames"], found["fps"], found["sha256"]) == (5, 8.0, digest["sha256"])


def video_row(key, job):
    digest = hashlib.sha256(b"moving").hexdigest()
    return ManifestRow(id=key, status="done", job=job.to_json(), setting="", file=f"{key}.webp", sha256=digest)


def test_the_command(drawn, tmp_path, capsys):
    source, _ = drawn
    words = ["pack", str(source), "--out", str(tmp_path / "out"), "--per-shard", "4"]
    assert main(words) == 0
    assert capsys.readouterr().out.rstrip().endswith("7 pictures in 2 shards, 2 written, 0 were there")
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["written"], [shard["pictures"] for shard in said["shards"]]) == (0, [4, 3])
    for wrong, line in (
        (["--to", "parket"], "--to parket was given; did you mean 'parquet'?"),
        (["--out", str(source)], "is the folder of the pictures; choose another"),
    ):
        assert main([*words, *wrong]) == 2
        assert line in capsys.readouterr().err
    assert packing.PER_SHARD == 1000
