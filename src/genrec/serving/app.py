"""The web application: a value that a server runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import FileResponse

from genrec._version import __version__
from genrec.errors import GenRecError
from genrec.serving import problems
from genrec.serving.config import ServeConfig
from genrec.serving.engine import Engine
from genrec.serving.events import EventStore
from genrec.serving.guard import Guard
from genrec.serving.problems import Problem
from genrec.serving.routes import router
from genrec.serving.telemetry import Telemetry, log_to_stderr

ENVIRONMENT = "GENREC_SERVE"
"""Where :func:`from_environment` finds its settings, as JSON."""
PAGE = Path(__file__).parent / "page"


def create_app(config: ServeConfig) -> FastAPI:
    """An application that loads ``config.run`` when it starts."""
    telemetry = Telemetry()
    engine = Engine(config, telemetry)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.store = await run_in_threadpool(EventStore, config.store)
        await engine.start()
        _reload_on_hangup(engine)
        yield
        await engine.stop()
        await run_in_threadpool(app.state.store.close)

    app = FastAPI(title="GenRec", version=__version__, lifespan=life)
    app.state.engine = engine
    app.include_router(router)
    problems.install(app)
    _add_health(app, engine, telemetry)
    _add_page(app)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
        )
    app.add_middleware(Guard, config=config, telemetry=telemetry)
    return app


def from_environment() -> FastAPI:
    """The application of a server process; uvicorn calls this in each of its workers."""
    log_to_stderr()
    return create_app(ServeConfig.model_validate_json(os.environ[ENVIRONMENT]))


def _add_health(app: FastAPI, engine: Engine, telemetry: Telemetry) -> None:
    @app.get("/livez", tags=["operations"])
    async def live() -> dict[str, str]:
        """Whether the process runs."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operations"])
    async def ready() -> dict[str, str]:
        """Whether requests can be answered: the model is warm, the event store reachable."""
        if not engine.ready:
            raise Problem(503, "Not ready.", {"Retry-After": "5"})
        try:
            await run_in_threadpool(app.state.store.ping)
        except GenRecError as error:
            raise Problem(503, str(error), {"Retry-After": "5"}) from None
        return {"status": "ready"}

    @app.get("/metrics", tags=["operations"], response_class=Response)
    async def metrics() -> Response:
        """Metrics in Prometheus' text form."""
        return Response(telemetry.text(), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    if not (PAGE / "index.html").is_file():
        return

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE))


def _reload_on_hangup(engine: Engine) -> None:
    """SIGHUP reads the run folder again, where the platform and the thread allow it."""

    def reload() -> None:
        task = asyncio.ensure_future(engine.reload())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    with suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
