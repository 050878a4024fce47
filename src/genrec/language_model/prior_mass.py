"""The prior's mass below each child of the trie, by prefix sums in leaf order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, cast

import numpy as np
import scipy.sparse as sp

from genrec.arrays import Floating, Floats, Floats32, Ints, Items
from genrec.collaborative.sparse import SparseDistributions
from genrec.language_model.trie import Trie

LEAST_MASS = 1e-30
"""Mass of an item that the prior calls impossible, whose logarithm would be infinite."""


def cumulative_mass(trie: Trie, probabilities: Floating) -> Floats:
    """Return prefix sums of item probabilities in leaf order, shape [rows, leaves + 1]."""
    sums = np.zeros((len(probabilities), len(trie) + 1))
    np.cumsum(probabilities[:, trie.items], axis=1, out=sums[:, 1:])
    return sums


def log_mass(trie: Trie, sums: Floats | SparseSums, rows: Ints, child: Ints) -> Floats32:
    """Return the log of the prior's mass below each child.

    Sparse sums omit a factor that is the same for all children of a decision; it cancels in the
    softmax.

    Args:
        trie: the title trie.
        sums: cumulative prior mass, shape [rows, leaves + 1] or sparse.
        rows: row of ``sums`` for each child, shape [choices].
        child: position of each child in the trie's ``child_*`` arrays, shape [choices].

    Returns:
        Shape [choices].
    """
    low, high = trie.child_low[child], trie.child_high[child]
    if isinstance(sums, SparseSums):
        mass = sums.between(rows, low, high)
    else:
        mass = sums[rows, high] - sums[rows, low]
    return cast(Floats32, np.log(np.maximum(mass, LEAST_MASS)).astype(np.float32))


@dataclass(frozen=True)
class SparseSums:
    """Prefix sums of :class:`SparseDistributions` in a trie's leaf order.

    Attributes:
        base: prefix sums of the shared base, shape [leaves + 1].
        key: row and leaf of each change as one number, ascending, shape [changes].
        changes: prefix sums of the changes in that order, shape [changes + 1].
    """

    base: Floats
    key: Ints
    changes: Floats

    @classmethod
    def of(cls, trie: Trie, parts: Sequence[SparseDistributions]) -> Self:
        """Concatenate the rows of all parts, which must share one base."""
        ends = np.cumsum([part.rows for part in parts])
        starts = ends - [part.rows for part in parts]
        row = np.concatenate([part.row + start for part, start in zip(parts, starts, strict=True)])
        leaf = trie.leaf_of[np.concatenate([part.item for part in parts])]
        change = np.concatenate([part.change for part in parts])
        there = leaf >= 0
        where = row[there], leaf[there]
        # Converting to CSC and then to CSR sorts by counting, in half the time of comparing keys.
        table = sp.coo_array((change[there], where), (ends[-1], len(trie))).tocsc().tocsr()
        key = np.repeat(np.arange(ends[-1]), np.diff(table.indptr)) * len(trie) + table.indices
        base = np.append(0.0, np.cumsum(parts[0].base[trie.items]))
        return cls(base, key.astype(np.int64, copy=False), np.append(0.0, np.cumsum(table.data)))

    def between(self, rows: Ints, low: Items, high: Items) -> Floats:
        """Return the mass of each row's leaves ``low:high``, up to a factor per row."""
        leaves = len(self.base) - 1
        first, stop = (np.searchsorted(self.key, rows * leaves + leaf) for leaf in (low, high))
        return self.base[high] - self.base[low] + self.changes[stop] - self.changes[first]
