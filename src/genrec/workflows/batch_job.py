"""One job of recommendations for all users of a log: its model, its histories and its shards.

The output is a folder of Parquet files, one for each shard of users, with one row per user and
place: user_id, rank, item_id, title and log_probability. Each file carries what it was computed
from, so that an interrupted job resumes, and never mixes two jobs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from genrec.data.histories import Histories
from genrec.data.interactions import read_interactions
from genrec.data.prepare import known_histories
from genrec.errors import ConfigError, DataError, RunError
from genrec.files import is_free, replacing
from genrec.model.genrec import GenRec
from genrec.workflows.named_models import run_state
from genrec.workflows.runs import run_dataset

SHARD_USERS = 1024
"""Users of a shard."""
IDENTITY = "genrec"
"""Key of a file's metadata that holds what it was computed from."""


@dataclass(frozen=True)
class BatchConfig:
    """Settings of a job.

    Attributes:
        k: number of recommendations for each user.
        exclude_seen: leave out the items of each history; if ``None``, unless the training
            histories often repeat items.
        shard_users: users of a shard.
        log: a log with the histories; those of the run's data set if ``None``.
    """

    k: int = 10
    exclude_seen: bool | None = None
    shard_users: int = SHARD_USERS
    log: Path | None = None


@dataclass(frozen=True)
class JobPaths:
    """Where a job reads and writes.

    Attributes:
        run: run folder.
        out: output folder.
    """

    run: Path
    out: Path


@dataclass(frozen=True, eq=False)
class Job:
    """A model, the histories of all users, and where the shards go.

    Attributes:
        model: the run.
        histories: one row per user.
        out: output folder.
        config: settings of the job.
        identity: everything that the recommendations depend on.
    """

    model: GenRec
    histories: Histories
    out: Path
    config: BatchConfig
    identity: str

    @classmethod
    def prepare(
        cls, paths: JobPaths, config: BatchConfig, say: Callable[[str], None] = lambda line: None
    ) -> Job:
        """Load the run and the histories, and check the output folder.

        Args:
            paths: run and output folder.
            config: settings of the job.
            say: called with notes about the data.
        """
        run, out = paths.run, paths.out
        if min(config.k, config.shard_users) < 1:
            raise ConfigError(
                f"k={config.k} and shard_users={config.shard_users} must be at least 1."
            )
        if not is_free(out) and not (out.is_dir() and list(out.glob("part-*.parquet"))):
            raise DataError(
                f"{out} is not empty and holds no recommendations. Choose another output folder."
            )
        model = GenRec.from_pretrained(run)
        # A list is for the present, as one of the service, and not for a user's last visit.
        histories = _histories(model, run, config, say).undated()
        exclude_seen = model.excludes_seen if config.exclude_seen is None else config.exclude_seen
        facts = {
            "run": run_state(run),
            "histories": _digest(histories),
            "k": config.k,
            "exclude_seen": exclude_seen,
            "shard_users": config.shard_users,
        }
        return cls(model, histories, out, config, json.dumps(facts))

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self.histories) // self.config.shard_users)

    def path(self, shard: int) -> Path:
        """Return the file of a shard."""
        return self.out / f"part-{shard:06d}.parquet"

    def is_done(self, shard: int) -> bool:
        """Return whether the file of a shard exists.

        Raises:
            RunError: It belongs to another job, or is damaged.
        """
        path = self.path(shard)
        if not path.exists():
            return False
        try:
            found = pl.read_parquet_metadata(path).get(IDENTITY)
        except (OSError, pl.exceptions.PolarsError):
            found = None
        if found != self.identity:
            raise RunError(
                f"{path} was made by another job: another run, other histories or other settings. "
                f"Delete {self.out}, or choose another output folder."
            )
        return True

    def write(self, shard: int) -> None:
        """Recommend for the users of a shard and write its file."""
        self.out.mkdir(parents=True, exist_ok=True)
        with replacing(self.path(shard)) as partial:
            metadata = {IDENTITY: self.identity}
            self.table(shard).write_parquet(partial, metadata=metadata)

    def table(self, shard: int) -> pl.DataFrame:
        """Return the recommendations of a shard, one row per user and place."""
        first = shard * self.config.shard_users
        rows = np.arange(first, min(first + self.config.shard_users, len(self.histories)))
        facts: Mapping[str, Any] = json.loads(self.identity)
        part = self.histories.select(rows)
        top = self.model.recommend_batch(
            part, self.config.k, exclude_seen=bool(facts["exclude_seen"])
        )
        filled = top.items >= 0  # fewer than k where the catalogue has no more
        user, place = np.nonzero(filled)
        items = top.items[filled]
        catalogue = self.model.catalogue
        return pl.DataFrame(
            {
                "user_id": [part.user_ids[row] for row in user.tolist()],
                "rank": (place + 1).astype(np.int32),
                "item_id": [catalogue.item_ids[item] for item in items.tolist()],
                "title": [catalogue.titles[item] for item in items.tolist()],
                "log_probability": top.scores[filled].astype(np.float32),
            },
            schema_overrides={"user_id": pl.String, "item_id": pl.String, "title": pl.String},
        )


def _histories(
    model: GenRec, run: Path, config: BatchConfig, say: Callable[[str], None]
) -> Histories:
    if config.log is None:
        return run_dataset(model, run).histories
    try:
        read = read_interactions(config.log)
    except DataError as error:
        if "--" not in str(error):
            raise
        raise DataError(
            f"{error}\nThis command has no such options: give a log with the columns user_id, "
            "item_id and timestamp (seconds since 1970 or 2024-01-31 10:00:00)."
        ) from None
    histories, unknown = known_histories(read, model.catalogue)
    if unknown:
        lost = len(read.user_ids) - len(histories)
        users = f"; {lost:,} users have no other event and get no recommendations" if lost else ""
        say(
            f"note: {unknown:,} of {read.rows.height:,} events are on items that are not in the "
            f"catalogue; they were left out{users}"
        )
    if not len(histories):
        raise DataError(
            f"{config.log}: no item of the log is in the catalogue of the run; the item ids must "
            f"be those of the training data, such as {model.catalogue.item_ids[0]!r}"
        )
    return histories


def _digest(histories: Histories) -> str:
    digest = hashlib.sha256(json.dumps(histories.user_ids).encode())
    digest.update(np.ascontiguousarray(histories.items, "<i4").data)
    digest.update(np.ascontiguousarray(histories.offsets, "<i8").data)
    if histories.ratings is not None:
        digest.update(np.ascontiguousarray(histories.ratings, "<f4").data)
    return digest.hexdigest()[:16]
