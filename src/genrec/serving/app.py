"""The web application: routes, middleware and lifespan in one FastAPI object."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import FileResponse

from genrec._version import __version__
from genrec.model.genrec import GenRec
from genrec.serving import problems
from genrec.serving.config import ServeConfig
from genrec.serving.engine import Engine, in_background
from genrec.serving.events import EventStore
from genrec.serving.guard import Guard
from genrec.serving.hangup import HANGUP
from genrec.serving.problems import Problem
from genrec.serving.routes import ask_store, router
from genrec.serving.telemetry import Telemetry, log_to_stderr

ENVIRONMENT = "GENREC_SERVE"
"""Environment variable with the settings of :func:`from_environment`, as JSON."""
PAGE = Path(__file__).parent / "page"
STORE_THREADS = 8
"""Maximum number of concurrent calls of the event store; further calls wait."""


def create_app(config: ServeConfig, model: GenRec | None = None) -> FastAPI:
    """Build the application.

    Args:
        config: settings of the service.
        model: the loaded run; if ``None``, the application loads ``config.run`` when it starts.
    """
    telemetry = Telemetry()
    engine = Engine(config, telemetry, model)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.store = await run_in_threadpool(EventStore, config.store)
        app.state.store_threads = ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store")
        await engine.start()
        _reload_on_hangup(engine)
        yield
        await engine.stop()
        await run_in_threadpool(app.state.store_threads.shutdown)
        app.state.store.close()

    # The page at /docs is our own, because FastAPI's page loads scripts from another host.
    app = FastAPI(title="GenRec", version=__version__, lifespan=life, docs_url=None, redoc_url=None)
    app.state.engine = engine
    app.include_router(router)
    problems.install(app)
    _add_health(app, engine, telemetry)
    _add_page(app)
    app.add_middleware(Guard, config=config, telemetry=telemetry)
    if config.cors_origins:  # outside of the guard, because preflight requests carry no API key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Request-ID"],
        )
    if config.hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(config.hosts))
    return app


def from_environment() -> FastAPI:
    """Build the application from the environment; uvicorn calls this in each worker process."""
    log_to_stderr()
    return create_app(ServeConfig.model_validate_json(os.environ[ENVIRONMENT]))


def _add_health(app: FastAPI, engine: Engine, telemetry: Telemetry) -> None:
    @app.head("/livez", include_in_schema=False)
    @app.get("/livez", tags=["operations"])
    async def live() -> dict[str, str]:
        """Liveness: the process is running."""
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", tags=["operations"])
    async def ready(request: Request) -> dict[str, str]:
        """Readiness: the model is loaded and the event store is reachable."""
        if not engine.ready:  # the service is shutting down
            raise Problem(503, "The service is not ready; try again later.", {"Retry-After": "5"})
        await ask_store(request, lambda store: store.ping())
        return {"status": "ready"}

    @app.get("/metrics", tags=["operations"], response_class=Response)
    async def metrics() -> Response:
        """Metrics in the text format of Prometheus."""
        return Response(telemetry.text(), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    if not (PAGE / "index.html").is_file():
        return

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    app.mount("/page", StaticFiles(directory=PAGE))


def _reload_on_hangup(engine: Engine) -> None:
    """Reload the run folder on SIGHUP, if the platform and the thread allow signal handlers."""
    with suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: in_background(engine.reload()))
        if HANGUP.is_set():
            HANGUP.clear()
            in_background(engine.reload())
