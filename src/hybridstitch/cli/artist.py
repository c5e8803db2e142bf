"""Pictures, alone or several a call, each from its own noise, with its trace and its time from prompt to picture."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from time import perf_counter
from typing import Any

import torch

from ..pair.asking import asked, levelled, listening
from ..pair.decoding import pictures_of
from ..policies.methods import HybridStitch, LargeOnly, Schedule
from ..policies.policy import MaskedPolicy, Policy
from ..policies.program import segments
from ..report.clip import FPS
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
        frames, fps: of a video, and how many a second; None draws pictures.
        policy: who draws what.
        shift, levels: of the noise, one for all or each step's σ (`policies.levels`); None leaves them to the pipeline.
        together: pictures of a prompt that are drawn in one call.
        start: what else the pipeline takes: the picture that an image-to-image pipeline starts from, and how much of
            it goes (`image`, `strength`); its `num_inference_steps`, where only the last `steps` of them are drawn.
    """

    pipe: Any
    policy: Policy
    negative: str
    steps: int
    guidance: float
    size: tuple[int, int]
    frames: int | None = None
    fps: float = FPS
    shift: float | None = None
    levels: tuple[float, ...] | None = None
    together: int = 1
    start: Mapping[str, Any] = field(default_factory=dict)

    def draw(self, prompt: str, seed: int, **options: Any) -> Take:
        """One picture; options as `draw_all`."""
        [take] = self.draw_all([prompt], [seed], **options)
        return take

    def draw_all(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        negatives: Sequence[str] | None = None,
        policy: Policy | None = None,
        steps: int | None = None,
        frames: bool = False,
        on_step: OnStep = unheard,
    ) -> list[Take]:
        """Pictures of one call, each from the noise of a CPU generator of its own, with its share of the seconds.

        Args:
            prompts: what to draw.
            seeds: of the noise of each.
            negatives: what not, of each, instead of the artist's.
            policy: instead of the artist's.
            steps: instead of the artist's, at the pipeline's noise levels.
            frames: keep the first picture emerging.
            on_step: called after each step.
        """
        stitched = self.pipe.transformer
        stitched.policy = policy or self.policy
        whole = self.start.get("num_inference_steps", self.steps)
        levels = {} if steps else levelled(self.pipe, whole, self.shift, self.levels)
        steps = steps or self.steps
        film = Frames(steps) if frames else None
        if film is not None:
            film.follow(self.pipe)

        def tell(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step(step)
            return tensors

        avoided = [self.negative] * len(prompts) if negatives is None else list(negatives)
        call: dict[str, Any] = {
            "num_inference_steps": steps,
            "width": self.size[0],
            "height": self.size[1],
            **levels,
            **self.start,
        }
        if self.frames is not None:
            call |= {"num_frames": self.frames, "output_type": "pil"}
        told = {"guidance": self.guidance, "begins": bool(self.start)}
        start = perf_counter()
        drawn = self.pipe(
            **asked(self.pipe, prompts, negative=avoided, **told),
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            **listening(self.pipe, tell),
            **call,
        )
        seconds = (perf_counter() - start) / len(prompts)
        trace = stitched.trace
        once = {} if film is None else asked(self.pipe, prompts[0], negative=avoided[0], **told)
        kept = () if film is None else film.decode(self.pipe, **once, **call)
        takes = []
        for place in range(len(prompts)):
            pictures = pictures_of(drawn, place)
            takes.append(
                Take(
                    image=pictures[len(pictures) // 2],
                    seconds=seconds,
                    trace=trace.alone(place).noted(stitched.policy),
                    frames=() if place else kept,
                    clip=() if self.frames is None else tuple(pictures),
                    fps=self.fps,
                    scheduler=type(self.pipe.scheduler).__name__,
                )
            )
        return takes

    def warm_up(self, prompt: str) -> None:
        """Draw a few steps of every kind, as many pictures as later, so that no first use is timed."""
        program = warm_up_program(self.policy)
        texts, seeds = [prompt] * self.together, range(self.together)
        self.draw_all(texts, seeds, policy=program, steps=len(program.program.split()))

    def exhibits(
        self,
        prompts: tuple[str, ...],
        seeds: range,
        *,
        compare: bool,
        reference: int | None = None,
        frames: bool,
        on_step: OnStep = unheard,
    ) -> Iterator[Exhibit]:
        """All pictures, in order; with `compare` each beside the large model's, first the one, then the other.

        Args:
            prompts: what to draw.
            seeds: of the pictures of each prompt.
            compare: draw with the large model alone too, interleaved, both warm.
            reference: its steps, at the pipeline's noise levels; None for the artist's own steps and levels.
            frames: keep the picture emerging.
            on_step: called after each step.
        """
        if compare:
            self.warm_up(prompts[0])
        calls = [(p, seeds[k : k + self.together]) for p in prompts for k in range(0, len(seeds), self.together)]
        for place, (prompt, group) in enumerate(calls):
            texts, large = [prompt] * len(group), None
            if compare and place % 2:
                large = self.draw_all(texts, group, policy=LargeOnly(), steps=reference, on_step=on_step)
            takes = self.draw_all(texts, group, frames=frames, on_step=on_step)
            if compare and large is None:
                large = self.draw_all(texts, group, policy=LargeOnly(), steps=reference, on_step=on_step)
            for k, (seed, take) in enumerate(zip(group, takes, strict=True)):
                yield Exhibit(prompt=prompt, seed=seed, take=take, large=None if large is None else large[k])


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
