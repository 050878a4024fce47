"""A synthetic log in the shape of MovieLens-25M.

MovieLens-25M has 25,000,095 ratings by 162,541 users of 62,423 films. Each user has rated at least
20 films, half of them fewer than 72, and no film twice. The rows are sorted by user and film.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

ROWS, USERS, ITEMS = 25_000_095, 162_541, 62_423
FEWEST, SPREAD = 20, 1.5
"""Fewest ratings of a user (about), and the standard deviation of the logarithms of the others."""
SPARE = 1.7
"""How many more items are drawn than needed, because a user's repeated items are dropped."""
WORDS = ("River", "Stone", "Night", "Storm", "Garden", "Winter", "Silver", "Moon", "Road")


def write_log(folder: Path, rows: int, seed: int, kind: str = "parquet") -> tuple[Path, Path]:
    """Write a log and its item table as MovieLens has them.

    Args:
        folder: an existing folder.
        rows: number of interactions; the number of users grows with it, that of items does not.
        seed: seed of all draws.
        kind: ``"parquet"`` or ``"csv"``.

    Returns:
        The files of the log and of the items.
    """
    log, items = folder / f"ratings.{kind}", folder / f"movies.{kind}"
    shape = max(1, round(USERS * rows / ROWS)), ITEMS
    tables = {
        log: interactions(rows, *shape, seed),
        items: pl.DataFrame({"movieId": range(ITEMS), "title": list(titles(ITEMS))}),
    }
    for path, table in tables.items():
        _ = table.write_csv(path) if kind == "csv" else table.write_parquet(path)
    return log, items


def interactions(rows: int, users: int, items: int, seed: int) -> pl.DataFrame:
    """Draw a log with the columns userId, movieId, rating and timestamp (seconds).

    Lengths of histories are log-normal and popularity falls as 1 / (rank + 300)². A user rates in
    sittings: most ratings follow within a minute, some after weeks.
    """
    random = np.random.default_rng(seed)
    more = random.lognormal(0.0, SPREAD, users)
    lengths = FEWEST + more * max(0, rows / users - FEWEST) / more.mean()
    share = 1 / np.arange(300, items + 300) ** 2.0
    ends = np.cumsum(share / share.sum())
    owners = np.repeat(np.arange(users), np.ceil(SPARE * lengths).astype(np.int64))
    places = random.permutation(items)[np.searchsorted(ends, random.random(len(owners)))]
    pairs = np.unique(owners * items + places)
    del owners, places
    spare = len(pairs) - rows
    if spare < 0:
        raise ValueError(f"only {len(pairs)} of {rows} interactions were drawn; raise SPARE")
    pairs = np.delete(pairs, random.choice(len(pairs), spare, replace=False))
    user = pairs // items
    return pl.DataFrame(
        {
            "userId": user,
            "movieId": pairs % items,
            "rating": random.integers(1, 11, rows) / 2,
            "timestamp": _times(user, users, random),
        }
    )


def _times(user: np.ndarray, users: int, random: np.random.Generator) -> np.ndarray:
    """Draw the times of ratings, whose order within a user is random."""
    order = random.permutation(len(user))
    order = order[np.argsort(user[order], kind="stable")]
    weeks = random.random(len(user)) < 0.05
    gaps = np.where(weeks, random.exponential(2e6, len(user)), random.exponential(5, len(user)))
    running = np.cumsum(gaps)
    firsts = np.flatnonzero(np.diff(user, prepend=-1))
    starts = random.uniform(789_652_009, 1_500_000_000, users)[user[firsts]]
    running += np.repeat(starts - running[firsts], np.diff(np.append(firsts, len(user))))
    times = np.empty(len(user), dtype=np.int64)
    times[order] = running.astype(np.int64)
    return times


def titles(count: int) -> Iterator[str]:
    """Yield distinct titles of three words, a number and a year."""
    for number in range(count):
        first, second = WORDS[number % 9], WORDS[number // 9 % 9]
        yield f"The {first} {second} {number // 81} ({1930 + number % 90})"
