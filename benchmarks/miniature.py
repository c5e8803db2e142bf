"""How well the miniature pair draws: a grid of held-out prompts at one seed, and who draws what was asked for.

Each prompt is drawn by the large model, the small one and HybridStitch from the same noise, steps they share drawn
once. The miniature CLIP, which learnt from true scenes only, then has to find a picture's caption among 100
(`mini.score`), for scenes held out of training and for pairs of objects that never meet in training. Large minus small
is paired by prompt.

    python -m benchmarks.miniature

writes `docs/results/miniature/` (raw.csv, table.json, table.md), `docs/miniature/grid.png` and the numbers of
`docs/miniature.md`. With `--folder` all of it is about other weights, say freshly trained ones.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, get_args

import numpy as np
from PIL import Image

from benchmarks.machine import machine
from hybridstitch.measure.intervals import mean_interval, paired_interval, share_interval
from hybridstitch.measure.lockstep import draw_together
from hybridstitch.measure.start import decode, prepare
from hybridstitch.mini import mini_folder, show
from hybridstitch.mini.opened import open_mini
from hybridstitch.mini.scenes import Scene, Split, heldout_prompts
from hybridstitch.mini.score import MiniClip, Others
from hybridstitch.policies.methods import LargeOnly, SmallOnly
from hybridstitch.policies.policy import Policy

SEED = 2000  # of the prompts, which nothing was chosen on
CAPTIONS = 100  # among which a picture's own is looked for
QUESTIONS: tuple[Others, ...] = ("object", "near", "far")
SPLITS: dict[str, str] = {"heldout": "held out", "unseen_pairs": "unseen pairs"}
METHODS = ("real", "large", "small", "hybrid")
BEGIN, END = "<!-- retrieval -->\n", "<!-- /retrieval -->"

Rows = list[dict[str, Any]]


def drawn(pipe: Any, policy: Policy, prompt: str, steps: int, seed: int) -> dict[str, Image.Image]:
    """The prompt's picture by each model and by both, from the same noise."""
    start = prepare(pipe, prompt, steps=steps, guidance=show.GUIDANCE, seed=seed)
    together = draw_together(pipe, start, {"large": LargeOnly(), "small": SmallOnly(), "hybrid": policy})
    return {name: Image.fromarray(decode(pipe, start, one.latent)) for name, one in together.items()}


def grid(pipe: Any, policy: Policy, prompts: list[str], steps: int, seed: int) -> Image.Image:
    """The sheet: a row a method, every picture from the noise of one seed."""
    rows: dict[str, list[Image.Image]] = {"real": show.real(prompts), "large": [], "small": [], "hybrid": []}
    for prompt in prompts:
        for name, picture in drawn(pipe, policy, prompt, steps, seed).items():
            rows[name].append(picture)
    return show.grid(prompts, rows)


def pictures(
    pipe: Any, policy: Policy, prompts: list[str], steps: int, label: str, keep: Path
) -> dict[str, list[Image.Image]]:
    """Of each method, the pictures of all prompts; prompt i has seed i, also for the true scene's jitter.

    Pictures lie in `keep`, and what lies there is not drawn again.
    """
    found: dict[str, list[Image.Image]] = {name: [] for name in METHODS}
    began = perf_counter()
    for place, prompt in enumerate(prompts):
        paths = {name: keep / f"{place:03d}.{name}.png" for name in METHODS}
        if not all(path.is_file() for path in paths.values()):
            true = Scene.parse(prompt).render(np.random.default_rng(place))
            for name, picture in {"real": true, **drawn(pipe, policy, prompt, steps, place)}.items():
                picture.save(paths[name])
        for name, path in paths.items():
            found[name].append(Image.open(path).convert("RGB"))
        done, left = place + 1, len(prompts) - place - 1
        seconds = (perf_counter() - began) / done
        if done in (1, 2, 5) or done % 10 == 0:
            print(
                f"{label}: {done}/{len(prompts)}, {seconds:.1f} s each, {left * seconds / 60:.1f} min left", flush=True
            )
    return found


def scored(clip: MiniClip, split: Split, prompts: list[str], found: dict[str, list[Image.Image]]) -> Rows:
    """Per picture: whether its caption was found, by question, and its cosine with it."""
    rows = [
        {"split": split, "image": place, "prompt": prompt, "method": name, "cosine": float(score)}
        for name, images in found.items()
        for place, (prompt, score) in enumerate(zip(prompts, clip.scores(images, prompts), strict=True))
    ]
    for others in QUESTIONS:
        choices = clip.choices(prompts, CAPTIONS, others=others)
        hits = [hit for images in found.values() for hit in clip.hits(images, choices).tolist()]
        for row, hit in zip(rows, hits, strict=True):
            row[others] = int(hit)
    return rows


def column(rows: Rows, split: Split, method: str, name: str) -> list[float]:
    """One method's values on one split, prompt by prompt."""
    return [row[name] for row in rows if (row["split"], row["method"]) == (split, method)]


