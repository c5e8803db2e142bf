"""A copy of a folder at an address, as it grows: s3://, gs://, or whatever else fsspec knows.

The folder stays what work is done in and resumed from. At the address files are there whole or not at all, as in object
stores. Each picture is sent by whoever keeps it. A call begins with fetching what the folder lacks, so that a new
machine goes on where another ended, and ends with sending what is not there yet, or of another size.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from ..disk import files as disk
from ..errors import in_one_line
from .job import JobsError, WorkError

AT_ONCE = 16  # files on their way


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy; can be sent to a process.

    Attributes:
        url: the address of its folder, made if need be.
    """

    url: str

    @classmethod
    def at(cls, url: str) -> "Copy":
        """A copy at an address.

        Raises:
            JobsError: nobody here knows how to reach it.
        """
        try:
            fsspec.url_to_fs(url)
        except Exception as error:  # another package's words: of a protocol, of what to install, of credentials
            raise JobsError(f"{url} cannot be reached: {in_one_line(error, 300)}") from error
        return cls(url)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file that is there, by its name below the address.

        Raises:
            WorkError: it cannot be reached.
        """
        with self._reached("looked at") as (store, root):
            try:
                found = store.find(root, detail=True)
            except FileNotFoundError:
                return {}
            return {path[len(root) :].lstrip("/"): int(about["size"] or 0) for path, about in found.items()}

    def fetch(self, out: Path, wanted: Callable[[str], bool]) -> int:
        """Bring what a folder lacks; each file is there whole or not at all.

        Args:
            out: the folder.
            wanted: which names, "manifest/….jsonl" among them.

        Returns:
            how many files.

        Raises:
            WorkError: it cannot be reached.
            OSError: the folder takes no more.
        """
        names = [name for name in self.sizes() if wanted(name) and not (out / name).exists()]
        for folder in {(out / name).parent for name in names}:
            folder.mkdir(parents=True, exist_ok=True)
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            for _ in pool.map(lambda name: disk.keep(out / name, self.read(name)), names):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        return len(names)

    def read(self, name: str) -> bytes:
        """One file of it.

        Raises:
            WorkError: it is not there, or cannot be reached.
        """
        with self._reached("read") as (store, root):
            return store.cat_file(f"{root}/{name}")

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that are there.

        Raises:
            WorkError: it cannot be reached.
        """
        with self._reached("written to") as (store, root):
            for name in names:
                store.rm_file(f"{root}/{name}")

    def send(self, out: Path, names: Iterable[str]) -> None:
        """Send files of a folder.

        Raises:
            WorkError: it cannot be reached.
        """
        self._put((name, (out / name).read_bytes()) for name in names)

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write files there, by their names.

        Raises:
            WorkError: it cannot be reached.
        """
        self._put(files.items())

    def try_to_send(self, files: Mapping[str, bytes]) -> None:
        """Send what was just kept; where that fails, `catch_up` does it."""
        with suppress(WorkError):
            self.put(files)

    def catch_up(self, out: Path, names: Iterable[str]) -> None:
        """Send the files of a folder that are not there, or of another size; for files whose names say what they hold.

        Raises:
            WorkError: it cannot be reached; the same command goes on.
        """
        there = self.sizes()
        self.send(out, [name for name in names if there.get(name) != (out / name).stat().st_size])

    def _put(self, files: Iterable[tuple[str, bytes]]) -> None:
        with self._reached("written to") as (store, root), ThreadPoolExecutor(AT_ONCE) as pool:
            waiting, made = deque[Future[None]](), set[str]()
            for name, data in files:
                path = f"{root}/{name}"
                folder = path.rpartition("/")[0]
                if folder not in made:
                    store.makedirs(folder, exist_ok=True)
                    made.add(folder)
                waiting.append(pool.submit(store.pipe_file, path, data))
                if len(waiting) == AT_ONCE:  # no more than that in memory
                    waiting.popleft().result()
            for future in waiting:
                future.result()

    @contextmanager
    def _reached(self, how: str) -> Iterator[tuple[Any, str]]:
        try:
            store, root = fsspec.url_to_fs(self.url)
            yield store, root.rstrip("/")
        except Exception as error:
            raise WorkError(
                f"{self.url} cannot be {how} ({type(error).__name__}: {in_one_line(error, 300)}); what is drawn is "
                "kept: fix that, and run the same command again"
            ) from error
