"""The verdict: the best of each budget and every rival on prompts the search never saw."""

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import machine
from hybridstitch.evaluate.metrics import open_metrics
from hybridstitch.evaluate.pictures import large_pictures, rendered
from hybridstitch.measure.intervals import Interval, mean_interval
from hybridstitch.measure.price import Prices
from hybridstitch.measure.start import decode
from hybridstitch.policies.levels import shifted

from .candidates import STOCK, Candidate, large
from .search import BUDGETS, Search
from .studio import GUIDANCE, REFERENCE, Studio, at_time, dense_steps


def verify(search: Search, prompts: Sequence[str], seed: int, folder: Path) -> dict[str, Any]:
    """Draw the best of each budget and all rivals on other prompts, score and time them."""
    everyone = len(search.studio.prompts)
    winners = {b: search.best(b, 1, everyone)[0] for b in BUDGETS}
    rivals = search.rivals(everyone)
    stock = [large(n, STOCK) for n in range(2, 11)]
    whole = {c: Candidate(c.program.replace("S", "L"), c.shift) for c in winners.values()}
    plain = {c: Candidate(" ".join("-" if w[0] == "R" else w for w in c.program.split()), c.shift) for c in whole}
    methods = [*dict.fromkeys([*winners.values(), *rivals, *stock, *whole.values(), *plain.values()])]
    studio = Studio(prompts, seed)
    pictures: dict[Candidate, list[NDArray[np.uint8]]] = {c: [] for c in methods}
    references = []
    for place in range(len(prompts)):
        references.append(decode(studio.pipe, studio.start(place, REFERENCE, STOCK), studio.references[place]))
        for candidate, latent in zip(methods, studio.draw(methods, place), strict=True):
            start = studio.start(place, candidate.steps, candidate.shift)
            pictures[candidate].append(decode(studio.pipe, start, latent))
        print(f"{place + 1}/{len(prompts)}", flush=True)
    seconds = timed(studio, [*winners.values(), *rivals, *stock])
    metrics = open_metrics(["PSNR", "SSIM", "LPIPS-mini", "FD-mini", "KID-mini", "CLIP-mini"])
    wanted = {"pairs": large_pictures(references), "set": rendered(prompts), "prompts": None}
    scores = {
        c: {name: metric(pictures[c], [*prompts], wanted[metric.wants]) for name, metric in metrics.items()}
        for c in methods
    }
    write_raw(folder / "raw.csv", prompts, scores, search.prices, seconds)
    return {
        "machine": machine(),
        "prompts": len(prompts),
        "table": [line(b, c, rivals, stock, scores, search.prices, seconds) for b, c in winners.items()],
        "ablations": [
            {"of": c.name, "what": what, "method": other.name, "dense_steps": dense_steps(other, search.prices)}
            | {"psnr": scores[other]["PSNR"].interval, "minus": scores[other]["PSNR"].ahead(scores[c]["PSNR"])}
            for what, others in (("large in place of small", whole), ("repeat in place of masks", plain))
            for c, other in others.items()
            if other != c
        ],
        "curves": {
            name: [(dense_steps(c, search.prices), seconds.get(c), scores[c]["PSNR"].value, c.name) for c in candidates]
            for name, candidates in (("stitched", winners.values()), ("large", rivals), ("large, stock", stock))
        },
    }


def timed(studio: Studio, candidates: Sequence[Candidate], rounds: int = 5) -> dict[Candidate, float]:
    """Median seconds of whole pipeline calls, the candidates taking turns, after a round that is not counted."""
    found: dict[Candidate, list[float]] = {c: [] for c in candidates}
    own = studio.pipe.scheduler.config.shift
    studio.pipe.set_progress_bar_config(disable=True)
    for _ in range(rounds + 1):
        for candidate in candidates:
            studio.pipe.transformer.policy = candidate.policy
            levels = {} if candidate.shift == STOCK else {"sigmas": shifted(candidate.steps, candidate.shift, own=own)}
            begin = perf_counter()
            studio.pipe(
                studio.prompts[0],
                num_inference_steps=candidate.steps,
                guidance_scale=GUIDANCE,
                generator=torch.Generator().manual_seed(studio.seed),
                **levels,
            )
            found[candidate].append(perf_counter() - begin)
    return {c: median(times[1:]) for c, times in found.items()}


def line(
    budget: int,
    winner: Candidate,
    rivals: Sequence[Candidate],
    stock: Sequence[Candidate],
    scores: dict[Candidate, dict[str, Any]],
    prices: Prices,
    seconds: dict[Candidate, float],
) -> dict[str, Any]:
    """One row: the plan, and the large model at the same time and with the next whole number of steps."""

    def ahead(others: Sequence[Candidate], time: dict[Candidate, float]) -> Interval:
        each = scores[winner]["PSNR"].each
        gaps = [
            float(value) - at_time([(time[o], float(scores[o]["PSNR"].each[k])) for o in others], time[winner])
            for k, value in enumerate(each)
        ]
        return mean_interval(gaps)

    dense = {c: dense_steps(c, prices) for c in (winner, *rivals, *stock)}
    longer = min((r for r in rivals if dense[r] >= dense[winner]), key=lambda r: dense[r])
    names = ("SSIM", "LPIPS-mini", "FD-mini", "KID-mini", "CLIP-mini")
    return {
        "budget": budget,
        "plan": winner.short,
        "shift": winner.shift,
        "steps": winner.steps,
        "dense_steps": dense[winner],
        "seconds": seconds[winner],
        "psnr": scores[winner]["PSNR"].interval,
        "ahead": ahead(rivals, dense),
        "ahead_by_the_clock": ahead(rivals, seconds),
        "ahead_of_stock": ahead(stock, dense),
        "rival": longer.name,
        "rival_dense_steps": dense[longer],
        "scores": {name: scores[winner][name].interval for name in names},
        "ahead_of_rival": {name: scores[winner][name].ahead(scores[longer][name]) for name in names},
    }


def write_raw(
    file: Path,
    prompts: Sequence[str],
    scores: dict[Candidate, dict[str, Any]],
    prices: Prices,
    seconds: dict[Candidate, float],
) -> None:
    """A row for each method and prompt."""
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(
            ["method", "shift", "steps", "dense_steps", "seconds", "image", "prompt", "psnr", "ssim", "clip_mini"]
        )
        for c, of in scores.items():
            head = [c.short, c.shift or "stock", c.steps, f"{dense_steps(c, prices):.4f}", seconds.get(c, "")]
            for image, prompt in enumerate(prompts):
                each = [f"{of[name].each[image]:.4f}" for name in ("PSNR", "SSIM", "CLIP-mini")]
                writer.writerow([*head, image, prompt, *each])
