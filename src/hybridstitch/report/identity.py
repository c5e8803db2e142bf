"""What a model's name stands for: the commit of a hub id, or a digest of a folder's content.

    identity("some/model")     "revision 1f2e…"
    identity("folder")         "content 0123456789abcdef"
    known_as("folder", "files …")    the same words as an earlier record, where that still holds

Releases up to 0.1.0 digested names, sizes and both ends of files only, "files 0123456789abcdef". What they recorded is
compared with that digest. Digests of large files are remembered by size and time in the user's cache.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from ..disk import files as disk

CONTENT, ENDS = "content ", "files "  # what the digests of this release, and of earlier ones, begin with
DIGITS = 16
OLD = frozenset({".json", ".safetensors", ".txt"})
READ = OLD | {".bin", ".ckpt", ".gguf", ".model", ".pt", ".pth"}  # files that models and tokenizers are read from
CONFIGURATIONS = ("model_index.json", "transformer/config.json", "config.json")  # of a pipeline, or a transformer
EDGE = 1 << 20  # bytes at either end of a file
LARGE = 1 << 25  # bytes of a file whose digest is worth remembering


def identity(source: str) -> str:
    """What a name stands for now.

    Args:
        source: a folder, or a hub id that is in the local cache.

    Returns:
        "revision …", "content …" (names and bytes of all files that models are read from), or "unknown".
    """
    folder = Path(source)
    if folder.is_dir():
        return f"{CONTENT}{_content(folder)[:DIGITS]}"
    index = _cached(source, "model_index.json")
    return "unknown" if index is None else f"revision {index.parent.name}"


def known_as(source: str, record: str | None) -> str:
    """What a name stands for now, as an earlier record says it where that still holds.

    Args:
        source: as in `identity`.
        record: what `identity` gave, in this release or an earlier one; None for no record.
    """
    folder = Path(source)
    if record is not None and record.startswith(ENDS) and folder.is_dir():
        ends = f"{ENDS}{ends_of(folder)[:DIGITS]}"
        return ends if ends == record else identity(source)
    return identity(source)


def recorded(file: Path, part: str) -> dict[str, str]:
    """What a folder's own file says that the models' names stood for; empty where it says nothing.

    Work goes on under the names it was begun with, whatever release began it: its ids and files rest on them.

    Args:
        file: a JSON object.
        part: which of its entries holds `models`.
    """
    try:
        models = json.loads(file.read_text(encoding="utf-8"))[part]["models"]
        return {str(role): str(what) for role, what in models.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def is_here(source: str) -> bool:
    """Whether a name is a folder, or a hub id that is in the local cache."""
    try:
        return Path(source).is_dir() or any(_cached(source, file) is not None for file in CONFIGURATIONS)
    except (OSError, ValueError):  # no name a file system knows
        return False


def is_content(record: str) -> bool:
    """Whether a record tells the content of a folder, wherever that lies."""
    return record.startswith((CONTENT, ENDS))


def _cached(source: str, file: str) -> Path | None:
    """A file of a hub id in the local cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source, file)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in suffixes)


def _content(folder: Path) -> str:
    """Digest of the names and bytes of all files."""
    digest = hashlib.sha256()
    memory = _Memory()
    for path in _files(folder, READ):
        digest.update(f"{path.relative_to(folder).as_posix()} {memory.digest(path)}\n".encode())
    memory.keep()
    return digest.hexdigest()


def ends_of(folder: Path) -> str:
    """Digest of the names, sizes and ends of files, as releases up to 0.1.0 made it."""
    digest = hashlib.sha256()
    for path in _files(folder, OLD):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(EDGE))
            file.seek(max(0, size - EDGE))
            digest.update(file.read(EDGE))
    return digest.hexdigest()


class _Memory:
    """Digests of large files, by path, size and time of change; a cache that cannot be read or written is none."""

    def __init__(self) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._path = Path(home) / "hybridstitch" / "digests.json"
        self._rows: dict[str, list[int | str]] | None = None
        self._changed = False

    def digest(self, path: Path) -> str:
        """SHA-256 of a file."""
        about = path.stat()
        if about.st_size < LARGE:
            return _sha256(path)
        rows, name = self._load(), str(path.resolve())
        now: list[int | str] = [about.st_size, about.st_mtime_ns]
        row = rows.get(name)
        if isinstance(row, list) and row[:2] == now and len(row) == 3:
            return str(row[2])
        found = _sha256(path)
        rows[name] = [*now, found]
        self._changed = True
        return found

    def keep(self) -> None:
        """Write down what was learnt."""
        if self._changed:
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                disk.keep(self._path, json.dumps(self._rows).encode())

    def _load(self) -> dict[str, list[int | str]]:
        if self._rows is None:
            self._rows = {}
            with suppress(OSError, ValueError):
                found = json.loads(self._path.read_text(encoding="utf-8"))
                self._rows = found if isinstance(found, dict) else {}
        return self._rows


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
