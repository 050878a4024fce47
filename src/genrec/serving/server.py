"""The server behind `genrec serve`: uvicorn with one or more worker processes."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from genrec.errors import ConfigError
from genrec.language_model.devices import release_memory
from genrec.model.genrec import GenRec
from genrec.serving.app import ENVIRONMENT, create_app
from genrec.serving.changes import ChangeLog
from genrec.serving.config import ServeConfig, is_loopback
from genrec.serving.events import EventStore
from genrec.serving.hangup import note_hangups
from genrec.serving.loading import load_model
from genrec.serving.on_ray import serve_on_ray
from genrec.serving.security import read_hashes
from genrec.serving.telemetry import log_to_stderr
from genrec.workflows.ray_cluster import check_engine

OWN_OPTIONS = {"run": "the run folder", "store": "--store", "key_hashes": "--api-keys"}
"""Settings that the command line takes in another way."""

WORKER_SECONDS = 600
"""Seconds that a worker may take to load the model, also when all are replaced by SIGHUP."""


def serve(
    run: Path,
    *,
    host: str,
    port: int,
    store: str | None = None,
    api_keys: Path | None = None,
    workers: int = 1,
    engine: str = "local",
    limits: Mapping[str, Any] | None = None,
) -> None:
    """Serve a run until SIGTERM or SIGINT; open requests are answered before the server stops.

    Args:
        run: run folder.
        host: address to listen on.
        port: port to listen on.
        store: SQLAlchemy URL of the event store; a SQLite file beside the run if ``None``.
        api_keys: file with the hashes of the allowed API keys; no keys if ``None``.
        workers: number of worker processes, or of replicas on Ray, each with its own model.
        engine: ``"local"``, or ``"ray"`` for Ray Serve.
        limits: further fields of :class:`~genrec.serving.config.ServeConfig`.

    Raises:
        ConfigError: Other machines can reach the address and there are no API keys, the address is
            taken, or a setting is invalid.
        RunError: The folder holds no complete run.
        StoreError: The event store or the file of catalogue changes cannot be used.
    """
    note_hangups()
    check_engine(engine, workers)
    config = _config(run, host, store, api_keys, limits or {})
    _check_address(host, port)
    # Load the run and open the store first, so that errors are reported once, before any worker
    # process starts.
    model: GenRec | None = load_model(config.run)
    EventStore(config.store).close()
    ChangeLog(config.changes).unread()
    if engine == "ray" or workers > 1:
        model = None  # each replica or worker loads its own
        release_memory()
    if engine == "ray":
        return serve_on_ray(config, host=host, port=port, replicas=workers)
    os.environ[ENVIRONMENT] = config.model_dump_json()  # worker processes read it
    log_to_stderr()
    later = f", as soon as {workers} processes have loaded the model" if workers > 1 else ""
    print(f"GenRec serves {run} at http://{host}:{port}{later}", file=sys.stderr, flush=True)
    app = create_app(config, model) if model else "genrec.serving.app:from_environment"
    del model  # no reference may remain here, so that a reload can free the old model
    return _run(app, config, host, port, workers)


def _run(app: FastAPI | str, config: ServeConfig, host: str, port: int, workers: int) -> None:
    uvicorn.run(
        app,
        factory=isinstance(app, str),
        host=host,
        port=port,
        workers=workers,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=config.drain,
        timeout_worker_healthcheck=WORKER_SECONDS,
    )


def _check_address(host: str, port: int) -> None:
    """Check that the address is free, which is faster to find out than to load a model."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host}:{port} ({error.strerror}); stop the service there or choose "
            "another address with --port or --host."
        ) from None


def _config(
    run: Path, host: str, store: str | None, api_keys: Path | None, limits: Mapping[str, Any]
) -> ServeConfig:
    """Build the settings of the service; files that it writes stand beside the run folder."""
    if api_keys is None and not is_loopback(host):
        raise ConfigError(
            f"Other machines can reach {host}, so give --api-keys FILE (make keys with `genrec "
            "keys`), or listen on 127.0.0.1."
        )
    for name, option in OWN_OPTIONS.items():
        if name in limits:
            raise ConfigError(f"{name} cannot be set by --set; give {option} instead.")
    beside = Path(os.path.abspath(run))  # a link is followed anew at each load
    settings: dict[str, Any] = {
        "run": beside,
        "store": store or f"sqlite:///{beside}.events.db",
        "changes": f"{beside}.changes.jsonl",
        "key_hashes": () if api_keys is None else read_hashes(api_keys),
    }
    config = ServeConfig.create(**{**settings, **limits})
    # Without keys, only known host names are accepted, so that a web page cannot reach the
    # service under a name of its own (DNS rebinding).
    # Older versions of starlette end a name at its first colon, so "[" stands for all of IPv6.
    own = (f"[{host}]", "[") if ":" in host else (host,)
    hosts = () if api_keys else (*own, "localhost", "127.0.0.1")
    return config.model_copy(update={"hosts": (*config.hosts, *hosts)})
