"""Pictures drawn before, in a folder: each a PNG, and a row with its embedding and its setting in SQLite.

    DIR/album.sqlite3      rows
    DIR/pictures/*.png     pixels alone; names are ours, by chance

A file is on the disk before its row, and a row is gone before its file, so that a kill leaves at worst a file without a
row, which the next beginning removes. Whatever else lies there, or is missing, is nobody's picture: nothing of the
folder is trusted. Every call opens the database by itself, so processes may share a folder. No prompt is written down.
"""

import re
import sqlite3
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..disk import files as disk
from ..errors import ServeError

ROWS, PICTURES, DAMAGED = "album.sqlite3", "pictures", ".damaged"
NAME = re.compile(r"[0-9a-f]{32}\.png")
BUSY_SECONDS = 2.0  # that another process may hold the rows
STRAY_SECONDS = 3600.0  # after which a file without a row is nobody's any more
TEXT_BYTES = 1 << 20  # of a PNG, besides its pixels
TABLE = (
    "CREATE TABLE IF NOT EXISTS pictures (id INTEGER PRIMARY KEY AUTOINCREMENT, file TEXT NOT NULL, request TEXT NOT "
    "NULL, setting TEXT NOT NULL, embedding BLOB NOT NULL, bytes INTEGER NOT NULL, created REAL NOT NULL, "
    "policy TEXT NOT NULL, steps INTEGER NOT NULL, seed INTEGER NOT NULL)"
)
INSERT = (
    "INSERT INTO pictures (file, request, setting, embedding, bytes, created, policy, steps, seed) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
OLDEST = "id <= (SELECT id FROM pictures ORDER BY id DESC LIMIT 1 OFFSET ?)"  # beyond so many
Vector = NDArray[np.float32]  # (D,), of length 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is kept beside a picture's pixels.

    Attributes:
        request: id of the request that it was drawn for.
        setting: only prompts of the same setting start from it.
        embedding: of the pixels, (D,), float32, of length 1.
        policy, steps, seed: by what it was drawn.
    """

    request: str
    setting: str
    embedding: Vector
    policy: str
    steps: int
    seed: int


@dataclass(frozen=True, slots=True)
class Album:
    """A folder of pictures drawn before.

    Attributes:
        folder: where.
        most: pictures; the oldest go first.
    """

    folder: Path
    most: int

    @classmethod
    def begin(cls, folder: Path, most: int) -> "Album":
        """Make the folder, or take it up: what kills left is removed, rows that cannot be read are put aside.

        Raises:
            ServeError: it cannot be written to.
        """
        album = cls(folder.resolve(), most)
        try:
            album._pictures.mkdir(parents=True, exist_ok=True)
            disk.sweep(album._pictures)
            try:
                album._check()
            except sqlite3.DatabaseError:
                if not album._rows.exists():
                    raise
                album._rows.replace(album._rows.with_name(f"{ROWS}{DAMAGED}-{uuid.uuid4().hex[:8]}"))
                album._check()
            album._clear_strays()
        except (OSError, sqlite3.Error) as error:
            raise ServeError(f"pictures cannot be remembered in {folder} ({error}); choose another folder") from error
        return album

    def keep(self, file: bytes, page: Page) -> None:
        """Keep a picture; the oldest beyond the bound go, in the same transaction.

        Args:
            file: a PNG.
            page: what is kept beside it.

        Raises:
            OSError, sqlite3.Error: it could not be kept; nothing of it is left.
        """
        name = f"{uuid.uuid4().hex}.png"
        disk.keep(self._pictures / name, file)
        values = page.embedding.astype("<f4").tobytes(), len(file), time.time(), page.policy, page.steps, page.seed
        try:
            with self._open() as rows:
                rows.execute(INSERT, (name, page.request, page.setting, *values))
                gone = _delete(rows, OLDEST, (self.most,))
        except sqlite3.Error:
            (self._pictures / name).unlink(missing_ok=True)
            raise
        self._unlink(gone)

    def near(self, setting: str, text: Vector, least: float) -> list[tuple[float, str]]:
        """Similarities and names of pictures of a setting, the most similar first.

        Args:
            setting: as they were kept with.
            text: embedding of a prompt, (D,), of length 1.
            least: leave those out that are less similar.

        Raises:
            sqlite3.Error: the rows cannot be read.
        """
        wanted = "SELECT file, embedding FROM pictures WHERE setting = ? AND length(embedding) = ?"
        with self._open() as rows:
            found = [(name, data) for name, data in rows.execute(wanted, (setting, 4 * len(text))) if _ours(name)]
        if not found:
            return []
        vectors = np.frombuffer(b"".join(data for _, data in found), "<f4").reshape(len(found), -1)
        cosines = vectors @ text.astype(np.float32)
        order = np.argsort(-np.nan_to_num(cosines, nan=-2.0), kind="stable")
        return [(float(cosines[place]), found[place][0]) for place in order if least <= cosines[place] < 1.01]

    def picture(self, name: str, size: tuple[int, int]) -> Image.Image | None:
        """The pixels of a row; None where the file is missing or no such picture, whose row then goes.

        Args:
            name: of its file.
            size: width and height that it must have.
        """
        try:
            return _read(self._pictures / name, size)
        except Exception:  # a broken file makes Pillow raise nearly anything
            with suppress(OSError, sqlite3.Error):
                self._remove("file = ?", (name,))
            return None

    def forget(self, request: str | None = None) -> int:
        """Remove all pictures, or those of a request, rows overwritten with zeros.

        Returns:
            how many.

        Raises:
            OSError, sqlite3.Error: some could not be removed.
        """
        return self._remove("1", ()) if request is None else self._remove("request = ?", (request,))

    def count(self) -> tuple[int, int]:
        """Pictures, and their bytes.

        Raises:
            sqlite3.Error: the rows cannot be read.
        """
        with self._open() as rows:
            number, size = rows.execute("SELECT count(*), total(bytes) FROM pictures").fetchone()
        return int(number), int(size)

    @property
    def _rows(self) -> Path:
        return self.folder / ROWS

    @property
    def _pictures(self) -> Path:
        return self.folder / PICTURES

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The database, for one transaction."""
        with closing(sqlite3.connect(self._rows, timeout=BUSY_SECONDS)) as rows:
            rows.execute("PRAGMA secure_delete = ON")
            rows.execute(TABLE)
            with rows:
                yield rows

    def _check(self) -> None:
        """That rows can be written and read.

        Raises:
            sqlite3.DatabaseError: they cannot.
        """
        with self._open() as rows:
            if rows.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("the rows are damaged")
            values = "x", "x", "x", b"", 0, 0.0, "x", 0, 0
            rows.execute(INSERT, values)
            rows.rollback()

    def _remove(self, where: str, values: Sequence[object]) -> int:
        """Rows, then their files."""
        with self._open() as rows:
            gone = _delete(rows, where, values)
        self._unlink(gone)
        return len(gone)

    def _unlink(self, names: Iterable[object]) -> None:
        for name in names:
            if _ours(name):
                (self._pictures / str(name)).unlink(missing_ok=True)

    def _clear_strays(self) -> None:
        """Files of ours without a row that no process can still be about to write one for."""
        with self._open() as rows:
            known = {name for (name,) in rows.execute("SELECT file FROM pictures")}
        old = time.time() - STRAY_SECONDS
        files = (path for path in self._pictures.iterdir() if _ours(path.name) and path.name not in known)
        self._unlink(path.name for path in files if path.lstat().st_mtime < old)


def _delete(rows: sqlite3.Connection, where: str, values: Sequence[object]) -> list[object]:
    """Rows; the names of their files, which are to go after the transaction."""
    return [name for (name,) in rows.execute(f"DELETE FROM pictures WHERE {where} RETURNING file", values)]


def _ours(name: object) -> bool:
    return isinstance(name, str) and NAME.fullmatch(name) is not None


def _read(path: Path, size: tuple[int, int]) -> Image.Image:
    """A picture that somebody may have put there.

    Raises:
        ValueError: it is no file of ours.
    """
    about = path.lstat()
    if not stat.S_ISREG(about.st_mode) or about.st_size > 4 * size[0] * size[1] + TEXT_BYTES:
        raise ValueError("no file of a picture of this size")
    with Image.open(path, formats=("PNG",)) as image:
        if image.size != size:
            raise ValueError("a picture of another size")
        return image.convert("RGB")
