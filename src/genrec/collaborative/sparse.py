"""Sparse item distributions: one shared base and few changes per row.

A dense distribution for each position of a training window takes 20 x items numbers, and several
passes over them. With a million items, training would wait for its batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from genrec.arrays import Floats, Integers, Ints


@dataclass(frozen=True)
class SparseDistributions:
    """Distributions ``q[r, i]`` proportional to ``base[i]`` plus the changes of row ``r`` at ``i``.

    Attributes:
        base: weights that all rows share, shape [items].
        row: row of each change, shape [changes].
        item: item of each change, shape [changes].
        change: value added to the base, shape [changes].
        rows: number of rows.
    """

    base: Floats
    row: Ints
    item: Ints
    change: Floats
    rows: int

    def dense(self) -> Floats:
        """Return q as a dense array, shape [rows, items]."""
        q = np.tile(self.base, (self.rows, 1))
        q[self.row, self.item] += self.change
        q /= q.sum(axis=1, keepdims=True)
        return q


def changed_shares(
    base: Floats, votes: sp.csr_array[Any], items: Integers, known: Floats
) -> SparseDistributions:
    """Add sparse votes to a base, with fixed values for a few items.

    Args:
        base: weights that all rows share, shape [items].
        votes: weights to add, shape [rows, items].
        items: items that get the values of ``known`` in place of base plus votes.
        known: these values, shape [rows, len(items)].
    """
    rows = votes.shape[0]
    free = np.ones(len(base), bool)
    free[items] = False
    free = free[votes.indices]
    row = np.repeat(np.arange(rows), np.diff(votes.indptr))[free]
    return SparseDistributions(
        base,
        np.append(row, np.repeat(np.arange(rows), len(items))),
        np.append(votes.indices[free], np.tile(items, rows)),
        np.append(votes.data[free], (known - base[items]).ravel()),
        rows,
    )
