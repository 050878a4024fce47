"""Item distributions as one base and few changes, so that their cost is not the catalogue's size.

A dense distribution for each position of a window is 20 x items numbers, gone through many times:
at a million items training would wait for its batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from genrec.arrays import Floats, Integers, Ints


@dataclass(frozen=True)
class SparseDistributions:
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


def changed_shares(
    base: Floats, votes: sp.csr_array[Any], items: Integers, known: Floats
) -> SparseDistributions:
    """The base and the votes on top of it, but for ``items``, which have what is ``known``."""
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
