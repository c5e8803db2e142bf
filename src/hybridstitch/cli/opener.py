"""Opens a pair as a command was told to; can be sent to a process, also of another machine."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..drawing.engine import PLAIN, Engine
from ..errors import PairError
from ..policies.policy import Policy
from . import say

if TYPE_CHECKING:
    from .pairs import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """See the module.

    Attributes:
        named: the pair.
        policy: it is opened with.
        device, dtype: where, and in what precision.
        engine: how the models are run.
        models: what the names must stand for on another machine, which looks them up again; None for this one.
    """

    named: "Pair"
    policy: Policy
    device: str
    dtype: str
    engine: Engine = PLAIN
    models: Mapping[str, str] | None = None

    def abroad(self, models: Mapping[str, str]) -> "Opener":
        """The same for another machine."""
        return replace(self, named=self.named.from_anywhere(), models=models)

    def __call__(self) -> Any:
        """The stitched pipeline, quiet.

        Raises:
            PairError: the names stand for other models here.
        """
        say.hush()
        from .pairs import Pair

        named = self.named if self.models is None else Pair.of(self.named.large, self.named.small)
        with say.plain_warnings():  # a process of its own has not made them plain yet
            pipe = named.open(self.policy, device=self.device, dtype=self.dtype, engine=self.engine)
        if self.models is not None:
            check_models(named, self.models)
        return pipe


def check_models(named: "Pair", wanted: Mapping[str, str]) -> None:
    """Looked at once they are opened: of a hub id nothing lies here before.

    Raises:
        PairError: the names stand for other models here.
    """
    here = named.known_as(wanted)
    for role, what in wanted.items():
        if here[role] != what:
            raise PairError(f"the {role} model is {here[role]} here and {what} where the command runs")
