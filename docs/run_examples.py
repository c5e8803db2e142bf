"""`python docs/run_examples.py PAGE…`: run the commands of a page's console blocks, and write down what they print.

A block's lines that begin with "$ " are commands; everything else in it is output and is replaced. All commands of a
page run in one empty folder, in order, with stdout and stderr as a reader would see them. A page with a command that
ends in an error of the program itself (code 1) is left as it was.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
HOME = Path(__file__).parent.parent


def run(command: str, folder: Path) -> str:
    """What a command prints.

    Raises:
        SystemExit: it failed, with code 1.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "130", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode == 1:
        raise SystemExit(f"{command}\n{done.stdout}")
    text = done.stdout.replace(str(HOME), "…")
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines()).strip("\n") + "\n"


def main() -> None:
    """Run every page given."""
    for page in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:

            def again(block: re.Match[str], folder: str = folder) -> str:
                commands = [line for line in block[1].splitlines() if line.startswith("$ ")]
                return "```console\n" + "".join(f"{c}\n{run(c[2:], Path(folder))}" for c in commands) + "```"

            page.write_text(BLOCK.sub(again, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
