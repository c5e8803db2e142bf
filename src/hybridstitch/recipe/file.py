"""The recipe itself: a Pareto set of policies with what was measured of them, kept as JSON."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from ..disk import files as disk
from ..errors import HybridStitchError
from ..measure.intervals import Interval
from ..measure.price import Prices
from ..policies.parse import parse
from ..policies.presets import Preset, Setting
from .between import points_between
from .home import Home
from .point import Point, Trial
from .recall import Recall

VERSION = 4
DELIVERED = 0.05  # how far, in shares, a delivered speed may be from the one asked for
NEAR = 0.04  # how far a predicted one may be
NEARER = (0.01, 0.02, 0.025)  # as near as each, a point is served before those farther off
AS_CLOSE = 0.15  # share of what a plan lacks to closeness 1; by at most as much behind it is about as close
ARCHITECTURES = {"x86_64", "AMD64", "aarch64", "arm64", "arm", "i386"}  # what earlier versions called processors
DEFAULT_CLOSENESS = 0.9  # of the policy that serves when nothing was asked for


def _from_1(data: dict[str, Any]) -> dict[str, Any]:
    """Version 1 did not keep what was tried."""
    return {**data, "version": 2, "trials": []}


def _from_2(data: dict[str, Any]) -> dict[str, Any]:
    """Version 2 knew no noise levels, and named the small model of a saved pair, which brings it."""
    home = dict(data["home"])
    pair, small = home["pair"] or "", Path(home["small"] or "")
    if small == Path(pair, "transformer", "small") or f"models--{pair.replace('/', '--')}" in small.parts:
        home["small"] = None
    return {**data, "version": 3, "home": home}


def _from_3(data: dict[str, Any]) -> dict[str, Any]:
    """Version 3 knew a processor by its architecture alone."""
    machine = dict(data["home"]["machine"])
    if machine.get("the device") in ARCHITECTURES:
        machine["the device"] = "unknown"
    return {**data, "version": 4, "home": {**data["home"], "machine": machine}}


MIGRATIONS = {1: _from_1, 2: _from_2, 3: _from_3}  # from each earlier version to the next


class RecipeError(HybridStitchError, ValueError):
    """A recipe that cannot be read, or a request that it cannot serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What calibration found.

    Attributes:
        home: the setting it was measured in: pair, size, steps, guidance, scheduler, machine.
        prices: measured times there, of steps of each kind and of pictures.
        shares: f(M): the share of ‖v_L − v_S‖² inside a mask of M, by M.
        prompts: how many prompts were searched with, how many checked with, and the SHA-256 of them all.
        seed: of the noise of the first prompt.
        asked: {"speed": …} or {"closeness": …}, or nothing.
        points: the policies that no other beats in both speed and closeness, slowest first; where a speed was asked
            for, those that have it, of which none beats another, and the nearest on either side.
        trials: everything that was tried.
        verdict: what is best at which speed, in sentences.
        recall: how far earlier pictures can be reused, where that was measured.
    """

    home: Home
    prices: Prices
    shares: Mapping[str, float]
    prompts: Mapping[str, int | str]
    seed: int
    asked: Mapping[str, float]
    points: tuple[Point, ...]
    trials: tuple[Trial, ...] = ()
    verdict: tuple[str, ...]
    recall: Recall | None = None

    def at(self, *, speed: float | None = None, closeness: float | None = None) -> Point:
        """The point that serves a request; without one, what was asked for when the recipe was made, or 0.9 close.

        Args:
            speed: above 1; the point's is within 4 % of it.
            closeness: above 0, at most 1; the lower bound of the point's interval reaches it.

        Raises:
            RecipeError: nothing serves it; names the limit or the nearest.
        """
        if speed is None and closeness is None:
            speed, closeness = self.asked.get("speed"), self.asked.get("closeness")
            closeness = DEFAULT_CLOSENESS if speed is None and closeness is None else closeness
        check_request(speed=speed, closeness=closeness)
        if closeness is not None:
            close = [p for p in self.points if p.closeness.low >= closeness]
            if not close:
                closest = max(self.points, key=lambda p: p.closeness.low)
                raise RecipeError(
                    f"closeness={closeness:g} cannot be reached: the closest policy of this recipe, {closest.name}, is "
                    f"{closest.closeness.low:.3f} close; ask for at most that, or calibrate again: "
                    f"`{self.home.command}`"
                )
            return max(close, key=lambda p: p.speed)
        assert speed is not None
        fastest = max(self.points, key=lambda p: p.speed)
        if speed > fastest.speed * (1 + NEAR):
            raise RecipeError(
                f"speed={speed:g} cannot be reached: the fastest policy of this recipe is {fastest.speed:.2f} times as "
                f"fast as the large model ({fastest.name}); ask for at most {fastest.speed:.2f}"
            )
        serving = self._at_speed(speed)
        if not serving:
            slower = [p for p in self.points if p.speed < speed]
            near = [*sorted(slower, key=lambda p: p.speed)[-1:]]
            near += sorted((p for p in self.points if p.speed > speed), key=lambda p: p.speed)[:1]
            raise RecipeError(
                f"no policy of this recipe is {speed:g} times as fast within {100 * NEAR:g} %; ask for "
                f"{' or '.join(f'{p.speed:.2f}' for p in near)}, or measure for it: "
                f"`{self.home.command} --speed {speed:g}`"
            )
        best = max(serving, key=lambda p: (p.closeness.mean, -abs(p.speed / speed - 1)))
        lacks = (1 - best.closeness.mean) / (1 + AS_CLOSE)
        closer = [p for p in _near(self.points, speed, NEARER[-1]) if 1 - p.closeness.mean < lacks]
        return best if best.measured is None else max(closer, key=lambda p: p.closeness.mean, default=best)

    def _at_speed(self, speed: float) -> list[Point]:
        """Points near a speed; what is nearer and between two goes before both, unless they were searched for it."""
        for within in NEARER:
            if nearer := _near(self.points, speed, within):
                return nearer
        near = _near(self.points, speed)
        if near and speed == self.asked.get("speed"):
            return near
        between = list(points_between(near or self.points, self.prices, self.home.steps, speed))
        return _near(between, speed, NEARER[0] if near else NEAR) or near

    @property
    def served(self) -> Point | None:
        """What serves when nothing is asked for; None where whole calls did not reach the speed it was made for."""
        try:
            return self.at()
        except RecipeError:
            return None

    def presets(self) -> tuple[Preset, ...]:
        """The points as presets, named by their speed."""
        return tuple(replace(self.preset(point), name=f"{point.speed:.2f}x") for point in self.points)

    def preset(self, point: Point) -> Preset:
        """A point as a preset, at home where the recipe is."""
        setting = Setting(
            large=self.home.pair or "",
            small=self.home.small or "",
            size=(self.home.height, self.home.width),
            steps=point.steps,
            scheduler=self.home.scheduler.partition(" ")[0],
            guidance=self.home.guidance,
        )
        return Preset(
            name=point.name,
            policy=parse(point.policy),
            source=f"calibrated: {point.steps} steps, closeness {point.closeness}",
            made_for=setting,
            steps=point.steps,
            shift=point.shift,
            levels=point.levels,
            guidance=self.home.guidance,
            size=setting.size,
            frames=self.home.frames,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        data = {f: getattr(self, f) for f in ("shares", "prompts", "seed", "asked")}
        points = [point.to_json() for point in self.points]
        return {
            "version": VERSION,
            "home": asdict(self.home),
            "prices": self.prices.to_json(),
            **data,
            "points": points,
            "trials": [list(trial) for trial in self.trials],
            "verdict": list(self.verdict),
            **({} if self.recall is None else {"recall": self.recall.to_json()}),
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Read what `to_json` wrote, by this release or an earlier one.

        Raises:
            RecipeError: not a recipe, one of a newer version, or one with something missing.
        """
        if not isinstance(data, dict) or not isinstance(data.get("version"), int):
            raise RecipeError("it holds no recipe; `hybridstitch calibrate --out recipe.json` writes one")
        if not data["version"] >= 1:
            raise RecipeError(f"it is of version {data['version']}, which does not exist; calibrate again")
        if data["version"] > VERSION:
            raise RecipeError(
                f"it is of version {data['version']} and this release reads versions up to {VERSION}; upgrade "
                "hybridstitch, or calibrate again with this release"
            )
        try:
            for version in range(data["version"], VERSION):
                data = MIGRATIONS[version](data)
            points = tuple(
                Point(
                    **{
                        **row,
                        "closeness": Interval(*row["closeness"]),
                        "psnr": Interval(*row["psnr"]),
                        "levels": None if row.get("levels") is None else tuple(map(float, row["levels"])),
                        "distances": tuple(None if d is None else (d[0], d[1]) for d in row["distances"]),
                    }
                )
                for row in data["points"]
            )
            if not points:
                raise ValueError("no points")
            if not any(point.kind == "large" for point in points):
                raise ValueError("the large model itself, which all are compared with, is not among its points")
            for point in points:
                parse(point.policy)
            large, small = data["home"]["parameters"]
            return cls(
                home=Home(**{**data["home"], "parameters": (int(large), int(small))}),
                prices=Prices.from_json(data["prices"]),
                points=points,
                trials=tuple(Trial.from_json(trial) for trial in data["trials"]),
                verdict=tuple(data["verdict"]),
                recall=None if data.get("recall") is None else Recall.from_json(data["recall"]),
                **{name: data[name] for name in ("shares", "prompts", "seed", "asked")},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise RecipeError(f"it is damaged ({reason}); calibrate again, or take it from a backup") from error

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        disk.keep(Path(path), (json.dumps(self.to_json(), indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file.

        Raises:
            RecipeError: no such file, no JSON, or as `from_json`.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise RecipeError(
                f"the recipe {path} cannot be read ({error.strerror}); `hybridstitch calibrate --out {path}` writes it"
            ) from error
        except ValueError as error:
            raise RecipeError(
                f"the recipe {path} is no JSON ({error}); calibrate again: `hybridstitch calibrate --out {path}`"
            ) from error
        try:
            return cls.from_json(data)
        except RecipeError as error:
            raise RecipeError(f"the recipe {path} cannot be used: {error}") from error


def _near(points: Iterable[Point], speed: float, near: float = NEAR) -> list[Point]:
    return [p for p in points if abs(p.speed / speed - 1) <= near]


def check_request(*, speed: float | None, closeness: float | None) -> None:
    """Refuse requests that cannot be meant.

    Raises:
        RecipeError: both, a speed not above 1, or a closeness outside (0, 1].
    """
    if speed is not None and closeness is not None:
        raise RecipeError(
            f"speed={speed:g} and closeness={closeness:g} were asked for; each determines the other: ask for one of "
            "the two"
        )
    if speed is not None and not speed > 1:
        raise RecipeError(f"speed={speed:g} was asked for; a speed is above 1, the large model's own, as in speed=1.8")
    if closeness is not None and not 0 < closeness <= 1:
        raise RecipeError(
            f"closeness={closeness:g} was asked for; it is the similarity to the large model's picture, above 0 and "
            "at most 1, as in closeness=0.9"
        )
