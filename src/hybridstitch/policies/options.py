"""The options of a policy: written as text, read back, and checked, each refusal with its way out."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from itertools import pairwise
from math import isfinite
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import PolicyError, nearest


def write(value: object) -> str:
    """A field's value as text; several numbers are separated by `/`."""
    if isinstance(value, tuple):
        return "/".join(map(write, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def read(key: str, value: str, kind: Any) -> Any:
    """A field's value from its text, by the field's type.

    Raises:
        PolicyError: the text is not of that type.
    """
    try:
        if kind is bool:
            return {"true": True, "false": False}[value.lower()]
        if get_origin(kind) is tuple:
            return tuple(float(v) for v in value.split("/"))
        return value if get_origin(kind) is Literal or kind is str else kind(value)
    except (KeyError, ValueError) as error:
        raise PolicyError(
            f"{key}={value!r} cannot be read; write true or false, a number, or numbers separated by '/'"
        ) from error


def write_changed(name: str, options: Any, *, last: str = "") -> str:
    """`name:field=value,…` of a dataclass, fields at their defaults left out.

    Args:
        name: see above.
        options: the dataclass.
        last: the field to write behind all others, whatever it is: another policy may hold commas.
    """
    changed = [
        f"{f.name.replace('_', '-')}={write(getattr(options, f.name))}"
        for f in sorted(fields(options), key=lambda f: f.name == last)
        if f.default is MISSING or getattr(options, f.name) != f.default
    ]
    return name + (":" + ",".join(changed) if changed else "")


def read_changed(name: str, kind: type, text: str, *, last: str = "") -> Mapping[str, Any]:
    """Keyword arguments of a dataclass from what `write_changed` put behind the colon, but for the `last`.

    Raises:
        PolicyError: an unknown option (with the nearest known one), a missing one, or a value that cannot be read.
    """
    types = get_type_hints(kind)
    known = {f.name: types[f.name] for f in fields(kind) if f.name != last}
    values: dict[str, Any] = {}
    for option in filter(None, text.split(",")):
        key, _, value = option.partition("=")
        key = key.strip().replace("-", "_")
        if key not in known:
            raise PolicyError(
                f"policy {name!r} has no option {key!r}; {nearest(key, known) if known else 'it has none'}"
            )
        values[key] = read(key, value.strip(), known[key])
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name in known and f.name not in values]
    if missing:
        raise PolicyError(f"policy {name!r} needs {', '.join(missing)}: {name}:{missing[0]}=…")
    return values


def check_tuple(field: str, values: object) -> None:
    """Refuse what is not a tuple of numbers: `(0.3)` is a number, and a list cannot be compared or hashed.

    Raises:
        PolicyError: see above.
    """
    if not isinstance(values, tuple) or not all(isinstance(v, int | float) for v in values):
        raise PolicyError(f"{field}={values!r} was given; write a tuple of numbers, as in {field}=(0.3,)")


def check_ratio(ratio: float) -> None:
    """Refuse a mask that is not a share of the picture.

    Raises:
        PolicyError: NaN, or outside (0, 1].
    """
    if not 0.0 < ratio <= 1.0:
        raise PolicyError(
            f"a mask of {ratio} was given; a mask is a share of the tokens above 0 and at most 1 (30 % is 0.3)"
        )


def check_masks(masks: Sequence[float]) -> None:
    """Refuse no mask at all, a mask that is no share, and masks that do not shrink (Eq. 8).

    Raises:
        PolicyError: see above.
    """
    check_tuple("masks", masks)
    for ratio in masks:
        check_ratio(ratio)
    if not masks or any(b >= a for a, b in pairwise(masks)):
        raise PolicyError(
            f"masks={write(tuple(masks))} was given; at least one mask is needed and each must be smaller than the "
            "one before (Eq. 8), as in masks=0.4/0.3"
        )


def check_thresholds(thresholds: Sequence[float], count: int) -> None:
    """Refuse thresholds of the wrong number, not positive and finite, or increasing.

    Raises:
        PolicyError: see above.
    """
    check_tuple("thresholds", thresholds)
    if len(thresholds) != count:
        raise PolicyError(
            f"{len(thresholds)} threshold(s) were given, {count} are needed: one per mask and one for stage 0"
        )
    if not all(isfinite(t) and t > 0 for t in thresholds):
        raise PolicyError(f"thresholds={write(tuple(thresholds))} was given; thresholds are positive finite distances")
    if any(b > a for a, b in pairwise(thresholds)):
        raise PolicyError(
            f"thresholds={write(tuple(thresholds))} was given; they must not increase, or a later stage would end first"
        )


def check_adaptive(min_large: float, patience: int) -> None:
    """Refuse a share of large steps outside [0, 1] and a patience below one step.

    Raises:
        PolicyError: see above.
    """
    if not 0.0 <= min_large <= 1.0:
        raise PolicyError(f"min_large={min_large} was given; it is a share of the steps, 0 to 1")
    if patience < 1:
        raise PolicyError(f"patience={patience} was given; at least one step is needed to decide")


def check_carry(carry: float, follow: float) -> None:
    """Refuse shares outside [0, 1], see `carry`.

    Raises:
        PolicyError: see above.
    """
    if not 0.0 <= carry <= 1.0:
        raise PolicyError(f"carry={carry} was given; it is a share of the last difference, 0 (carry nothing) to 1")
    if not 0.0 <= follow <= 1.0:
        raise PolicyError(f"follow={follow} was given; it is a share of the small model's change, 0 to 1 (all of it)")


def check_choices(options: object) -> None:
    """Refuse a word outside the closed set of its field.

    Raises:
        PolicyError: names the nearest allowed word.
    """
    for field, kind in get_type_hints(type(options)).items():
        if get_origin(kind) is Literal and getattr(options, field) not in get_args(kind):
            value = getattr(options, field)
            raise PolicyError(f"{field}={value!r} was given; {nearest(str(value), get_args(kind))}")


def check_steps(name: str, steps: int) -> None:
    """Refuse runs too short for an adaptive policy.

    Raises:
        PolicyError: fewer than 3 steps.
    """
    if steps < 3:
        raise PolicyError(
            f"{name} decides from the change between steps and needs at least 3 of them, this run has {steps}; "
            "ask for more steps, or use a program such as 'L S*'"
        )
