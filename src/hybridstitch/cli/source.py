"""`--from FILE`: a picture's file as a layer of settings. The file may be a stranger's: it opens no model by itself."""

from pathlib import Path

from ..errors import PolicyError
from ..policies.parse import parse
from ..recipe.layers import Layer
from ..report.identity import is_here
from ..report.picture import Metadata, PictureError, read


def picture_layer(file: Path, *, pair: str | None, small: str | None) -> tuple[Metadata, Layer]:
    """How a picture was drawn, and what that says of the next one.

    Args:
        file: the picture.
        pair, small: as the user named them.

    Raises:
        PictureError: it cannot be read, does not say, or names a model that is not on this machine.
    """
    metadata = read(file)
    layer = recorded(metadata)
    if pair is None:
        theirs = [metadata.pair, *([metadata.small] if small is None and metadata.small is not None else [])]
        absent = [name for name in theirs if name != "mini" and not is_here(name)]
        if absent:
            names = " ".join(filter(None, (metadata.pair, metadata.small)))
            raise PictureError(
                f"{file} names {' and '.join(absent)}, which this machine does not have; a picture's file fetches no "
                f"models: if you trust them, name them yourself: --pair {names}"
            )
    return metadata, layer


def recorded(metadata: Metadata) -> Layer:
    """What a picture's file says of how it was drawn.

    Raises:
        PictureError: its policy cannot be read.
    """
    try:
        policy = parse(metadata.policy)
    except (PolicyError, RecursionError) as error:  # a policy may wrap another
        raise PictureError(f"this picture's policy cannot be read ({error})") from error
    return Layer(
        prompts=(metadata.prompt,),
        negative=metadata.negative,
        pair=metadata.pair,
        small=metadata.small,
        policy=policy,
        seed=metadata.seed,
        steps=metadata.steps,
        guidance=metadata.guidance,
        size=(metadata.width, metadata.height),
        device=metadata.device,
        dtype=metadata.dtype,
        shift=metadata.shift,
        levels=metadata.levels,
    )
