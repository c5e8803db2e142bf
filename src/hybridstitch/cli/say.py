"""What the command line says: results on stdout, everything else on stderr, one line each."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

UNCUT = 10_000  # columns of a table in a pipe or a file


def out() -> Console:
    """For results. Nothing is wrapped, cut or coloured unless a terminal reads it."""
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = UNCUT
    return console


def errors() -> Console:
    """For progress and everything that is no result."""
    return Console(file=sys.stderr)


def line(kind: str, message: object, style: str = "") -> None:
    """One line on stderr.

    Args:
        kind: "error", "warning" or "note".
        message: what is to say; line breaks become blanks.
        style: of `kind`, as rich names it.
    """
    text = Text.assemble((f"{kind}: ", style), " ".join(visible(str(message)).split()))
    Console(file=sys.stderr, soft_wrap=True, highlight=False).print(text)


def visible(text: str) -> str:
    """A text of unknown origin without what would steer a terminal: escapes, and marks that turn the reading order."""
    return "".join(c if c.isprintable() or c == "\n" else " " if c.isspace() else "" for c in text)


def warn(message: object) -> None:
    """A warning on stderr."""
    line("warning", message, "bold yellow")


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Python's warnings as one line each, those of this library only; other libraries' chatter is left out."""

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        warn(message)

    for noisy in ("torchao", "torch.utils._pytree"):  # speak while diffusers is imported
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    with warnings.catch_warnings():
        warnings.showwarning = show
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", module=r"hybridstitch(\..*)?$")
            from ..errors import StitchWarning

            warnings.simplefilter("always", StitchWarning)
        yield


def hush() -> None:
    """Keep diffusers and transformers from filling the terminal with notes and bars of their own."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def progress(stream: TextIO) -> Progress:
    """A bar for a terminal; silent anywhere else."""
    console = Console(file=stream)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
