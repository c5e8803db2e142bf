"""Pictures drawn one by one, each from its own noise, with its trace and its time from prompt to picture."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from time import perf_counter
from typing import Any

import torch
from PIL import Image

from ..policies.levels import shifted
from ..policies.methods import HybridStitch, LargeOnly, Schedule
from ..policies.policy import MaskedPolicy, Policy
from ..policies.program import segments
from ..policies.trace import Trace
from ..report.frames import Frames
from ..report.takes import Exhibit, Take

OnStep = Callable[[int], None]  # the step that was drawn, 0 … T−1


def unheard(step: int) -> None:
    """Nobody follows the steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artist:
    """A stitched pipeline, and how it is called for every picture.

    Attributes:
        pipe: stitched.
        negative, steps, guidance: as the pipeline takes them.
        size: width and height in pixels.
        policy: who draws what.
        shift: of the noise levels (`levels.shifted`); None leaves them to the pipeline.
    """

    pipe: Any
    policy: Policy
    negative: str
    steps: int
    guidance: float
    size: tuple[int, int]
    shift: float | None = None

    def draw(
        self,
        prompt: str,
        seed: int,
        *,
        policy: Policy | None = None,
        steps: int | None = None,
        frames: bool = False,
        on_step: OnStep = unheard,
    ) -> Take:
        """One picture, reproducible by itself: the noise comes from a CPU generator of its own.

        Args:
            prompt: what to draw.
            seed: of the noise.
            policy: instead of the artist's.
            steps: instead of the artist's.
            frames: keep the picture emerging.
            on_step: called after each step.
        """
        stitched = self.pipe.transformer
        stitched.policy = policy or self.policy
        steps = steps or self.steps
        film = Frames(steps) if frames else None
        if film is not None:
            film.follow(self.pipe)

        def tell(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step(step)
            return tensors

        start = perf_counter()
        (image,) = self._call([(prompt, self.negative, seed)], steps, callback_on_step_end=tell)
        seconds = perf_counter() - start
        return Take(
            image=image,
            seconds=seconds,
            trace=stitched.trace,
            frames=() if film is None else film.decode(self.pipe),
        )

    def draw_together(self, wanted: Sequence[tuple[str, str, int]]) -> list[Take]:
        """Several pictures in one call, each from a CPU generator of its own, as if it were drawn alone.

        Args:
            wanted: prompt, negative prompt (in place of the artist's) and seed of each.

        Returns:
            in the same order, each with its own trace and its share of the time.
        """
        stitched = self.pipe.transformer
        stitched.policy = self.policy
        start = perf_counter()
        images = self._call(wanted, self.steps)
        seconds = (perf_counter() - start) / len(images)
        trace = stitched.trace
        return [
            Take(image=image, seconds=seconds, trace=_alone(trace, place, self.policy))
            for place, image in enumerate(images)
        ]

    def _call(self, wanted: Sequence[tuple[str, str, int]], steps: int, **options: Any) -> list[Image.Image]:
        """The pipeline's call: prompts, negative prompts and seeds to pictures."""
        prompts, negatives, seeds = zip(*wanted, strict=True)
        if self.shift is not None:
            options["sigmas"] = shifted(steps, self.shift, own=self.pipe.scheduler.config.shift)
        return self.pipe(
            list(prompts),
            negative_prompt=list(negatives) if any(negatives) else None,
            num_inference_steps=steps,
            guidance_scale=self.guidance,
            width=self.size[0],
            height=self.size[1],
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            **options,
        ).images

    def warm_up(self, prompt: str) -> None:
        """Draw a few steps of every kind, so that no first use is timed."""
        program = warm_up_program(self.policy)
        self.draw(prompt, 0, policy=program, steps=len(program.program.split()))

    def exhibits(
        self, prompts: tuple[str, ...], seeds: range, *, compare: bool, frames: bool, on_step: OnStep = unheard
    ) -> Iterator[Exhibit]:
        """All pictures, in order; with `compare` each beside the large model's, first the one, then the other.

        Args:
            prompts: what to draw.
            seeds: of the pictures of each prompt.
            compare: draw with the large model alone too, interleaved, both warm.
            frames: keep the picture emerging.
            on_step: called after each step.
        """
        if compare:
            self.warm_up(prompts[0])
        for place, (prompt, seed) in enumerate((p, s) for p in prompts for s in seeds):
            large = None
            if compare and place % 2:
                large = self.draw(prompt, seed, policy=LargeOnly(), on_step=on_step)
            take = self.draw(prompt, seed, frames=frames, on_step=on_step)
            if compare and large is None:
                large = self.draw(prompt, seed, policy=LargeOnly(), on_step=on_step)
            yield Exhibit(prompt=prompt, seed=seed, take=take, large=large)


def _alone(trace: Trace, image: int, policy: Policy) -> Trace:
    """What was decided and drawn of one image, as a run of its own would say it."""
    records = tuple(replace(step, image=0) for step in trace.of(image))
    mine = replace(trace, images=1, records=records, flags=())
    return replace(mine, flags=mine.notes(policy))


def warm_up_program(policy: Policy) -> Schedule:
    """Two large steps, one step of each mask that the policy may ask for, one small step; its other options kept."""
    if not isinstance(policy, MaskedPolicy):
        return Schedule("L L S")
    masks: tuple[float, ...] = ()
    if isinstance(policy, HybridStitch):
        masks = policy.masks
    elif isinstance(policy, Schedule):
        masks = tuple(dict.fromkeys(s.ratio for s in segments(policy.program) if s.ratio is not None))
    shared = {f.name: getattr(policy, f.name) for f in fields(MaskedPolicy)}
    return Schedule(" ".join(["L", "L", *(f"H@{mask}" for mask in masks), "S"]), **shared)
