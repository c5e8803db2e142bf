"""Batches without models: lists of jobs, ids, manifests, and who does the work."""

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from batch_workers import POINTS, Flat, full, torn
from hybridstitch.batch import folder, ledger, listing
from hybridstitch.batch.drawing import TRIES, alike, draw_all, together
from hybridstitch.batch.estimate import Kind, Sample, earlier, predict, unknown
from hybridstitch.batch.executor import Here, local, processes_at
from hybridstitch.batch.job import BatchSetting, Job, JobsError, WorkError, id_of
from hybridstitch.batch.work import Attempt, Desk
from hybridstitch.disk import files as disk
from hybridstitch.disk.lock import alone
from hybridstitch.errors import BusyError, StitchWarning
from hybridstitch.policies.methods import HybridStitch, LargeOnly
from hybridstitch.policies.parse import parse
from hybridstitch.policies.presets import preset
from hybridstitch.policies.reuse import Reuse
from hybridstitch.report.metadata import PACKAGES
from hybridstitch.report.picture import read

JOB = Job(prompt="a dog", seed=1, width=32, height=16, steps=5, guidance=4.0, policy=HybridStitch())
LEVELLED = replace(JOB, steps=3, levels=(1.0, 0.6, 0.2))
SETTING = BatchSetting(
    pair="mini",
    small=None,
    models={"large": "files 0123"},
    device="cpu",
    dtype="float32",
    versions={"python": "3", "machine": "x", **dict.fromkeys(PACKAGES, "1")},
)
DEFAULTS = listing.Defaults(negative="", seed=7, size=(64, 64), steps=5, guidance=4.0, policy=LargeOnly())


def desks(out, *devices):
    return [
        Desk(out=out, setting=SETTING, device=device, open=Flat(out), modules=("hybridstitch.report.takes",))
        for device in devices or ("cpu",)
    ]


def some(*prompts):
    jobs = [replace(JOB, prompt=prompt, seed=seed) for seed, prompt in enumerate(prompts)]
    return {SETTING.id_of(job): job for job in jobs}


def run(out, jobs, executor=None, verify=False):
    """What `hybridstitch batch` does, without its words."""
    found = folder.look(out, jobs, SETTING, verify=verify)
    folder.begin(out, jobs, SETTING, {}, found)
    left = {key: job for key, job in jobs.items() if key not in found.done}
    return found, draw_all(left, executor or Here(desks(out)[0]), lambda outcome: None)


def check(out, jobs):
    """Every picture is there once and whole, with a row that says so."""
    assert {path.name for path in out.glob("*.png")} == {folder.name_of(key) for key in jobs}
    assert list(out.glob(".*.part")) == []
    rows, _ = ledger.read(out)
    done = Counter(row.id for row in rows if row.status == "done")
    assert done == dict.fromkeys(jobs, 1)
    for row in rows:
        if row.status == "done":
            assert hashlib.sha256((out / row.file).read_bytes()).hexdigest() == row.sha256
    for key, job in jobs.items():
        with Image.open(out / folder.name_of(key)) as image:
            assert image.convert("RGB").getpixel((0, 0)) == (job.seed, 2, 3)


# --- ids ---

OTHERS = {
    "prompt": "a cat",
    "negative": "rain",
    "seed": 2,
    "width": 64,
    "height": 32,
    "steps": 6,
    "guidance": 1.0,
    "policy": HybridStitch(masks=(0.2,)),
    "shift": 5.0,
    "levels": (1.0, 0.6, 0.2),
}


@pytest.mark.parametrize("field", OTHERS)
def test_whatever_decides_the_picture_decides_the_id(field):
    assert SETTING.id_of(replace(JOB, **{field: OTHERS[field]})) != SETTING.id_of(JOB)


def test_ids_of_before_there_were_shifts_are_those_of_today():
    assert SETTING.id_of(JOB) == "8c52720ca21f5d868c40ea2d1f463ee510223eef990a75cdf7a03255c249d2b5"
    program = replace(JOB, policy=parse("L2 H@0.3 S"), negative="rain", guidance=1)
    assert SETTING.id_of(program) == "0f3d6d1119508593f0cecf9cf95cf3cca4d97f438629421700c45d72810c1ff3"


