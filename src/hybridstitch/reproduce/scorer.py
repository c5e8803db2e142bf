"""What scores pictures: against the large model's of the same noise, against real ones, against the prompts.

The miniature pair has scores of its own, named for it, which need nothing but the package. Another pair's need weights
(LPIPS, CLIP, FID) and real pictures (FID, KID): what cannot be had is said in one line, and its columns stay empty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..evaluate.metrics import open_metrics
from ..evaluate.pictures import References, large_pictures, photographs, rendered
from ..evaluate.scores import Metric, Scores
from .raw import pictures_of
from .settings import Settings

MINI = ("PSNR", "SSIM", "LPIPS-mini", "CLIP-mini", "FD-mini", "KID-mini")
FULL = ("PSNR", "SSIM", "LPIPS", "CLIP", "FID", "KID")


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
