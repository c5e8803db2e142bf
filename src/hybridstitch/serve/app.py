"""All of the server in one ASGI application."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from .. import __version__
from ..recipe import Point, Recipe
from ..report.layers import Layer
from .dispatch import Dispatch
from .doors import doors
from .easel import PairOpener
from .errors import Refusal, refuse
from .fields import GenerationRequest, complaint
from .gate import Gate
from .intake import Intake
from .meters import Meters
from .remembered import remembered
from .settings import ServeSettings
from .shared_album import AnyAlbum
from .views import views


class Server:
    """The application, and what it is made of.

    Attributes:
        app: to be served.
        dispatch: its queue.
        settings: of the server.
    """

    def __init__(
        self,
        opener: PairOpener,
        settings: ServeSettings,
        *,
        devices: Sequence[str | None] = (None,),
        told: Layer = Layer(),  # noqa: B008
        recipe: Recipe | None = None,
        point: Point | None = None,
        album: AnyAlbum | None = None,
        names: Sequence[str] = (),
    ) -> None:
        """Put it together; the workers begin with the application's lifespan.

        Args:
            opener: opens the pair in a worker.
            settings: of the server.
            devices: one worker each; (None,) for all there are.
            told: the server's own options, which requests that say nothing are drawn by.
            recipe: of the pair.
            point: of it, what serves requests that ask for nothing.
            album: pictures drawn before, where any are remembered.
            names: of the recipes that requests may ask for by `model`, this one's first; none where any name will do.
        """
        meters = Meters()
        self.settings = settings
        self.dispatch = dispatch = Dispatch(opener, devices, settings, meters, recipe)
        intake = Intake(dispatch, settings, told, recipe, point, names)

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            dispatch.stations.start()
            yield
            await dispatch.stations.close()

        self.app = app = FastAPI(
            title="hybridstitch", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
            description="OpenAI's image API over two models: the large one where it matters, the small one elsewhere.",
        )  # fmt: skip
        app.include_router(doors(dispatch, intake, settings))
        app.include_router(remembered(album))
        app.include_router(views(dispatch, intake, meters, names or [(told.pair or "mini").rpartition("/")[2]]))
        app.add_middleware(Gate, settings=settings, meters=meters)

        @app.exception_handler(Refusal)
        async def refused(request: Request, refusal: Refusal) -> JSONResponse:
            meters.refused(refusal.code)
            return refuse(refusal)

        @app.exception_handler(RequestValidationError)
        async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
            status, message, param = complaint(list(error.errors()), GenerationRequest)
            meters.refused("bad_field")
            return refuse(Refusal(status, message, "bad_field", param=param))

        @app.exception_handler(HTTPException)
        async def failed(request: Request, error: HTTPException) -> JSONResponse:
            return refuse(Refusal(error.status_code, str(error.detail), "bad_request"))
