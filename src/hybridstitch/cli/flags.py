"""The options of the commands that draw, as typer reads them; a new knob of a method is a field of its policy instead.

How the models are run, `--compile`, `--offload`, `--kv` and `--kv-host`, becomes an engine by `engine_of`.
"""

from pathlib import Path
from typing import Annotated, get_args, get_type_hints

from typer import Argument, Option

from ..drawing.engine import Engine
from ..errors import nearest
from .asked import BadInput

Prompts = Annotated[list[str] | None, Argument(help="What to draw; one picture each.", show_default=False)]
PairName = Annotated[
    str | None,
    Option(
        "--pair",
        metavar="mini | LARGE SMALL",
        help="The two models: 'mini', a saved pair, or two hub ids or folders.",
        show_default="mini",
    ),
]
Small = Annotated[str | None, Option("--small", hidden=True)]
PolicyName = Annotated[
    str | None,
    Option(
        "--policy",
        metavar="NAME",
        help="Which model draws what: a preset, a policy or a program; see `hybridstitch policies`.",
        show_default="skip for mini, a saved pair's own, else the paper's hybridstitch-30",
    ),
]
Seed = Annotated[
    int | None,
    Option("--seed", help="Seed of the noise; further pictures of a prompt take the next ones.", show_default="0"),
]
Steps = Annotated[int | None, Option("--steps", help="Number of denoising steps.", show_default="50")]
Size = Annotated[
    str | None,
    Option("--size", metavar="WxH", help="Pixels: 128x96, or 128 for a square.", show_default="the pair's own"),
]
Frames = Annotated[
    int | None,
    Option(
        "--frames", metavar="N", help="Frames of a video, where the pair draws videos.", show_default="the pair's own"
    ),
]
Fps = Annotated[float | None, Option("--fps", help="Frames per second of a video.", show_default="16")]
Guidance = Annotated[
    float | None,
    Option("--guidance", help="Scale of classifier-free guidance; 1 switches it off.", show_default="4"),
]
Negative = Annotated[str | None, Option("--negative", metavar="TEXT", help="What not to draw.")]
Count = Annotated[int, Option("--n", help="Pictures per prompt.")]
Batch = Annotated[int | None, Option("--batch", metavar="N", help="Pictures drawn at once.", show_default="1")]
Out = Annotated[Path, Option("--out", metavar="DIR", help="Where to write.")]
Device = Annotated[
    str | None, Option("--device", help="cpu, cuda, cuda:1 or mps.", show_default="cuda if there is one")
]
Dtype = Annotated[
    str | None,
    Option(
        "--dtype",
        help="float32, bfloat16 or float16.",
        show_default="bfloat16, or float32 on a CPU and for mini",
    ),
]
Compile = Annotated[
    str | None,
    Option(
        "--compile",
        metavar="whole | regional",
        help="Compile the models: whole (fastest), or their blocks (quicker to compile).",
        show_default="as they are",
    ),
]
Offload = Annotated[
    bool,
    Option("--offload", help="Move the large model off the GPU after its last step, until the picture is decoded."),
]
Kv = Annotated[
    str | None,
    Option(
        "--kv",
        metavar="DTYPE",
        help="Dtype of the keys and values kept for masks: same (as the models), bfloat16, float16 or float8.",
        show_default="same",
    ),
]
KvHost = Annotated[bool, Option("--kv-host", help="Keep these keys and values in the host's memory.")]
ImagesPerCall = Annotated[
    int,
    Option(
        "--images-per-call", metavar="N", min=1, help="Draw up to N pictures of the same kind in one pipeline call."
    ),
]
Compare = Annotated[bool, Option("--compare", help="Also draw with the large model alone; compare times and pictures.")]
Explain = Annotated[bool, Option("--explain", help="Also write a film strip of each picture and one HTML page.")]
Source = Annotated[
    Path | None,
    Option("--from", metavar="FILE", help="Draw a picture again from its file; other options change it."),
]
Metadata = Annotated[bool, Option("--metadata/--no-metadata", help="Write into the PNG how it was drawn.")]
RecipeFile = Annotated[
    Path | None,
    Option("--recipe", metavar="FILE", help="Use what `hybridstitch calibrate` found: its policy, steps and size."),
]
Speed = Annotated[float | None, Option("--speed", metavar="X", help="How many times as fast as the large model.")]
Closeness = Annotated[
    float | None, Option("--closeness", metavar="Y", help="How close to the large model's picture, 0 to 1 (SSIM).")
]
RememberClip = Annotated[
    str | None,
    Option(
        "--remember-clip",
        metavar="ID",
        help="The CLIP model that finds similar earlier pictures: mini, a folder or a hub id.",
        show_default="mini for the miniature pair",
    ),
]
AsJson = Annotated[bool, Option("--json", help="Print one JSON object and nothing else.")]
Debug = Annotated[bool, Option("--debug", help="Show the traceback of an error.")]


def engine_of(compile: str | None, offload: bool, kv: str | None, kv_host: bool) -> Engine:
    """How the models are run.

    Args:
        compile: "whole", "regional", or None for models as they are.
        offload, kv_host: see `Engine`.
        kv: a dtype of `Engine.kv`, or None for that of the models.

    Raises:
        BadInput: another word; names the nearest.
        EngineError: what excludes each other.
    """
    words = {"compile": compile, "kv": kv}
    given = {name: word for name, word in words.items() if word is not None}
    for name, word in given.items():
        known = [known for known in get_args(get_type_hints(Engine)[name]) if known != "off"]
        if word not in known:
            raise BadInput(f"--{name} {word} was given; {nearest(word, known)}")
    return Engine(offload=offload, kv_host=kv_host, **given)  # type: ignore[arg-type]


def in_flags(text: str) -> str:
    """What a sentence says of an `Engine`, in the command line's words."""
    return text.replace('Engine(kv="float8")', "--kv float8").replace("Engine(kv_host=True)", "--kv-host")
