"""What draws the jobs of a batch: the pair opened on a device, and a few pictures of it timed for a dry run."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..batch import folder, ledger
from ..batch.drawing import alike
from ..batch.estimate import Estimate, Kind, Sample, earlier, predict, unknown
from ..batch.job import Job
from ..batch.work import Desk, Draw
from ..drawing.engine import Engine
from ..errors import StitchWarning
from ..policies.policy import Policy
from ..report.clip import FPS, encode_clip, ending
from ..report.picture import encode
from . import say
from .opener import Opener
from .served import Served

if TYPE_CHECKING:
    from ..report.takes import Take
    from .pairs import Pair

KINDS = 6  # kinds of pictures a dry run times
MODULES = (
    "diffusers.pipelines.pipeline_utils",
    "transformers.models.clip.modeling_clip",
    "hybridstitch.cli.artist",
    "hybridstitch.cli.pairs",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStudio:
    """Opens the pair on a device; can be sent to a process.

    Attributes:
        named: the pair.
        policy: it is opened with; every job brings its own.
        dtype: of the models.
        engine: how they are run.
        served: the recipe that the pair is checked against, if there is one.
        models: what the names must stand for on another machine, which looks them up again; None for this one.
    """

    named: "Pair"
    policy: Policy
    dtype: str
    engine: Engine
    served: Served | None = None
    models: Mapping[str, str] | None = None

    def __call__(self, device: str) -> Draw:
        """What draws there."""
        from .artist import Artist

        opener = Opener(
            named=self.named, policy=self.policy, device=device, dtype=self.dtype, engine=self.engine,
            models=self.models,
        )  # fmt: skip
        pipe, named = opener(), self.named
        if self.served is not None:
            with say.plain_warnings():
                self.served.check(pipe)

        def draw(jobs: Sequence[Job]) -> "Sequence[Take]":
            job = jobs[0]
            size = (job.width, job.height)
            if named.folder is None:  # its tokenizer was not known before
                for each in jobs:
                    texts = {"the prompt": each.prompt, "the negative prompt": each.negative}
                    named.check_opened(pipe, size, job.frames, texts)
            artist = Artist(
                pipe=pipe, policy=job.policy, negative=job.negative, steps=job.steps, guidance=job.guidance, size=size,
                frames=job.frames, fps=job.fps or FPS, shift=job.shift, levels=job.levels,
            )  # fmt: skip
            with say.plain_warnings():
                warnings.simplefilter("ignore", StitchWarning)  # its row says it
                return artist.draw_all(
                    [job.prompt for job in jobs], [job.seed for job in jobs], negatives=[job.negative for job in jobs]
                )

        return draw


def estimate(jobs: Mapping[str, Job], desks: Sequence[Desk], images_per_call: int) -> tuple[Estimate, int]:
    """What the missing pictures will take, and how many they are; kinds never drawn are timed here."""
    desk = desks[0]
    there = folder.look(desk.out, jobs, desk.setting, verify=False)
    missing = [job for key, job in jobs.items() if key not in there.done]
    samples = earlier(ledger.read(desk.out)[0], desk.setting.digest)
    new = unknown(missing, samples)[:KINDS]
    if new:
        from .artist import warm_up_program

        draw = desk.open(desk.device)
        for job in new:
            program = warm_up_program(job.policy)
            count = min(images_per_call, sum(alike(other) == alike(job) for other in missing))
            draw([replace(job, policy=program, steps=len(program.program.split()), levels=None)] * count)
            take, *_ = draw([job] * count)
            size = len(encode(take.image, desk.recipe(job, take)))
            size += len(encode_clip(take.clip, take.fps, ending())) if take.clip else 0
            samples.append(Sample(Kind.of(job.to_json()), take.seconds, size))
    return predict(missing, samples, len(desks)), len(missing)
