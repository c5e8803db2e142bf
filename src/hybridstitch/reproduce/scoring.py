"""Every method's scores, shared out among a crew, and the columns of tables and of raw.csv that they fill."""

from collections.abc import Callable, Mapping, Sequence

from ..batch.crew import Crew
from ..evaluate.scores import Scores
from .equipment import Equipment
from .methods import Method
from .raw import Rows

COLUMN = {"PSNR": "psnr", "SSIM": "ssim", "LPIPS": "lpips", "LPIPS-mini": "lpips", "CLIP": "clip", "CLIP-mini": "clip"}
TITLES = {  # column of a table: the metrics that may stand in it
    "fd": ("FD-mini", "FID"),
    "kid": ("KID-mini", "KID"),
    "clip": ("CLIP-mini", "CLIP"),
    "lpips": ("LPIPS-mini", "LPIPS"),
    "psnr": ("PSNR",),
    "ssim": ("SSIM",),
}


def score_method(equipment: Equipment, method: str) -> dict[str, Scores]:
    """Work of a crew: all scores of a method."""
    return equipment.scorer.score(method)


def score_all(
    crew: Crew[Equipment], rows: Rows, methods: Sequence[Method], on_method: Callable[[int, int], None]
) -> dict[str, dict[str, Scores]]:
    """Scores by method and metric; methods that drew the same pictures are scored once.

    Args:
        crew: shares the work out.
        rows: of raw.csv.
        methods: with all pictures drawn.
        on_method: called after each with how many are done, and how many there are.
    """
    pictures = {m.name: tuple(rows[m.name, image]["pixels"] for image in range(crew.here.settings.n)) for m in methods}
    firsts = {drawn: name for name, drawn in reversed(pictures.items())}
    names = list(dict.fromkeys(firsts[drawn] for drawn in pictures.values()))
    found: dict[str, dict[str, Scores]] = {}
    for place, scores in crew.map(score_method, names):
        found[names[place]] = scores
        on_method(len(found), len(names))
    return {name: found[firsts[drawn]] for name, drawn in pictures.items()}


def filled(rows: Rows, scores: Mapping[str, Mapping[str, Scores]]) -> Rows:
    """The rows of raw.csv with each picture's own scores."""
    done = dict(rows)
    for method, by_metric in scores.items():
        for metric, column in COLUMN.items():
            each = by_metric[metric].each if metric in by_metric else None
            for image, value in enumerate(() if each is None else each):
                done[method, image] = {**done[method, image], column: f"{value:.6g}"}
    return done


def named(scores: Mapping[str, Scores], column: str) -> Scores | None:
    """The score that stands in a table's column."""
    return next((scores[name] for name in TITLES[column] if name in scores), None)
