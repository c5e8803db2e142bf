"""Everything this library raises on purpose: what was found, what was expected, and the way out.

All errors derive from `HybridStitchError`; those about a value also from `ValueError`, those about a moment in
the life of a run also from `RuntimeError`, so that callers who know nothing of this library still catch them.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class HybridStitchError(Exception):
    """Any error that this library raises on purpose."""


class PolicyError(HybridStitchError, ValueError):
    """A policy, preset, program or option that makes no sense."""


class PairError(HybridStitchError, ValueError):
    """Two models that do not speak the same language."""


class EngineError(HybridStitchError, ValueError):
    """An engine option that makes no sense, or that this machine or pair cannot serve."""


class SchedulerError(HybridStitchError, ValueError):
    """A scheduler whose steps this policy cannot observe."""


class StitchError(HybridStitchError, RuntimeError):
    """Stitching, unstitching or calling in an order that cannot work."""


class RunError(HybridStitchError, RuntimeError):
    """Something went wrong while a picture was drawn."""


class BusyError(HybridStitchError, RuntimeError):
    """A folder that another process is working in."""


class ServeError(HybridStitchError, RuntimeError):
    """A server that cannot begin."""


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
