"""A real local Ray cluster with two workers, one of which is killed half-way."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import polars as pl
import pytest

from conftest import children_named, make_dataset
from genrec import GenRec, leave_last_out
from genrec.data.dataset import Dataset
from genrec.errors import ConfigError
from genrec.workflows.batch_job import BatchConfig
from genrec.workflows.everybody import recommend_all
from genrec.workflows.ray_cluster import needs_of_worker

pytestmark = pytest.mark.slow


def test_a_killed_worker_costs_nothing_but_time(
    tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # both jobs compute with one thread
    make_dataset(users=60).save(tmp_path / "walks")
    data = Dataset.load(tmp_path / "walks")
    model = GenRec(tiny_backbone, prior="none", dtype="float32")
    model.build(leave_last_out(data).train).save_pretrained(tmp_path / "run")
    config, killed = BatchConfig(k=3, shard_users=4), []

    def kill_one(done: int, users: int) -> None:
        workers = children_named("_Worker")
        if not killed and workers:
            killed.append(workers[0].pid)
            os.kill(workers[0].pid, signal.SIGKILL)

    count = recommend_all(
        tmp_path / "run", tmp_path / "ray", config, engine="ray", workers=2, progress=kill_one
    )
    assert len(killed) == 1
    assert count == 60
    assert recommend_all(tmp_path / "run", tmp_path / "local", config) == 60
    expected = sorted((tmp_path / "local").iterdir())
    found = sorted((tmp_path / "ray").iterdir())
    assert [each.name for each in found] == [each.name for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.read_bytes() == other.read_bytes()
    users = pl.read_parquet(tmp_path / "ray")["user_id"]
    assert users.value_counts()["count"].to_list() == [3] * 60
    # Nothing is left to do, so no cluster starts.
    assert recommend_all(tmp_path / "run", tmp_path / "ray", config, engine="ray", workers=2) == 60


def test_more_workers_than_the_cluster_has_room_for_are_refused() -> None:
    class Cluster:
        def __init__(self, **resources: float) -> None:
            self.cluster_resources = lambda: resources

    assert needs_of_worker(Cluster(CPU=2.0, GPU=2.0), 2) == {"num_gpus": 1}
    assert needs_of_worker(Cluster(CPU=64.0), 64) == {"num_cpus": 1}
    for cluster, workers in ((Cluster(GPU=2.0), 3), (Cluster(CPU=2.0), 100), (Cluster(), 1)):
        with pytest.raises(ConfigError, match="no room for"):
            needs_of_worker(cluster, workers)


def test_wrong_engines_are_refused(tmp_path: Path) -> None:
    for options in ({"engine": "spark"}, {"workers": 0}):
        with pytest.raises(ConfigError, match="must be local or ray"):
            recommend_all(tmp_path, tmp_path / "out", BatchConfig(), **options)
