"""`hybridstitch batch` on an untrained pair: killed at every write and resumed, refused, predicted."""

import json
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from batch_workers import POINTS, command_line, full
from hybridstitch.batch import ledger
from hybridstitch.batch.job import Job
from hybridstitch.cli import main
from hybridstitch.cli.asked import BadInput
from hybridstitch.cli.batch_input import limits_of
from hybridstitch.cli.batch_studio import JobStudio
from hybridstitch.cli.pairs import Pair
from hybridstitch.disk import files as disk
from hybridstitch.drawing.engine import Engine
from hybridstitch.mini import opened
from hybridstitch.policies.methods import LargeOnly
from hybridstitch.policies.presets import policy_named
from hybridstitch.report.picture import read

JOBS = (
    '{"prompt": "a big dog on a meadow", "seed": 1}',
    '{"prompt": "a big dog on a meadow", "seed": 2}',
    '{"prompt": "a small cat", "policy": "L2 H@0.3 S", "steps": 4}',
)
SHORT = ("--steps", "3", "--size", "16", "--policy", "large")


@pytest.fixture
def run(mini, monkeypatch, tmp_path, capsys):
    """Run `batch jobs.jsonl` in an empty folder: exit code, stdout, lines of stderr."""
    monkeypatch.setenv(opened.FOLDER, str(mini))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.jsonl").write_text("\n".join(JOBS))

    def command(*words, jobs="jobs.jsonl"):
        code = main(["batch", jobs, *SHORT, *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err.splitlines()

    return command


@pytest.fixture(scope="module")
def whole(mini, tmp_path_factory):
    """The folder of a batch that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "jobs.jsonl").write_text("\n".join(JOBS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(opened.FOLDER, str(mini))
        assert main(["batch", str(folder / "jobs.jsonl"), *SHORT, "--out", str(folder / "out"), "--json"]) == 0
    return folder / "out"


def pixels(folder):
    return {path.name: Image.open(path).tobytes() for path in folder.glob("*.png")}


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_write_and_resumed(point, run, whole, server, mini, tmp_path):
    words = ["batch", str(tmp_path / "jobs.jsonl"), *SHORT, "--out", str(tmp_path / "out")]
    process = server.Process(target=command_line, args=(words, {opened.FOLDER: str(mini)}, point))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    there = pixels(tmp_path / "out")
    assert len(there) == POINTS[point]
    assert there.items() <= pixels(whole).items()

    code, out, err = run("--json")
    found = json.loads(out)
    assert (code, err) == (0, [])
    assert (found["jobs"], found["there"], found["drawn"]) == (3, POINTS[point], 3 - POINTS[point])
    assert pixels(tmp_path / "out") == pixels(whole)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")} == {
        path.name: path.read_bytes() for path in whole.glob("*.png")
    }
    assert list((tmp_path / "out").glob(".*.part")) == []
    rows, damaged = ledger.read(tmp_path / "out")
    assert damaged == 0
    assert sorted(row.id for row in rows) == sorted(path.stem for path in whole.glob("*.png"))
    assert {row.status for row in rows} == {"done"}
    assert json.loads(run("--verify", "--json")[1])["there"] == 3


def test_what_a_reader_sees(run, tmp_path):
    code, out, err = run("--out", "pictures")
    assert (code, err) == (0, [])
    assert out.startswith("pictures: 3 pictures asked for, 3 drawn in ")
    code, out, _ = run("--out", "pictures")
    assert (code, out.rstrip().endswith(", 3 were there")) == (0, True)
    about = json.loads((tmp_path / "pictures" / "batch.json").read_text())
    assert about["origin"]["file"] == "jobs.jsonl"
    assert about["setting"]["models"]["large"].startswith("content ")
    recipe = read(next((tmp_path / "pictures").glob("*.png")))
    assert (recipe.width, recipe.height, recipe.pair) == (16, 16, "mini")


def test_a_batch_draws_what_generate_draws(run, whole, capsys):
    run()
    assert main(["generate", "a big dog on a meadow", "--seed", "2", *SHORT, "--out", "one", "--json"]) == 0
    path = json.loads(capsys.readouterr().out)["images"][0]["path"]
    assert Image.open(path).tobytes() in pixels(whole).values()


def test_a_preset_for_few_steps_is_drawn_as_generate_draws_it(run, tmp_path, capsys):
    (tmp_path / "jobs.jsonl").write_text('{"prompt": "a big dog", "seed": 3, "policy": "mini-few-4"}')
    run("--out", "by-row")
    (tmp_path / "jobs.jsonl").write_text('{"prompt": "a big dog", "seed": 3}')
    main(["batch", "jobs.jsonl", "--size", "16", "--policy", "mini-few-4", "--out", "by-option"])
    size = ("--size", "16", "--seed", "3")
    assert main(["generate", "a big dog", *size, "--policy", "mini-few-4", "--out", "one"]) == 0
    capsys.readouterr()
    (one,), (row,), (option,) = ([*(tmp_path / name).glob("*.png")] for name in ("one", "by-row", "by-option"))
    assert row.name == option.name
    assert (read(one).shift, read(row).shift, read(row).steps) == (5.0, 5.0, 7)
    assert read(one).pixels == read(row).pixels == read(option).pixels
    run("--out", "without", "--policy", read(row).policy, "--steps", "7")  # the last of an option counts
    (without,) = (tmp_path / "without").glob("*.png")
    assert read(without).pixels != read(row).pixels


MIXED = (
    *({"prompt": f"a {size} dog", "seed": seed, "policy": "mini-few-4"} for seed, size in enumerate(("big", "small"))),
    *({"prompt": "a cat", "seed": seed, "policy": "reuse:bound=0.5,first=2,of=large", "steps": 6} for seed in range(3)),
    *({"prompt": "a big cat", "negative": "a cat" * (seed % 2), "seed": seed, "steps": 6,
       "policy": "hybrid-stitch:thresholds=0.9/0.9"} for seed in range(3)),
    {"prompt": "a small dog"},
)  # fmt: skip


def test_several_in_one_call_are_decided_as_singles(mini, monkeypatch):
    monkeypatch.setenv(opened.FOLDER, str(mini))
    studio = JobStudio(named=Pair.of("mini", None), policy=LargeOnly(), dtype="float32", engine=Engine())
    draw = studio("cpu")
    kinds = [policy_named(job["policy"]) for job in (MIXED[0], MIXED[2], MIXED[5])]
    for policy, steps, shift in zip(kinds, (7, 6, 6), (5.0, None, None), strict=True):
        jobs = [
            Job(
                prompt=prompt, negative=negative, seed=seed, width=24, height=16, steps=steps, guidance=4.0,
                policy=policy, shift=shift,
            )
            for seed, (prompt, negative) in enumerate((("a big dog", ""), ("a cat", "a dog"), ("a small bird", "")))
        ]  # fmt: skip
        beside = draw(jobs)
        assert len({take.trace.policy for take in beside}) == 1
        for job, take in zip(jobs, beside, strict=True):
            (alone,) = draw([job])
            decided = [[(s.index, s.image, s.plan, s.drawn, s.mask) for s in t.trace.records] for t in (take, alone)]
            assert decided[0] == decided[1]
            assert (take.trace.images, take.trace.steps, take.trace.flags) == (1, job.steps, alone.trace.flags)
            apart = np.asarray(take.image, dtype=int) - np.asarray(alone.image, dtype=int)
            assert abs(apart).max() <= 1
            assert take.trace.seconds > 0


@pytest.mark.parametrize("point", ["before the rename", "before the row"])
def test_a_mixed_list_drawn_together_killed_and_resumed(point, run, server, mini, tmp_path):
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, MIXED)))
    together = ("--images-per-call", "2")
    words = ["batch", str(tmp_path / "jobs.jsonl"), *SHORT, "--out", str(tmp_path / "out"), *together]
    process = server.Process(target=command_line, args=(words, {opened.FOLDER: str(mini)}, point))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    code, out, _ = run("--json", *together)
    found = json.loads(out)
    assert code == 0
    assert (found["there"], found["drawn"]) == (POINTS[point], len(MIXED) - POINTS[point])
    assert json.loads(run("--json", "--verify")[1])["there"] == len(MIXED)  # the ids are those of singles
    shifts = [read(tmp_path / "out" / row["file"]).shift for row in found["rows"]]
    assert shifts == [5.0, 5.0, *[None] * (len(MIXED) - 2)]


def test_jobs_asked_for_twice_are_drawn_once(run, tmp_path):
    (tmp_path / "jobs.jsonl").write_text("\n".join((JOBS[0], JOBS[0])))
    code, out, err = run("--json")
    assert (code, json.loads(out)["jobs"]) == (0, 1)
    assert err == ["note: 1 of 2 jobs repeat another job; each picture is drawn once"]


def test_a_damaged_picture_is_drawn_again_and_said(run, whole, tmp_path):
    run()
    path = next((tmp_path / "out").glob("*.png"))
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)
    assert json.loads(run("--json")[1])["drawn"] == 0
    code, out, err = run("--verify", "--json")
    assert (code, json.loads(out)["drawn"]) == (0, 1)
    assert err == [f"warning: out/{path.name} is not what was drawn; it is drawn again"]
    assert pixels(tmp_path / "out") == pixels(whole)


def test_a_full_disk(run, tmp_path, monkeypatch):
    pour = disk.pour
    monkeypatch.setattr(disk, "pour", lambda file, data: (full if bytes(data[:4]) == b"\x89PNG" else pour)(file, data))
    code, out, err = run()
    assert code == 1
    assert "1 failed, 2 not tried" in out
    assert err == [
        "error: 'a big dog on a meadow', seed 1: OSError: out takes no more pictures (No space left on device) (1 try)",
        "error: stopped early; what is drawn is kept: make room, and run the same command again",
    ]
    assert list((tmp_path / "out").glob("*.png")) == []


def test_a_job_that_fails_is_told_and_the_others_are_drawn(run, monkeypatch):
    from hybridstitch.cli import artist

    draw = artist.Artist.draw_all

    def fails(self, prompts, seeds, **how):
        if 2 in seeds:
            raise RuntimeError("no\nluck")
        return draw(self, prompts, seeds, **how)

    monkeypatch.setattr(artist.Artist, "draw_all", fails)
    code, out, err = run("--json")
    found = json.loads(out)
    assert (code, found["drawn"], found["failed"]) == (1, 2, 1)
    assert err == ["error: 'a big dog on a meadow', seed 2: RuntimeError: no luck (3 tries)"]
    assert [row["status"] for row in found["rows"]] == ["done", "error", "done"]


def test_a_job_that_fails_beside_others_costs_only_itself(run, monkeypatch):
    from hybridstitch.cli import artist

    called = []
    draw = artist.Artist.draw_all

    def fails(self, prompts, seeds, **how):
        called.append(list(seeds))
        if 2 in seeds:
            raise RuntimeError("no luck")
        return draw(self, prompts, seeds, **how)

    monkeypatch.setattr(artist.Artist, "draw_all", fails)
    code, out, err = run("--json", "--images-per-call", "4")
    found = json.loads(out)
    assert (code, found["drawn"], found["failed"]) == (1, 2, 1)
    assert err == ["error: 'a big dog on a meadow', seed 2: RuntimeError: no luck (3 tries)"]
    assert called == [[1, 2], [1], [2], [0], [2], [2]]


def test_a_dry_run_writes_nothing_and_predicts(run, tmp_path):
    code, out, err = run("--dry-run", "--json")
    found = json.loads(out)
    assert (code, err) == (0, [])
    assert not (tmp_path / "out").exists()
    assert (found["jobs"], found["missing"], found["samples"], found["guessed"]) == (3, 3, 2, 0)
    assert found["seconds"] > 0
    assert found["bytes"] > 3000
    run("--out", "out")
    before = sorted(path.name for path in (tmp_path / "out").rglob("*"))
    code, out, _ = run("--dry-run")
    assert out.startswith("0 of 3 pictures to draw: about 0.0 s on cpu, 0 bytes")
    (tmp_path / "jobs.jsonl").write_text("\n".join((*JOBS, '{"prompt": "a big cat"}')))
    code, out, _ = run("--dry-run", "--json")  # from earlier rows
    found = json.loads(out)
    assert (found["missing"], found["samples"], found["guessed"]) == (1, 3, 0)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == before


def test_captions(run, tmp_path):
    notes = [{"id": k, "image_id": k // 2, "caption": f"a {size} dog"} for k, size in enumerate(["big", "small"] * 4)]
    (tmp_path / "captions_val2017.json").write_text(json.dumps({"images": [], "annotations": notes}))
    code, out, err = run("--n", 2, "--captions-seed", 5, "--json", jobs="captions_val2017.json")
    rows = json.loads(out)["rows"]
    assert (code, err, [row["job"]["seed"] for row in rows]) == (0, [], [0, 1])
    assert set(rows[0]["job"]["source"]) == {"image_id", "caption_id"}
    origin = json.loads((tmp_path / "out" / "batch.json").read_text())["origin"]
    assert (origin["n"], origin["captions_seed"], len(origin["sha256"])) == (2, 5, 64)


BAD = {
    "no file": ((), None, "there is no file jobs.jsonl"),
    "empty": ((), "", "jobs.jsonl holds no job"),
    "column": ((), '{"sed": 1}', "there is no column 'sed'; did you mean 'seed'?"),
    "size": ((), '{"prompt": "a dog", "size": 17}', "size 17x17 was given; this pair draws multiples of 8 pixels"),
    "long": ((), '{"prompt": "' + "dog " * 30 + '"}', "the prompt of job 1 has 30 tokens"),
    "devices": (("--device", "cpu,cuda"), JOBS[0], "a batch is drawn on one kind of device"),
    "device": (("--device", "cpu,cpuu"), JOBS[0], "a batch is drawn on one kind of device"),
    "n": (("--n", "3"), JOBS[0], "it samples a captions file"),
    "compile": (("--compile", "hole"), JOBS[0], "--compile hole was given; did you mean 'whole'?"),
    "offload": (("--offload",), JOBS[0], "offload=True moves the large model off a GPU, the models are on cpu"),
    "kv": (("--kv", "float4"), JOBS[0], "--kv float4 was given; did you mean 'float8'?"),
    "kv and compile": (("--kv-host", "--compile", "whole"), JOBS[0], "leave out compile or kv_host"),
    "per call": (("--images-per-call", "0"), JOBS[0], "Invalid value for '--images-per-call'"),
    "folder": (("--out", "jobs.jsonl/x"), JOBS[0], "--out jobs.jsonl/x cannot be written to (Not a directory)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, run, tmp_path):
    words, text, said = BAD[case]
    (tmp_path / "jobs.jsonl").unlink()
    if text is not None:
        (tmp_path / "jobs.jsonl").write_text(text)
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert said in err[0]


def test_words_the_miniature_does_not_know_are_one_warning(run, tmp_path):
    (tmp_path / "jobs.jsonl").write_text('{"prompt": "a dgo"}\n{"prompt": "a zebra and a dgo"}')
    code, _, err = run()
    assert code == 0
    assert err == ["warning: the miniature world does not know 'dgo', 'zebra'"]


def test_presets_away_from_their_setting_are_one_warning(run, tmp_path):
    (tmp_path / "jobs.jsonl").write_text('{"prompt": "a dog", "policy": "hybridstitch-20"}\n' * 2)
    _, _, err = run("--dry-run")
    assert [line for line in err if line.startswith("warning: The thresholds of 'hybridstitch-20' were chosen")] == err[
        :1
    ]


def test_another_dtype_is_another_picture(run, tmp_path):
    run()
    code, out, err = run("--dtype", "bfloat16", "--json")
    assert (code, json.loads(out)["drawn"]) == (0, 3)
    assert err == [
        "note: out was drawn in another setting (dtype float32, now bfloat16); its pictures are kept beside the new "
        "ones"
    ]
    assert len(list((tmp_path / "out").glob("*.png"))) == 6


def test_a_pair_of_the_hub_is_known_before_it_is_opened(mini, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    pair = Pair.of("some/large", "some/small")
    with pytest.raises(BadInput, match="--pair some/large some/small: not all of it is in the cache or on the hub"):
        limits_of(pair)
    for name, revision in (("large", "a" * 40), ("small", "b" * 40)):
        there = tmp_path / f"models--some--{name}"
        shutil.copytree(mini, there / "snapshots" / revision)
        (there / "refs").mkdir()
        (there / "refs" / "main").write_text(revision)
    assert limits_of(pair).native == Pair.of(str(mini), None).native_size()
    assert pair.models == {"large": f"revision {'a' * 40}", "small": f"revision {'b' * 40}"}


def test_what_adaptive_runs_have_to_say_is_counted(run, tmp_path):
    never = '"policy": "hybrid-stitch:thresholds=1e-9/1e-9"'
    (tmp_path / "jobs.jsonl").write_text(
        "\n".join((f'{{"prompt": "a dog", {never}}}', f'{{"prompt": "a cat", {never}}}', JOBS[0]))
    )
    _, out, err = run("--json")
    assert err == ["warning: 2 of 3 pictures never left the large model; the rows of out/manifest tell which"]
    assert [len(row["flags"]) for row in json.loads(out)["rows"]] == [1, 1, 0]
    assert [len(row.flags) for row in ledger.read(tmp_path / "out")[0]] == [1, 1, 0]


@pytest.mark.slow
def test_a_process_a_device(run, whole, tmp_path):
    code, out, err = run("--device", "cpu,cpu", "--json")
    assert (code, err, json.loads(out)["drawn"]) == (0, [], 3)
    assert pixels(tmp_path / "out") == pixels(whole)
    assert len(list((tmp_path / "out" / ledger.FOLDER).iterdir())) in (1, 2)  # one may draw all while the other opens


def test_a_cluster_without_ray_is_refused_in_one_line(run, monkeypatch):
    monkeypatch.setattr("hybridstitch.cli.extras.find_spec", lambda name: None)
    code, _, (line,) = run("--on", "ray")
    assert code == 2
    assert line == "error: --on ray needs ray, which is not installed: pip install 'hybridstitch[ray]'"


def test_what_each_picture_shows_is_written_beside_them(whole):
    found = [json.loads(line) for line in (whole / "metadata.jsonl").read_text().splitlines()]
    assert [(row["text"], row["seed"]) for row in found] == [
        ("a big dog on a meadow", 1), ("a big dog on a meadow", 2), ("a small cat", 0),
    ]  # fmt: skip
    assert {row["file_name"] for row in found} == {path.name for path in whole.glob("*.png")}
