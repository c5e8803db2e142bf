"""A server under many small requests: does memory grow, are handles kept?

    python -m benchmarks.serve_soak                 10,000 requests at 2 steps and 32 × 32 pixels
    python -m benchmarks.serve_soak --pair random   the same of another pair: faster, where that is a smaller one

Every so often the resident memory and the open files of both processes are read from /proc. The first `SETTLED`
requests are left out; of the rest a line is fitted, with the 95 % interval of its slope by resampling whole blocks of
readings. What the server keeps of requests is full after `dispatch.KEPT`, 256; from there on the number of its objects
is constant, and what still grows, less and less and until about the 2,000th request, is what the allocator holds of
freed memory (seen in four runs of the server with a worker that draws nothing, one of them under tracemalloc).
Writes `docs/results/serve_soak.{json,md}`, with the readings.
"""

import argparse
import asyncio
import json
import os
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np

from benchmarks.rounds import RESULTS, write
from benchmarks.serve_load import Served

TOGETHER = 4  # requests under way
TIMED = 200  # requests, after which the time of all is told
SETTLED = 3000  # requests, chosen before the run of 10,000
READINGS, BLOCK, RESAMPLED = 200, 5, 2000


async def ask(url: str, requests: int, pids: dict[str, int]) -> list[dict[str, Any]]:
    """Ask, read now and then, and say how long it will take."""
    begun = perf_counter()
    readings: list[dict[str, Any]] = []
    numbers = iter(count())
    every = max(requests // READINGS, 1)

    async def one(client: httpx.AsyncClient) -> None:
        while (number := next(numbers)) < requests:
            body = {
                "prompt": "a big dog on a meadow",
                "size": "32x32",
                "num_inference_steps": 2,
                "policy": "L S",
                "seed": number,
            }
            answer = await client.post(f"{url}/v1/images/generations", json=body, timeout=600)
            answer.raise_for_status()
            if number % every == 0:
                readings.append({"requests": number, **{name: reading(pid) for name, pid in pids.items()}})
            if number == TIMED:
                seconds = (perf_counter() - begun) / TIMED * requests
                print(f"{requests} requests take about {seconds / 60:.0f} minutes here", flush=True)

    async with httpx.AsyncClient() as client:
        await asyncio.gather(*(one(client) for _ in range(TOGETHER)))
    return readings


def reading(pid: int) -> dict[str, float]:
    """Resident MiB and open files of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return {"mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20, "files": len(os.listdir(f"/proc/{pid}/fd"))}


def slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Of a line of least squares, and its 95 % interval over resampled blocks of its residuals."""
    line = np.polyfit(x, y, 1)
    residuals = y - np.polyval(line, x)
    blocks = np.lib.stride_tricks.sliding_window_view(residuals, BLOCK)
    random = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLED):
        drawn = blocks[random.integers(len(blocks), size=-(-len(x) // BLOCK))].ravel()[: len(x)]
        found.append(np.polyfit(x, np.polyval(line, x) + drawn, 1)[0])
    low, high = np.quantile(found, (0.025, 0.975))
    return float(line[0]), float(low), float(high)


def main() -> None:
    """Ask, and say what grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--pair", default="mini", help="as hybridstitch serve takes it")
    options = parser.parse_args()
    with Served("--pair", options.pair) as served:
        ready = httpx.get(f"{served.url}/health/ready").json()
        pids = {"server": served.process.pid, "worker": ready["workers"][0]["pid"]}
        readings = asyncio.run(ask(served.url, options.requests, pids))
    rows = []
    kept = [row for row in readings if row["requests"] >= min(SETTLED, options.requests // 2)]
    x = np.array([row["requests"] for row in kept]) / 1000
    for name in pids:
        mib = np.array([row[name]["mib"] for row in kept])
        found, low, high = slope(x, mib)
        files = [row[name]["files"] for row in kept]
        rows.append({
            "process": name, "MiB at the end": f"{mib[-1]:.0f}",
            "MiB a thousand requests": f"{found:.3f} [{low:.3f}, {high:.3f}]",
            "open files": f"{min(files)} to {max(files)}",
        })  # fmt: skip
    write(options.out, "serve_soak", rows, readings, requests=options.requests, pair=options.pair, together=TOGETHER)
    print(json.dumps(readings[-1]))


if __name__ == "__main__":
    main()
