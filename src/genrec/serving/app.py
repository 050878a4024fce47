"""The web application: a value that a server runs."""

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
from genrec.serving.engine import Engine
from genrec.serving.events import EventStore
from genrec.serving.guard import Guard
from genrec.serving.problems import Problem
from genrec.serving.routes import ask_store, router
from genrec.serving.telemetry import Telemetry, log_to_stderr

ENVIRONMENT = "GENREC_SERVE"
"""Where :func:`from_environment` finds its settings, as JSON."""
PAGE = Path(__file__).parent / "page"
STORE_THREADS = 8
"""Calls of the event store at a time; further ones wait."""


def create_app(config: ServeConfig, model: GenRec | None = None) -> FastAPI:
    """An application that loads ``config.run`` when it starts, unless it is given its ``model``."""
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

    # The API's page is our own: FastAPI's takes its scripts from elsewhere.
    app = FastAPI(title="GenRec", version=__version__, lifespan=life, docs_url=None, redoc_url=None)
    app.state.engine = engine
    app.include_router(router)
    problems.install(app)
    _add_health(app, engine, telemetry)
    _add_page(app)
    app.add_middleware(Guard, config=config, telemetry=telemetry)
    if config.cors_origins:  # around the guard: browsers ask first, without a key
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
    """The application of a server process; uvicorn calls this in each of its workers."""
    log_to_stderr()
    return create_app(ServeConfig.model_validate_json(os.environ[ENVIRONMENT]))


def _add_health(app: FastAPI, engine: Engine, telemetry: Telemetry) -> None:
    @app.head("/livez", include_in_schema=False)
    @app.get("/livez", tags=["operations"])
    async def live() -> dict[str, str]:
        """Whether the process runs."""
        return {"status": "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", tags=["operations"])
    async def ready(request: Request) -> dict[str, str]:
        """Whether requests can be answered: the model is warm, the event store reachable."""
        if not engine.ready:  # it drains
            raise Problem(503, "Not ready.", {"Retry-After": "5"})
        await ask_store(request, lambda store: store.ping())
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

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    app.mount("/page", StaticFiles(directory=PAGE))


def _reload_on_hangup(engine: Engine) -> None:
    """SIGHUP reads the run folder again, where the platform and the thread allow it."""

    def reload() -> None:
        task = asyncio.ensure_future(engine.reload())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    with suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