def test_a_wrapped_policy_decides_the_id_with_all_its_fields():
    policies = (Reuse(JOB.policy), Reuse(JOB.policy, bound=0.1), Reuse(HybridStitch(masks=(0.2,))), Reuse(LargeOnly()))
    assert len({SETTING.id_of(replace(JOB, policy=policy)) for policy in (JOB.policy, *policies)}) == 5


def test_where_a_job_comes_from_and_how_its_guidance_is_written_decide_nothing():
    assert SETTING.id_of(replace(JOB, source={"image_id": 1}, guidance=4)) == SETTING.id_of(JOB)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"models": {"large": "files 4567"}}, False),
        ({"device": "cuda"}, False),
        ({"dtype": "bfloat16"}, False),
        ({"kv": "float8"}, False),
        ({"versions": {**SETTING.versions, "torch": "2"}}, False),
        ({"versions": {**SETTING.versions, "python": "4"}}, True),
        ({"pair": "/another/place/of/the/same/files"}, True),
    ],
)
def test_the_setting_decides_too(change, same):
    assert (replace(SETTING, **change).id_of(JOB) == SETTING.id_of(JOB)) is same


def test_of_hub_ids_name_and_revision_decide():
    hub = replace(SETTING, pair="a/large", small="a/small", models={"large": "revision 1", "small": "revision 1"})
    ids = {s.id_of(JOB) for s in (hub, replace(hub, pair="b/large"), replace(hub, small="b/small"))}
    ids.add(replace(hub, models={"large": "revision 1", "small": "revision 2"}).id_of(JOB))
    assert len(ids) == 4


def test_a_picture_tells_the_id_of_its_job(tmp_path):
    wrapped = replace(JOB, policy=Reuse(HybridStitch(masks=(0.2,)), bound=0.1))
    for job in (JOB, replace(JOB, shift=5), wrapped, replace(wrapped, shift=2.5), LEVELLED):
        key = SETTING.id_of(job)
        run(tmp_path, {key: job})
        assert id_of(read(tmp_path / folder.name_of(key))) == key
        (row,) = [row for row in ledger.read(tmp_path)[0] if row.id == key]
        assert row.job.get("shift") == job.shift
        assert row.job.get("levels") == (None if job.levels is None else [*job.levels])


def test_a_picture_with_rounded_keys_and_values_tells_its_id_and_says_so_in_a_folder(tmp_path):
    rounded = replace(SETTING, kv="float8")
    desk = Desk(out=tmp_path, setting=rounded, device="cpu", open=Flat(tmp_path))
    key = rounded.id_of(JOB)
    folder.begin(tmp_path, {key: JOB}, rounded, {}, folder.look(tmp_path, {key: JOB}, rounded, verify=False))
    draw_all({key: JOB}, Here(desk), lambda outcome: None)
    assert id_of(read(tmp_path / folder.name_of(key))) == key
    assert folder.apart(tmp_path, SETTING) == ["kv float8, now None"]
    before = folder.look(tmp_path, {SETTING.id_of(JOB): JOB}, SETTING, verify=True)
    assert not before.done


# --- lists ---


def listed(tmp_path, text, name="jobs.jsonl", **sample):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return listing.read(path, DEFAULTS, **sample)


def test_a_row_says_what_differs_from_the_defaults(tmp_path):
    row = {"prompt": "a dog", "size": "64x32", "seed": 3, "steps": 4, "guidance": 1, "policy": "L S*", "negative": "x"}
    first, second = listed(tmp_path, f'{{"prompt": "a cat", "seed": null}}\n\n{json.dumps(row)}\n').jobs
    assert (first.prompt, first.seed, first.width, first.policy) == ("a cat", 7, 64, LargeOnly())
    assert (second.width, second.height, second.seed, second.steps, second.guidance) == (64, 32, 3, 4, 1.0)
    assert (str(second.policy), second.negative) == ("schedule:program=L S*", "x")


