"""Videos through everything around a pair: lockstep, calibration, files, film strips, pages, batches."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

import wan_folder
from hybridstitch import LargeOnly, Schedule, SmallOnly, open_pair
from hybridstitch.calibrate.calibrate import memory_mib
from hybridstitch.calibrate.conditions import Conditions, conditions_of, native_size
from hybridstitch.cli import main
from hybridstitch.errors import StitchError
from hybridstitch.measure.lockstep import draw_together
from hybridstitch.measure.profile import follow
from hybridstitch.measure.start import decode, prepare
from hybridstitch.pair.memory import outline
from hybridstitch.recipe import Recipe
from hybridstitch.report import picture
from hybridstitch.report.clip import encode_clip, latent_frame

PROMPT, SIZE = "a big dog runs", {"height": 32, "width": 48, "num_frames": 9}
SHORT = ("--size", "48x32", "--frames", "9", "--steps", "4")


@pytest.fixture(scope="module")
def pipe():
    return wan_folder.stitched()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return wan_folder.save(tmp_path_factory.mktemp("wan"))


def by_pipeline(pipe, policy, output, guidance=4.0):
    pipe.transformer.policy = policy
    return pipe(
        PROMPT, num_inference_steps=6, guidance_scale=guidance, generator=torch.Generator().manual_seed(3),
        output_type=output, **SIZE,
    ).frames  # fmt: skip


# --- measured apart from the pipeline's loop ---


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_every_policy_draws_what_the_pipeline_draws(pipe, guidance):
    policies = {
        "large": LargeOnly(),
        "small": SmallOnly(),
        "masks": Schedule("L2 H2@0.3 S2"),
        "L3 S3": Schedule("L3 S3"),
    }
    start = prepare(pipe, PROMPT, steps=6, guidance=guidance, seed=3, **SIZE)
    drawn = draw_together(pipe, start, policies)
    for name, policy in policies.items():
        assert torch.equal(drawn[name].latent, by_pipeline(pipe, policy, "latent", guidance)), name
        assert drawn[name].trace.plans(masks=True) == pipe.transformer.trace.plans(masks=True), name
    frames = by_pipeline(pipe, policies["masks"], "pil", guidance)[0]
    decoded = decode(pipe, start, drawn["masks"].latent)
    assert np.array_equal(decoded, np.concatenate([np.asarray(frame) for frame in frames]))


def test_following_the_large_model_knows_both_opinions(pipe):
    way = follow(pipe, PROMPT, steps=6, guidance=4.0, seed=3, **SIZE)
    assert torch.equal(way.latents[-1:], by_pipeline(pipe, LargeOnly(), "latent"))
    assert way.large.shape == way.small.shape == (6, 16, 3, 4, 6)
    assert way.difference.shape == (6, 18)
    assert all(0 <= share <= 1 for share in way.shares(0.3, "denoised")[2:])


def test_what_is_not_known_of_a_loop_is_refused(pipe, monkeypatch):
    monkeypatch.setattr("hybridstitch.measure.start.FORMULAS", ())
    with pytest.raises(StitchError, match="WanPipeline calls its transformer 2 times a step and guides in a way"):
        prepare(pipe, PROMPT, steps=4, guidance=4.0, **SIZE)


def test_calibration_knows_frames(pipe, folder, tmp_path, capsys):
    assert native_size(pipe) == (81, 480, 832)
    conditions = conditions_of(pipe, (48, 32), 9, steps=6, guidance=4.0)
    assert conditions == Conditions(width=48, height=32, frames=9, steps=6, guidance=4.0)
    one, two = (memory_mib(pipe, policy, 6, conditions) for policy in (Schedule("L3 S3"), Schedule("L2 H*@0.3")))
    assert (two - one) * 2**20 == 2 * 2 * 2 * 18 * 48 * 4
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a big dog\na small cat\nthe snow\na dog at night\n")
    out = tmp_path / "recipe.json"
    words = [
        "calibrate",
        "--pair",
        str(folder),
        "--prompts",
        str(prompts),
        *SHORT,
        "--closeness",
        "0.01",
        "--minutes",
        "0.05",
    ]
    assert main([*words, "--out", str(out)]) == 0
    recipe = Recipe.load(out)
    assert recipe.home.frames == 9
    assert "--size 48x32 --frames 9" in recipe.home.command
    capsys.readouterr()
    assert (
        main(["generate", PROMPT, "--recipe", str(out), "--pair", str(folder), "--out", str(tmp_path), "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["images"][0]["path"].endswith(".mp4")


# --- files ---


def moving(count=5):
    return [Image.fromarray(np.full((32, 48, 3), 40 * k, np.uint8)) for k in range(count)]


def test_an_mp4_and_a_webp_hold_all_frames(tmp_path):
    (tmp_path / "a.mp4").write_bytes(encode_clip(moving(), 16, ".mp4"))
    with av.open(tmp_path / "a.mp4") as container:
        stream = container.streams.video[0]
        assert stream.average_rate == Fraction(16)
        shades = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(stream)]
    assert shades == pytest.approx([0, 40, 80, 120, 160], abs=4)
    (tmp_path / "a.webp").write_bytes(encode_clip(moving(), 16, ".webp"))
    with Image.open(tmp_path / "a.webp") as clip:
        assert (clip.n_frames, clip.size) == (5, (48, 32))


def test_frames_of_tokens():
    assert [latent_frame(k, 9, 3) for k in range(9)] == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert latent_frame(0, 1, 1) == 0


@pytest.fixture
def run(folder, monkeypatch, tmp_path, capsys):
    """Run `generate --json` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(*words):
        assert main(["generate", PROMPT, "--pair", str(folder), *SHORT, *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return command


def test_generate_writes_a_video_that_says_how_it_was_drawn(run, folder, tmp_path, capsys):
    found = run("--fps", "8")
    assert found["images"][0]["path"] == "out/a-big-dog-runs-0.mp4"
    with av.open(found["images"][0]["path"]) as container:
        assert container.streams.video[0].average_rate == 8
        assert sum(1 for _ in container.decode(video=0)) == 9
    metadata = picture.read("out/a-big-dog-runs-0.mp4")
    assert metadata == picture.read("out/a-big-dog-runs-0.png")
    assert (metadata.frames, metadata.fps, metadata.width, metadata.height) == (9, 8.0, 48, 32)
    assert "Frames: 9 at 8 a second" in metadata.parameters
    again = ["generate", "--from", "out/a-big-dog-runs-0.mp4", "--pair", str(folder)]
    assert main(again) == 0
    assert "the same pixels as" in capsys.readouterr().err
    assert (tmp_path / "out" / "a-big-dog-runs-0-2.mp4").is_file()


def test_without_pyav_a_video_is_a_webp(run, monkeypatch):
    monkeypatch.setattr("hybridstitch.report.clip.find_spec", lambda name: None)
    found = run()
    with Image.open(found["images"][0]["path"]) as clip:
        assert (clip.format, clip.n_frames) == ("WEBP", 9)


def test_film_strips_and_pages_show_frames(run, tmp_path):
    found = run("--explain", "--compare")
    with Image.open(found["images"][0]["strip"]) as strip:
        assert strip.height > 1000
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("data:image/webp;base64,") >= 3
    assert found["images"][0]["psnr"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--frames", "10"], "--frames 10 was given; this pair draws one more than multiples of 4 frames: 9 is near"),
        (["--size", "50x32"], "--size 50x32 was given; this pair draws multiples of 16 pixels (VAE × patch): 48x32"),
        (["--frames", "401"], "this pair draws at most 512x512 pixels and 125 frames"),
        (["--fps", "0"], "--fps 0 was given"),
    ],
)
def test_what_wan_cannot_draw_is_refused_in_a_line(folder, words, said, capsys, monkeypatch):
    monkeypatch.setattr("hybridstitch.cli.pairs.open_pair", lambda *a, **k: pytest.fail("was loaded"))
    assert main(["generate", PROMPT, "--pair", str(folder), *SHORT, *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_videos_are_not_reproduced(folder, capsys, monkeypatch, tmp_path):
    """Of a folder, and of hub ids, whose configurations alone are fetched."""
    monkeypatch.setattr("hybridstitch.cli.pairs.open_pair", lambda *a, **k: pytest.fail("was loaded"))
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text('{"prompt": "a big dog"}\n')
    words = ["reproduce", "table1", "--prompts", str(jobs), "--n", "1", "--out", str(tmp_path / "out")]
    for pair in ([str(folder)], ["a/large", "a/small"]):
        monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, file: saved(folder, file))
        assert main([*words, "--pair", *pair]) == 2
        said = capsys.readouterr().err
        assert f"--pair {pair[0]} draws videos; the paper's tables and figures are of pictures" in " ".join(
            said.split()
        )
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def saved(folder, file):
    """Where a saved pair has what a repository of its large model would."""
    return str(folder / file.replace("transformer/config", "transformer/large/config"))


def test_what_does_not_fit_is_refused_before_it_is_loaded(folder, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("hybridstitch.cli.pairs.open_pair", lambda *a, **k: pytest.fail("was loaded"))
    monkeypatch.setattr("hybridstitch.pair.fits.capacity", lambda device: 500_000)
    words = ["--size", "512x512", "--frames", "81", "--steps", "4"]
    assert main(["generate", PROMPT, "--pair", str(folder), *words]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "masks at 512x512 of 81 frames keep" in said
    assert "a policy of whole steps" in said
    assert main(["calibrate", "--pair", str(folder), *words, "--out", str(tmp_path / "recipe.json")]) == 2
    assert "masks at 512x512 of 81 frames keep" in " ".join(capsys.readouterr().err.split())


def test_keys_and_values_of_the_command_line(folder, capsys, monkeypatch, tmp_path):
    """Kept in what was asked for; predicted so, too, and refused with the flags that would fit."""
    words = ["generate", PROMPT, "--pair", str(folder), *SHORT, "--policy", "L2 H1@0.3 S*"]
    kept = {}
    for name, more in {"same": [], "float8": ["--kv", "float8"], "host": ["--kv-host"]}.items():
        assert main([*words, *more, "--out", str(tmp_path / name), "--json"]) == 0
        kept[name] = json.loads(capsys.readouterr().out)["images"][0]["path"]
    pixels = {name: picture.read(path).pixels for name, path in kept.items()}
    assert pixels["host"] == pixels["same"] != pixels["float8"]
    known = outline(str(folder), element_bytes=4)
    room = sum(known.weights.values()) + known.need((9, 32, 48)).keys_values // 2
    monkeypatch.setattr("hybridstitch.pair.fits.capacity", lambda device: room)
    assert main([*words, "--out", str(tmp_path / "full")]) == 2
    assert "what fits: --kv float8, " in " ".join(capsys.readouterr().err.split())
    assert main([*words, "--out", str(tmp_path / "full"), "--kv", "float8"]) == 0


@pytest.mark.parametrize(("option", "value"), [("--frames", "9"), ("--fps", "8")])
def test_pictures_have_no_frames(option, value, capsys, tmp_path):
    assert main(["generate", "a big dog", option, value]) == 2
    assert f"this pair draws pictures: leave {option} out" in " ".join(capsys.readouterr().err.split())
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text(json.dumps({"prompt": "a big dog", option.strip("-"): value}))
    assert main(["batch", str(jobs), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "this pair draws pictures: leave" in " ".join(capsys.readouterr().err.split())
    assert main(["batch", str(jobs), "--device", "cpu", option, value]) == 2
    assert f"this pair draws pictures: leave {option} out" in " ".join(capsys.readouterr().err.split())


def test_doctor_tells_what_a_video_needs(folder, capsys):
    assert main(["doctor", "--pair", str(folder), "--size", "48x32", "--frames", "9", "--dtype", "fp32", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["memory"]
    assert told["keys and values"] == 2 * 2 * 2 * 18 * 48 * 4
    assert main(["doctor", "--pair", str(folder), "--size", "48x32", "--frames", "9"]) == 0
    assert "not counted" in capsys.readouterr().out


# --- batches ---


def test_a_batch_of_videos_goes_on_after_a_kill(folder, tmp_path, capsys, monkeypatch):
    jobs, out = tmp_path / "jobs.jsonl", tmp_path / "out"
    jobs.write_text(
        "".join(json.dumps({"prompt": f"a {w} dog", "frames": 5 + 4 * k}) + "\n" for k, w in enumerate("ab"))
    )
    words = ["batch", str(jobs), "--pair", str(folder), *SHORT, "--out", str(out), "--device", "cpu", "--json"]
    assert main(words) == 0
    clips, said = sorted(out.glob("*.mp4")), sorted(out.glob("*.png"))
    assert len(clips) == len(said) == 2
    assert sorted(picture.read(clip).frames for clip in clips) == [5, 9]
    drawn = {clip: clip.stat().st_mtime_ns for clip in clips}
    for shard in (out / "manifest").iterdir():
        shard.unlink()  # killed before any line was written
    said[0].unlink()  # and between a video and its picture
    capsys.readouterr()
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["drawn"] == 1
    kept = said[1].with_suffix(".mp4")
    assert kept.stat().st_mtime_ns == drawn[kept]
    clips[0].write_bytes(clips[0].read_bytes()[:-9])
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["drawn"] == 1
    assert main([*words, "--verify"]) == 0
    assert json.loads(capsys.readouterr().out)["drawn"] == 0


def test_a_captions_file_is_drawn_as_videos(folder, tmp_path, capsys):
    captions, out = tmp_path / "captions.json", tmp_path / "out"
    captions.write_text(json.dumps({"annotations": [{"id": 1, "image_id": 1, "caption": "a big dog"}]}))
    words = ["--pair", str(folder), *SHORT, "--out", str(out), "--device", "cpu", "--json"]
    assert main(["batch", str(captions), *words]) == 0
    assert [picture.read(clip).frames for clip in out.glob("*.mp4")] == [9]


def test_a_saved_pair_opens(folder, pipe):
    opened = open_pair(folder)
    opened.set_progress_bar_config(disable=True)
    assert str(opened.transformer.policy) == "schedule:program=L2 H1@0.3 S*"
