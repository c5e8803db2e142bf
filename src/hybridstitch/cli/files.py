"""What `generate` leaves in its folder, and how it tells about it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from rich.text import Text

from ..disk.files import keep
from ..report.clip import encode_clip, ending
from ..report.metadata import Metadata, drawn, versions
from ..report.picture import write
from ..report.takes import Exhibit, Take, decibels
from .asked import Asked, slug

KINDS = ("", ".large", ".beside", ".strip")  # of pictures in the folder, by what follows their stem


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One exhibit on disk.

    Attributes:
        exhibit: with the paths of its pictures.
        metadata: of the policy's picture.
        beside: large and hybrid in one picture, or None.
        strip: the film strip, or None.
    """

    exhibit: Exhibit
    metadata: Metadata
    beside: Path | None
    strip: Path | None

    def to_json(self) -> dict[str, Any]:
        """One entry of `images`."""
        shown = self.exhibit
        psnr = shown.psnr
        entry: dict[str, Any] = {
            "path": str(shown.take.path),
            "prompt": shown.prompt,
            "seed": shown.seed,
            "seconds": shown.take.seconds,
        }
        if shown.large is not None:
            entry |= {"large": str(shown.large.path), "large_seconds": shown.large.seconds, "speedup": shown.speedup}
            entry["psnr"] = psnr if psnr is not None and isfinite(psnr) else None
            entry["beside"] = str(self.beside)
        if self.strip is not None:
            entry["strip"] = str(self.strip)
        return entry

    def lines(self) -> Text:
        """For a reader."""
        shown = self.exhibit
        text = Text.assemble((str(shown.take.path), "bold"), f"  {shown.take.seconds:.2f} s")
        if shown.large is not None:
            text.append(f", {shown.beside} {shown.large.seconds:.2f} s: ")
            text.append(f"{shown.speedup:.2f}× as fast", "bold green" if (shown.speedup or 0) >= 1 else "bold red")
            text.append(f", PSNR {decibels(shown.psnr)}")
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The folder, and what all its pictures share.

    Attributes:
        out: the folder.
        asked: what was asked for.
        models: what the pair's names stand for.
        size: width and height in pixels.
        metadata: write into the pictures how they were drawn.
        frames: of videos; None for pictures.
        reference: steps of the large model's pictures, at the pipeline's noise levels; None where they were drawn with
            the steps and levels of the others.
    """

    out: Path
    asked: Asked
    models: Mapping[str, str]
    size: tuple[int, int]
    metadata: bool
    frames: int | None = None
    reference: int | None = None

    def write(self, exhibit: Exhibit, *, strip: bool) -> Written:
        """Save the pictures of an exhibit; a picture that is already there is never overwritten.

        Args:
            exhibit: what was drawn.
            strip: draw the film strip too.
        """
        stem = self._free(f"{slug(exhibit.prompt)}-{exhibit.seed}")
        metadata = self.about(exhibit, exhibit.take)
        take = self._save(exhibit.take, self.out / f"{stem}.png", metadata)
        large = exhibit.large
        if large is not None:
            large = self._save(large, self.out / f"{stem}.large.png", self._about_large(exhibit, large))
        exhibit = replace(exhibit, take=take, large=large)
        beside = film = None
        if large is not None:
            from ..report.overlay import side_by_side

            beside = self.out / f"{stem}.beside.png"
            write(side_by_side(exhibit), beside)
        if strip:
            from ..report.filmstrip import filmstrip

            film = self.out / f"{stem}.strip.png"
            filmstrip(exhibit, film)
        return Written(exhibit=exhibit, metadata=metadata, beside=beside, strip=film)

    def about(self, exhibit: Exhibit, take: Take) -> Metadata:
        """How a take was drawn."""
        return Metadata(
            prompt=exhibit.prompt,
            negative=self.asked.negative,
            pair=self.asked.pair,
            small=self.asked.small,
            models=self.models,
            seed=exhibit.seed,
            steps=self.asked.steps,
            width=self.size[0],
            height=self.size[1],
            guidance=self.asked.guidance,
            device=self.asked.device,
            dtype=self.asked.dtype,
            versions=versions(),
            shift=self.asked.shift,
            levels=self.asked.levels,
            frames=self.frames,
            fps=None if self.frames is None else self.asked.fps,
            kv=self.asked.kv,
            **drawn(take),
        )

    def _about_large(self, exhibit: Exhibit, large: Take) -> Metadata:
        found = self.about(exhibit, large)
        return found if self.reference is None else replace(found, steps=self.reference, shift=None, levels=None)

    def _save(self, take: Take, path: Path, metadata: Metadata) -> Take:
        """A picture; or a video, with its middle frame beside it, which says how it was drawn."""
        if not take.clip:
            write(take.image, path, metadata if self.metadata else None)
            return replace(take, path=path)
        data = encode_clip(take.clip, take.fps, ending())
        keep(path.with_suffix(ending()), data)
        clip = hashlib.sha256(data).hexdigest()
        write(take.image, path, replace(metadata, clip=clip) if self.metadata else None)
        return replace(take, path=path.with_suffix(ending()))

    def _free(self, stem: str) -> str:
        """The stem, numbered if there is a picture of any of its names."""
        name, number = stem, 1
        while any((self.out / f"{name}{kind}.png").exists() for kind in KINDS):
            number += 1
            name = f"{stem}-{number}"
        return name


def result(written: Sequence[Written], page: Path | None) -> dict[str, Any]:
    """The one object of `--json`.

    Args:
        written: all exhibits.
        page: the report, if there is one.
    """
    taken = sum(entry.exhibit.take.seconds for entry in written)
    found: dict[str, Any] = {
        "images": [entry.to_json() for entry in written],
        "seconds": taken,
        "speedup": speedup(written),
        "trace": [entry.exhibit.take.trace.to_json() for entry in written],
    }
    return found if page is None else {**found, "report": str(page)}


def speedup(written: Sequence[Written]) -> float | None:
    """Seconds of the large model over seconds of the policy, all pictures together; None without a comparison."""
    large = [entry.exhibit.large.seconds for entry in written if entry.exhibit.large is not None]
    return sum(large) / sum(entry.exhibit.take.seconds for entry in written) if large else None
