"""The wheel: what is in it, and that it draws by itself, in an environment without the repository.

The environment is fresh but for the libraries: it reads torch and diffusers from the one the tests run in, where a
real one installs them. `make package` installs everything.
"""

import os
import re
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
MOST = 45_000_000  # bytes
KINDS = {".py", ".typed", ".json", ".safetensors", ".png", ".html", ".txt", ".md"}


def run(*command, cwd, **env):
    """What a command prints; a failure shows it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env={**clean, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def files(wheel):
    """The package's files in the wheel, without what belongs to its metadata."""
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_is_what_git_tracks(files):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    tracked = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "src", cwd=ROOT).splitlines()
    assert files == {name.removeprefix("src/") for name in tracked}


def test_the_wheel_is_small_and_holds_code_and_the_miniature_pair_only(wheel, files):
    assert wheel.stat().st_size <= MOST
    assert {Path(name).suffix for name in files} <= KINDS
    weights = {name for name in files if name.endswith(".safetensors")}
    assert all(name.startswith("hybridstitch/mini/weights/") for name in weights)
    assert not [name for name in files if name.startswith("hybridstitch/mini/train/") and not name.endswith(".py")]
    wanted = ("py.typed", "mini/recipe.json", "mini/weights/model_index.json", "mini/assets/OFL.txt")
    wanted += ("mini/weights/small/config.json", "report/page.html", "serve/page.html")
    assert {f"hybridstitch/{name}" for name in wanted} <= files


@pytest.mark.slow
def test_it_draws_where_the_repository_is_not(wheel, tmp_path):
    venv.EnvBuilder(with_pip=False).create(tmp_path / "fresh")
    bin = tmp_path / "fresh" / ("Scripts" if os.name == "nt" else "bin")
    python = bin / "python"
    purelib = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (purelib / "libraries.pth").write_text("\n".join(site.getsitepackages()))  # .pth files in there are not read
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    run(*pip, cwd=tmp_path)
    where = run(python, "-c", "import hybridstitch; print(hybridstitch.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(purelib)
    said = run(
        *(bin / "hybridstitch", "generate", "a big dog on a meadow", "--steps", "4", "--policy", "L2 H@0.3 S"),
        cwd=tmp_path, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert re.match(r"out/a-big-dog-on-a-meadow-0\.png  [\d.]+ s$", said.strip())
    assert (tmp_path / "out" / "a-big-dog-on-a-meadow-0.png").is_file()
