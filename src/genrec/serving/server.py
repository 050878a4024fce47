"""`genrec serve`: settings from the command line, one uvicorn, one or more processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvicorn

from genrec.errors import ConfigError
from genrec.run_folder import read_run
from genrec.serving.app import ENVIRONMENT
from genrec.serving.config import ServeConfig, is_loopback
from genrec.serving.security import read_hashes


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
    """
    read_run(run)
    if api_keys is None and not is_loopback(host):
        raise ConfigError(
            f"Others can reach {host}: give --api-keys FILE (make keys with `genrec keys`), or "
            "bind to 127.0.0.1."
        )
    beside = run.resolve().with_suffix("")
    settings = {
        "run": run.resolve(),
        "store": store or f"sqlite:///{beside}.events.db",
        "changes": f"{beside}.changes.jsonl",
        "key_hashes": () if api_keys is None else read_hashes(api_keys),
        **(limits or {}),
    }
    config = ServeConfig.create(**settings)
    os.environ[ENVIRONMENT] = config.model_dump_json()  # what each process reads
    uvicorn.run(
        "genrec.serving.app:from_environment",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=config.drain,
    )
