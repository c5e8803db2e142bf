"""How the two models are run: compiled, captured, rounded, moved. Which of them draws what, the policy decides.

    stitch(pipe, small=…, engine=Engine(compile="whole", snap=64))
    pipe.transformer.engine = Engine()          eager again, from the next run on

Everything but `history` is off by default. Compilation only reorders arithmetic, so pictures agree to rounding; `snap`
changes the masks' sizes a little, `kv` and `quantise` round what their name says. As text an engine is its changed
fields, `compile=whole,snap=64`; `parse_engine` and `str` are inverses. Nothing here needs torch.
"""

from dataclasses import dataclass
from math import floor
from typing import Literal, get_args, get_type_hints

from ..errors import EngineError, PolicyError
from ..policies import options


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Options of running a pair, whatever the policy.

    Attributes:
        compile: "whole" models (three graphs: large dense, large masked, small), "regional" blocks (quicker to
            compile, one graph serves all blocks of a kind), or "off".
        backend: of `torch.compile`.
        graphs: capture compiled models in CUDA graphs; their keys and values stay allocated between pictures.
        snap: K, the number of drawn tokens, is rounded to a multiple of this, so that few graphs are needed.
        kv: dtype of the kept keys and values; "same" as the models', "float8" with a scale for each token and head.
        kv_host: keys and values are kept in the host's pinned memory, and fetched to the GPU one layer ahead.
        offload: the large model leaves the GPU after its last step and returns once the picture is decoded.
        quantise: the large model's weights in "int8" or "float8" (torchao); cannot be undone.
        history: whether a multistep solver (UniPC, DPM-Solver++) uses predictions from before the small model took
            over: "forget" or "keep", see `pair.history`.
    """

    compile: Literal["off", "whole", "regional"] = "off"
    backend: str = "inductor"
    graphs: bool = False
    snap: int = 1
    kv: Literal["same", "bfloat16", "float16", "float8"] = "same"
    kv_host: bool = False
    offload: bool = False
    quantise: Literal["off", "int8", "float8"] = "off"
    history: Literal["forget", "keep"] = "forget"

    def __post_init__(self) -> None:
        """Refuse options that make no sense, alone or together."""
        kinds = get_type_hints(type(self))
        for name in ("compile", "kv", "quantise", "history"):
            if getattr(self, name) not in get_args(kinds[name]):
                known = ", ".join(map(repr, get_args(kinds[name])))
                raise EngineError(f"{name}={getattr(self, name)!r} was given; known: {known}")
        if not isinstance(self.snap, int) or self.snap < 1:
            raise EngineError(f"snap={self.snap!r} was given; K is rounded to a multiple of it: 1 or more, as 16 or 64")
        if self.graphs and self.compile == "off":
            raise EngineError("graphs=True captures compiled models; add compile='whole', or leave graphs out")
        if self.kv_host and self.compile != "off":
            raise EngineError(
                "kv_host=True moves keys and values between the layers, which compiled models cannot do; leave "
                "out compile or kv_host"
            )
        if self.graphs and self.offload:
            raise EngineError(
                "graphs=True needs weights that stay where they are, offload=True moves them; leave one out"
            )
        if self.quantise != "off" and self.offload:
            raise EngineError(
                f"quantise={self.quantise!r} and offload=True exclude each other: quantised weights cannot be moved in "
                "place; leave one out"
            )

    @property
    def kv_bytes(self) -> int | None:
        """Of an element of the keys and values; None for that of the models."""
        return {"same": None, "float8": 1}.get(self.kv, 2)

    def count(self, tokens: int, of: int) -> int:
        """K, rounded to the nearest multiple of `snap`: at least one multiple, at most all tokens.

        Args:
            tokens: K as the mask's ratio gives it.
            of: N.
        """
        return min(of, max(1, floor(tokens / self.snap + 0.5)) * self.snap)

    def __str__(self) -> str:
        return options.write_changed("", self).removeprefix(":")


PLAIN = Engine()


def parse_engine(text: str) -> Engine:
    """Read an engine's text; the inverse of `str(engine)`.

    Args:
        text: `field=value,field=value`, or nothing.

    Raises:
        EngineError: an unknown option (with the nearest known one), or a value that cannot be meant.
    """
    try:
        return Engine(**options.read_changed("engine", Engine, text.strip()))
    except PolicyError as error:
        raise EngineError(str(error).replace("policy 'engine'", "the engine")) from error
