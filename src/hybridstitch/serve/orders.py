"""What the server and its workers say to each other: plain values that any process can pickle; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..measure.price import Prices
from .sizes import Sizes

Format = Literal["png", "jpeg", "webp"]
Reason = Literal[
    "request", "memory", "disk", "device", "error", "stopped",  # a worker says
    "died", "draining", "deadline",  # the server says
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A picture to start from.

    Attributes:
        picture: RGB bytes, row by row, of the order's size.
        mask: one byte a pixel, 255 where to draw anew; None draws all of it anew.
        strength: how much noise it is given, in (0, 1].
    """

    picture: bytes
    mask: bytes | None
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """How a picture is drawn on from one that was drawn before, where one is near enough.

    Attributes:
        policy: who draws what of the steps that are left, as text.
        steps, shift, levels: of the whole run.
        least: the first step to begin with that is worth it.
    """

    policy: str
    steps: int
    shift: float | None
    levels: tuple[float, ...] | None
    least: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Some pictures of one prompt, as `hybridstitch generate` would be told to draw them.

    Attributes:
        id: of the request.
        prompt, negative: what to draw, and what not.
        policy: who draws what, as text.
        steps: T, all of them drawn, those of an edit too.
        shift, levels: of the noise (`policies.levels`); None leaves them to the pipeline.
        guidance: scale of classifier-free guidance.
        size: width and height in pixels.
        seed: picture k is drawn from seed + k.
        count: pictures.
        partials: how many pictures are to be told of on the way; the first is the small model's sketch.
        edit: what to start from; None starts from noise.
        format, compression: of the file; 0 to 100, 100 the largest.
        masks: tell with the trace which tokens the large model drew.
        remember: keep the pictures, where the server remembers any.
        rest: how to draw on from a picture drawn before; None begins with noise.
    """

    id: str
    prompt: str
    negative: str
    policy: str
    steps: int
    shift: float | None
    levels: tuple[float, ...] | None
    guidance: float
    size: tuple[int, int]
    seed: int
    count: int = 1
    partials: int = 0
    edit: Edit | None = None
    format: Format = "png"
    compression: int = 100
    masks: bool = True
    remember: bool = False
    rest: Rest | None = None

    @property
    def alike(self) -> Any:
        """What orders drawn in one call share; None for one that is drawn by itself."""
        if self.edit is not None or self.partials:
            return None
        return self.policy, self.steps, self.shift, self.levels, self.guidance, self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture, drawn.

    Attributes:
        file: its bytes.
        seed: of its noise.
        seconds: from the prompt to the picture.
        trace: who drew what, as `Trace.to_json` gives it.
        trace_digest, pixel_digest: SHA-256 of what was decided, and of the RGB bytes.
        steps: how many were drawn by whom: "L", "S", "S+L" or "-".
        large_tokens, tokens: of all steps, those that the large model drew, and all.
        flags: what is noteworthy about the run.
        start: the step that it began with, from a picture drawn before; 0 began with noise.
        similarity: of the prompt and that picture.
    """

    file: bytes
    seed: int
    seconds: float
    trace: Mapping[str, Any]
    trace_digest: str
    pixel_digest: str
    steps: Mapping[str, int]
    large_tokens: int
    tokens: int
    flags: tuple[str, ...]
    start: int = 0
    similarity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a worker says of the pair it opened.

    Attributes:
        pair, small: as named.
        models: what the names stood for.
        policy: who draws when nobody says, as text.
        device, dtype: where and in what precision.
        devices: of this kind on this machine.
        sizes: that it draws.
        miniature: whether prompts are of the miniature world.
        size: width and height when none is asked for.
        prices: seconds of strokes at that size, taken as it warmed up.
        memory: bytes the device has; weights: the models' bytes; picture: what drawing at that size takes besides.
        tokenizer: as JSON; text_tokens: how many of its tokens the text encoder takes, marks of its own among them.
        together: pictures a call, measured to pay; 1 draws them one by one.
        notes: warnings of opening.
    """

    pair: str
    small: str | None
    models: Mapping[str, str]
    policy: str
    device: str
    dtype: str
    devices: int
    sizes: Sizes
    miniature: bool
    size: tuple[int, int]
    prices: Prices
    memory: int
    weights: int
    picture: int
    tokenizer: str
    text_tokens: int
    together: int
    notes: tuple[str, ...] = ()


# --- to a worker ---


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw these, which are alike, in as few calls as pays."""

    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop drawing an order, within one step; nothing where it is not being drawn."""

    id: str


@dataclass(frozen=True, slots=True)
class Leave:
    """End, in the middle of a picture too."""


# --- from a worker ---


@dataclass(frozen=True, slots=True)
class Opened:
    """The pair is open and warm."""

    about: About


@dataclass(frozen=True, slots=True)
class Refused:
    """The pair cannot be opened: nobody else need try."""

    message: str


@dataclass(frozen=True, slots=True)
class StepDrawn:
    """So many steps of an order were drawn, of all its pictures."""

    id: str
    steps: int


@dataclass(frozen=True, slots=True)
class Partial:
    """A picture on its way."""

    id: str
    index: int
    file: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """All pictures of an order."""

    id: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """No picture of an order, and why.

    Attributes:
        reason: "request" cannot be drawn at all, "memory" was too little, "disk" took no more, "device" answers nothing
            any more and the worker ends, "stopped" as told, the worker "died", the server is "draining", its "deadline"
            passed, "error" for the rest.
    """

    id: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something went wrong that costs no picture: for the log."""

    message: str


@dataclass(frozen=True, slots=True)
class Free:
    """All orders of a `Draw` were answered."""
