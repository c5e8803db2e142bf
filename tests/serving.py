"""Servers for tests: `hybridstitch serve` of a small pair in a process, a recipe for it, and one whose worker fails."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

import mini_folder
from hybridstitch.measure.intervals import Interval
from hybridstitch.measure.price import Prices
from hybridstitch.mini import opened
from hybridstitch.policies.parse import parse
from hybridstitch.recipe import Home, Point, Recall, Recipe, kind_of

HERE = Path(__file__).parent
POINTS = (  # policy, steps, noise levels, speed, closeness
    ("large", 6, {}, 1.0, 1.0),
    ("schedule:program=L2 H2@0.3 S2", 6, {}, 1.6, 0.96),
    ("schedule:program=S2 L R@0.3", 4, {"shift": 3.0}, 3.0, 0.9),
    ("schedule:program=L S", 2, {"levels": (1.0, 0.5)}, 5.0, 0.7),
)
SIZE = (32, 16)


def recipe(path: Path, recall: Recall | None = None) -> Path:
    """A recipe of the pair that `mini_folder.save` writes."""
    large = mini_folder.transformer(layers=3, heads=4, seed=1).num_parameters()
    small = mini_folder.transformer(layers=2, heads=2, seed=2).num_parameters()
    home = Home(
        pair="mini", small=None, models={}, parameters=(large, small), width=SIZE[0], height=SIZE[1], steps=6,
        guidance=4.0, scheduler="unknown", machine={},
    )  # fmt: skip
    points = tuple(
        Point(
            policy=policy,
            steps=steps,
            kind=kind_of(parse(policy), steps, 6),
            predicted=speed,
            measured=speed,
            closeness=Interval(closeness, closeness - 0.01 * (closeness < 1), min(closeness + 0.01, 1.0), 8),
            psnr=Interval(30.0, 29.0, 31.0, 8),
            **levels,
        )
        for policy, steps, levels, speed, closeness in POINTS
    )
    found = Recipe(
        home=home, prices=Prices(call=0.01, step=0.0002, large=0.01, small=0.004, masked={"fresh": (0.006, 0.006)}),
        shares={}, prompts={"searched": 4, "checked": 2, "sha256": "0"}, seed=0, asked={}, points=points, verdict=(),
        recall=recall,
    )  # fmt: skip
    found.save(path)
    return path


@dataclass
class Running:
    """A server in a process of its own; `early` says what its page and health routes answered before it was open."""

    url: str
    process: subprocess.Popen
    log: Path
    early: dict[str, int] = field(default_factory=dict)
    first: Future | None = None

    def lines(self, **facts) -> list[dict]:
        """Lines of its log that say these."""
        said = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in said if facts.items() <= line.items()]

    def draw(self, **fields) -> httpx.Response:
        """One request, at the smallest cost."""
        body = {
            "prompt": "a big dog on a meadow",
            "size": "32x16",
            "seed": 1,
            "policy": "large",
            "num_inference_steps": 3,
        }
        body |= fields
        return httpx.post(f"{self.url}/v1/images/generations", json=body, timeout=60)

    def get(self, path: str) -> httpx.Response:
        """One look."""
        return httpx.get(self.url + path, timeout=20)

    def until(self, true, seconds: float = 30.0) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"still not after {seconds} s; the log ends: {self.log.read_text()[-2000:]}"
            time.sleep(0.02)


@contextmanager
def serving(
    folder: Path, mini: Path, *words: str, command: str | None = None, first: dict | None = None, **environment: str
):
    """A server, until the block ends; `first` is asked for before the pair is open."""
    folder.mkdir(parents=True, exist_ok=True)
    called = [sys.executable, "-m", "hybridstitch", "serve"]
    if command is not None:
        called = [sys.executable, "-c", command]
    variables = {
        **os.environ,
        opened.FOLDER: str(mini),
        "PYTHONPATH": os.pathsep.join([*sys.path, str(HERE)]),
        **environment,
    }
    with (folder / "out").open("w") as out, (folder / "log").open("w") as log:
        process = subprocess.Popen([*called, "--port", "0", *words], stdout=out, stderr=log, env=variables)
    try:
        running = Running("", process, folder / "log")
        said, told = folder / "out", re.compile(r"(http://\S+)( answers)?\n")  # a cluster says it once it draws
        running.until(lambda: told.search(said.read_text()) or process.poll() is not None, 120)
        assert process.poll() is None, running.log.read_text()
        running.url = told.search(said.read_text())[1]
        running.early = {path: running.get(path).status_code for path in ("/", "/health/live", "/health/ready")}
        with ThreadPoolExecutor(1) as pool:
            running.first = None if first is None else pool.submit(running.draw, **first)
            running.until(lambda: "drawing at" in said.read_text() or process.poll() is not None, 120)
            assert process.poll() is None, running.log.read_text()
        yield running
    finally:
        process.kill()
        process.wait()


@dataclass
class ClusterLog:
    """What processes of a Ray cluster wrote down, instead of a file; `parent` is the server's own folder."""

    cluster: Path
    parent: Path

    def read_text(self) -> str:
        """All of it."""
        files = sorted(self.cluster.glob("ray/session_2*/logs/worker-*.err"))
        return "".join(file.read_text(errors="replace") for file in [self.parent / "log", *files])

    def processes(self, title: str) -> list[int]:
        """Ids of the processes of the cluster whose titles begin so."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
                ours = str(self.cluster) in Path(f"/proc/{parent}/cmdline").read_text(errors="replace")
                if ours and (path / "cmdline").read_text(errors="replace").startswith(title):
                    found.append(int(path.name))
        return sorted(found)


@contextmanager
def serving_on_ray(folder: Path, mini: Path, *words: str, **options):
    """A server on a cluster of its own, which ends with it."""
    with tempfile.TemporaryDirectory(prefix="r") as cluster:  # its sockets' names must be short
        variables = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": cluster}
        with serving(folder, mini, *words, "--on", "ray", "--address", "local", **variables, **options) as running:
            running.log = ClusterLog(Path(cluster), folder)
            try:
                yield running
            finally:
                running.process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    running.process.wait(60)


# --- a worker that fails as it is told to ---

FAULTS = """
import sys
from serve_faults import FaultyOpener
from hybridstitch.cli import main
sys.modules["hybridstitch.cli.serve"].ServeOpener = FaultyOpener
sys.exit(main(["serve", *sys.argv[1:]]))
"""


def fail(word: str, steps: int) -> None:
    """What a word of a prompt makes of the third step, or of every one."""
    import torch

    if word == "slow":
        time.sleep(0.1)
    if steps != 3:
        return
    match word:
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        case "once" if not Path(os.environ["FAULTS"]).exists():
            Path(os.environ["FAULTS"]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        case "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        case "poison":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        case "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        case "bug":
            raise ZeroDivisionError("division by zero in /home/somebody/secret.py")
        case "hangs":
            time.sleep(1000)
