"""A Ray cluster for jobs and services: the one that RAY_ADDRESS names, or a local one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from genrec.doctor import usable_cores
from genrec.errors import ConfigError


def check_engine(engine: str, workers: int) -> None:
    """Refuse an unknown engine and a number of workers below 1.

    Raises:
        ConfigError: One of them is wrong.
    """
    if engine not in ("local", "ray") or workers < 1:
        raise ConfigError(
            f"engine={engine!r} must be local or ray, and workers={workers} at least 1."
        )


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Connect to a cluster inside a block and yield the module ``ray``.

    A cluster is used if ``RAY_ADDRESS`` names one; otherwise a local one is started, and stopped at
    the end of the block.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError(
            'engine=ray needs Ray; install it with pip install "genrec[ray]".'
        ) from None
    started = not ray.is_initialized()
    if started:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # the job is what the machine is for
        address = os.environ.get("RAY_ADDRESS")
        local: dict[str, Any] = (
            {} if address else {"num_cpus": usable_cores(), "include_dashboard": False}
        )
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        yield ray
    finally:
        if started:
            ray.shutdown()


def threads_per_worker(workers: int) -> int:
    """Return the share of this machine's cores of each worker, at least one."""
    return max(1, usable_cores() // workers)


def needs_of_worker(ray: Any, workers: int) -> dict[str, int]:
    """Return what a worker takes of the cluster: one GPU, or its share of this machine's cores.

    Raises:
        ConfigError: The cluster has too little for so many workers; they would wait forever.
    """
    there = ray.cluster_resources()
    kind, each = ("GPU", 1) if there.get("GPU", 0) else ("CPU", threads_per_worker(workers))
    if each * workers > (room := int(there.get(kind, 0))):
        raise ConfigError(
            f"the Ray cluster has {room} {kind}s, so there is no room for {workers} workers with "
            f"{each} each; give --workers {room // each} or fewer."
        )
    return {f"num_{kind.lower()}s": each}


def limit_threads(threads: int) -> None:
    """Let torch use that many threads in a worker, or OMP_NUM_THREADS if it is set."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", threads)))
