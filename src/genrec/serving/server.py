"""`genrec serve`: settings from the command line, one uvicorn, one or more processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvicorn

from genrec.errors import ConfigError
from genrec.serving.app import ENVIRONMENT, create_app
from genrec.serving.config import ServeConfig, is_loopback
from genrec.serving.engine import load_model
from genrec.serving.events import EventStore
from genrec.serving.security import read_hashes
from genrec.serving.telemetry import log_to_stderr


def serve(
    run: Path,
    *,
    host: str,
    port: int,
    store: str | None = None,
    api_keys: Path | None = None,
    workers: int = 1,
    limits: Mapping[str, Any] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; open requests are answered first.

    Raises:
        ConfigError: an address that others reach without keys, or a wrong setting.
        RunError: the folder is no whole run.
        StoreError: the event store cannot be used.
    """
    if api_keys is None and not is_loopback(host):
        raise ConfigError(
            f"Others can reach {host}: give --api-keys FILE (make keys with `genrec keys`), or "
            "bind to 127.0.0.1."
        )
    beside = run.resolve()
    settings = {
        "run": beside,
        "store": store or f"sqlite:///{beside}.events.db",
        "changes": f"{beside}.changes.jsonl",
        "key_hashes": () if api_keys is None else read_hashes(api_keys),
        # Without keys a page from elsewhere must not reach this machine's address by another name.
        "hosts": () if api_keys or ":" in host else (host, "localhost", "127.0.0.1"),
        **(limits or {}),
    }
    config = ServeConfig.create(**settings)
    # What cannot work is said here, once, before any process starts.
    model = load_model(config.run)
    EventStore(config.store).close()
    os.environ[ENVIRONMENT] = config.model_dump_json()  # what further processes read
    log_to_stderr()
    print(f"GenRec serves {run} at http://{host}:{port}", file=sys.stderr, flush=True)
    alone = workers == 1
    app = create_app(config, model) if alone else "genrec.serving.app:from_environment"
    del model  # a reload frees it, and processes have their own
    uvicorn.run(
        app,
        factory=not alone,
        host=host,
        port=port,
        workers=workers,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=config.drain,
    )
