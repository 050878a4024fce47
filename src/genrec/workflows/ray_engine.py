"""Shards of a job on a Ray cluster: one actor per worker, which is restarted if it dies.

Every worker reads the run and the log and writes its shards itself, so all machines of the cluster
need them, and the output folder, at the same paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from genrec.workflows.batch_job import BatchConfig, Job, JobPaths
from genrec.workflows.ray_cluster import (
    limit_threads,
    needs_of_worker,
    ray_cluster,
    threads_per_worker,
)


def written_with_ray(
    paths: JobPaths, config: BatchConfig, shards: Sequence[int], workers: int
) -> Iterator[int]:
    """Write shards on a Ray cluster and yield the number of each as it is done.

    See :func:`~genrec.workflows.ray_cluster.ray_cluster` for which one. If a worker dies, it is
    started again and its shard is computed again.

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
    with ray_cluster() as ray:
        from ray.util import ActorPool

        needs, threads = needs_of_worker(ray, workers), threads_per_worker(workers)
        actor = ray.remote(max_restarts=-1, max_task_retries=-1, **needs)(_Worker)
        pool: Any = ActorPool([actor.remote(paths, config, threads) for _ in range(workers)])
        yield from pool.map_unordered(lambda worker, shard: worker.write.remote(shard), shards)


class _Worker:
    """Writes shards in a process of its own."""

    def __init__(self, paths: JobPaths, config: BatchConfig, threads: int) -> None:
        limit_threads(threads)
        self._job = Job.prepare(paths, config)

    def write(self, shard: int) -> int:
        if not self._job.is_done(shard):
            self._job.write(shard)
        return shard
