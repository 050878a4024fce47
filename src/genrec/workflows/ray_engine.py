"""Shards of a job on a Ray cluster: one actor per worker, which is restarted if it dies.

Every worker reads the run and the log and writes its shards itself, so all machines of the cluster
need them, and the output folder, at the same paths.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from genrec.errors import ConfigError
from genrec.workflows.batch_job import BatchConfig, Job, JobPaths


def written_with_ray(
    paths: JobPaths, config: BatchConfig, shards: Sequence[int], workers: int
) -> Iterator[int]:
    """Write shards on a Ray cluster and yield the number of each as it is done.

    A cluster is used if ``RAY_ADDRESS`` names one; otherwise a local one is started. A worker takes
    one GPU, or its share of this machine's cores. If a worker dies, it is started again and its
    shard is computed again.

    Args:
        paths: run and output folder.
        config: settings of the job.
        shards: numbers of the shards to write.
        workers: number of workers.

    Raises:
        ConfigError: Ray is not installed.
    """
    if not shards:
        return
    try:
        import ray
        from ray.util import ActorPool
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
            {} if address else {"num_cpus": _cores(), "include_dashboard": False}
        )
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        resources: Any = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = resources.get("GPU", 0)
        cores = max(1, _cores() // workers)
        needs = {"num_gpus": 1} if gpus else {"num_cpus": cores}
        remote: Any = ray.remote(max_restarts=-1, max_task_retries=-1, **needs)  # type: ignore[call-overload]
        actor = remote(_Worker)
        pool: Any = ActorPool([actor.remote(paths, config, cores) for _ in range(workers)])
        yield from pool.map_unordered(lambda worker, shard: worker.write.remote(shard), shards)
    finally:
        if started:
            ray.shutdown()


def _cores() -> int:
    from genrec.doctor import usable_cores

    return usable_cores()


class _Worker:
    """Writes shards in a process of its own."""

    def __init__(self, paths: JobPaths, config: BatchConfig, threads: int) -> None:
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", threads)))
        self._job = Job.prepare(paths, config)

    def write(self, shard: int) -> int:
        if not self._job.is_done(shard):
            self._job.write(shard)
        return shard
