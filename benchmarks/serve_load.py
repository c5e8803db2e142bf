"""A server under a trace of requests with bursts: the large model alone, one fixed point, load-adaptive; each with and
without a memory of pictures.

    python -m benchmarks.serve_load                         all six, about 23 minutes on two quiet cores
    python -m benchmarks.serve_load --requests 30 --load 3  a short one

The trace is made from a seed: prompts of the miniature world by Zipf's law, every request with a seed of its own, gaps
between requests exponential, at a rate that is `--load` times what the large model alone serves here, and `--burst`
times as often in a burst as between bursts. Each server begins anew, on loopback, with one worker and nothing
remembered; a request that is refused (429) is not asked again. Closeness is SSIM to the large model's picture of the
same noise, of `--judged` requests spread over the trace; CLIP-mini is of all pictures.

What was done is kept in `--state`, a server at a time: a run that was broken off goes on with the next server. Remove
the folder to begin anew. Writes `docs/results/serve_load.{json,md,png,svg}`, with one raw row a request, and the table
into docs/serving.md.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from statistics import mean, median
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.rounds import COLOURS, RESULTS, markdown, plt, save, write
from hybridstitch.disk import files as disk
from hybridstitch.evaluate.closeness import ssim
from hybridstitch.evaluate.metrics import open_metrics
from hybridstitch.mini.scenes import heldout_prompts

PROMPTS, ZIPF = 40, 1.1
BURST_SHARE = 0.3  # of the requests
WARM = "a big dog on a meadow"
PAGE, BEGIN, END = Path("docs/serving.md"), "<!-- load: begin -->\n", "<!-- load: end -->\n"


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
        start: the step that it began with, from a remembered picture; 0 began with noise.
        closeness, clip: of the picture.
    """

    mode: str
    at: float
    prompt: str
    seed: int
    status: int
    seconds: float
    speed: float | None = None
    start: int = 0
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
        found.append(Asked(now, prompts[which], len(found)))
        place -= 1
    return found


async def replay(url: str, asked: Sequence[Asked], mode: str) -> list[tuple[Row, bytes | None]]:
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
        (image,) = found["hybridstitch"]["images"]
        row.speed, row.start = found["hybridstitch"]["speed"], (image["memory"] or {}).get("start", 0)
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


@dataclass(frozen=True, slots=True)
class State:
    """What was done so far, in a folder: the plan, the large model's pictures, and the rows of each server."""

    folder: Path

    def plan(self, settings: dict[str, str]) -> dict[str, Any]:
        """The plan of these settings, as far as it is there.

        Raises:
            SystemExit: it is of other settings.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self.read("plan") or {"settings": settings}
        if found["settings"] != settings:
            raise SystemExit(f"{self.folder} holds a run of other settings; remove it, or choose another --state")
        return found

    def read(self, name: str) -> Any:
        """What was written under a name, or None."""
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else None

    def write(self, name: str, data: Any) -> None:
        """Keep JSON under a name, whole or not at all."""
        disk.keep(self.folder / f"{name}.json", json.dumps(data, indent=1).encode())

    def large(self, url: str, ask: Asked) -> np.ndarray:
        """The large model's picture of a request, (H, W, 3); drawn once."""
        path = self.folder / f"{hashlib.sha256(f'{ask.seed} {ask.prompt}'.encode()).hexdigest()[:16]}.png"
        if not path.is_file():
            disk.keep(path, draw(url, ask.prompt, ask.seed)[0])
        return pixels(path.read_bytes())


def pixels(file: bytes) -> np.ndarray:
    """(H, W, 3) of a file."""
    return np.asarray(Image.open(BytesIO(file)).convert("RGB"))


def draw(url: str, prompt: str, seed: int, quality: str = "max") -> tuple[bytes, float]:
    """A picture, neither remembered nor begun with a remembered one, and its seconds."""
    begun = time.perf_counter()
    body = {"prompt": prompt, "seed": seed, "quality": quality, "remember": False}
    found = httpx.post(f"{url}/v1/images/generations", json=body, timeout=600).raise_for_status().json()
    return base64.b64decode(found["data"][0]["b64_json"]), time.perf_counter() - begun


def summary(mode: str, rows: Sequence[Row], target: float) -> dict[str, Any]:
    """A line of the table."""
    drawn = [row for row in rows if row.status == 200]
    quantiles = np.quantile([row.seconds for row in drawn], (0.5, 0.95, 0.99))
    judged = [row.closeness for row in drawn if row.closeness is not None]
    return {
        "server": mode,
        "served a minute": f"{60 * len(drawn) / max(row.at + row.seconds for row in rows):.1f}",
        "refused": f"{1 - len(drawn) / len(rows):.0%}",
        **{f"p{q}, s": f"{seconds:.1f}" for q, seconds in zip((50, 95, 99), quantiles, strict=True)},
        "in time": f"{sum(row.seconds <= target for row in drawn) / len(rows):.0%}",
        "from memory": f"{mean(row.start > 0 for row in drawn):.0%}" if "memory" in mode else "",
        "closeness": f"{mean(judged):.3f} ({len(judged)})" if judged else "",
        "CLIP-mini": f"{mean(row.clip or 0 for row in drawn):.3f}",
    }


