"""Chronological histories, stored as flat arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from genrec.arrays import Floats, Floats32, Integers, Ints, Items, Mask, rows_and_places
from genrec.errors import DataError


@dataclass(frozen=True, eq=False, repr=False)
class Histories:
    """One history per row: item indices, oldest first, concatenated into flat arrays.

    Attributes:
        items: item indices, int32 [n], of all rows one after another.
        offsets: int64 [rows + 1]; row r is ``items[offsets[r]:offsets[r + 1]]``.
        user_ids: the user of each row.
        timestamps: float64 [n], ascending within each row.
        ratings: float32 [n], NaN where unknown; ``None`` if the log has no ratings.
        reviews: n texts, null where unknown; ``None`` if the log has no reviews.
        words: what each row's user asks for now, ``None`` for nothing; ``None`` if nobody does.
    """

    items: Items
    offsets: Ints
    user_ids: list[str]
    timestamps: Floats
    ratings: Floats32 | None = None
    reviews: pl.Series | None = None
    words: Sequence[str | None] | None = None

    @classmethod
    def from_lists(
        cls,
        rows: Sequence[Sequence[int]],
        ratings: Sequence[Sequence[float | None]] | None = None,
        words: Sequence[str | None] | None = None,
    ) -> Histories:
        """Build histories of the users "0", "1", … with the timestamps 0, 1, … in each row.

        Args:
            rows: item indices of each user, oldest first.
            ratings: rating of each item, ``None`` where unknown, if there are any.
            words: what each user asks for now, ``None`` for nothing.

        Raises:
            DataError: ``ratings`` has another shape than ``rows``.
        """
        if ratings is not None and list(map(len, ratings)) != list(map(len, rows)):
            raise DataError("give one rating per item of a history, None where it is unknown")
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        offsets = offsets_of(lengths)
        items = np.array([item for row in rows for item in row], dtype=np.int32)
        _, steps = rows_and_places(lengths)
        users = [str(row) for row in range(len(rows))]
        flat = None
        if ratings is not None:
            known = [np.nan if each is None else each for row in ratings for each in row]
            flat = np.array(known, np.float32)
        return cls(items, offsets, users, steps.astype(np.float64), flat, words=words)

    def __repr__(self) -> str:
        return f"Histories({len(self)} rows, {len(self.items)} items)"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Items:
        return self.items[self.offsets[:-1][row] : self.offsets[1:][row]]

    def __iter__(self) -> Iterator[Items]:
        return (self[row] for row in range(len(self)))

    def ratings_of(self, row: int) -> Floats32 | None:
        """Return the ratings of a row, NaN where unknown; ``None`` if there are no ratings."""
        if self.ratings is None:
            return None
        return self.ratings[self.offsets[:-1][row] : self.offsets[1:][row]]

    @property
    def lengths(self) -> Ints:
        """Number of items in each row, int64 [rows]."""
        return np.diff(self.offsets)

    def seen(self, n_items: int) -> Mask:
        """Return a mask of the items in each row, bool [rows, n_items]."""
        seen = np.zeros((len(self), n_items), dtype=bool)
        seen[np.repeat(np.arange(len(self)), self.lengths), self.items] = True
        return seen

    def select(self, rows: Sequence[int] | Integers) -> Histories:
        """Return the given rows, in the given order."""
        return self.head(rows, self.lengths[np.asarray(rows, dtype=np.int64)])

    def head(self, rows: Sequence[int] | Integers, lengths: Integers) -> Histories:
        """Return the first ``lengths[i]`` items of row ``rows[i]``, for each i."""
        rows = np.asarray(rows, dtype=np.int64)
        return self._cut(rows, self.offsets[rows], lengths)

    def tail(self, length: int) -> Histories:
        """Return the last ``length`` items of each row (all of a shorter row)."""
        kept = np.minimum(self.lengths, length)
        return self._cut(np.arange(len(self)), self.offsets[1:] - kept, kept)

    def undated(self) -> Histories:
        """Return the rows with the timestamps 0, 1, …, so that they end in the present."""
        _, steps = rows_and_places(self.lengths)
        return replace(self, timestamps=steps.astype(np.float64))

    def _cut(self, rows: Integers, starts: Integers, lengths: Integers) -> Histories:
        offsets = offsets_of(lengths)
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        users = [self.user_ids[row] for row in rows.tolist()]
        ratings = None if self.ratings is None else self.ratings[places]
        reviews = None if self.reviews is None else self.reviews[places]
        times = self.timestamps[places]
        words = None if self.words is None else [self.words[row] for row in rows.tolist()]
        return Histories(self.items[places], offsets, users, times, ratings, reviews, words)


def offsets_of(lengths: Integers | Mask) -> Ints:
    """Return the offsets of rows with the given lengths, int64 [rows + 1]."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def histories_of(table: pl.DataFrame, lengths: Integers, user_ids: list[str]) -> Histories:
    """Build histories from a sorted table.

    Args:
        table: one row per interaction with the columns item and timestamp, and optionally rating
            and review; the interactions of one user are adjacent.
        lengths: number of interactions of each user, integer [users].
        user_ids: the id of each user.

    Returns:
        Histories with writable arrays, which torch needs.
    """
    items, times = (table[name].to_numpy(writable=True) for name in ("item", "timestamp"))
    ratings = None
    if "rating" in table.columns:
        ratings = table["rating"].cast(pl.Float32).to_numpy(writable=True)
    reviews = table["review"] if "review" in table.columns else None
    return Histories(items, offsets_of(lengths), user_ids, times, ratings, reviews)


def common_clock(histories: Histories) -> bool:
    """Return whether the timestamps are real times.

    If more than half of the users start at the same smallest timestamp, the timestamps are taken
    for positions within each history.
    """
    firsts = histories.timestamps[histories.offsets[:-1][histories.lengths > 0]]
    return len(firsts) <= 1 or bool((firsts == firsts.min()).mean() <= 0.5)


def distinct_pairs(histories: Histories) -> int:
    """Return the number of distinct pairs of a row and an item."""
    rows = np.repeat(np.arange(len(histories)), histories.lengths)
    pairs = rows << 32 | histories.items
    pairs.sort()  # on 25 M pairs np.unique, which hashes, takes eight times as long
    return int(np.count_nonzero(np.diff(pairs))) + (len(pairs) > 0)


def count_before(histories: Histories, time: float) -> Ints:
    """Return the number of items before ``time`` in each row, int64 [rows]."""
    running = offsets_of(histories.timestamps < time)
    return running[histories.offsets[1:]] - running[histories.offsets[:-1]]
