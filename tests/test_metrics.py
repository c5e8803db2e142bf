"""Metrics against independent computations: scipy's sqrtm, loops over pairs, torchmetrics, transformers' own CLIP."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from hybridstitch.evaluate.distributions import Frechet, Kernel, frechet, kid, resampled_frechet
from hybridstitch.evaluate.fit import Fit
from hybridstitch.evaluate.metrics import MINI, PIXELS, open_metrics
from hybridstitch.evaluate.paired import mini_lpips
from hybridstitch.evaluate.pictures import References, ScoreError, large_pictures, photographs, read, rendered
from hybridstitch.evaluate.towers import Clip, Inception, MiniTower, Remembering
from hybridstitch.mini.scenes import heldout_prompts

PROMPTS = heldout_prompts(8)


def features(number, width, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(number, width)) @ rng.normal(size=(width, width)) / width**0.5 + shift)


class Numbers:
    """A tower whose features are the first pixels of a picture."""

    numerics = "the first four pixels"

    def features(self, pictures):
        return torch.from_numpy(np.stack([p.reshape(-1)[:12] for p in pictures]).astype(float))


def noise(number, seed=0, low=0, high=255):
    return list(np.random.default_rng(seed).integers(low, high, (number, 16, 16, 3), dtype=np.uint8))


# --- FD ---


@pytest.mark.parametrize(("number", "others"), [(40, 50), (6, 50), (40, 6)])
def test_fd_of_resampled_pictures_is_that_of_those_pictures(number, others):
    x, y = features(number, 8), features(others, 8, seed=1, shift=0.3)
    picks = torch.from_numpy(np.random.default_rng(2).integers(0, number, (5, number)))
    assert resampled_frechet(x, y, picks) == pytest.approx([frechet(x[rows], y) for rows in picks], rel=1e-5)


@pytest.mark.parametrize("number", [40, 6])
def test_fd_is_that_of_scipys_matrix_square_root(number):
    from scipy.linalg import sqrtm

    x, y = features(number, 8), features(50, 8, seed=1, shift=0.3)
    first, second = np.cov(x.numpy().T), np.cov(y.numpy().T)
    shared = sqrtm(first @ second).real
    by_hand = ((x.mean(0) - y.mean(0)).numpy() ** 2).sum() + np.trace(first + second - 2 * shared)
    assert frechet(x, y) == pytest.approx(by_hand, rel=1e-5)


def test_fd_is_torchmetrics_fid_of_the_same_features():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Identity(torch.nn.Module):
        num_features = 8

        def forward(self, x):
            return x

    x, y = features(64, 8), features(50, 8, seed=1, shift=0.3)
    theirs = FrechetInceptionDistance(feature=Identity(), normalize=True).set_dtype(torch.float64)
    theirs.update(y, real=True)
    theirs.update(x, real=False)
    assert frechet(x, y) == pytest.approx(float(theirs.compute()), rel=1e-5)


def test_fd_of_normal_distributions_is_the_closed_form():
    x = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert frechet(x, 2 * x + 3) == pytest.approx(3 * 9 + 3 * (2 - 1) ** 2, rel=0.02)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)


def test_fd_of_a_singular_covariance_says_so_and_has_an_interval():
    metric = Frechet("FD", Numbers())
    few = metric(noise(8), PROMPTS, References(name="noise", pictures=noise(30, 1), matched=False))
    many = metric(noise(40), PROMPTS * 5, References(name="noise", pictures=noise(30, 1), matched=False))
    assert few.note == "8 pictures span 7 of 12 dimensions: mostly bias, compare at equal N only"
    assert many.note == ""
    assert few.interval.low < few.value < few.interval.high
    assert few.value > many.value  # the bias of small N
    assert few.each is None


# --- KID ---


def cubic(a, b):
    return (float(a @ b) / len(a) + 1) ** 3


def looped(x, y, matched):
    """KID by loops over pairs."""
    n, m = len(x), len(y)
    own = [cubic(x[i], x[j]) for i in range(n) for j in range(n) if i != j]
    theirs = [cubic(y[i], y[j]) for i in range(m) for j in range(m) if i != j]
    across = [cubic(x[i], y[j]) for i in range(n) for j in range(m) if not matched or i != j]
    return np.mean(own) + np.mean(theirs) - 2 * np.mean(across)


@pytest.mark.parametrize("matched", [False, True])
def test_kid_is_a_loop_over_pairs_also_of_resamples(matched):
    x, y = features(7, 5), features(7 if matched else 9, 5, seed=1, shift=0.3)
    weights = torch.tensor([[1] * 7, [2, 0, 1, 1, 1, 1, 1]])
    found = kid(x, y, weights, matched=matched)
    assert found[0] == pytest.approx(looped(x, y, matched))
    picks = [0, 0, 2, 3, 4, 5, 6]
    different = [(i, j) for i in picks for j in picks if i != j]

    def pair(i, j):
        if matched:
            return cubic(x[i], x[j]) + cubic(y[i], y[j]) - cubic(x[i], y[j]) - cubic(x[j], y[i])
        return cubic(x[i], x[j])

    by_hand = np.mean([pair(i, j) for i, j in different])
    if not matched:
        by_hand += np.mean([cubic(y[i], y[j]) for i in range(9) for j in range(9) if i != j])
        by_hand -= 2 * np.mean([cubic(x[i], y[j]) for i in picks for j in range(9)])
    assert found[1] == pytest.approx(by_hand)


def test_kid_is_that_of_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    x, y = features(20, 6), features(20, 6, seed=1, shift=0.3)
    assert kid(x, y, torch.ones(1, 20), matched=False)[0] == pytest.approx(float(poly_mmd(x, y)), rel=1e-9)


@pytest.mark.parametrize("matched", [False, True])
def test_kid_has_no_bias_where_fd_has_one(matched):
    values, distances = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        scene = rng.normal(size=(10, 4)) * matched  # what a prompt gives both pictures
        x, y = (torch.from_numpy(scene + rng.normal(size=(10, 4))) for _ in range(2))
        values.append(kid(x, y, torch.ones(1, 10), matched=matched)[0])
        distances.append(frechet(x, y))
    assert abs(np.mean(values)) < 3 * np.std(values) / 300**0.5
    assert np.mean(distances) > 20 * np.std(distances) / 300**0.5


def test_kid_intervals_cover_the_truth():
    inside = 0
    for seed in range(60):
        same = References(name="noise", pictures=noise(40, 1000 + seed), matched=False)
        interval = Kernel("KID", Remembering(Numbers()), 200)(noise(40, seed), PROMPTS * 5, same).interval
        inside += interval.low <= 0 <= interval.high
    assert inside >= 45


# --- the miniature CLIP ---


@pytest.fixture(scope="module")
def tower():
    return MiniTower.load()


@pytest.fixture(scope="module")
def truth():
    return list(rendered(PROMPTS).pictures)


def test_clip_mini_is_the_cosine_of_picture_and_prompt(tower, truth):
    scores = Fit("CLIP-mini", tower)(truth, PROMPTS)
    pictures = [Image.fromarray(picture) for picture in truth]
    assert scores.each == pytest.approx(tower.clip.scores(pictures, PROMPTS).numpy(), abs=1e-5)
    strangers = Fit("CLIP-mini", tower)(truth, PROMPTS[1:] + PROMPTS[:1])
    ahead = scores.ahead(strangers)
    assert ahead.low > 0
    assert ahead.mean == pytest.approx(np.mean(scores.each - strangers.each))
    assert ahead.number == 8


def test_the_scores_of_the_miniature_pair_know_better_from_worse(truth):
    metrics = open_metrics([*PIXELS, *MINI])
    rng = np.random.default_rng(0)
    noisy = [np.clip(p + rng.normal(0, 40, p.shape), 0, 255).astype(np.uint8) for p in truth]
    worse = [np.clip(p + rng.normal(0, 90, p.shape), 0, 255).astype(np.uint8) for p in truth]
    for name, metric in metrics.items():
        better, lesser = (metric(images, PROMPTS, large_pictures(truth)) for images in (noisy, worse))
        assert better.metric == name
        assert better.ahead(lesser).mean > 0, name
        assert better.number == 8


def test_lpips_mini_is_the_mean_over_layers_and_patches(tower, truth):
    pixels = torch.stack([torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 127.5 - 1 for p in truth[:2]])
    with torch.no_grad():
        states = tower.clip.tower(pixels, output_hidden_states=True).hidden_states[1:]
    apart = [1 - torch.cosine_similarity(s[0, 1:].double(), s[1, 1:].double(), dim=-1) for s in states]
    measure = mini_lpips(tower)
    scores = measure(truth[:1], PROMPTS[:1], large_pictures(truth[1:2]))
    assert scores.value == pytest.approx(2 * float(torch.stack(apart).mean()), rel=1e-6)
    assert measure(truth[:1], PROMPTS[:1], large_pictures(truth[:1])).value == pytest.approx(0, abs=1e-9)


def test_a_picture_is_looked_at_once(truth):
    class Counting(Numbers):
        seen = 0

        def features(self, pictures):
            self.seen += len(pictures)
            return super().features(pictures)

    tower = Counting()
    remembering = Remembering(tower)
    first = remembering.features(truth)
    assert torch.equal(remembering.features([truth[2], truth[2], truth[0]]), first[[2, 2, 0]])
    assert tower.seen == 8


# --- networks of transformers, torch-fidelity and lpips ---


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    from hybridstitch.mini import weights_dir

    folder = tmp_path_factory.mktemp("clip")
    shape = {
        "projection_dim": 16,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    tokenizer = CLIPTokenizer.from_pretrained(weights_dir() / "tokenizer")
    text = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "max_position_embeddings": 24}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**shape, **text},
        vision_config={**shape, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_clip_is_transformers_own(clip_folder, truth):
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    scores = Fit("CLIP", Clip.load(clip_folder))(truth[:3], PROMPTS[:3])
    assert str(clip_folder) in scores.numerics
    words = CLIPTokenizer.from_pretrained(clip_folder)(
        PROMPTS[:3], padding="max_length", max_length=24, return_tensors="pt"
    )
    size = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    pixels = CLIPImageProcessorPil(**size)([Image.fromarray(p) for p in truth[:3]], return_tensors="pt").pixel_values
    model = CLIPModel.from_pretrained(clip_folder)
    with torch.no_grad():
        cosines = model(**words, pixel_values=pixels).logits_per_image.diagonal() / model.logit_scale.exp()
    assert scores.each == pytest.approx(cosines.numpy(), abs=1e-4)


def test_metrics_without_weights_or_packages_are_one_clear_line(tmp_path):
    for name, word in (("FID", "inception"), ("LPIPS", "lpips"), ("CLIP", "clip")):
        with pytest.raises(ScoreError) as caught:
            open_metrics([name], weights={word: tmp_path / "absent"})
        assert "absent" in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "odd.pth").write_bytes(b"no tensors")
    with pytest.raises(ScoreError, match=r"odd\.pth holds no Inception weights"):
        Inception.load(tmp_path / "odd.pth")
    with pytest.raises(ScoreError, match="there is no metric 'FD-mino'; did you mean 'FD-mini'"):
        open_metrics(["FD-mino"])
    with pytest.raises(ScoreError, match="weights of 'incept'"):
        open_metrics(["PSNR"], weights={"incept": "x"})


def test_what_cannot_be_had_can_be_left_out(tmp_path):
    left_out = {}
    metrics = open_metrics(
        ["PSNR", "LPIPS", "CLIP"],
        weights={"lpips": tmp_path / "absent", "clip": tmp_path / "absent"},
        on_missing=lambda name, error: left_out.update({name: str(error)}),
    )
    assert list(metrics) == ["PSNR"]
    assert list(left_out) == ["LPIPS", "CLIP"]
    assert "absent" in left_out["CLIP"]


@pytest.mark.parametrize(("name", "package"), [("FID", "torch_fidelity"), ("LPIPS", "lpips")])
def test_a_package_that_cannot_be_imported_is_one_clear_line(name, package, monkeypatch):
    for imported in [name for name in sys.modules if name.startswith(f"{package}.")]:  # whoever has one asks no parent
        monkeypatch.delitem(sys.modules, imported)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ScoreError, match=rf"^{name} needs {package.replace('_', '-')}, .*hybridstitch\[eval\].*torchvision"
    ):
        open_metrics([name])


# --- what may be compared ---


def test_scores_that_cannot_be_compared_are_refused(truth):
    metrics = open_metrics(["PSNR", "SSIM", "KID-mini"])
    all_eight, six = large_pictures(truth), large_pictures(truth[:6])
    kid_mini = metrics["KID-mini"]
    with pytest.raises(ScoreError, match=r"KID-mini of 8 pictures cannot be compared with that of 6.*same 6 prompts"):
        kid_mini(truth, PROMPTS, all_eight).ahead(kid_mini(truth[:6], PROMPTS[:6], six))
    with pytest.raises(ScoreError, match="PSNR and SSIM are different metrics"):
        metrics["PSNR"](truth, PROMPTS, all_eight).ahead(metrics["SSIM"](truth, PROMPTS, all_eight))
    with pytest.raises(ScoreError, match="measured with other references"):
        kid_mini(truth, PROMPTS, all_eight).ahead(kid_mini(truth, PROMPTS, rendered(PROMPTS, seed=1)))


def test_inputs_that_do_not_fit_are_refused(truth):
    metrics = open_metrics(["PSNR", "KID-mini", "CLIP-mini"])
    with pytest.raises(ScoreError, match="8 pictures and 7 prompts"):
        metrics["CLIP-mini"](truth, PROMPTS[:7])
    with pytest.raises(ScoreError, match="needs references"):
        metrics["PSNR"](truth, PROMPTS)
    with pytest.raises(ScoreError, match="none were given"):
        metrics["CLIP-mini"]([], [])
    with pytest.raises(ScoreError, match="not matched"):
        metrics["PSNR"](truth, PROMPTS, References(name="others", pictures=truth, matched=False))
    with pytest.raises(ScoreError, match="8 pictures and 7 matched references"):
        metrics["PSNR"](truth, PROMPTS, large_pictures(truth[:7]))
    with pytest.raises(ScoreError, match=r"picture 0 is \(128, 128, 3\), its reference \(64, 128, 3\)"):
        metrics["PSNR"](truth[:1], PROMPTS[:1], large_pictures([truth[0][:64]]))
    with pytest.raises(ScoreError, match="one picture is not enough"):
        metrics["KID-mini"](truth[:1], PROMPTS[:1], large_pictures(truth[:1]))


# --- pictures ---


def test_generated_pictures_are_png_and_references_are_resized_once(tmp_path, truth):
    image = Image.fromarray(truth[0])
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.jpg")
    assert np.array_equal(read(tmp_path / "a.png"), truth[0])
    with pytest.raises(ScoreError, match=r"b\.jpg is no PNG"):
        read(tmp_path / "b.jpg")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    with pytest.raises(ScoreError, match=r"c\.png cannot be read as a picture"):
        read(tmp_path / "c.png")
    (tmp_path / "c.png").unlink()
    real = photographs(tmp_path, (96, 48))
    assert [picture.shape for picture in real.pictures] == [(48, 96, 3)] * 2
    assert not real.matched
    middle = image.resize((96, 48), Image.Resampling.BICUBIC, box=(0, 32, 128, 96))
    assert np.array_equal(real.pictures[0], np.asarray(middle))
    with pytest.raises(ScoreError, match="there is no folder"):
        photographs(tmp_path / "absent", (8, 8))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScoreError, match="holds no"):
        photographs(tmp_path / "empty", (8, 8))


def test_renderings_are_the_prompts_scenes_and_labels_tell_them_apart():
    first, again, other = rendered(PROMPTS), rendered(PROMPTS), rendered(PROMPTS, seed=1)
    assert first.label == again.label != other.label
    assert first.label.startswith("renderings of the same scenes, 8 (")
    assert not np.array_equal(first.pictures[0], other.pictures[0])
    assert np.array_equal(rendered(PROMPTS[:3]).pictures[2], first.pictures[2])