def test_a_row_takes_the_steps_and_levels_of_its_preset_along_unless_it_says_otherwise(tmp_path):
    rows = [{}, {"steps": 7}, {"shift": 2}, {"steps": None, "shift": None}]
    text = "\n".join(json.dumps({"prompt": "a dog", "policy": "mini-few-4", **row}) for row in rows)
    jobs = listed(tmp_path, text).jobs
    assert [(job.steps, job.shift) for job in jobs] == [(7, 5.0), (7, 5.0), (7, 2.0), (7, 5.0)]
    assert {job.policy for job in jobs} == {preset("mini-few-4").policy}
    table = "prompt,policy,steps,shift\na dog,mini-few-4,,\na dog,mini-few-4,7,\na dog,mini-few-4,,2\n"
    assert listed(tmp_path, table, "jobs.csv").jobs == jobs[:3]
    with pytest.raises(JobsError, match="fills 7 steps, this run has 8"):
        listed(tmp_path, '{"prompt": "a dog", "policy": "mini-few-4", "steps": 8}')


def test_the_levels_of_the_command_line_belong_to_its_policy(tmp_path):
    shifted = replace(DEFAULTS, shift=5.0)
    path = tmp_path / "jobs.jsonl"
    path.write_text('{"prompt": "a dog"}\n{"prompt": "a dog", "policy": "small"}')
    assert [job.shift for job in listing.read(path, shifted).jobs] == [5.0, None]
    (tmp_path / "c.json").write_text(json.dumps(CAPTIONS))
    assert {job.shift for job in listing.read(tmp_path / "c.json", shifted).jobs} == {5.0}


def test_a_row_s_free_levels_are_a_list_or_text_and_belong_to_its_steps(tmp_path):
    levels = (1.0, 0.75, 0.5)
    rows = [{}, {"steps": 2}, {"policy": "small"}, {"shift": 2}, {"steps": 2, "levels": [1, 0.4]}]
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": "a dog", **row}) for row in rows))
    jobs = listing.read(path, replace(DEFAULTS, steps=3, levels=levels)).jobs
    assert [job.levels for job in jobs] == [levels, None, None, None, (1.0, 0.4)]
    (job,) = listed(tmp_path, "prompt,steps,levels\na dog,3,1 .75 .5\n", "jobs.csv").jobs
    assert (job.levels, job.shift) == (levels, None)


def test_csv_and_jsonl_say_the_same(tmp_path):
    rows = '{"prompt": "a dog, wet", "seed": 1, "size": 32}\n{"prompt": "a cat", "policy": "small"}\n'
    table = 'prompt,seed,size,policy\r\n"a dog, wet",1,32,\r\na cat,,,small\r\n'
    assert listed(tmp_path, table, "jobs.csv").jobs == listed(tmp_path, rows).jobs


BAD = {
    "empty": ("", "holds no job"),
    "no JSON": ('{"prompt": "a"}\n{"prompt"\n', "jobs.jsonl line 2 is not JSON"),
    "no object": ('["a"]', "line 1 is no object"),
    "unknown column": ('{"promt": "a"}', "line 1: there is no column 'promt'; did you mean 'prompt'?"),
    "no prompt": ('{"seed": 1}', "line 1 has no prompt"),
    "prompt no text": ('{"prompt": 3}', "prompt is 3; it must be text"),
    "seed": ('{"prompt": "a", "seed": -1}', "seed is -1; it must be a whole number of at least 0"),
    "steps": ('{"prompt": "a", "steps": true}', "steps is True"),
    "size": ('{"prompt": "a", "size": "big"}', "size is 'big'"),
    "guidance": ('{"prompt": "a", "guidance": "high"}', "guidance is 'high'"),
    "shift": ('{"prompt": "a", "shift": 0}', "shift is 0; it must be a number above 0"),
    "levels": ('{"prompt": "a", "levels": 1}', "levels is 1; it must be a list of numbers, one for each step"),
    "levels of text": ('{"prompt": "a", "steps": 1, "levels": ["x"]}', "levels is 'x'; it must be a number"),
    "levels of other steps": ('{"prompt": "a", "steps": 3, "levels": [1, 0.5]}', "2 noise levels were given for 3"),
    "shift and levels": ('{"prompt": "a", "steps": 1, "shift": 1, "levels": [1]}', "give one of the two"),
    "policy": (
        '{"prompt": "a", "policy": "lage"}',
        "line 1: there is no preset or policy 'lage'; did you mean 'large'?",
    ),
    "too few steps": ('{"prompt": "a", "policy": "hybrid-stitch", "steps": 2}', "line 1: hybrid-stitch decides"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_list_that_cannot_be_meant(case, tmp_path):
    text, said = BAD[case]
    with pytest.raises(JobsError) as error:
        listed(tmp_path, text)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("jobs.csv", "prompt,sed\na,1\n", "line 1: there is no column 'sed'; did you mean 'seed'?"),
        ("jobs.csv", "prompt,seed\na,1,2\n", "line 2 has more cells than there are columns"),
        ("jobs.csv", 'prompt\n"a\n', "is not CSV"),
        ("jobs.jsnl", "", "is no list of jobs: did you mean '.jsonl'?"),
        ("c.json", "{", "c.json is not JSON (line 1"),
        ("c.json", '{"images": []}', "is no captions file: it has no list 'annotations'"),
        ("c.json", '{"annotations": [{"id": 1, "image_id": 2, "bbox": []}]}', "annotation 0 is no caption"),
        ("c.json", '{"annotations": []}', "holds no job"),
    ],
)
def test_other_files_that_cannot_be_meant(name, text, said, tmp_path):
    with pytest.raises(JobsError) as error:
        listed(tmp_path, text, name)
    assert said in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(JobsError, match="there is no file"):
        listing.read(tmp_path / "none.csv", DEFAULTS)
    (tmp_path / "latin.csv").write_bytes(b"prompt\ncaf\xe9\n")
    with pytest.raises(JobsError, match="is not UTF-8"):
        listing.read(tmp_path / "latin.csv", DEFAULTS)
    with pytest.raises(JobsError, match="it samples a captions file"):
        listed(tmp_path, '{"prompt": "a"}', n=1)


