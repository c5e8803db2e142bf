"""Where a recipe holds: the pair, the size, the schedule and the machine that it was measured on."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where a recipe holds.

    Attributes:
        pair, small: names of the models, as `open_pair` takes them; None where they came from memory.
        models: what the names stood for, see `identity.identity` of `report`.
        parameters: numbers of parameters of the large and the small model.
        width, height: pixels.
        steps: T of the reference.
        guidance: its guidance scale.
        scheduler: class and what of its configuration moves the noise levels.
        frames: of a video; None for pictures.
        machine: processor or GPU, threads, dtype, versions, compiled or not.
    """

    pair: str | None
    small: str | None
    models: Mapping[str, str]
    parameters: tuple[int, int]
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    machine: Mapping[str, str]
    frames: int | None = None

    @property
    def size(self) -> str:
        """In pixels and frames, as on a command line."""
        return f"{self.width}x{self.height}" + ("" if self.frames is None else f" --frames {self.frames}")

    @property
    def command(self) -> str:
        """What measures again, as far as a command line can say it; on the device that it takes by itself."""
        names = " ".join(filter(None, [self.pair or "LARGE", self.small or ("SMALL" if self.pair is None else None)]))
        return (
            f"hybridstitch calibrate --pair {names} --size {self.size} --steps {self.steps} "
            f"--guidance {self.guidance:g}{self._flags}"
        )

    @property
    def _flags(self) -> str:
        """Of the dtype and the engine, where they are not what a command line begins with."""
        on_cpu = self.machine.get("the number of threads") != "unknown"
        usual = "float32" if on_cpu or self.pair == "mini" else "bfloat16"
        dtype = self.machine.get("the dtype", usual)
        flags = "" if dtype == usual else f" --dtype {dtype}"
        engine = (option.partition("=") for option in self.machine.get("the engine", "").split(","))
        for name, _, value in engine:
            if name in ("compile", "kv"):
                flags += f" --{name} {value}"
            elif name in ("offload", "kv-host"):
                flags += f" --{name}"
        return flags

    def differences(self, now: "Home") -> list[str]:
        """Where another setting leaves this one: sentences for a warning; parts that are not known are not compared."""
        pairs = {
            "the size": (self.size, now.size),
            "the step count of the reference": (self.steps, now.steps),
            "the guidance": (self.guidance, now.guidance),
            "the scheduler": (self.scheduler, now.scheduler),
            **{f"the {role} model": (was, now.models.get(role)) for role, was in self.models.items()},
            **{what: (was, now.machine.get(what)) for what, was in self.machine.items()},
        }
        return [
            f"{what} was {was}, now it is {is_now}"
            for what, (was, is_now) in pairs.items()
            if is_now not in (None, "unknown") and was != "unknown" and was != is_now
        ]
