"""What a request's speed, closeness, quality or policy mean: settings, put together as `hybridstitch generate` does.

    request  over  a preset it names, or a recipe's point  over  the server's own options  over  the defaults

OpenAI's `quality`, by what it promises here (closeness: the lower end of its interval, see `recipe`):

    quality         with a recipe                       without
    max             the large model alone               the large model alone
    xhigh, high     the fastest .98, .95 close          the large model alone
    medium, low     the fastest .9, .8 close            the pair's own policy; the small model alone
    auto            as the server was told              as the server was told
"""

from dataclasses import dataclass, replace

from ..errors import HybridStitchError
from ..policies.methods import LargeOnly, SmallOnly
from ..policies.parse import parse
from ..recipe import Point, Recipe, RecipeError
from ..report.layers import DEFAULTS, Layer, named, of_point
from .errors import Refusal

CLOSENESS = {"xhigh": 0.98, "high": 0.95, "medium": 0.9, "low": 0.8}
QUALITIES = ("max", *CLOSENESS, "auto")


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """Settings to draw with.

    Attributes:
        layer: policy, steps, noise levels, guidance and size.
        point: of the recipe, where one serves.
        notes: what does not hold as it was measured.
        free: whether the request left its speed to the server.
    """

    layer: Layer
    point: Point | None = None
    notes: tuple[str, ...] = ()
    free: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """The server's own settings, and the recipe that requests choose from.

    Attributes:
        told: what the server was told.
        own: that, laid over the point that serves, the pair's policy, size and the defaults.
        recipe: what calibration found, or None.
        point: of the recipe, what serves a request that asks for nothing.
        floor: the closeness that a free choice never goes below.
    """

    told: Layer
    own: Layer
    recipe: Recipe | None
    point: Point | None
    floor: float

    @classmethod
    def of(
        cls, told: Layer, policy: str, size: tuple[int, int], recipe: Recipe | None, point: Point | None, floor: float
    ) -> "Points":
        """Put the server's own settings together.

        Args:
            told: options of the server.
            policy, size: the pair's own.
            recipe, point: see the class.
            floor: see the class.
        """
        below = Layer() if recipe is None or point is None else of_point(recipe, point)
        own = told.over(below).over(Layer(policy=parse(policy), size=size)).over(DEFAULTS)
        return cls(told=told, own=own, recipe=recipe, point=None if told.policy is not None else point, floor=floor)

    @property
    def ladder(self) -> tuple[Point, ...]:
        """The points that the server may choose from under load, closest first."""
        if self.recipe is None:
            return ()
        fit = [point for point in self.recipe.points if point.closeness.low >= self.floor]
        return tuple(sorted(fit, key=lambda point: point.speed))

    def meant(
        self, asked: Layer, *, policy: str | None, speed: float | None, closeness: float | None, quality: str
    ) -> Meant:
        """What a request means.

        Args:
            asked: its steps, guidance and size, where given.
            policy, speed, closeness, quality: as given.

        Raises:
            Refusal: they exclude each other, or cannot be served.
        """
        given = {"policy": policy, "speed": speed, "closeness": closeness}
        names = [name for name, value in given.items() if value is not None]
        names += ["quality"] if quality != "auto" else []
        if len(names) > 1:
            raise Refusal(
                422,
                f"{' and '.join(names)} were given; each determines the others: give one of them",
                "exclusive",
                param=names[1],
            )
        try:
            if policy is not None:
                return self._by(asked.over(named(policy)))
            if speed is not None or closeness is not None:
                return self._at(asked, self._recipe(names[0]).at(speed=speed, closeness=closeness))
            if quality != "auto":
                return self._quality(asked, quality)
            if self.recipe is not None and self.point is not None:
                found = self._at(asked.over(Layer(steps=self.told.steps)), self.point)
                return replace(found, free=asked.steps is None and self.told.steps is None)
            return self._by(asked, self.own)
        except Refusal:
            raise
        except (HybridStitchError, RecursionError) as error:
            said = "the policy is too deep" if isinstance(error, RecursionError) else str(error)
            raise Refusal(422, said, "unservable", param=names[0] if names else None) from error

    def at(self, asked: Layer, point: Point) -> Meant:
        """A request served by a point of the recipe."""
        return self._at(asked, point)

    def _quality(self, asked: Layer, quality: str) -> Meant:
        if self.recipe is not None:
            large = next(point for point in self.recipe.points if point.kind == "large")
            return self._at(asked, large if quality == "max" else self.recipe.at(closeness=CLOSENESS[quality]))
        if quality == "medium":
            return self._by(asked, self.own)
        return self._by(asked.over(Layer(policy=SmallOnly() if quality == "low" else LargeOnly())))

    def _by(self, asked: Layer, below: Layer | None = None) -> Meant:
        """By a policy, at the step count of the recipe's reference, or what the server was told."""
        if below is None:
            below = self.own
            if self.recipe is not None and self.point is not None and self.told.steps is None:
                below = replace(self.own, steps=self.recipe.home.steps, shift=None, levels=None)
        layer = asked.over(below)
        assert layer.policy is not None
        assert layer.steps is not None
        layer.policy.check(layer.steps)
        return Meant(layer=layer)

    def _at(self, asked: Layer, point: Point) -> Meant:
        recipe = self._recipe("")
        told = Layer(guidance=self.told.guidance, size=self.told.size)
        layer = asked.over(told).over(of_point(recipe, point)).over(self.own)
        assert layer.policy is not None
        assert layer.steps is not None
        layer.policy.check(layer.steps)
        home = recipe.home
        theirs = {"steps": point.steps, "guidance": home.guidance, "size": (home.width, home.height)}
        other = [name for name, value in theirs.items() if getattr(layer, name) != value]
        note = (
            f"{point.name} was measured with another {' and '.join(other)}; neither its speed nor its closeness holds"
        )
        return Meant(layer=layer, point=point, notes=(note,) if other else ())

    def _recipe(self, name: str) -> Recipe:
        if self.recipe is None:
            raise RecipeError(
                f"{name} was given, and this server has no recipe; `hybridstitch calibrate --pair LARGE SMALL --out "
                "recipe.json` measures the pair, then serve with --recipe recipe.json"
            )
        return self.recipe
