"""Whether a pair fits a device, before it is loaded; what does not fit is refused with what would."""

from collections.abc import Iterator, Mapping

from ..errors import PairError
from ..families.family import Size
from .memory import Need, Outline, capacity, gibibytes


def check_weights(weights: Mapping[str, int], device: str) -> None:
    """Refuse a pair whose weights alone are more than a device holds.

    Raises:
        PairError: says what is needed, what there is, and what to try.
    """
    total, there = sum(weights.values()), capacity(device)
    if total > there:
        raise PairError(
            f"the pair's weights take {gibibytes(total)} and {device} has {gibibytes(there)}; load them in a smaller "
            "dtype, leave text_encoder_3 out, or choose a smaller pair"
        )


def check_fits(
    outline: Outline, device: str, size: Size | None, *, images: int = 1, kv_bytes: int | None = None, branches: int = 2
) -> None:
    """Refuse what needs more than a device holds in weights, keys and values, which are known exactly.

    Args:
        outline: of the pair.
        device: where it will draw.
        size, images, kv_bytes, branches: see `Outline.need`.

    Raises:
        PairError: says what is needed, what there is, and what fits.
    """
    check_weights(outline.weights, device)
    need, there = outline.need(size, images=images, kv_bytes=kv_bytes, branches=branches), capacity(device)
    asked = size or outline.native
    if lasting(need) > there and asked is not None:
        ways = list(advice(outline, device, asked, images=images, kv_bytes=kv_bytes, branches=branches))
        raise PairError(
            f"masks at {pixels(asked)} keep {gibibytes(need.keys_values)} of keys and values beside "
            f"{gibibytes(sum(need.weights.values()))} of weights, and {device} has {gibibytes(there)}; what fits: "
            + ", ".join(ways)
        )


def lasting(need: Need) -> int:
    """Weights, keys and values."""
    return sum(need.weights.values()) + need.keys_values


def advice(
    outline: Outline, device: str, size: Size, *, images: int, kv_bytes: int | None, branches: int
) -> Iterator[str]:
    """What would fit, the least change first."""
    there = capacity(device)

    def fits(size: Size, images: int = images, kv_bytes: int | None = kv_bytes) -> bool:
        return lasting(outline.need(size, images=images, kv_bytes=kv_bytes, branches=branches)) <= there

    if kv_bytes != 1 and fits(size, kv_bytes=1):
        yield 'Engine(kv="float8")'
    if device.startswith("cuda") and sum(outline.weights.values()) < there:
        yield "Engine(kv_host=True), if the host has the memory"
    fewer = [n for n in range(images - 1, 0, -1) if fits(size, images=n)]
    if fewer:
        yield f"{fewer[0]} at once"
    assert outline.facts.multiple is not None
    multiple = outline.facts.multiple(outline.transformer, outline.vae)
    if len(size) == 3:
        frames = [n for n in range(size[0] - multiple[0], 0, -multiple[0]) if fits((n, *size[1:]))]
        if frames:
            yield f"{frames[0]} frame{'s' if frames[0] > 1 else ''}"
    for tenths in range(9, 2, -1):
        sides = zip(size[-2:], multiple[-2:], strict=True)
        smaller = (*size[:-2], *(side * tenths // 10 // grain * grain for side, grain in sides))
        if all(smaller) and fits(smaller):
            yield pixels(smaller)
            break
    yield "a policy of whole steps, which keeps none"


def pixels(size: Size) -> str:
    """A size as a person reads it: 832x480, 832x480 of 81 frames."""
    return f"{size[-1]}x{size[-2]}" + (f" of {size[0]} frames" if len(size) == 3 else "")
