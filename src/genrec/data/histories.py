"""Chronological histories in flat arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from genrec.arrays import Floats, Floats32, Integers, Ints, Items, Mask


@dataclass(frozen=True, eq=False)
class Histories:
    """Rows of item indices, oldest first, one after the other in flat arrays.

    items: int32[n]. offsets: int64[rows + 1]; row r is items[offsets[r]:offsets[r + 1]].
    user_ids: one per row. timestamps: float64[n], ascending in each row. ratings: float32[n] (nan
    where unknown) or None. reviews: n texts, null where unknown, or None.
    """

    items: Items
    offsets: Ints
    user_ids: list[str]
    timestamps: Floats
    ratings: Floats32 | None = None
    reviews: pl.Series | None = None

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]]) -> Histories:
        """Histories of users "0", "1", … whose timestamps count 0, 1, … in each row."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        offsets = offsets_of(lengths)
        items = np.array([item for row in rows for item in row], dtype=np.int32)
        steps = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
        return cls(items, offsets, [str(row) for row in range(len(rows))], steps.astype(np.float64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Items:
        return self.items[self.offsets[:-1][row] : self.offsets[1:][row]]

    def __iter__(self) -> Iterator[Items]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> Ints:
        """Items in each row, int64[rows]."""
        return np.diff(self.offsets)

    def seen(self, n_items: int) -> Mask:
        """Which items each row holds, bool[rows, n_items]."""
        seen = np.zeros((len(self), n_items), dtype=bool)
        seen[np.repeat(np.arange(len(self)), self.lengths), self.items] = True
        return seen

    def select(self, rows: Sequence[int] | Integers) -> Histories:
        """The given rows, in the given order."""
        return self.head(rows, self.lengths[np.asarray(rows, dtype=np.int64)])

    def head(self, rows: Sequence[int] | Integers, lengths: Integers) -> Histories:
        """The first `lengths[i]` items of row `rows[i]`, for each i."""
        rows = np.asarray(rows, dtype=np.int64)
        return self._cut(rows, self.offsets[rows], lengths)

    def tail(self, length: int) -> Histories:
        """The last `length` items of each row."""
        kept = np.minimum(self.lengths, length)
        return self._cut(np.arange(len(self)), self.offsets[1:] - kept, kept)

    def _cut(self, rows: Integers, starts: Integers, lengths: Integers) -> Histories:
        offsets = offsets_of(lengths)
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        users = [self.user_ids[row] for row in rows.tolist()]
        ratings = None if self.ratings is None else self.ratings[places]
        reviews = None if self.reviews is None else self.reviews[places]
        times = self.timestamps[places]
        return Histories(self.items[places], offsets, users, times, ratings, reviews)


def offsets_of(lengths: Integers | Mask) -> Ints:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def histories_of(table: pl.DataFrame, lengths: Integers, user_ids: list[str]) -> Histories:
    """Histories of a table with one row per interaction; the arrays are writable, for torch."""
    items, times = (table[name].to_numpy(writable=True) for name in ("item", "timestamp"))
    ratings = None
    if "rating" in table.columns:
        ratings = table["rating"].cast(pl.Float32).to_numpy(writable=True)
    reviews = table["review"] if "review" in table.columns else None
    return Histories(items, offsets_of(lengths), user_ids, times, ratings, reviews)


def common_clock(histories: Histories) -> bool:
    """Whether timestamps are a time that users share, and not the positions of their own items."""
    firsts = histories.timestamps[histories.offsets[:-1][histories.lengths > 0]]
    return len(firsts) <= 1 or bool((firsts == firsts.min()).mean() <= 0.5)


def count_before(histories: Histories, time: float) -> Ints:
    """Items of each row before `time`, int64[rows]."""
    running = offsets_of(histories.timestamps < time)
    return running[histories.offsets[1:]] - running[histories.offsets[:-1]]
