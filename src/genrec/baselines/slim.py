"""SLIM: sparse, non-negative item-to-item weights from one elastic net per item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from genrec.collaborative.base import ItemToItem, check_setting
from genrec.collaborative.matrix import check_size, interaction_matrix
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout


@dataclass(eq=False)
class SLIM(ItemToItem):
    """SLIM; it treats a history as a set.

    With the binary users x items matrix X, the weights W minimise
    ``|X - X W|² / 2 + l2 |W|² / 2 + l1 |W|₁`` subject to W >= 0 and a zero diagonal.

    Source: Ning and Karypis, SLIM: Sparse linear methods for top-N recommender systems (ICDM 2011).
    """

    name = "slim"

    l1: float = 1.0
    """L1 penalty, in interactions; items that share fewer users than this have weight 0."""
    l2: float = 50.0
    """L2 penalty, in interactions, like the ridge of EASE."""
    tolerance: float = 1e-3
    """Smallest change of a weight; the fit ends when no weight changes by more."""
    sweeps: int = 100
    """Most passes over all weights."""

    def __post_init__(self) -> None:
        check_setting("l1", self.l1)
        check_setting("l2", self.l2)
        check_setting("tolerance", self.tolerance, above=0.0)
        check_setting("sweeps", self.sweeps, least=1)

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        check_size(self.name, len(train.catalogue))
        x = interaction_matrix(train.histories, len(train.catalogue))
        gram = sp.csr_array(x.T @ x)
        self.item_weights = elastic_net(gram, self.l1, self.l2, self.tolerance, self.sweeps)


def elastic_net(
    gram: sp.csr_array[Any], l1: float, l2: float, tolerance: float, sweeps: int
) -> sp.csr_array[Any]:
    """Fit the weights by coordinate descent on the Gram matrix.

    Each step updates the weights from one history item to all columns. A weight can rise above zero
    only where two items share more than ``l1`` users, because the other weights are non-negative
    and only lower the gradient. The weights are therefore stored at the Gram matrix's non-zero
    entries, and a step touches no others. The result is the same as without this restriction.

    Args:
        gram: ``X.T @ X``, shape [items, items].
        l1: L1 penalty.
        l2: L2 penalty.
        tolerance: smallest change of a weight.
        sweeps: most passes over all weights.

    Returns:
        W, shape [items, items].
    """
    descent = _Descent(gram, l1, l2, tolerance)
    for _ in range(sweeps):
        if not sum(descent.step(item) for item in range(len(descent.left))):
            break
    return descent.matrix()


class _Descent:
    """The weights at the Gram matrix's non-zero entries, and the residual of the Gram matrix."""

    def __init__(self, gram: sp.csr_array[Any], l1: float, l2: float, tolerance: float) -> None:
        self.gram, self.l1, self.l2, self.tolerance = gram, l1, l2, tolerance
        self.weights = np.zeros(gram.nnz, np.float32)
        # The Gram matrix minus its product with W. Transposed, so that a step changes whole rows.
        self.left = gram.toarray().astype(np.float32)

    def step(self, item: int) -> bool:
        """Set one item's weights for all others to their optimum, with all other weights fixed.

        Returns:
            Whether any weight changed by more than the tolerance.
        """
        places = slice(self.gram.indptr[item], self.gram.indptr[item + 1])
        near, shared = self.gram.indices[places], self.gram.data[places]
        count, weights = shared[near == item], self.weights[places]
        if not len(count):  # no user has the item
            return False
        rest = self.left[near, item] + count * weights
        best = np.maximum(rest - self.l1, 0.0) / (count + self.l2)
        best[near == item] = 0.0
        change = best - weights
        moved = np.abs(change) > self.tolerance
        weights[moved] = best[moved]
        self.left[np.ix_(near[moved], near)] -= np.outer(change[moved], shared)
        return bool(moved.any())

    def matrix(self) -> sp.csr_array[Any]:
        """Return W, shape [items, items]."""
        found = self.weights > 0
        row = np.repeat(np.arange(len(self.left)), np.diff(self.gram.indptr))[found]
        parts = (self.weights[found], (row, self.gram.indices[found]))
        return sp.csr_array(parts, shape=self.gram.shape)
