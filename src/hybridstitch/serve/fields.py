"""The fields of a request: OpenAI's as its SDK sends them, and ours beside them. A field nobody knows is an error."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import nearest

Size = Annotated[str, Field(pattern=r"^(auto|[1-9]\d{0,4}x[1-9]\d{0,4})$", examples=["auto", "128x128"])]
Quality = Literal["low", "medium", "high", "xhigh", "max", "auto"]
IGNORED = ("moderation", "safety_identifier", "user", "input_fidelity")  # accepted and without effect


class PictureRequest(BaseModel):
    """What generating and editing share.

    Attributes:
        prompt: what to draw.
        model: of several recipes, which; any name where the server has one pair.
        n: pictures; picture k is drawn from seed + k.
        size: width x height; "auto" is the server's own, or that of the picture to edit.
        quality: a documented point, see `points`; "max" is the large model alone.
        background: pictures have no transparent parts.
        output_format, output_compression: of the file; compression of jpeg and webp, 100 the largest.
        stream, partial_images: tell of the picture on its way, the small model's sketch first.
        moderation, safety_identifier, user: accepted and without effect.
        response_format: pictures come in the answer; the server keeps none.
        seed: of the noise; drawn by chance, and told, where there is none.
        negative_prompt: what not to draw.
        num_inference_steps: steps drawn.
        guidance_scale: of classifier-free guidance; 1 switches it off.
        speed: how many times as fast as the large model, of the recipe.
        closeness: to the large model's picture, of the recipe.
        policy: who draws what, as `hybridstitch policies` lists them.
        timeout: seconds after which nobody wants the picture any more.
        remember: false neither starts from a picture drawn before nor keeps this one; of no effect where the server
            remembers none.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    prompt: str = Field(min_length=1, max_length=32_000, pattern=r"\S")
    model: str | None = Field(default=None, max_length=500)
    n: int = Field(default=1, ge=1, le=10)
    size: Size = "auto"
    quality: Quality = "auto"
    background: Literal["opaque", "auto"] = "auto"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: int = Field(default=100, ge=0, le=100)
    stream: bool = False
    partial_images: int = Field(default=0, ge=0, le=3)
    moderation: Literal["low", "auto"] | None = None
    safety_identifier: str | None = Field(default=None, max_length=500)
    user: str | None = Field(default=None, max_length=500)
    response_format: Literal["b64_json"] = "b64_json"
    seed: int | None = Field(default=None, ge=0, lt=2**63 - 10)
    negative_prompt: str = Field(default="", max_length=32_000)
    num_inference_steps: int | None = Field(default=None, ge=1, le=10_000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    speed: float | None = Field(default=None, gt=1, le=1000)
    closeness: float | None = Field(default=None, gt=0, le=1)
    policy: str | None = Field(default=None, min_length=1, max_length=4_000)
    timeout: float | None = Field(default=None, gt=0, le=86_400)
    remember: bool = True


class GenerationRequest(PictureRequest):
    """`POST /v1/images/generations`."""

    model_config = ConfigDict(strict=True)


class EditRequest(PictureRequest):
    """`POST /v1/images/edits`, its fields beside `image` and `mask`.

    Attributes:
        strength: how much of the picture goes, from .01 to 1; all of it where a mask says where.
        input_fidelity: accepted and without effect.
    """

    strength: float | None = Field(default=None, ge=0.01, le=1)
    input_fidelity: Literal["low", "high"] | None = None


def complaint(errors: list[Any], kind: type[PictureRequest]) -> tuple[int, str, str | None]:
    """What is wrong with a request: a status, a sentence, and the field.

    Args:
        errors: as pydantic found them.
        kind: of the request.
    """
    error = errors[0]
    place = [str(part) for part in error["loc"] if part != "body"]
    name = place[0] if place else None
    match error["type"]:
        case "extra_forbidden":
            return 400, f"unknown field {name!r:.80}; {nearest(str(name)[:80], kind.model_fields)}", name
        case "json_invalid":
            return 400, "the body is not JSON", None
        case "missing" | "model_attributes_type" | "model_type" | "dict_type" if not name:
            return 400, "the body is no JSON object; send Content-Type: application/json", None
        case "missing":
            return 400, f"{name} is missing", name
        case _:
            return 422, f"{name}: {error['msg']}", name


def to_size(text: str) -> tuple[int, int] | None:
    """Width and height of a `Size`; None for "auto"."""
    if text == "auto":
        return None
    width, _, height = text.partition("x")
    return int(width), int(height)
