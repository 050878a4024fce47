"""The service as a deployment of Ray Serve: several replicas behind Ray's own proxy."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from genrec.errors import ConfigError
from genrec.serving.config import ServeConfig
from genrec.workflows.ray_cluster import (
    limit_threads,
    needs_of_worker,
    ray_cluster,
    threads_per_worker,
)

if TYPE_CHECKING:
    from fastapi import FastAPI

NAME = "GenRec"


def serve_on_ray(config: ServeConfig, *, host: str, port: int, replicas: int) -> None:
    """Serve a run with Ray Serve until SIGTERM or SIGINT.

    Every replica loads the run by itself, so all machines of the cluster need the run folder at the
    same path and a common event store. A replica that dies is started again.

    Args:
        config: settings of the service.
        host: address to listen on.
        port: port to listen on.
        replicas: number of replicas.

    Raises:
        ConfigError: Ray or Ray Serve is not installed, or the cluster has no room for the replicas.
    """
    with ray_cluster() as ray:
        serve, needs = _ray_serve(), needs_of_worker(ray, replicas)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        serve.start(http_options={"host": host, "port": port})
        try:
            deployment = _deployment(serve, config, replicas, needs)
            serve.run(deployment.bind(), name=NAME, route_prefix="/")
            where = f"http://{host}:{port} with {replicas} replica{'s' * (replicas > 1)}"
            print(f"GenRec serves {config.run} at {where}", file=sys.stderr, flush=True)
            stop.wait()
        finally:
            serve.delete(NAME)  # and leave other applications of the cluster alone


def _ray_serve() -> Any:
    try:
        from ray import serve
    except ImportError as error:
        raise ConfigError(
            f"engine=ray needs Ray Serve ({error.name} is missing); install it with pip install "
            '"genrec[ray,serve]".'
        ) from None
    return serve


def _deployment(serve: Any, config: ServeConfig, replicas: int, needs: dict[str, int]) -> Any:
    threads = threads_per_worker(replicas)

    def build() -> FastAPI:
        from genrec.serving.app import create_app
        from genrec.serving.telemetry import log_to_stderr

        limit_threads(threads)
        log_to_stderr()
        return create_app(config)

    return serve.deployment(
        serve.ingress(build)(),
        name=NAME,
        num_replicas=replicas,
        ray_actor_options=needs,
        # The service itself refuses what it cannot answer in time, with status 503.
        max_ongoing_requests=4 * config.max_queue,
        graceful_shutdown_timeout_s=config.drain,
    )
