"""A policy of your own: a frozen dataclass with one method, `decide(seen) -> Plan`.

Here the share of the large model fades: everything at first, then less and less of the tokens, in the end none. An
instance goes wherever a policy goes; to give it by name as well, see "Add a policy" in CONTRIBUTING.md.

    python examples/own_policy.py
"""

from dataclasses import dataclass

import hybridstitch
from hybridstitch import Plan
from hybridstitch.policies.plan import large
from hybridstitch.policies.policy import MaskedPolicy
from hybridstitch.policies.seen import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Fading(MaskedPolicy):
    """The large model alone for the first steps, then on a share of the tokens that falls to nothing.

    Attributes:
        alone: steps of the large model alone, at least 2: masks go to the tokens that changed most between two steps.
        most: share of the tokens that it draws after them.
    """

    name = "fading"
    alone: int = 4
    most: float = 0.5

    def decide(self, seen: Seen) -> Plan:
        """The step about to be drawn: `seen.step` of `seen.steps`."""
        if seen.step < self.alone:
            return Plan((large(),))
        share = self.most * (1 - (seen.step - self.alone) / (seen.steps - self.alone))
        return Plan((self.small(), self.masked(share)), stage=1)


if __name__ == "__main__":
    pipe = hybridstitch.open_pair("mini", policy=Fading(text="cached"))
    pipe("a big dog on a meadow", num_inference_steps=20).images[0].save("own_policy.png")
    print(pipe.transformer.trace.summary())
