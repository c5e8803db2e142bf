"""The routes of what is remembered: how many pictures, and forgetting them."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from .errors import Refusal
from .shared_album import AnyAlbum


def remembered(album: AnyAlbum | None) -> APIRouter:
    """The routes.

    Args:
        album: pictures drawn before; None where none are remembered.
    """
    router = APIRouter(prefix="/v1/memory", tags=["memory"], responses=RESPONSES)

    @router.get("")
    async def count() -> dict[str, Any]:
        """How many pictures are remembered."""
        number, size = await _done(lambda: _of(album).count())
        return {"pictures": number, "bytes": size, "most": _of(album).most}

    @router.delete("")
    async def forget() -> dict[str, Any]:
        """Forget all pictures that were remembered until now."""
        return {"forgotten": await _done(lambda: _of(album).forget())}

    @router.delete("/{key}")
    async def forget_request(key: str) -> dict[str, Any]:
        """Forget the pictures of one request."""
        return {"forgotten": await _done(lambda: _of(album).forget(key))}

    return router


RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"description": "The API key is missing or wrong."},
    404: {"description": "This server remembers no pictures."},
    503: {"description": "The folder of remembered pictures cannot be read or written."},
}


def _of(album: AnyAlbum | None) -> AnyAlbum:
    if album is None:
        raise Refusal(
            404, "this server remembers no pictures; start it with `hybridstitch serve --remember DIR`", "no_memory"
        )
    return album


async def _done(work: Callable[[], Any]) -> Any:
    try:
        return await asyncio.to_thread(work)
    except (OSError, sqlite3.Error) as error:
        said = f"the remembered pictures cannot be read or written ({error}); look at the folder of --remember"
        raise Refusal(503, said, "memory_folder", retry_after=1.0) from error
