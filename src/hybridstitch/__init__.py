"""hybridstitch: draw with two diffusion models at once, in an unmodified diffusers pipeline.

    hybridstitch.stitch(pipe, small="stabilityai/stable-diffusion-3-medium-diffusers", policy=HybridStitch())
    image = pipe("a dog looking out of a car window").images[0]
    print(pipe.transformer.trace.summary())
    hybridstitch.unstitch(pipe)

Names are loaded when first used, so that policies, traces and costs need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .drawing.engine import Engine, parse_engine
    from .errors import HybridStitchError, StitchWarning
    from .opening import open_pair, stitch, unstitch
    from .pair.stitched import StitchedTransformer
    from .policies.methods import HybridStitch, LargeOnly, Schedule, SmallOnly, TStitch
    from .policies.parse import POLICIES
    from .policies.plan import Plan, Region, Stroke
    from .policies.policy import Policy
    from .policies.presets import policy_named, preset
    from .policies.replay import Replay
    from .policies.reuse import Reuse
    from .policies.skip import Skip
    from .policies.srdiffusion import SRDiffusion
    from .policies.trace import Step, Trace
    from .recipe import Recipe

__version__ = "0.2.0"
__all__ = [
    "POLICIES",
    "Engine",
    "HybridStitch",
    "HybridStitchError",
    "LargeOnly",
    "Plan",
    "Policy",
    "Recipe",
    "Region",
    "Replay",
    "Reuse",
    "SRDiffusion",
    "Schedule",
    "Skip",
    "SmallOnly",
    "Step",
    "StitchWarning",
    "StitchedTransformer",
    "Stroke",
    "TStitch",
    "Trace",
    "open_pair",
    "parse_engine",
    "policy_named",
    "preset",
    "stitch",
    "unstitch",
]
_HOMES = (  # torch is needed by the last two
    *("errors", "policies.plan", "policies.policy", "policies.trace", "policies.methods", "policies.parse"),
    *("policies.replay", "policies.reuse", "policies.skip"),
    *("policies.presets", "drawing.engine", "recipe", "pair.stitched", "opening"),
)


def __getattr__(name: str) -> Any:
    if name == "ModelMixin":  # diffusers looks its base classes up by name in the package that made a component
        return import_module("diffusers").ModelMixin
    if name in __all__:
        for home in _HOMES:
            module = import_module(f".{home}", __name__)
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
