"""An album that the replicas of a cluster share: one process holds the folder, the others ask it.

    AlbumActor     holds an `album.Album`, and answers at an address of its node
    SharedAlbum    the same methods, by asking there; can be pickled, and needs no Ray, so that workers have it, too

Rows and pictures stay on the disk of one node. Who asks shows a key that the server's own processes know; what is sent
is pickled, so nothing is read of anybody else. A process that is gone or late is an OSError, as a broken folder is.
"""

import hmac
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from PIL import Image

from .album import Album, Page, Vector

SECONDS = 5.0  # that an answer may take
METHODS = ("keep", "near", "picture", "forget", "count")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedAlbum:
    """An album that another process holds; see `Album` for its methods.

    Attributes:
        album: what it holds.
        host, port: where it answers.
        key: what it wants to be shown.
    """

    album: Album
    host: str
    port: int
    key: str

    @property
    def folder(self) -> Path:
        """Where, on the machine of that process."""
        return self.album.folder

    @property
    def most(self) -> int:
        """Pictures; the oldest go first."""
        return self.album.most

    def keep(self, file: bytes, page: Page) -> None:
        """See `Album`."""
        self._ask("keep", file, page)

    def near(self, setting: str, text: Vector, least: float) -> list[tuple[float, str]]:
        """See `Album`."""
        return self._ask("near", setting, text, least)

    def picture(self, name: str, size: tuple[int, int]) -> Image.Image | None:
        """See `Album`."""
        return self._ask("picture", name, size)

    def forget(self, request: str | None = None) -> int:
        """See `Album`."""
        return self._ask("forget", request)

    def count(self) -> tuple[int, int]:
        """See `Album`."""
        return self._ask("count")

    def _ask(self, method: str, *given: Any) -> Any:
        """Let the other process do it.

        Raises:
            OSError: it does not answer; or what the method raises there.
        """
        line = HTTPConnection(self.host, self.port, timeout=SECONDS)
        try:
            line.request("POST", f"/{method}", pickle.dumps(given), {"authorization": self.key})
            answer = line.getresponse()
            status, data = answer.status, answer.read()
        except HTTPException as error:
            raise ConnectionError(f"{self.host}:{self.port} was gone before it had answered") from error
        finally:
            line.close()
        if status != 200:
            raise ConnectionError(f"{self.host}:{self.port} answered {status}; is another server there?")
        found = pickle.loads(data)
        if isinstance(found, Exception):
            raise found
        return found


AnyAlbum = Album | SharedAlbum


class AlbumActor:
    """An album, as the actor that holds it."""

    def __init__(self, shared: SharedAlbum) -> None:
        """Answer from now on; once more after a death.

        Args:
            shared: what it holds, and where it is to answer.

        Raises:
            ServeError: the folder cannot be written to.
            OSError: somebody else answers there.
        """
        Album.begin(shared.album.folder, shared.album.most)
        self._shared = shared
        Thread(target=door(shared).serve_forever, daemon=True).start()

    def shared(self) -> SharedAlbum:
        """What to ask it with."""
        return self._shared


def door(shared: SharedAlbum) -> ThreadingHTTPServer:
    """What answers for an album, a thread each time.

    Args:
        shared: which, and where.
    """

    class Asked(BaseHTTPRequestHandler):
        timeout = SECONDS

        def do_POST(self) -> None:
            method = self.path.removeprefix("/")
            if not hmac.compare_digest(self.headers.get("authorization", "").encode(), shared.key.encode()):
                self.send_error(403)
            elif method not in METHODS:
                self.send_error(404)
            else:
                self._answer(method, pickle.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, method: str, given: Sequence[Any]) -> None:
            try:
                found = getattr(shared.album, method)(*given)
            except Exception as error:
                found = error
            data = pickle.dumps(found)
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the server's own log says what was drawn."""

    return ThreadingHTTPServer((shared.host, shared.port), Asked)
