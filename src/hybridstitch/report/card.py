"""A recipe as a folder to publish without weights: a model card, the recipe, its picture and its page."""

from dataclasses import replace
from pathlib import Path

from ..disk import files as disk
from ..recipe import Recipe
from .front import front_page, front_picture

PAGE, PICTURE, RECIPE, CARD = "front.html", "front.png", "recipe.json", "README.md"


def write_card(recipe: Recipe, folder: str | Path, *, command: str) -> None:
    """Write the folder; no weights go into it.

    Args:
        recipe: what was found.
        folder: where; made if need be.
        command: what found it.
    """
    recipe, folder = _published(recipe), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recipe.save(folder / RECIPE)
    front_picture(recipe, folder / PICTURE)
    front_page(recipe, folder / PAGE, command=command)
    disk.keep(folder / CARD, card(recipe, command=command).encode())


def _published(recipe: Recipe) -> Recipe:
    """Without the names of folders, which mean nothing elsewhere."""
    names = {
        role: None if name is None or Path(name).exists() else name
        for role, name in (("pair", recipe.home.pair), ("small", recipe.home.small))
    }
    return replace(recipe, home=replace(recipe.home, **names))


def card(recipe: Recipe, *, command: str) -> str:
    """The model card, in Markdown with the head that model hubs read.

    Args:
        recipe: what was found.
        command: what found it.
    """
    home = recipe.home
    models = [name for name in (home.pair, home.small) if name is not None]
    bases = "".join(f"  - {name}\n" for name in models if name.count("/") == 1 and not Path(name).exists())
    size = f"{home.width}×{home.height} pixels" + ("" if home.frames is None else f" and {home.frames} frames")
    kind = "text-to-image" if home.frames is None else "text-to-video"
    head = f"---\nlibrary_name: hybridstitch\npipeline_tag: {kind}\n"
    head += f"base_model:\n{bases}" if bases else ""
    rows = "\n".join(
        f"| `{p.name}` | {p.speed:.2f} | {p.closeness.mean:.3f} [{p.closeness.low:.3f}, {p.closeness.high:.3f}] "
        f"| {'–' if p.held_out is None else f'{p.held_out:.3f}'} |"
        for p in recipe.points
    )
    verdict = "\n".join(f"- {sentence}" for sentence in recipe.verdict)
    machine = "\n".join(f"- {what}: {value}" for what, value in home.machine.items())
    opened = "" if home.pair is not None else "LARGE, SMALL, "
    drawn = "video = {}.frames[0]" if home.frames is not None else "image = {}.images[0]"
    drawn = drawn.format('pipe("a prompt", **pipe.transformer.call)')
    request = next((f", {name}={value:g}" for name, value in recipe.asked.items()), "")
    if recipe.served is None:  # whole calls took other times than were asked for: the closest in speed
        nearest = min(recipe.points, key=lambda point: abs(point.speed - recipe.asked["speed"]))
        request = ", closeness=1" if nearest.kind == "large" else f", speed={nearest.speed:.2f}"
    return f"""{head}tags:
  - hybridstitch
---

# A calibrated pair: {" + ".join(models) or "two models from memory"}

Which policies and step counts are fastest for how close a picture, measured for {size}
against {home.steps} steps of the large model at guidance {home.guidance:g}. This folder holds no weights.

```python
import hybridstitch

pipe = hybridstitch.open_pair({opened}recipe="{RECIPE}"{request})
{drawn}
```

![closeness against speed]({PICTURE})

{verdict}

| policy | speed | closeness to the large model's picture (SSIM), 99 % | on prompts kept back |
|---|---|---|---|
{rows}

Speed is from prompt to picture, one at a time. {recipe.prompts["searched"]} prompts were searched with and
{recipe.prompts["checked"]} kept back. Measured with `{command}` on

{machine}
- scheduler: {home.scheduler}

Elsewhere, measure again: `{home.command}`.
"""
