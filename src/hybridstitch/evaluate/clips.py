"""CLIPs by name: the miniature one, which is in the package, and those of transformers."""

from ..mini import mini_folder, weights_dir
from .towers import CLIP, Clip, MiniTower, TextTower

MINI = "mini"


def open_clip(name: str, device: str) -> TextTower:
    """A CLIP.

    Args:
        name: "mini", or one of transformers: a folder or a hub id.
        device: where it runs.

    Raises:
        ScoreError: it cannot be had.
    """
    if name != MINI:
        return Clip.load(name, device)
    folder = mini_folder()  # that of other weights only if they bring one
    return MiniTower.load(folder if (folder / "clip").is_dir() else weights_dir(), device)


def default_clip(mini: bool) -> str:
    """The CLIP of a pair whose user names none.

    Args:
        mini: whether it is a miniature pair.
    """
    return MINI if mini else CLIP
