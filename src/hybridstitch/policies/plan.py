"""What one step of denoising does to one image: a plan is a few strokes, later strokes cover earlier ones.

`(S everywhere, L on the busiest 30 %)` is HybridStitch's middle stage, `(L everywhere,)` the large model. The canvas
a plan starts from is the previous prediction, so `()` repeats it and `(L on the mask,)` renews the mask only.

Nothing here needs torch: plans are decided, saved, replayed and costed without it.
"""

from dataclasses import dataclass, fields
from math import floor
from typing import Any, Literal, Self

Model = Literal["L", "S"]
Text = Literal["fresh", "cached"]
Branches = Literal["both", "cond"]


@dataclass(frozen=True, slots=True)
class Region:
    """Which tokens of an image: all of them, the share that changed most, or given ones.

    Attributes:
        ratio: share of the image's tokens, in (0, 1]; 1 is everywhere.
        frozen: keep the tokens chosen when the plan's stage began instead of choosing again each step.
        tokens: exactly these token indices, ascending (used by replay); `ratio` is then only their share.
    """

    ratio: float = 1.0
    frozen: bool = False
    tokens: tuple[int, ...] | None = None

    @property
    def everywhere(self) -> bool:
        """Whether the region is the whole picture by definition, so that nothing has to be chosen."""
        return self.ratio == 1.0 and self.tokens is None

    def count(self, tokens: int) -> int:
        """How many of `tokens` tokens lie inside: `K = clamp(floor(M·N + 0.5), 1, N)`."""
        if self.tokens is not None:
            return len(self.tokens)
        return min(max(floor(self.ratio * tokens + 0.5), 1), tokens)


EVERYWHERE = Region()


@dataclass(frozen=True, slots=True)
class Stroke:
    """One model drawing one region of an image.

    Attributes:
        model: "L" the large model, "S" the small one.
        region: where; only the large model draws less than everything.
        text: "fresh" recomputes the text tokens, "cached" keeps their keys and values of the last dense L step.
        branches: "both" guidance branches, or "cond": the conditional one, the other shifted by the small
            model's difference (SPEC §5).
        carry, follow: for the small model: how much of the last prediction stays, and how much of the small model's
            change is followed (see `MaskedPolicy`); 0 and 1 are the small model as it is.
        dense: compute the model on every token and keep the region only (the FullLarge ablation).
    """

    model: Model
    region: Region = EVERYWHERE
    text: Text = "fresh"
    branches: Branches = "both"
    carry: float = 0.0
    follow: float = 1.0
    dense: bool = False

    @property
    def carries(self) -> bool:
        """Whether the last prediction is carried on."""
        return self.carry != 0.0 or self.follow != 1.0

    @property
    def masked(self) -> bool:
        """Whether the model runs on the region's tokens only, with keys and values of the others."""
        return not self.region.everywhere and not self.dense


@dataclass(frozen=True, slots=True)
class Plan:
    """The strokes of one step of one image, and the stage they belong to."""

    strokes: tuple[Stroke, ...]
    stage: int = 0

    def large_tokens(self, tokens: int) -> int:
        """Tokens the large model contributes to the picture, of `tokens`."""
        return max((s.region.count(tokens) for s in self.strokes if s.model == "L"), default=0)

    @property
    def by_large(self) -> float | None:
        """Share of the picture that the large model draws; None where the last prediction stays somewhere."""
        if not self.strokes or not self.strokes[0].region.everywhere:
            return None
        return max((s.region.ratio for s in self.strokes if s.model == "L"), default=0.0)

    def __str__(self) -> str:
        return " + ".join(_stroke_text(s) for s in self.strokes) or "-"

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `Plan.from_json` reads back to an equal plan; defaults are left out."""
        strokes = [_without_defaults(s) for s in self.strokes]
        for stroke, written in zip(self.strokes, strokes, strict=True):
            if "region" in written:
                written["region"] = _without_defaults(stroke.region)
        return {"stage": self.stage, "strokes": strokes}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        strokes = []
        for stroke in data["strokes"]:
            region = dict(stroke.get("region", {}))
            if region.get("tokens") is not None:
                region["tokens"] = tuple(region["tokens"])
            strokes.append(Stroke(**{**stroke, "region": Region(**region)}))
        return cls(tuple(strokes), data["stage"])


def large() -> Stroke:
    """The large model everywhere."""
    return Stroke("L")


def small() -> Stroke:
    """The small model everywhere."""
    return Stroke("S")


def _without_defaults(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}


def _stroke_text(stroke: Stroke) -> str:
    where = "" if stroke.region.everywhere else f"@{stroke.region.ratio:.3g}"
    return f"{stroke.model}{where}"
