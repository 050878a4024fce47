"""Recommendations for all users of a log, on this machine or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from genrec.evaluation.evaluate import Progress
from genrec.files import remove_partials
from genrec.model.hub import local_folder
from genrec.workflows.batch_job import BatchConfig, Job, JobPaths
from genrec.workflows.ray_cluster import check_engine
from genrec.workflows.ray_engine import written_with_ray


def recommend_all(
    run: Path,
    out: Path,
    config: BatchConfig,
    *,
    engine: Literal["local", "ray"] = "local",
    workers: int = 1,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> int:
    """Recommend for every user and write the output folder; an interrupted job resumes.

    Args:
        run: run folder, or ``ORG/NAME`` of a run on the Hugging Face Hub.
        out: output folder.
        config: settings of the job.
        engine: ``"local"`` computes in this process, ``"ray"`` on a Ray cluster (see
            :mod:`genrec.workflows.ray_engine`).
        workers: number of workers of the cluster.
        say: called with notes about the data, and with how much there is to do.
        progress: called with (users done, users) after each file.

    Returns:
        The number of users.

    Raises:
        ConfigError: A setting is out of range.
        DataError: ``out`` holds something else, or the log cannot be read or has no known item.
        RunError: ``out`` holds recommendations of another job.
    """
    check_engine(engine, workers)
    paths = JobPaths(local_folder(run).resolve(), out.resolve())
    job = Job.prepare(paths, config, say)
    left = [shard for shard in range(job.shards) if not job.is_done(shard)]
    done, users = job.shards - len(left), len(job.histories)
    if left:
        say(f"recommending for {users:,} users: {len(left):,} of {job.shards:,} files to write")
    for _ in (
        _written(job, left) if engine == "local" else written_with_ray(paths, config, left, workers)
    ):
        done += 1
        if progress is not None:
            progress(min(done * config.shard_users, users), users)
    remove_partials(paths.out)
    return users


def _written(job: Job, shards: Sequence[int]) -> Iterator[int]:
    for shard in shards:
        job.write(shard)
        yield shard
