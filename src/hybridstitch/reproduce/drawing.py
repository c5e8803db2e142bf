"""Every row's picture of a prompt, each distinct step drawn once.

Rows with policies of their own go first; rows that take stages or time of others follow from their traces.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from ..measure.lockstep import Finished, draw_together
from ..measure.price import Prices
from ..measure.start import decode, prepare
from ..policies.policy import Policy
from ..policies.replay import Replay
from . import caches
from .equipment import Equipment
from .lines import CsvRow
from .methods import Method, resolve
from .prices import dense
from .raw import keep, row_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """What is to draw of one prompt.

    Attributes:
        image: which prompt.
        methods: those wanted and those they take something of.
        names: of the rows to write.
        prices: of strokes.
    """

    image: int
    methods: tuple[Method, ...]
    names: frozenset[str]
    prices: Prices


def draw_image(equipment: Equipment, missing: Missing) -> list[CsvRow]:
    """Draw and keep the missing pictures of a prompt.

    Returns:
        their rows, without scores.

    Raises:
        OSError: a picture could not be written.
        HybridStitchError: a policy could not be carried out.
    """
    settings = equipment.settings
    bases = {m.of for m in missing.methods if m.name in missing.names}
    own = [m for m in missing.methods if m.policy is not None and (m.name in missing.names or m.name in bases)]
    plans = {m.name: resolve(m, missing.image, {}, missing.prices) for m in own}
    drawn = _draw(equipment, missing.image, plans)
    traces = {name: d.trace for name, d in drawn.items()}
    takers = [m for m in missing.methods if m.of is not None and m.name in missing.names]
    later = {m.name: resolve(m, missing.image, traces, missing.prices) for m in takers}
    drawn |= _draw(equipment, missing.image, later)
    plans |= later
    rows, decoded = [], {}
    for method in missing.methods:
        if method.name not in missing.names:
            continue
        if method.take == "cache-dit":
            cached = caches.call(equipment.pipe, steps=method.steps, **settings.call(missing.image))
            keep(settings.picture(method.name, missing.image), cached.image)
            values = {"policy": "cache-dit", "cost": f"{cached.dense_steps:.4f}"}
            rows.append(row_of(settings, method, missing.image, method.steps, cached.image, values))
            continue
        what = drawn[method.name]
        if id(what.latent) not in decoded:
            decoded[id(what.latent)] = Image.fromarray(decode(equipment.pipe, what.start, what.latent))
        picture = decoded[id(what.latent)]
        keep(settings.picture(method.name, missing.image), picture)
        steps, policy = plans[method.name]
        values = {
            "policy": f"{method.take} of {method.of}" if isinstance(policy, Replay) else str(policy),
            "switches": "/".join(map(str, what.trace.switches(0))),
            "cost": f"{dense(missing.prices, what.trace.plans()[0]):.4f}",
        }
        rows.append(row_of(settings, method, missing.image, steps, picture, values))
    return rows


def _draw(equipment: Equipment, image: int, plans: Mapping[str, tuple[int, Policy]]) -> dict[str, Finished]:
    """Policies by name, those of one step count together."""
    settings = equipment.settings
    by_steps: dict[int, dict[str, Policy]] = {}
    for name, (steps, policy) in plans.items():
        by_steps.setdefault(steps, {})[name] = policy
    drawn: dict[str, Finished] = {}
    for steps, policies in by_steps.items():
        start = prepare(equipment.pipe, steps=steps, **settings.call(image))
        drawn |= draw_together(equipment.pipe, start, policies)
    return drawn
