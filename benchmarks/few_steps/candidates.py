"""What is searched: a program, spelled out a word a step, and where along the way its steps are taken."""

from dataclasses import dataclass
from itertools import groupby

from hybridstitch.errors import PolicyError
from hybridstitch.policies.methods import LargeOnly, Schedule
from hybridstitch.policies.policy import Policy
from hybridstitch.policies.program import segments

STOCK = 0.0  # in place of a shift: the noise levels the pipeline takes when left alone


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program, spelled out a word a step, and the shift of its noise levels."""

    program: str
    shift: float

    @property
    def steps(self) -> int:
        """T."""
        return len(self.program.split())

    @property
    def policy(self) -> Policy:
        """Masked steps with the text of the last whole step."""
        words = self.program.split()
        return LargeOnly() if {*words} == {"L"} else Schedule(self.program, text="cached")

    @property
    def plain(self) -> bool:
        """Whether it is fewer large steps and nothing else: a repeated prediction is a longer step of Euler's."""
        return {*self.program.split()} <= {"L", "-"}

    @property
    def large_steps(self) -> int:
        """Steps of the large model on all tokens."""
        return self.program.split().count("L")

    @property
    def short(self) -> str:
        """Repeated words counted."""
        words = [(word, len([*same])) for word, same in groupby(self.program.split())]
        return " ".join(word[0] + (str(n) if n > 1 else "") + word[1:] for word, n in words)

    @property
    def name(self) -> str:
        """As printed."""
        return f"{self.short} ({'stock levels' if self.shift == STOCK else f'shift {self.shift:g}'})"


def spelled(program: str) -> str:
    """A program a word a step: "L2 R2@0.3" is "L L R@0.3 R@0.3"."""
    return " ".join(
        f"{s.letter}{'' if s.ratio is None else f'@{s.ratio:g}'}"
        for s in segments(program)
        for _ in range(int(s.count))
    )


def large(steps: int, shift: float) -> Candidate:
    """The large model alone, at evenly spread and shifted levels."""
    return Candidate(" ".join("L" * steps), shift)


def possible(candidate: Candidate) -> bool:
    """Whether every step can be drawn as it is written: masked steps follow one of the large model."""
    words = candidate.program.split()
    if len(words) < 2 or any("@" in word and words[place - 1][0] in "S-" for place, word in enumerate(words)):
        return False
    try:
        candidate.policy.check(len(words))
    except PolicyError:
        return False
    return "L" in words and len(words) <= 20
