"""`python docs/run_examples.py [--check] [PAGE…]`: run the commands of console blocks, and write down what they print.

A block's lines that begin with "$ " are commands; everything else in it is output and is replaced. All commands of a
page run in one empty folder, in order, with stdout and stderr as a reader would see them. A page with a command that
ends in an error of the program itself (code 1) is left as it was. Without pages, all that have such blocks.

`--check` writes nothing: it prints where a page is not what its commands print now, times and other numbers apart, and
ends with code 1 if one is not.
"""

import os
import re
import subprocess
import sys
import tempfile
from difflib import unified_diff
from pathlib import Path

BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
HOME = Path(__file__).parent.parent
VARYING = re.compile(r"[0-9a-f]{16,64}|\d[\d.,]*|[ ─]{2,}")  # digests, numbers, and what makes columns of them


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


def again(text: str) -> str:
    """A page's text with what its commands print now."""
    with tempfile.TemporaryDirectory() as folder:

        def ran(block: re.Match[str]) -> str:
            commands = [line for line in block[1].splitlines() if line.startswith("$ ")]
            return "```console\n" + "".join(f"{c}\n{run(c[2:], Path(folder))}" for c in commands) + "```"

        return BLOCK.sub(ran, text)


def steady(text: str) -> list[str]:
    """Lines without what differs from run to run."""
    return [VARYING.sub("#", line) for line in text.splitlines()]


def main(words: list[str]) -> int:
    """Run the pages given, or all."""
    check = "--check" in words
    pages = [Path(word) for word in words if word != "--check"]
    pages = pages or [page for page in sorted((HOME / "docs").rglob("*.md")) if BLOCK.search(page.read_text("utf-8"))]
    differing = 0
    for page in pages:
        before = page.read_text("utf-8")
        after = again(before)
        if not check:
            page.write_text(after, encoding="utf-8")
        elif steady(before) != steady(after):
            differing += 1
            print(*unified_diff(steady(before), steady(after), str(page), "now", lineterm="", n=1), sep="\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
