"""Names of presets and policies, and what they mean."""

from ...errors import PolicyError, nearest
from ..parse import POLICIES, parse
from ..policy import Policy
from ..program import SEGMENT
from .miniature import CARRIED, FEW, HYBRID, STACKED
from .paper import TABLE_1, TABLE_2, TABLE_3
from .rivals import RIVALS
from .setting import Preset

PRESETS: dict[str, Preset] = {
    preset.name: preset for preset in (*TABLE_1, *TABLE_2, *TABLE_3, *RIVALS, HYBRID, *FEW, STACKED, CARRIED)
}


def preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        PolicyError: there is none; names the nearest.
    """
    if name not in PRESETS:
        raise PolicyError(f"there is no preset {name!r}; {nearest(name, PRESETS)}")
    return PRESETS[name]


def policy_named(text: str) -> Policy:
    """The policy that a text means: a preset's name, a policy string, or a program.

    Args:
        text: `hybridstitch-30`, `hybrid-stitch:masks=0.3,thresholds=0.5/0.3` or `L10 H15@0.3 S25`.

    Raises:
        PolicyError: none of them (with the nearest name), or options behind a preset's name.
    """
    name, colon, _ = text.strip().partition(":")
    if name in PRESETS and not colon:
        return PRESETS[name].policy
    if name in POLICIES or SEGMENT.fullmatch(name.partition(" ")[0]):
        return parse(text)
    if name in PRESETS:
        raise PolicyError(
            f"preset {name!r} takes no options; write its policy out and change that: {PRESETS[name].policy}"
        )
    raise PolicyError(f"there is no preset or policy {name!r}; {nearest(name, {*PRESETS, *POLICIES})}")


def as_preset(policy: Policy | Preset | str) -> Preset:
    """A preset, or the one of that name; any other policy becomes one that is at home everywhere.

    Raises:
        PolicyError: a text that means nothing, or something else.
    """
    if isinstance(policy, Preset):
        return policy
    if isinstance(policy, str) and policy.strip() in PRESETS:
        return PRESETS[policy.strip()]
    policy = as_policy(policy)
    return Preset(name=str(policy), policy=policy, source="given")


def as_policy(policy: Policy | Preset | str) -> Policy:
    """A policy, the one of a preset, or the one that a text means, see `policy_named`.

    Raises:
        PolicyError: none of them.
    """
    if isinstance(policy, str):
        return policy_named(policy)
    if isinstance(policy, Preset):
        return policy.policy
    if not isinstance(policy, Policy):
        raise PolicyError(
            f"{policy!r} was given as a policy; give one such as hybridstitch.HybridStitch(), or its string"
        )
    return policy
