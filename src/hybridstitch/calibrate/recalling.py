"""How near a prompt must be to a picture drawn before, and how far that picture goes: measured for a pair.

The large model draws a picture of every prompt. Every prompt is then drawn on from pictures of its own and of other
prompts, noised to step k, by the small model. Prompts and pictures of about one similarity c make a band; of each, k is
the largest step at which

    mean CLIP score of the pictures drawn on  ≥  .95 · mean CLIP score of the large model's own of the same prompts

and at which no nearer band keeps less. Steps are tried from large to small, which is from cheap to dear.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..evaluate.towers import TextTower
from ..measure.calls import call, drawing_by
from ..mini.opened import is_mini
from ..mini.scenes import Scene, heldout_prompts
from ..pair.asking import asked
from ..pair.beside import beside, strength_of
from ..policies.levels import levels_of
from ..policies.methods import LargeOnly, SmallOnly
from ..recipe import Band, Recall, RecipeError
from .conditions import Conditions
from .prompts import RELATED

KEPT = 0.95  # of the large model's CLIP score
BANDS, PAIRS = 4, 20  # bands, and prompts and pictures of each
NEAREST = 0.25  # of all prompts and pictures, those that are looked at
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)  # k over T
FEWEST, MOST = 8, 64  # prompts
SEED, SCENES = 1707, 6  # of the miniature world's prompts
OnShare = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class _Pair:
    """A prompt, the picture it is drawn on from, and how near they are."""

    similarity: float
    prompt: int
    picture: int


def recall_of(
    pipe: Any,
    tower: TextTower,
    clip: str,
    prompts: Sequence[str] | None = None,
    *,
    conditions: Conditions,
    seed: int = 0,
    on_progress: OnShare = lambda share, doing: None,
) -> Recall:
    """Measure what pictures drawn before are good for.

    Args:
        pipe: a stitched pipeline that has an image-to-image one beside it.
        tower: a CLIP.
        clip: its name, for the recipe.
        prompts: 8 to 64, some of them similar to each other, as those that will be drawn. Default: scenes of the
            miniature world for the miniature pair, else everyday ones.
        conditions: of the recipe.
        seed: of the noise.
        on_progress: told the share of the work that is done, and what is being done.

    Raises:
        RecipeError: too few or too many prompts.
        PairError: the pair draws from noise only.
    """
    prompts = tuple(related_prompts(pipe) if prompts is None else prompts)
    if not FEWEST <= len(prompts) <= MOST:
        raise RecipeError(
            f"{len(prompts)} prompts were given to measure the reuse of earlier pictures; give "
            f"{FEWEST} to {MOST}, some of them similar to each other"
        )
    drawer = _Drawer(pipe, beside(pipe, "Img2Img"), conditions, seed)
    pictures = []
    for place, prompt in enumerate(prompts):
        on_progress(0.5 * place / len(prompts), "the large model's pictures")
        pictures.append(drawer.large(prompt, place))
    texts = _unit(tower.text_features(prompts))
    similarities = texts @ _features(tower, pictures).T  # (prompts, pictures)
    own = np.diag(similarities)
    steps = conditions.steps
    starts = list(dict.fromkeys(min(max(round(steps * share), 1), steps - 1) for share in SHARES))
    levels = levels_of(pipe.scheduler, steps, None, None)
    bands: list[Band] = []
    for place, pairs in enumerate(_banded(similarities)):
        found = None
        for start in starts:
            on_progress(0.5 + 0.5 * place / BANDS, f"drawing on from step {start}, band {place + 1} of {BANDS}")
            drawn = [drawer.rest(prompts[pair.prompt], pictures[pair.picture], start, pair) for pair in pairs]
            wanted = np.array([pair.prompt for pair in pairs])
            kept = float((texts[wanted] * _features(tower, drawn)).sum(1).mean() / own[wanted].mean())
            if kept >= KEPT:
                least = min(pair.similarity for pair in pairs)
                found = Band(similarity=least, step=start, level=levels[start], kept=kept, pairs=len(pairs))
                break
        if found is None:
            break  # what is less near does not keep more
        bands.insert(0, found)
        starts = [start for start in starts if start <= found.step]
    on_progress(1.0, "done")
    return Recall(clip=clip, policy=str(SmallOnly()), bands=tuple(bands))


def related_prompts(pipe: Any) -> list[str]:
    """Prompts, some near to each other, for a pair whose user gave none."""
    if not is_mini(pipe.config.get("_name_or_path") or ""):
        return list(RELATED)
    random = np.random.default_rng(SEED)
    found = []
    for prompt in heldout_prompts(SCENES, seed=SEED):
        scene = Scene.parse(prompt)
        near = scene.altered(random)
        found += [prompt, scene.caption(random), near.caption(random), near.altered(random).caption(random)]
    return found


class _Drawer:
    """A pair, as it draws from noise, and on from a picture."""

    def __init__(self, pipe: Any, other: Any, conditions: Conditions, seed: int) -> None:
        self._pipe, self._other, self._conditions, self._seed = pipe, other, conditions, seed

    def large(self, prompt: str, place: int) -> Image.Image:
        """The large model's picture."""
        self._pipe.transformer.follow(self._pipe)
        here = self._conditions
        options = {"steps": here.steps, "guidance": here.guidance, "seed": self._seed + place, **here.size}
        return call(self._pipe, prompt, LargeOnly(), **options).image.convert("RGB")

    def rest(self, prompt: str, picture: Image.Image, start: int, pair: _Pair) -> Image.Image:
        """A picture that the small model draws on from another one, with noise of the pair's own."""
        stitched, steps = self._other.transformer, self._conditions.steps
        stitched.follow(self._other)
        seed = self._seed + MOST * (1 + pair.picture) + pair.prompt
        try:
            with drawing_by(stitched, SmallOnly()):
                drawn = self._other(
                    **asked(self._other, prompt, guidance=self._conditions.guidance), **self._conditions.size,
                    image=picture, strength=strength_of(steps, start), num_inference_steps=steps,
                    generator=torch.Generator("cpu").manual_seed(seed), output_type="pil",
                )  # fmt: skip
        finally:
            stitched.follow(self._pipe)
        return drawn.images[0].convert("RGB")


def _banded(similarities: NDArray[np.float64]) -> list[list[_Pair]]:
    """The nearest prompts and pictures in bands, the nearest band first."""
    pairs = [_Pair(float(value), int(p), int(q)) for (p, q), value in np.ndenumerate(similarities)]
    pairs.sort(key=lambda pair: -pair.similarity)
    near = pairs[: max(round(NEAREST * len(pairs)), BANDS)]
    chosen = [near[round(k)] for k in np.linspace(0, len(near) - 1, min(BANDS * PAIRS, len(near)))]
    edges = [round(k) for k in np.linspace(0, len(chosen), BANDS + 1)]
    return [chosen[low:high] for low, high in pairwise(edges)]


def _features(tower: TextTower, pictures: Sequence[Image.Image]) -> NDArray[np.float64]:
    return _unit(tower.features([np.asarray(picture) for picture in pictures]))


def _unit(features: torch.Tensor) -> NDArray[np.float64]:
    rows = features.cpu().numpy().astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