CAPTIONS = {
    "info": {},
    "images": [{"id": image} for image in range(10)],
    "annotations": [
        {"id": 100 + k, "image_id": k % 10, "caption": f" Caption {k // 10} of\n image {k % 10}. "} for k in range(50)
    ],
}


def test_a_sample_of_captions(tmp_path):
    text = json.dumps(CAPTIONS)
    every = listed(tmp_path, text, "captions_val2014.json")
    assert len(every.jobs) == 10
    assert every.origin == {
        "file": "captions_val2014.json",
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "captions_seed": 0,
        "n": 10,
    }
    assert {job.source["image_id"] for job in every.jobs} == set(range(10))
    assert [job.seed for job in every.jobs] == list(range(7, 17))
    by_id = {note["id"]: note for note in CAPTIONS["annotations"]}
    for job in every.jobs:
        note = by_id[job.source["caption_id"]]
        assert note["image_id"] == job.source["image_id"]
        assert job.prompt == " ".join(note["caption"].split())
    few = listed(tmp_path, text, "c.json", n=4)
    assert few.jobs == every.jobs[:4]
    shuffled = {**CAPTIONS, "annotations": CAPTIONS["annotations"][::-1]}
    assert listed(tmp_path, json.dumps(shuffled), "c.json", n=4).jobs == few.jobs
    assert listed(tmp_path, text, "c.json", n=4, captions_seed=1).jobs != few.jobs
    with pytest.raises(JobsError, match=r"--n 11 was given; .* has captions of 10 images"):
        listed(tmp_path, text, "c.json", n=11)


# --- what is there ---