def plot(rows: Sequence[Row], modes: Sequence[str], target: float, path: Path) -> None:
    """How long requests took: shares of all that were asked, and over the trace."""
    figure, (shares, course) = plt.subplots(1, 2, figsize=(12, 4.2))
    for place, mode in enumerate(modes):
        mine = [row for row in rows if row.mode == mode]
        drawn = sorted(row.seconds for row in mine if row.status == 200)
        colour, dashed = COLOURS[place % 3 + 1], "--" if "memory" in mode else "-"
        reached = [100 * (k + 1) / len(mine) for k in range(len(drawn))]
        shares.step(drawn, reached, where="post", color=colour, linestyle=dashed, label=mode)
        if "memory" not in mode:
            course.plot(
                [row.at for row in mine if row.status == 200], [row.seconds for row in mine if row.status == 200], ".",
                color=colour, label=mode,
            )  # fmt: skip
    shares.axvline(target, color="#777777", linewidth=1)
    course.axhline(target, color="#777777", linewidth=1)
    shares.set(xlabel="seconds from request to picture", ylabel="% of all requests", ylim=(0, 101))
    course.set(xlabel="seconds into the trace", ylabel="seconds from request to picture", ylim=(0, None))
    shares.legend(frameon=False, fontsize=8)
    save(figure, path)


def tell(page: Path, table: Sequence[dict[str, Any]], said: str) -> None:
    """Put the table into a page, between its marks."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if end:
        picture = "![How long requests took](results/serve_load.png)"
        page.write_text(f"{before}{BEGIN}{said}\n\n{markdown(table)}\n{picture}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Run the trace against every server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe", type=Path, help="of the pair, with what `calibrate --memory` adds; default: its own"
    )
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--load", type=float, default=7.0, help="of what the large model alone can serve")
    parser.add_argument("--burst", type=float, default=5.0, help="times as often as between bursts")
    parser.add_argument("--target", type=float, default=4.0, help="in seconds of a picture by the large model alone")
    parser.add_argument("--closeness", type=float, default=0.95, help="of the fixed point")
    parser.add_argument("--floor", type=float, default=0.9, help="of the load-adaptive server")
    parser.add_argument("--max-wait", type=float, default=30.0, help="seconds after which requests are refused")
    parser.add_argument("--judged", type=int, default=40, help="requests whose closeness is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--state", type=Path, default=Path(".serve_load"), help="what was done so far")
    parser.add_argument("--page", type=Path, default=PAGE, help="that the table is written into")
    options = parser.parse_args()
    told = {name: str(value) for name, value in vars(options).items() if name not in ("out", "state", "page")}
    state = State(options.state)
    plan = state.plan(told)
    shared = ["--max-wait", f"{options.max_wait:g}"]
    shared += [] if options.recipe is None else ["--recipe", str(options.recipe)]
    if "alone" not in plan:
        with Served(*shared, "--closeness", "1") as served:
            plan["alone"] = median(draw(served.url, WARM, seed)[1] for seed in range(5))
        state.write("plan", plan)
    alone, target = plan["alone"], options.target * plan["alone"]
    asked = trace(options.requests, options.load / alone, options.burst, options.seed)
    places = np.linspace(0, len(asked) - 1, min(options.judged, len(asked))).round().astype(int)
    judged = {asked[place].seed: asked[place] for place in places}
    fixed = f"fixed, {options.closeness:g} close"
    kinds = {
        "large alone": ["--closeness", "1"],
        fixed: ["--closeness", f"{options.closeness:g}"],
        "load-adaptive": ["--closeness", "1", "--target-seconds", f"{target:.3f}", "--floor", f"{options.floor:g}"],
    }
    modes = [(f"{kind}{memory}", words) for memory in ("", ", memory") for kind, words in kinds.items()]
    minutes = (len(modes) * (asked[-1].at + options.max_wait + 20) + len(judged) * alone) / 60
    print(f"the large model alone takes {alone:.2f} s; {len(asked)} requests in {asked[-1].at:.0f} s; at most about "
          f"{minutes:.0f} minutes in all", flush=True)  # fmt: skip
    clip = open_metrics(["CLIP-mini"])["CLIP-mini"]
    rows: list[Row] = []
    for place, (mode, words) in enumerate(modes):
        known = state.read(f"server-{place}")
        if known is None:
            with tempfile.TemporaryDirectory() as folder:
                memory = ["--remember", folder] if "memory" in mode else []
                with Served(*shared, *words, *memory) as served:
                    for seed in range(2):  # warm, and its forecast with it
                        draw(served.url, WARM, seed, quality="auto")
                    answers = asyncio.run(replay(served.url, asked, mode))
                    for row, file in answers:
                        if file is not None:
                            row.clip = clip([pixels(file)], [row.prompt]).value
                            if row.seed in judged:
                                row.closeness = ssim(pixels(file), state.large(served.url, judged[row.seed]))
            known = [asdict(row) for row, _ in answers]
            state.write(f"server-{place}", known)
        found = [Row(**row) for row in known]
        rows += found
        print(mode, sum(row.status == 200 for row in found), "of", len(found), flush=True)
    table = [summary(mode, [row for row in rows if row.mode == mode], target) for mode, _ in modes]
    write(
        options.out, "serve_load", table, [asdict(row) for row in rows], large_seconds=alone, target_seconds=target,
        settings=told,
    )  # fmt: skip
    plot(rows, [mode for mode, _ in modes], target, options.out / "serve_load")
    tell(options.page, table, (
        f"{len(asked)} requests in {asked[-1].at:.0f} s, drawn at random at a mean rate of {options.load:g} times what "
        f"the large model alone serves here ({alone:.2f} s a picture; these came to "
        f"{len(asked) * alone / asked[-1].at:.1f} times); in time is within {target:.1f} s; what would wait more than "
        f"{options.max_wait:g} s is refused."
    ))  # fmt: skip


if __name__ == "__main__":
    main()
