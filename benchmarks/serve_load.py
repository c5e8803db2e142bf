"""A server under a trace of requests with bursts: the large model alone, one fixed point, load-adaptive.

    python -m benchmarks.serve_load --recipe docs/results/calibration/recipe-0.json
    python -m benchmarks.serve_load --recipe recipe.json --requests 100 --target 10

The trace is made from a seed: prompts of the miniature world by Zipf's law, each with a seed of its own, gaps between
requests exponential, at a rate that is `--load` times what the large model alone serves here, and `--burst` times as
often in a burst as between bursts. Each server begins anew, on loopback, with one worker; a request that is refused
(429) is not asked again. Closeness is SSIM to the large model's picture of the same noise.
Writes `docs/results/serve_load.{json,md}`, with one raw row a request.
"""

import argparse
import asyncio
import base64
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from statistics import mean
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.rounds import RESULTS, write
from hybridstitch.evaluate.closeness import ssim
from hybridstitch.evaluate.metrics import open_metrics
from hybridstitch.mini.scenes import heldout_prompts

PROMPTS, ZIPF = 40, 1.1
BURST_SHARE = 0.3  # of the requests


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the trace: seconds from its beginning, prompt and seed."""

    at: float
    prompt: str
    seed: int


@dataclass(slots=True)
class Row:
    """What became of it.

    Attributes:
        mode: how the server was started.
        at, prompt, seed: of the request.
        status: of the answer.
        seconds: from the request to the picture.
        speed: of the point that drew it.
        closeness, clip: of the picture.
    """

    mode: str
    at: float
    prompt: str
    seed: int
    status: int
    seconds: float
    speed: float | None = None
    closeness: float | None = None
    clip: float | None = None


def trace(requests: int, rate: float, burst: float, seed: int) -> list[Asked]:
    """A trace, in order.

    Args:
        requests: how many.
        rate: a second, on average.
        burst: how many times as often requests come in a burst.
        seed: of the generator.
    """
    random = np.random.default_rng(seed)
    prompts = heldout_prompts(PROMPTS)
    ranks = np.arange(1, PROMPTS + 1) ** -ZIPF
    calm = rate * (1 - BURST_SHARE + BURST_SHARE / burst)  # so that the mean gap is 1/rate
    found, now, place, bursting = [], 0.0, 0, False
    while len(found) < requests:
        if place == 0:
            bursting = not bursting if found else False
            place = int(random.integers(10, 20) * (BURST_SHARE / (1 - BURST_SHARE) if bursting else 1)) + 1
        now += random.exponential(1 / (calm * (burst if bursting else 1)))
        which = int(random.choice(PROMPTS, p=ranks / ranks.sum()))
        found.append(Asked(now, prompts[which], which))
        place -= 1
    return found


async def replay(url: str, asked: list[Asked], mode: str) -> list[tuple[Row, bytes | None]]:
    """Ask as the trace says, whatever becomes of it."""
    begun = time.perf_counter()

    async def one(client: httpx.AsyncClient, ask: Asked) -> tuple[Row, bytes | None]:
        await asyncio.sleep(max(ask.at - (time.perf_counter() - begun), 0))
        start = time.perf_counter()
        body = {"prompt": ask.prompt, "seed": ask.seed}
        answer = await client.post(f"{url}/v1/images/generations", json=body, timeout=600)
        row = Row(mode, ask.at, ask.prompt, ask.seed, answer.status_code, time.perf_counter() - start)
        if answer.status_code != 200:
            return row, None
        found = answer.json()
        row.speed = found["hybridstitch"]["speed"]
        return row, base64.b64decode(found["data"][0]["b64_json"])

    limits = httpx.Limits(max_connections=1000)
    async with httpx.AsyncClient(limits=limits) as client:
        return list(await asyncio.gather(*(one(client, ask) for ask in asked)))


class Served:
    """A server of its own, for the length of a block.

    Attributes:
        url: its address.
        process: the one that speaks HTTP.
    """

    def __init__(self, *words: str) -> None:
        """With these options."""
        self.words = words

    def __enter__(self) -> "Served":
        self.folder = tempfile.TemporaryDirectory()
        out = Path(self.folder.name) / "out"
        with out.open("w") as stdout, (Path(self.folder.name) / "log").open("w") as stderr:
            command = [sys.executable, "-m", "hybridstitch", "serve", "--port", "0", *self.words]
            self.process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=os.environ)
        while "drawing at" not in out.read_text():
            if self.process.poll() is not None:
                raise SystemExit((Path(self.folder.name) / "log").read_text())
            time.sleep(0.2)
        self.url = out.read_text().split()[-1]
        return self

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.folder.cleanup()


def judged(rows: list[Row], files: list[bytes | None], large: dict[tuple[str, int], bytes]) -> None:
    """Closeness and CLIP-mini of what was drawn."""
    clip = open_metrics(["CLIP-mini"])["CLIP-mini"]
    for row, file in zip(rows, files, strict=True):
        if file is not None:
            image = pixels(file)
            row.closeness = ssim(image, pixels(large[row.prompt, row.seed]))
            row.clip = clip([image], [row.prompt]).value


def pixels(file: bytes) -> np.ndarray:
    """(H, W, 3) of a file."""
    return np.asarray(Image.open(BytesIO(file)).convert("RGB"))


def summary(mode: str, rows: list[Row], target: float) -> dict[str, Any]:
    """A line of the table."""
    drawn = [row for row in rows if row.status == 200]
    quantiles = np.quantile([row.seconds for row in drawn], (0.5, 0.95, 0.99))
    return {
        "server": mode,
        "served a minute": f"{60 * len(drawn) / max(row.at + row.seconds for row in rows):.1f}",
        "refused": f"{1 - len(drawn) / len(rows):.0%}",
        **{f"p{q}, s": f"{seconds:.1f}" for q, seconds in zip((50, 95, 99), quantiles, strict=True)},
        "in time": f"{sum(row.seconds <= target for row in drawn) / len(rows):.0%}",
        "closeness": f"{mean(row.closeness or 0 for row in drawn):.3f}",
        "CLIP-mini": f"{mean(row.clip or 0 for row in drawn):.3f}",
    }


def main() -> None:
    """Run the trace against every server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--load", type=float, default=1.5, help="of what the large model alone can serve")
    parser.add_argument("--burst", type=float, default=5.0, help="times as often as between bursts")
    parser.add_argument("--target", type=float, default=4.0, help="in seconds of a picture by the large model alone")
    parser.add_argument("--closeness", type=float, default=0.98, help="of the fixed point")
    parser.add_argument("--floor", type=float, default=0.9, help="of the load-adaptive server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    shared = ("--recipe", str(options.recipe), "--max-wait", "60")
    rows: list[Row] = []
    files: list[bytes | None] = []
    large: dict[tuple[str, int], bytes] = {}
    with Served(*shared) as served:
        warm = [draw(served.url, "a big dog on a meadow", seed)[1] for seed in range(3)]
        alone = sorted(warm)[1]
    target = options.target * alone
    asked = trace(options.requests, options.load / alone, options.burst, options.seed)
    print(f"the large model alone takes {alone:.2f} s; {len(asked)} requests in {asked[-1].at:.0f} s")
    modes = {
        "large alone": ("--closeness", "1"),
        f"fixed, {options.closeness:g} close": ("--closeness", str(options.closeness)),
        "load-adaptive": ("--closeness", "1", "--target-seconds", str(target), "--floor", str(options.floor)),
    }
    for mode, words in modes.items():
        with Served(*shared, *words) as served:
            url = served.url
            for seed in range(2):  # warm, and its forecast with it
                draw(url, "a big dog on a meadow", seed, quality="auto")
            answers = asyncio.run(replay(url, asked, mode))
            if not large:
                for prompt, seed in {(ask.prompt, ask.seed) for ask in asked}:
                    large[prompt, seed], _ = draw(url, prompt, seed)
        rows += [row for row, _ in answers]
        files += [file for _, file in answers]
        print(mode, sum(file is not None for _, file in answers), "of", len(answers), flush=True)
    judged(rows, files, large)
    write(
        options.out, "serve_load", [summary(mode, [row for row in rows if row.mode == mode], target) for mode in modes],
        [asdict(row) for row in rows], large_seconds=alone, target_seconds=target,
        settings={name: str(value) for name, value in vars(options).items()},
    )  # fmt: skip


def draw(url: str, prompt: str, seed: int, quality: str = "max") -> tuple[bytes, float]:
    """A picture, and its seconds."""
    begun = time.perf_counter()
    body = {"prompt": prompt, "seed": seed, "quality": quality}
    found = httpx.post(f"{url}/v1/images/generations", json=body, timeout=600).raise_for_status().json()
    return base64.b64decode(found["data"][0]["b64_json"]), time.perf_counter() - begun


if __name__ == "__main__":
    main()
