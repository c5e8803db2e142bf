"""`--from FILE`: a picture's file as a layer of settings. The file may be a stranger's: it opens no model by itself."""

from pathlib import Path

from ..report.identity import is_here
from ..report.layers import Layer, recorded
from ..report.metadata import Metadata, PictureError
from ..report.picture import read


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
                f"{file} names {' and '.join(absent)}, which this machine does not have; models are never "
                f"downloaded because a picture names them: if you trust them, add --pair {names}"
            )
    return metadata, layer
