"""Every method's scores: against the large model's pictures of the same noise, against real ones, against the prompts.

The miniature pair has scores of its own, named for it, which need nothing but the package. Another pair's need weights
(LPIPS, CLIP, FID) and real pictures (FID, KID): what cannot be had is said in one line, and its columns stay empty.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..batch.crew import Crew
from ..evaluate.metrics import open_metrics
from ..evaluate.pictures import References, large_pictures, photographs, rendered
from ..evaluate.scores import Metric, Scores
from .drawing import Rows, pictures_of
from .methods import Method
from .settings import Settings
from .studio import Studio

MINI = ("PSNR", "SSIM", "LPIPS-mini", "CLIP-mini", "FD-mini", "KID-mini")
FULL = ("PSNR", "SSIM", "LPIPS", "CLIP", "FID", "KID")
COLUMN = {"PSNR": "psnr", "SSIM": "ssim", "LPIPS": "lpips", "LPIPS-mini": "lpips", "CLIP": "clip", "CLIP-mini": "clip"}
TITLES = {  # column of a table: the metrics that may stand in it
    "fd": ("FD-mini", "FID"),
    "kid": ("KID-mini", "KID"),
    "clip": ("CLIP-mini", "CLIP"),
    "lpips": ("LPIPS-mini", "LPIPS"),
    "psnr": ("PSNR",),
    "ssim": ("SSIM",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Metrics that are ready, and what they compare with.

    Attributes:
        settings: of the folder.
        metrics: by name.
        references: by what a metric wants.
        notes: what could not be had.
    """

    settings: Settings
    metrics: Mapping[str, Metric]
    references: Mapping[str, References]
    notes: Sequence[str] = field(default=())

    def score(self, method: str) -> dict[str, Scores]:
        """All scores of a method's n pictures."""
        pictures = pictures_of(self.settings, method)
        prompts = list(self.settings.prompts)
        return {
            name: metric(pictures, prompts, self.references.get(metric.wants)) for name, metric in self.metrics.items()
        }


def open_scorer(settings: Settings) -> Scorer:
    """Open every metric that can be had."""
    notes: list[str] = []
    references = {"pairs": large_pictures(pictures_of(settings, "large"))}
    if settings.real is not None:
        references["set"] = photographs(settings.real, settings.size, limit=None)
    elif settings.mini:
        try:
            references["set"] = rendered(settings.prompts)
        except ValueError as error:  # a prompt that is no scene
            notes.append(f"FD-mini and KID-mini are left out: {error}")
    else:
        notes.append("FID and KID are left out: they need real pictures, --real FOLDER")
    names = []
    for name in MINI if settings.mini else FULL:
        if not name.startswith(("FD", "FID", "KID")) or ("set" in references and settings.n > 1):
            names.append(name)
        elif "set" in references:
            notes.append(f"{name} is left out: it compares distributions, and {settings.n} picture is none")
    metrics = open_metrics(
        names, weights=settings.weights, device=settings.device,
        on_missing=lambda name, error: notes.append(f"{name} is left out: {error}"),
    )  # fmt: skip
    return Scorer(settings=settings, metrics=metrics, references=references, notes=notes)


def score_method(studio: Studio, method: str) -> dict[str, Scores]:
    """Work of a crew: all scores of a method."""
    return studio.scorer.score(method)


def score_all(
    crew: Crew[Studio], rows: Rows, methods: Sequence[Method], on_method: Callable[[int, int], None]
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