def table(rows: Rows) -> dict[str, Any]:
    """Shares with intervals, the paired difference of large and small, and whether the pair is what it should be."""
    found: dict[str, Any] = {}
    for split in dict.fromkeys(row["split"] for row in rows):
        methods: dict[str, Any] = {}
        for method in METHODS:
            shares = {q: share_interval(column(rows, split, method, q))._asdict() for q in QUESTIONS}
            cosine = mean_interval(column(rows, split, method, "cosine"))._asdict()
            methods[method] = {**shares, "cosine": cosine}
        gaps = {
            name: paired_interval(column(rows, split, "large", name), column(rows, split, "small", name))
            for name in (*QUESTIONS, "cosine")
        }
        share = {method: methods[method]["object"]["mean"] for method in METHODS}
        methods["large - small"] = {name: gap._asdict() for name, gap in gaps.items()}
        methods["holds"] = {
            "real at least 0.95": share["real"] >= 0.95,
            "large at least 0.8": share["large"] >= 0.8,
            "small at least 0.10 below large": gaps["object"].mean >= 0.10 and gaps["object"].excludes_zero,
        }
        found[split] = methods
    return found


def cell(value: dict[str, float], signed: bool = False) -> str:
    """An interval as the page shows it."""
    form = "+.3f" if signed else ".3f"
    return f"{value['mean']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def markdown(found: dict[str, Any], command: str, steps: int, policy: str) -> str:
    """The table as a page shows it."""
    lines = [
        "| scenes | pictures | one object | near | far | CLIP-mini |",
        "|---|---|---|---|---|---|",
    ]
    names = (*QUESTIONS, "cosine")
    for split, methods in found.items():
        count = methods["real"]["object"]["number"]
        for method in METHODS:
            cells = " | ".join(cell(methods[method][name]) for name in names)
            lines.append(f"| {SPLITS[split]} ({count}) | {method} | {cells} |")
        cells = " | ".join(cell(methods["large - small"][name], signed=True) for name in names)
        lines.append(f"| {SPLITS[split]} ({count}) | large − small, paired | {cells} |")
    setting = f"{steps} steps, guidance {show.GUIDANCE:g}, hybrid is `{policy}`"
    return "\n".join(lines) + f"\n\n`{command}`: {setting}; per picture in `docs/results/miniature/raw.csv`.\n"


def fill(page: Path, text: str) -> None:
    """Put the table between the page's marks."""
    whole = page.read_text(encoding="utf-8")
    before, mark, rest = whole.partition(BEGIN)
    _, mark_end, after = rest.partition(END)
    if not (mark and mark_end):
        raise SystemExit(f"{page} has no place for the table: put {BEGIN.strip()} and {END} into it")
    page.write_text(before + mark + text + mark_end + after, encoding="utf-8")


def write(out: Path, rows: Rows, report: dict[str, Any], text: str) -> None:
    """The raw numbers, the table as data and as text."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "raw.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (out / "table.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (out / "table.md").write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, score, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.miniature", description=__doc__)
    parser.add_argument("--prompts", type=int, default=100, help="scored prompts of each split")
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=get_args(Split)[1:])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--columns", type=int, default=8, help="prompts of the grid")
    parser.add_argument("--seed", type=int, default=0, help="of the grid's noise")
    parser.add_argument("--folder", type=Path, default=mini_folder(), help="weights; default: the shipped ones")
    parser.add_argument("--out", type=Path, default=Path("docs/results/miniature"))
    parser.add_argument("--grid", type=Path, default=Path("docs/miniature/grid.png"))
    parser.add_argument("--keep", type=Path, help="keep the scored pictures here, and draw only what is missing")
    parser.add_argument("--page", type=Path, default=Path("docs/miniature.md"), help="the page whose table is filled")
    args = parser.parse_args(arguments)
    pipe = open_mini("hybridstitch", folder=args.folder)
    policy = pipe.transformer.policy
    args.grid.parent.mkdir(parents=True, exist_ok=True)
    grid(pipe, policy, heldout_prompts(args.columns, seed=7), args.steps, args.seed).save(args.grid)
    print(args.grid, flush=True)
    clip = MiniClip.load(args.folder)
    rows: Rows = []
    with TemporaryDirectory() as passing:
        for split in args.splits:
            prompts = heldout_prompts(args.prompts, seed=SEED, split=split)
            keep = (args.keep or Path(passing)) / split
            keep.mkdir(parents=True, exist_ok=True)
            rows += scored(clip, split, prompts, pictures(pipe, policy, prompts, args.steps, SPLITS[split], keep))
    found = table(rows)
    report = {"machine": machine(), "policy": str(policy), "steps": args.steps, "guidance": show.GUIDANCE, **found}
    text = markdown(found, report["machine"]["command"], args.steps, str(policy))
    write(args.out, rows, report, text)
    fill(args.page, text)
    print(text)
    for split, methods in found.items():
        for claim, holds in methods["holds"].items():
            print(f"{SPLITS[split]}: {claim}: {'yes' if holds else 'NO'}")
    print(f"{args.out}, {args.grid}, {args.page}")


if __name__ == "__main__":
    main()
