"""Policies by name, and read from text.

As text a policy is its name and the fields that differ from their defaults
(`hybrid-stitch:masks=0.3,thresholds=0.5/0.3`); what a policy wraps comes last (`reuse:bound=0.1,of=sr-diffusion`).
`parse` and `str` are inverses.
"""

from ..errors import PolicyError, nearest
from . import options
from .methods import HybridStitch, LargeOnly, Schedule, SmallOnly, TStitch
from .policy import Policy
from .program import SEGMENT
from .reuse import Reuse
from .skip import Skip
from .srdiffusion import SRDiffusion

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy for policy in (LargeOnly, SmallOnly, Skip, TStitch, SRDiffusion, HybridStitch, Schedule, Reuse)
}


def parse(text: str) -> Policy:
    """Read a policy string; the inverse of `str(policy)`. A bare program (`"L10 S40"`) is a `Schedule`.

    Args:
        text: `name`, or `name:field=value,field=value`; several numbers are separated by `/`. Behind `of=`, which
            comes last, another policy.

    Raises:
        PolicyError: an unknown name or option (with the nearest known one), or a value that cannot be meant.
    """
    name, _, changed = text.strip().partition(":")
    if name not in POLICIES:
        if SEGMENT.fullmatch(name.split()[0] if name.split() else "") and not changed:
            return Schedule(name)
        raise PolicyError(f"there is no policy {name!r}; {nearest(name, POLICIES)}")
    if name != Reuse.name:
        return POLICIES[name](**options.read_changed(name, POLICIES[name], changed))
    changed, found, of = changed.partition("of=")
    if not found:
        raise PolicyError("reuse needs a policy to reuse the steps of, and it comes last: reuse:bound=0.1,of=L10 S40")
    return Reuse(parse(of), **options.read_changed(name, Reuse, changed, last="of"))
