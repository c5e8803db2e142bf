"""One picture to draw, and the id that everything deciding it has.

id = SHA-256 of canonical JSON: the job, the pair (names and revisions, or content), dtypes, kind of device, versions of
the packages. A picture's own recipe says all of that too, so that a file can be told by itself (`id_of`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import HybridStitchError
from ..policies.parse import parse
from ..policies.policy import Policy
from ..report.identity import is_content
from ..report.metadata import PACKAGES, Metadata


class JobsError(HybridStitchError, ValueError):
    """A list of jobs, or a folder for them, that cannot be meant."""


class WorkError(HybridStitchError, RuntimeError):
    """Work that cannot go on: a disk is full, or a worker does not come up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to draw.

    Attributes:
        prompt, negative: what, and what not.
        seed: of the noise.
        width, height: pixels.
        steps, guidance: T, and the scale of classifier-free guidance.
        policy: who draws what.
        shift, levels: of the noise, one for all or each step's σ (`policies.levels`); None leaves them to the pipeline.
        frames, fps: of a video, and how many a second; None for a picture.
        source: where the job comes from (ids of a captions file); decides nothing.
    """

    prompt: str
    negative: str = ""
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    policy: Policy
    shift: float | None = None
    levels: tuple[float, ...] | None = None
    frames: int | None = None
    fps: float | None = None
    source: Mapping[str, int | str] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        """For lists and manifests."""
        apart = {"policy", "shift", "levels", "frames", "fps", "source"}
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        source = {"source": dict(self.source)} if self.source else {}
        return {**shown, "policy": str(self.policy), **_noise(self), **_moving(self), **source}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSetting:
    """What all jobs of a batch share.

    Attributes:
        pair, small: as named.
        models: what the names stand for, see `identity.identity`.
        device: its kind, "cpu" or "cuda": workers on several devices of a kind draw one batch.
        dtype: of the models.
        versions: see `metadata.versions`.
        kv: dtype that masks keep keys and values in, None for that of the models.
    """

    pair: str
    small: str | None
    models: Mapping[str, str]
    device: str
    dtype: str
    versions: Mapping[str, str]
    kv: str | None = None

    def id_of(self, job: Job) -> str:
        """The id of a job in this setting, 64 hexadecimal digits."""
        return _digest({**_what(job, job.policy), **_where(self)})

    @property
    def digest(self) -> str:
        """Tells this setting from others."""
        return _digest(_where(self))[:16]

    def to_json(self) -> dict[str, Any]:
        """For the folder."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def id_of(recipe: Metadata) -> str:
    """The id of the job that a picture with this recipe was drawn for.

    Raises:
        PolicyError: its policy cannot be read.
    """
    return _digest({**_what(recipe, parse(recipe.policy)), **_where(recipe)})


def _what(job: Job | Metadata, policy: Policy) -> dict[str, Any]:
    return {
        "prompt": job.prompt,
        "negative": job.negative,
        "seed": job.seed,
        "width": job.width,
        "height": job.height,
        "steps": job.steps,
        "guidance": float(job.guidance),
        "policy": _options(policy),
        **_noise(job),
        **_moving(job),
    }


def _noise(job: Job | Metadata) -> dict[str, Any]:
    """Noise levels; left out, ids are those of before there were any."""
    shift = {} if job.shift is None else {"shift": float(job.shift)}
    return shift if job.levels is None else {"levels": list(job.levels)}


def _moving(job: Job | Metadata) -> dict[str, Any]:
    """Of a video; left out, ids are those of pictures."""
    return {} if job.frames is None else {"frames": job.frames, "fps": float(job.fps or 0)}


def _options(policy: Policy) -> dict[str, Any]:
    """All fields of a policy, defaults too, as they may change one day; of a policy that it wraps likewise."""
    values = {f.name: getattr(policy, f.name) for f in fields(policy)}
    wrapped = {name: _options(value) for name, value in values.items() if isinstance(value, Policy)}
    return {"name": policy.name, **values, **wrapped}


def _where(shared: BatchSetting | Metadata) -> dict[str, Any]:
    names = {"large": shared.pair, "small": shared.small}
    return {
        # a folder's content says all, wherever it lies
        "models": {
            role: what if is_content(what) else f"{names.get(role)} {what}" for role, what in shared.models.items()
        },
        "device": shared.device,
        "dtype": shared.dtype,
        "versions": {package: shared.versions.get(package, "unknown") for package in PACKAGES},
        **_kept(shared),
    }


def _kept(shared: BatchSetting | Metadata) -> dict[str, Any]:
    """What masks keep; left out, ids are those of before it could be chosen."""
    return {} if shared.kv is None else {"kv": shared.kv}


def _digest(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
