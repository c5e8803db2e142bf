"""The command line. `main` runs one command and turns every error into one line and an exit code.

0 done, 1 failed, 2 bad input, 130 interrupted. Nothing heavy is imported before a command needs it.
"""

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from .. import __version__
from ..batch.job import JobsError
from ..errors import (
    BusyError,
    EngineError,
    HybridStitchError,
    PairError,
    PolicyError,
    SchedulerError,
    ServeError,
    TraceError,
)
from ..evaluate.pictures import ScoreError
from ..recipe import RecipeError
from ..report.metadata import PictureError
from ..reproduce.settings import ReproductionError
from . import say
from .about import doctor, inspect, policies, scene
from .asked import BadInput
from .batch import batch
from .calibrate import calibrate
from .generate import TwoModels, generate
from .pack import pack
from .reproduce import reproduce
from .serve import serve

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
BAD = (BadInput, BusyError, EngineError, JobsError, PolicyError, PairError, SchedulerError, TraceError, PictureError)
BAD = (*BAD, ScoreError, ReproductionError, RecipeError, ServeError)
USAGE_ERROR = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

IDEA = "Draw with two diffusion models at once: the large one where it matters, the small one everywhere else."

app = typer.Typer(pretty_exceptions_enable=False)
app.command(cls=TwoModels)(generate)
app.command(cls=TwoModels)(calibrate)
app.command(cls=TwoModels)(batch)
app.command()(pack)
app.command(cls=TwoModels)(reproduce)
app.command(cls=TwoModels)(serve)
app.command()(inspect)
app.command()(policies)
app.command()(scene)
app.command(cls=TwoModels)(doctor)


def _version(asked: bool) -> None:
    if asked:
        say.out().print(f"hybridstitch {__version__}")
        raise typer.Exit


@app.callback(help=IDEA)
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: its words; default: those of the process.

    Returns:
        the exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        with say.plain_warnings():
            code = app(words, prog_name="hybridstitch", standalone_mode=False, obj=tuple(words))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        return FAILED
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        say.line("error", _sentence(error, words), "bold red")
        return BAD_INPUT if isinstance(error, (*BAD, USAGE_ERROR)) else FAILED
    if code == INTERRUPTED:  # typer turns an interruption into this code by itself
        say.line("error", "interrupted; the pictures drawn so far are saved", "bold red")
    return code if isinstance(code, int) else 0


def _sentence(error: Exception, words: Sequence[str]) -> str:
    """An error as one line, with a way out where it has none itself."""
    if isinstance(error, USAGE_ERROR):
        commands = {entry.callback.__name__ for entry in app.registered_commands if entry.callback is not None}
        command = next((word for word in words if word in commands), "")
        text = _formatted(error).rstrip(".")
        return f"{text}; `{' '.join(filter(None, ['hybridstitch', command]))} --help` lists what there is"
    if isinstance(error, HybridStitchError):
        return str(error)
    name = type(error).__name__
    first = (str(error).strip().splitlines() or ["no message"])[0]
    if name == "OutOfMemoryError":
        return f"the device ran out of memory; try a smaller --size, --dtype bfloat16 or --device cpu ({first})"
    return f"{name}: {first}" + ("" if "--debug" in words else "; --debug shows where")


def _formatted(error: Any) -> str:
    """A usage error with the name of the option, which its `str` leaves out."""
    return error.format_message()