def test_a_second_run_draws_nothing(tmp_path):
    jobs = some("a", "b", "c")
    _, drawn = run(tmp_path, jobs)
    assert list(drawn.done) == list(jobs)
    found, drawn = run(tmp_path, jobs, verify=True)
    assert (set(found.done), dict(drawn.done)) == (set(jobs), {})
    check(tmp_path, jobs)
    lines = [json.loads(line) for line in (tmp_path / "jobs.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == list(jobs)
    assert [line["prompt"] for line in lines] == ["a", "b", "c"]


def test_a_damaged_picture_is_drawn_again(tmp_path):
    first, second, third = jobs = some("a", "b", "c")
    run(tmp_path, jobs)
    before = {key: (tmp_path / folder.name_of(key)).read_bytes() for key in jobs}
    flipped = bytearray(before[first])
    flipped[-30] ^= 1  # same size
    (tmp_path / folder.name_of(first)).write_bytes(flipped)
    (tmp_path / folder.name_of(second)).write_bytes(before[second][:-9])
    (tmp_path / folder.name_of(third)).unlink()
    found = folder.look(tmp_path, jobs, SETTING, verify=False)
    assert (set(found.done), set(found.broken)) == ({first}, {second, third})
    found, drawn = run(tmp_path, jobs, verify=True)
    assert found.broken == {first: "is not what was drawn", second: "is not what was drawn", third: "is gone"}
    assert set(drawn.done) == set(jobs)
    assert {key: (tmp_path / folder.name_of(key)).read_bytes() for key in jobs} == before


def test_a_picture_of_another_job_is_no_picture_of_this_one(tmp_path):
    jobs = some("a")
    run(tmp_path, jobs)
    (mine,) = jobs
    (other,) = some("b")
    (tmp_path / folder.name_of(mine)).rename(tmp_path / folder.name_of(other))
    assert folder.look(tmp_path, some("b"), SETTING, verify=False).broken == {other: "is not what was drawn"}


def hostile(key, **changes):
    """A PNG in the place of a job's picture that says something strange of how it was drawn."""
    info = PngInfo()
    recipe = {"version": 1, "models": {}, "seed": 1, "steps": 5, "width": 32, "height": 16, "guidance": 4.0}
    recipe |= dict.fromkeys(("prompt", "pair", "policy", "device", "dtype", "trace", "pixels"), "large")
    info.add_text("hybridstitch", changes.get("text") or json.dumps({**recipe, "versions": {}, **changes}))
    file = io.BytesIO()
    Image.new("RGB", (32, 16)).save(file, format="PNG", pnginfo=info)
    return file.getvalue()


STRANGE = {
    "policy": {"policy": "no-such-policy:x=1"},
    "policy no text": {"policy": 3},
    "options": {"policy": "hybrid-stitch:masks=x"},
    "models": {"models": ["large"]},
    "versions": {"versions": 4},
    "guidance": {"guidance": "high"},
    "huge": {"guidance": 10**400},
    "deep": {"text": "[" * 100_000},
}


@pytest.mark.parametrize("case", STRANGE)
def test_a_strange_picture_in_the_place_of_one_is_drawn_again(case, tmp_path):
    first, second = jobs = some("a", "b")
    (tmp_path / folder.name_of(first)).write_bytes(hostile(first, **STRANGE[case]))
    found, drawn = run(tmp_path, jobs)
    assert (found.broken, set(drawn.done)) == ({first: "is not what was drawn"}, {first, second})
    check(tmp_path, jobs)


def test_pictures_speak_for_themselves_when_the_manifest_is_lost(tmp_path):
    jobs = some("a", "b")
    run(tmp_path, jobs)
    for shard in (tmp_path / ledger.FOLDER).iterdir():
        shard.unlink()
    found, drawn = run(tmp_path, jobs)
    assert len(found.unlisted) == 2
    assert not drawn.done
    check(tmp_path, jobs)


def test_torn_and_damaged_lines(tmp_path):
    jobs = some("a")
    torn(tmp_path)
    run(tmp_path, jobs)
    assert ledger.read(tmp_path)[1] == 0
    torn(tmp_path, b'nonsense\n[1]\n{"id": "x"}\n{"id": "ab')
    rows, damaged = ledger.read(tmp_path)
    assert ([row.id for row in rows], damaged) == (list(jobs), 3)


def test_two_batches_do_not_share_a_folder(tmp_path):
    with (
        alone(tmp_path, "another batch"),
        pytest.raises(BusyError, match="another batch is drawing"),
        alone(tmp_path, "another batch"),
    ):
        pass
    with alone(tmp_path, "another batch"):
        pass


def test_another_setting_draws_other_pictures_and_says_so(tmp_path):
    assert folder.apart(tmp_path, SETTING) == []
    run(tmp_path, some("a"))
    assert folder.apart(tmp_path, SETTING) == []
    newer = replace(SETTING, dtype="bfloat16", versions={**SETTING.versions, "torch": "2", "python": "4"})
    assert folder.apart(tmp_path, newer) == ["dtype float32, now bfloat16", "torch 1, now 2"]
    assert folder.apart(tmp_path, replace(SETTING, models={"large": "files 4"})) == ["large files 0123, now files 4"]
    (tmp_path / "batch.json").write_text("[]")
    assert folder.apart(tmp_path, newer) == []


# --- errors ---


def test_a_job_that_fails_is_tried_again_when_all_others_had_their_turn(tmp_path):
    jobs = some("fails", "b", "fails always")
    heard = []
    found = folder.look(tmp_path, jobs, SETTING, verify=False)
    folder.begin(tmp_path, jobs, SETTING, {}, found)
    drawn = draw_all(jobs, Here(desks(tmp_path)[0]), heard.append)
    tries = [(o.attempt.job.prompt, o.row.attempts, o.row.status) for o in heard]
    assert tries[:3] == [("fails", 1, "error"), ("b", 1, "done"), ("fails always", 1, "error")]
    assert tries[3:5] == [("fails", 2, "done"), ("fails always", 2, "error")]
    assert tries[5:] == [("fails always", 3, "error")]
    (row,) = drawn.failed.values()
    assert (row.error_class, row.message, row.attempts) == ("ValueError", "a bad day", TRIES)
    rows, _ = ledger.read(tmp_path)
    assert Counter(row.status for row in rows) == {"error": 4, "done": 2}


def test_a_full_disk_ends_the_batch_and_keeps_what_is_there(tmp_path, monkeypatch):
    jobs = some("a", "b", "c")
    first, second, _ = jobs
    run(tmp_path, {first: jobs[first]})
    pour = disk.pour
    monkeypatch.setattr(disk, "pour", lambda file, data: (full if bytes(data[:4]) == b"\x89PNG" else pour)(file, data))
    found, drawn = run(tmp_path, jobs)
    assert set(found.done) == {first}
    assert drawn.hopeless == f"{tmp_path} takes no more pictures (No space left on device)"
    assert set(drawn.failed) == {second}
    assert [row.error_class for row in ledger.read(tmp_path)[0]] == [None, "OSError"]
    monkeypatch.undo()
    _, drawn = run(tmp_path, jobs)
    assert len(drawn.done) == 2
    check(tmp_path, jobs)


def test_a_row_that_cannot_be_written_costs_a_try_and_tears_no_other(tmp_path, monkeypatch):
    jobs = some("a", "b")
    append, calls = disk.append, []

    def halfway(file, line):
        calls.append(line)
        append(file, line[:20] if len(calls) == 1 else line)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk, "append", halfway)
    _, drawn = run(tmp_path, jobs)
    assert set(drawn.done) == set(jobs)
    assert ledger.read(tmp_path)[1] == 0
    check(tmp_path, jobs)


# --- several in one call ---


def calls(folder):
    return [line.split(",") for line in (folder / "calls").read_text().splitlines()]


def test_jobs_that_are_alike_are_put_together():
    other = [
        {"policy": LargeOnly()},
        {"shift": 5.0},
        {"levels": (1.0, 0.8, 0.6, 0.4, 0.2)},
        {"width": 64},
        {"steps": 6},
        {"guidance": 1.0},
    ]
    jobs = [replace(JOB, seed=seed, **change) for change in ({}, *other) for seed in range(3)]
    attempts = [Attempt(id=str(place), job=job) for place, job in enumerate(jobs)]
    for most in (1, 2, 3, 8):
        groups = together(attempts, most)
        assert sorted(int(attempt.id) for group in groups for attempt in group) == list(range(len(jobs)))
        assert max(map(len, groups)) == min(most, 3)
        assert all(len({alike(attempt.job) for attempt in group}) == 1 for group in groups)
    assert together(attempts, 1) == [[attempt] for attempt in attempts]
    different = [replace(JOB, prompt="b", negative="c", seed=9, source={"image_id": 1}), JOB]
    assert len({alike(job) for job in different}) == 1


def test_a_call_of_several_that_fails_is_drawn_one_by_one(tmp_path):
    jobs = some("a", "fails in company", "c", "fails always", "e", "f")
    found = folder.look(tmp_path, jobs, SETTING, verify=False)
    folder.begin(tmp_path, jobs, SETTING, {}, found)
    drawn = draw_all(jobs, Here(desks(tmp_path)[0]), lambda outcome: None, images_per_call=3)
    assert [jobs[key].prompt for key in drawn.failed] == ["fails always"]
    assert calls(tmp_path)[:4] == [["a", "fails in company", "c"], ["a"], ["fails in company"], ["c"]]
    assert calls(tmp_path)[4:8] == [["fails always", "e", "f"], ["fails always"], ["e"], ["f"]]
    check(tmp_path, {key: jobs[key] for key in drawn.done})
    assert {row.attempts for row in drawn.done.values()} == {1}


def test_a_process_killed_over_several_costs_no_job_a_try_but_its_own(tmp_path):
    jobs = some("a", "dies in company", "c", "dies always")
    found = folder.look(tmp_path, jobs, SETTING, verify=False)
    folder.begin(tmp_path, jobs, SETTING, {}, found)
    drawn = draw_all(jobs, processes_at(desks(tmp_path, "cpu")), lambda outcome: None, images_per_call=4)
    assert {jobs[key].prompt: row.attempts for key, row in drawn.done.items()} == dict.fromkeys(
        ("a", "dies in company", "c"), 1
    )
    assert [(jobs[key].prompt, row.attempts) for key, row in drawn.failed.items()] == [("dies always", TRIES)]


# --- devices that are lost ---


@pytest.mark.parametrize("how", ["loses", "loses in words"])
def test_a_lost_device_costs_its_worker_and_no_job_a_try(how, tmp_path):
    jobs = some("a", how, "c")
    _, drawn = run(tmp_path, jobs, processes_at(desks(tmp_path, "cpu")))
    assert {row.attempts for row in drawn.done.values()} == {1}
    assert set(drawn.done) == set(jobs)
    check(tmp_path, jobs)
    (row,) = [row for row in ledger.read(tmp_path)[0] if row.status == "error"]
    assert (row.error_class, row.attempts) == ("DeviceLost", 1)
    assert "CUDA error: " in row.message
    assert "advice" not in row.message


def test_a_job_in_whose_hands_every_device_is_lost_is_given_up(tmp_path):
    jobs = some("a", "loses always", "c")
    _, drawn = run(tmp_path, jobs, processes_at(desks(tmp_path, "cpu")))
    assert [jobs[key].prompt for key in drawn.failed] == ["loses always"]
    assert len(drawn.done) == 2
    assert calls(tmp_path).count(["loses always"]) == TRIES


def test_a_device_lost_in_this_process_ends_the_batch_and_the_next_goes_on(tmp_path):
    jobs = some("a", "loses", "c")
    _, drawn = run(tmp_path, jobs)
    assert ([jobs[key].prompt for key in drawn.done], len(drawn.failed)) == (["a"], 1)
    assert "CUDA error: an illegal memory access" in drawn.hopeless
    _, drawn = run(tmp_path, jobs)
    assert len(drawn.done) == 2
    check(tmp_path, jobs)


def test_a_lack_of_memory_is_an_error_like_others(tmp_path):
    jobs = some("has no room", "b")
    _, drawn = run(tmp_path, jobs)
    assert sorted(row.attempts for row in drawn.done.values()) == [1, 2]


# --- processes ---


@pytest.mark.parametrize("point", [point for point in POINTS if "list" not in point])
def test_a_worker_killed_at_a_write_loses_and_doubles_nothing(point, tmp_path):
    jobs = some("a", point, "c", "d")
    worker = processes_at(desks(tmp_path, "cpu"))
    _, drawn = run(tmp_path, jobs, worker)
    assert set(drawn.done) == set(jobs)
    rows, _ = ledger.read(tmp_path)
    (died,) = [row for row in rows if row.status == "error"]
    assert (died.error_class, died.message) == ("WorkerDied", "the process that drew it ended with signal SIGKILL")
    found, drawn = run(tmp_path, jobs, verify=True)
    assert set(found.done) == set(jobs)
    assert {path.name for path in tmp_path.glob("*.png")} == {folder.name_of(key) for key in jobs}
    assert list(tmp_path.glob(".*.part")) == []


def test_several_processes(tmp_path):
    jobs = some("a", "dies", "c", "fails", "e", "dies always")
    _, drawn = run(tmp_path, jobs, local(desks(tmp_path, "one", "two")))
    assert [jobs[key].prompt for key in drawn.failed] == ["dies always"]
    assert len(drawn.done) == 5
    (row,) = drawn.failed.values()
    assert (row.error_class, row.attempts) == ("WorkerDied", TRIES)
    check(tmp_path, {key: jobs[key] for key in drawn.done})
    shards = {row.device for row in ledger.read(tmp_path)[0]}
    assert shards <= {"one", "two"}


def test_workers_end_when_their_caller_is_killed(tmp_path):
    jobs = some(*["slow"] * 20)
    code = f"from batch_workers import caller; from pathlib import Path; caller(Path({str(tmp_path)!r}), ['a', 'b'])"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    soon = time.monotonic() + 60
    begun = ("*.png", 4), ("pid-*", 2)  # one worker may draw before the other has opened its pair
    while any(len(list(tmp_path.glob(what))) < least for what, least in begun) and time.monotonic() < soon:
        time.sleep(0.02)
    process.kill()
    process.wait()
    pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    assert len(pids) == 2
    _, drawn = run(tmp_path, jobs)  # at once, while they finish what they have in hand
    assert 0 < len(drawn.done) < 20
    assert not drawn.failed
    while any(map(alive, pids)) and time.monotonic() < soon:
        time.sleep(0.02)
    assert not any(map(alive, pids))
    found, _ = run(tmp_path, jobs, verify=True)
    assert set(found.done) == set(jobs)
    assert {path.name for path in tmp_path.glob("*.png")} == {folder.name_of(key) for key in jobs}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("nowhere", "cannot open the pair: RuntimeError: no such device"),
        ("deadly", r"died \(signal SIGKILL\) before it had opened the pair"),
    ],
)
def test_a_worker_that_does_not_come_up(device, said, tmp_path):
    with pytest.raises(WorkError, match=said):
        run(tmp_path, some("a", "b"), processes_at(desks(tmp_path, device)))


