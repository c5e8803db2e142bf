"""`--recipe FILE [--speed X | --closeness Y]`: what a recipe puts in the place of options that were left out."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ..mini import recipe_file
from ..recipe import Point, Recipe, check_request
from ..report.layers import Layer, of_point
from . import say
from .asked import BadInput, to_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A recipe, and the point of it that serves.

    Attributes:
        recipe: the recipe.
        point: what serves the request.
    """

    recipe: Recipe
    point: Point

    @classmethod
    def of(
        cls,
        file: Path | None,
        *,
        speed: float | None,
        closeness: float | None,
        policy: str | None,
        source: Path | None,
        pair: str | None,
        small: str | None = None,
    ) -> "Served | None":
        """From the command line; None where no recipe is asked for. The miniature pair brings its own.

        Raises:
            BadInput: options that exclude each other.
            RecipeError: a recipe that cannot be read, or a request it cannot serve.
        """
        given = (("speed", speed), ("closeness", closeness))
        asked = [f"--{name} {value:g}" for name, value in given if value is not None]
        if file is None and not asked:
            return None
        first = asked[0] if file is None else "--recipe"
        for name, other in (("--policy", policy), ("--from", source)):
            if other is not None:
                raise BadInput(f"{first} and {name} were given; each decides who draws what: give one of the two")
        check_request(speed=speed, closeness=closeness)
        recipe = brought(pair) if file is None else Recipe.load(file)
        if recipe is None:
            raise BadInput(
                f"{first} was given without a recipe; {measuring(pair, small, *first.split())} measures the pair, then "
                "add --recipe recipe.json"
            )
        return cls(recipe=recipe, point=recipe.at(speed=speed, closeness=closeness))

    @property
    def layer(self) -> Layer:
        """Pair, policy, steps, noise levels, guidance and size to draw with."""
        return of_point(self.recipe, self.point)

    def reference(self, steps: int) -> int | None:
        """Steps of the large model that the point's speed and closeness are measured against; None with other steps.

        Args:
            steps: to draw with.
        """
        return self.recipe.home.steps if steps == self.point.steps else None

    def warn_of(
        self,
        *,
        pair: str | None,
        steps: int | None,
        guidance: float | None,
        size: str | None,
        frames: int | None = None,
    ) -> None:
        """Say what was measured with other numbers than those given.

        Raises:
            BadInput: neither the recipe nor the command line names a pair.
        """
        home, point = self.recipe.home, self.point
        if size is not None and to_size(size) == (home.width, home.height):
            size = None  # the same, however it is written
        ours = {"--steps": point.steps, "--guidance": home.guidance, "--size": f"{home.width}x{home.height}"}
        ours |= {"--frames": home.frames}
        given = {"--steps": steps, "--guidance": guidance, "--size": size, "--frames": frames}
        for name, value in given.items():
            if value is not None and value != ours[name]:
                say.warn(
                    f"{name} {value} was given; {point.name} was measured with {name} {ours[name]}, and neither its "
                    f"speed nor its closeness holds here: leave {name} out, or measure again: `{home.command}`"
                )
        if pair is None and home.pair is None:
            raise BadInput("the recipe does not name its pair; name it: --pair LARGE SMALL")

    def check(self, pipe: Any) -> None:
        """Refuse another pair, and warn of another machine.

        Raises:
            RecipeError: the recipe is of another pair.
        """
        from ..opening import check_recipe

        check_recipe(pipe, self.recipe)


def brought(pair: str | None) -> Recipe | None:
    """The recipe that the pair of a command line brings, or None."""
    file = recipe_file() if pair in (None, "mini") else None
    return None if file is None else Recipe.load(file)


def measuring(pair: str | None, small: str | None, *words: str, out: str | Path = "recipe.json") -> str:
    """The command that measures a pair.

    Args:
        pair, small: as the command line names them; the miniature pair needs no name.
        words: of the request.
        out: the recipe.
    """
    names = [] if pair in (None, "mini") else ["--pair", *filter(None, (pair, small))]
    return f"`{shlex.join(['hybridstitch', 'calibrate', *names, *words, '--out', str(out)])}`"


def tell(recipe: Recipe) -> None:
    """Print what a recipe serves, a row a point, bold what it serves when nothing is asked for; and what was found."""
    console = say.out()
    served = recipe.served
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in ("policy", "speed", "closeness", "99 %", "checked", "MiB"):
        words = column == "policy"  # may take several lines, numbers not
        table.add_column(column, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for point in recipe.points:
        table.add_row(
            Text(point.name, "bold" if point == served else ""),
            f"{point.speed:.2f}×",
            f"{point.closeness.mean:.3f}",
            f"{point.closeness.low:.3f}–{point.closeness.high:.3f}",
            "" if point.held_out is None else f"{point.held_out:.3f}",
            f"{point.memory_mib:.0f}",
        )
    console.print(table)
    for sentence in recipe.verdict:
        console.print(sentence)
