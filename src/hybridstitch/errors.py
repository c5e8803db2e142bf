"""Every error that this library raises on purpose. The message says what was found, what was expected, and what to do.

All errors derive from `HybridStitchError`. Errors about a value also derive from `ValueError`, those about the state of
a run from `RuntimeError`, so that callers who know nothing of this library still catch them.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class HybridStitchError(Exception):
    """Any error that this library raises on purpose."""


class PolicyError(HybridStitchError, ValueError):
    """A policy, preset, program or option that makes no sense."""


class PairError(HybridStitchError, ValueError):
    """Two models that cannot draw together, or that cannot be found or loaded."""


class EngineError(HybridStitchError, ValueError):
    """An engine option that makes no sense, or that this machine or pair cannot serve."""


class SchedulerError(HybridStitchError, ValueError):
    """A scheduler whose steps this policy cannot observe."""


class StitchError(HybridStitchError, RuntimeError):
    """Stitching, unstitching or calling in an order that cannot work."""


class RunError(HybridStitchError, RuntimeError):
    """Something went wrong while a picture was drawn."""


class BusyError(HybridStitchError, RuntimeError):
    """A folder that another process is using."""


class ServeError(HybridStitchError, RuntimeError):
    """A server that cannot start."""


class TraceError(HybridStitchError, ValueError):
    """A trace that cannot be read or does not belong to this run."""


class StitchWarning(UserWarning):
    """The run works, but not the way its user is likely to want."""


def in_one_line(error: BaseException, most: int | None = None) -> str:
    """What an error says, without its line breaks.

    Args:
        error: any.
        most: characters; None for all.
    """
    return " ".join(str(error).split())[:most] or "no message"


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence's worth of help for a misspelt name: the nearest known one, or all of them.

    Args:
        word: what was given.
        known: the names that exist.
    """
    names = sorted(known)
    close = get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
