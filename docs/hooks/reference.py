"""Pages of the reference that are written from the code: the commands with their options, the policies, the presets."""

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

from mkdocs.structure.files import File, Files
from typer.main import get_command

from hybridstitch.cli import app
from hybridstitch.policies.options import write as written
from hybridstitch.policies.parse import POLICIES
from hybridstitch.policies.policy import Policy
from hybridstitch.policies.presets import PRESETS, Preset


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for uri, content in (("reference/commands.md", commands()), ("reference/policies.md", policies())):
        files.append(File.generated(config, uri, content=content))
    return files


def commands() -> str:
    """Every command with its arguments and options."""
    lines = [
        "# Commands",
        "",
        "Every command with every option; this page is generated from the code. How to use them, with outputs: "
        "[The command line](../cli.md).",
    ]
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        what, _, example = inspect.cleandoc(command.help or "").partition("\n\n")
        lines += ["", f"## hybridstitch {name}", "", one_line(what)]
        if example:
            lines += ["", "```sh", example.strip(), "```"]
        shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
        lines += ["", "| option | meaning | default |", "|---|---|---|"]
        lines += [f"| {' | '.join(option(parameter))} |" for parameter in shown]
    return "\n".join([*lines, ""])


def option(parameter: Any) -> tuple[str, str, str]:
    """A row: how it is written, what it means, what it is if left out."""
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [(parameter.metavar or parameter.name).upper()]
    value = (
        "" if getattr(parameter, "is_flag", False) or parameter.param_type_name == "argument" else value_of(parameter)
    )
    shown = parameter.show_default
    if isinstance(shown, str):
        default = shown
    elif shown is False or parameter.default in (None, False, True) or getattr(parameter, "is_flag", False):
        default = ""
    else:
        default = f"`{parameter.default}`"
    name = ", ".join(f"`{name}{value if name == names[0] else ''}`" for name in names)
    return name, one_line(parameter.help or ""), default


def value_of(parameter: Any) -> str:
    """What stands behind an option."""
    kind = parameter.type_descriptor.annotation.__name__
    shown = parameter.metavar or {"str": "TEXT", "int": "N", "float": "X"}.get(kind, kind.upper())
    return " " + shown.replace(" | ", " or ")


def policies() -> str:
    """Every policy with its options, and every preset."""
    lines = [
        "# Policies and presets",
        "",
        "This page is generated from the code. Give a policy as an object (`hybridstitch.HybridStitch(masks=(0.2,))`) "
        "or as text: `NAME:option=value,option=value`, several numbers of one option separated by `/`. A *program* "
        'such as `"L10 H15@0.3 S25"` is the policy `schedule`. Which one to choose: '
        "[Choose a policy](../howto/policy.md). D, stages and other words: [Glossary](../glossary.md).",
        "",
        "## Policies",
    ]
    for name, kind in POLICIES.items():
        lines += ["", f"### {name}", "", f"`hybridstitch.{kind.__name__}`", "", *described(kind)]
        options = sorted(fields(kind), key=lambda field: field.name not in kind.__annotations__)
        if options:
            told = attributes(kind)
            lines += ["", "| option | default | meaning |", "|---|---|---|"]
            lines += [f"| `{f.name.replace('_', '-')}` | {default(f)} | {told.get(f.name, '')} |" for f in options]
    lines += [
        "",
        "## Presets",
        "",
        "A preset is a policy with a name. Presets of the paper's methods are shown with the paper's numbers; their "
        "thresholds were chosen for Stable Diffusion 3.5 large with 3 medium at 768², 50 steps. Some presets are made "
        "for certain steps and noise levels; `pipe.transformer.call` has these.",
        "",
        "| name | policy | made for | the paper: speed, FID, CLIP, LPIPS |",
        "|---|---|---|---|",
        *(preset_row(preset) for preset in PRESETS.values()),
        "",
        "### Where they come from",
        "",
        *(f"- `{preset.name}`: {one_line(preset.source)}" for preset in PRESETS.values()),
        "",
    ]
    return "\n".join(lines)


def described(kind: type[Policy]) -> Iterator[str]:
    """A class's docstring without its table of attributes."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:")[0].strip()
    yield text


def attributes(kind: type[Policy]) -> dict[str, str]:
    """What docstrings of a class and of those it derives from say of fields; names before a colon may share one."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, listed = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        last: list[str] = []
        for line in listed.splitlines():
            if line.startswith("    ") and not line.startswith("     ") and ":" in line:
                names, _, meaning = line.strip().partition(": ")
                last = [name.strip() for name in names.split(",")]
                found |= dict.fromkeys(last, meaning)
            elif line.strip():
                found |= {name: f"{found[name]} {line.strip()}" for name in last}
    return {name: one_line(meaning) for name, meaning in found.items()}


def default(field: Field[Any]) -> str:
    """Of an option, as written in a policy string."""
    return "must be given" if field.default is MISSING else f"`{written(field.default)}`"


def preset_row(preset: Preset) -> str:
    """A row of the table."""
    home, row = preset.made_for, preset.paper
    made = "" if home is None else f"{home.size[0]} × {home.size[1]}, {home.steps} steps"
    if home is None and preset.steps is not None:
        made = f"{preset.steps} steps"
    paper = ""
    if row is not None:
        numbers = [f"{row.speedup:.2f}×", f"{row.fid:.2f}", f"{row.clip:.2f}"]
        paper = ", ".join(numbers if row.lpips is None else [*numbers, f"{row.lpips:.2f}"])
    return f"| `{preset.name}` | `{preset.policy}` | {made} | {paper} |"


def one_line(text: str) -> str:
    """A text on one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")
