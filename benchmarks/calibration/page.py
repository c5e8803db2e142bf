"""The tables of a calibration's benchmark as a page shows them."""

from typing import Any

from hybridstitch.recipe.point import folded


def markdown(report: dict[str, Any]) -> str:
    """What was served, then every rival at every requested speed."""
    asked = [line for line in report["speeds"] if line["delivered"] is not None]
    others = [line for line in report["speeds"] if line["delivered"] is None]
    out = ["| requested | served | delivered | SSIM | PSNR, dB | closest rival at its time | ahead of it, SSIM | dB |"]
    out.append("|---" * 8 + "|")
    for line in asked:
        best = max(line["rows"], key=lambda name: line["rows"][name]["closeness"])
        row = line["rows"][best]
        out.append(
            f"| {line['requested']:g} | {_plan(line)} | {line['delivered']:.2f}{'' if line['within'] else ' (!)'} "
            f"| {line['closeness']} | {line['psnr']} | {best}, {row['closeness']:.3f} | {row['ahead']} "
            f"| {row['ahead_dB']} |"
        )
    out += [f"| {name} | refused: {why} | | | | | | |" for name, why in report["refused"].items()]
    names = list(dict.fromkeys(name for line in asked for name in line["rows"]))
    out += ["", "| ahead in SSIM of | " + " | ".join(f"at {line['requested']:g}" for line in asked) + " |"]
    out.append("|---" * (1 + len(asked)) + "|")
    for name in names:
        cells = [_ahead(line, name) if name in line["rows"] else "" for line in asked]
        out.append(f"| {name} | {' | '.join(cells)} |")
    out += ["", "| at the time of | speed | served | ahead of it, SSIM | dB |", "|---|---|---|---|---|"]
    for line in others:
        row = line["rows"][line["name"]]
        out.append(f"| {line['name']} | {line['requested']:.2f} | {_plan(line)} | {row['ahead']} | {row['ahead_dB']} |")
    out += ["", "| closeness requested | reached | by |", "|---|---|---|"]
    out += [f"| {line['requested']} | {line['reached']} | `{line['policy']}` |" for line in report["closeness"]]
    return "\n".join(out) + "\n"


def _ahead(line: dict[str, Any], name: str) -> str:
    """With the number of prompts, where those are not all."""
    found, whole = line["rows"][name]["ahead"], line["closeness"].number
    return f"{found}" + ("" if found.number == whole else f", {found.number} prompts")


def _plan(line: dict[str, Any]) -> str:
    """Policy, steps and noise levels."""
    levels = "" if line["shift"] is None else f", shift {line['shift']:g}"
    levels += "" if line["levels"] is None else f", levels {' '.join(f'{x:.3g}' for x in line['levels'])}"
    return f"`{short(line['policy'])}` in {line['steps']}{levels}"


def short(policy: str) -> str:
    """A program by its words alone, a block that is repeated written once; any other policy as it is."""
    program = policy.removeprefix("schedule:").removeprefix("text=cached,").removeprefix("program=")
    if "=" in program or not policy.startswith("schedule:"):
        return policy
    return folded(program.split())