def test_a_worker_that_does_not_come_up_leaves_the_work_to_others(tmp_path):
    jobs = some("waits for nowhere", "b", "c", "d")
    with pytest.warns(StitchWarning, match="the worker on nowhere cannot open the pair: .*the others go on"):
        _, drawn = run(tmp_path, jobs, processes_at(desks(tmp_path, "nowhere", "cpu")))
    assert set(drawn.done) == set(jobs)
    check(tmp_path, jobs)


def test_a_worker_that_does_not_come_up_again_leaves_the_work_to_others(tmp_path):
    jobs = some("dies", "dies", "slow", "slow", "slow", "slow", "slow", "slow")
    with pytest.warns(StitchWarning, match="the worker on once cannot open the pair: .*no such device any more"):
        _, drawn = run(tmp_path, jobs, processes_at(desks(tmp_path, "once", "cpu")))
    assert set(drawn.done) == set(jobs)


def test_where_nobody_comes_up_again_the_batch_ends(tmp_path):
    with pytest.raises(WorkError, match="the worker on once cannot open the pair"):
        run(tmp_path, some("dies", "b"), processes_at(desks(tmp_path, "once")))


# --- time and disk ---


def test_an_estimate_rests_on_pictures_of_the_same_kind():
    large = replace(JOB, policy=LargeOnly())
    jobs = [large, replace(large, seed=2), JOB]
    samples = [Sample(Kind.of(large.to_json()), seconds, 100) for seconds in (1.0, 2.0, 9.0)]
    assert unknown(jobs, samples) == [JOB]
    samples += [Sample(Kind.of(JOB.to_json()), 5.0, 50)]
    found = predict(jobs, samples, devices=2)
    assert (found.seconds, found.bytes, found.guessed) == ((2 * 2.0 + 5.0) / 2, 250, 0)
    double = replace(large, width=64, steps=10)
    guess = predict([double], samples[:3], devices=1)
    assert (guess.seconds, guess.bytes, guess.guessed) == (pytest.approx(8.0), 200, 1)
    assert predict([], [], devices=1).seconds == 0


def test_earlier_rows_of_the_same_setting_are_samples(tmp_path):
    run(tmp_path, some("a", "fails always"))
    rows, _ = ledger.read(tmp_path)
    (sample,) = earlier(rows, SETTING.digest)
    assert (sample.kind, sample.seconds) == (Kind.of(JOB.to_json()), 0.5)
    assert earlier(rows, "another") == []


def test_an_attempt_is_what_travels(tmp_path):
    import pickle

    attempt = Attempt(id=SETTING.id_of(JOB), job=JOB)
    assert pickle.loads(pickle.dumps(attempt)) == attempt
    assert pickle.loads(pickle.dumps(desks(Path("x"))[0])).setting == SETTING
