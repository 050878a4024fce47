"""Item distributions as one base and few changes, so that their cost is not the catalogue's size.

A dense distribution for each position of a window is 20 x items numbers, gone through many times:
at a million items training would wait for its batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import scipy.sparse as sp

from genrec.arrays import Floats, Ints, Items
from genrec.trie import Trie


@dataclass(frozen=True)
class Shares:
    """Distributions ``q[r, i]`` in proportion to ``base[i]`` plus what is changed there.

    Attributes:
        base: of all rows, shape [items].
        row, item, change: one entry for each changed item of a row.
        rows: how many there are.
    """

    base: Floats
    row: Ints
    item: Ints
    change: Floats
    rows: int

    def dense(self) -> Floats:
        """q, shape [rows, items]."""
        q = np.tile(self.base, (self.rows, 1))
        q[self.row, self.item] += self.change
        q /= q.sum(axis=1, keepdims=True)
        return q


@dataclass(frozen=True)
class SparseSums:
    """Prefix sums of :class:`Shares` in a trie's leaf order.

    Attributes:
        base: shape [leaves + 1].
        key: row and leaf of each change as one number, ascending.
        changes: prefix sums of the changes in that order.
    """

    base: Floats
    key: Ints
    changes: Floats

    @classmethod
    def of(cls, trie: Trie, parts: Sequence[Shares]) -> Self:
        """Sums of the rows of all parts, one after the other; they have one base."""
        ends = np.cumsum([part.rows for part in parts])
        starts = ends - [part.rows for part in parts]
        row = np.concatenate([part.row + start for part, start in zip(parts, starts, strict=True)])
        leaf = trie.leaf_of[np.concatenate([part.item for part in parts])]
        change = np.concatenate([part.change for part in parts])
        there = leaf >= 0
        where = row[there], leaf[there]
        # Through columns to rows: sorted by counting, in half the time of comparing keys.
        table = sp.coo_array((change[there], where), (ends[-1], len(trie))).tocsc().tocsr()
        key = np.repeat(np.arange(ends[-1]), np.diff(table.indptr)) * len(trie) + table.indices
        base = np.append(0.0, np.cumsum(parts[0].base[trie.items]))
        return cls(base, key.astype(np.int64, copy=False), np.append(0.0, np.cumsum(table.data)))

    def between(self, rows: Ints, low: Items, high: Items) -> Floats:
        """Mass of each row's leaves ``low:high``, up to a factor of the row."""
        leaves = len(self.base) - 1
        first, stop = (np.searchsorted(self.key, rows * leaves + leaf) for leaf in (low, high))
        return self.base[high] - self.base[low] + self.changes[stop] - self.changes[first]
