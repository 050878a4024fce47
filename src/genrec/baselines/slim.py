"""SLIM: sparse item-to-item weights, none below zero, by an elastic net for each item."""

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
    """SLIM (Ning and Karypis, ICDM 2011), which hears a history as a set.

    With X the users x items matrix of ones, the weights W minimise
    ``|X - X W|² / 2 + l2 |W|² / 2 + l1 |W|₁`` with W >= 0 and nothing on the diagonal.
    """

    name = "slim"

    l1: float = 1.0
    """In interactions: an item says nothing to another that it shares fewer users with."""
    l2: float = 50.0
    """In interactions, as the ridge of EASE."""
    tolerance: float = 1e-3
    """A weight is not moved by less; the fit ends when none is."""
    sweeps: int = 100
    """Rounds over all weights at most."""

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
    """Coordinate descent on the Gram matrix, one history item for all columns at a time.

    A weight can only rise above zero where two items share more than ``l1`` users: the others' say,
    none of it below zero, only lowers the gradient. So the weights live on the Gram matrix's own
    places, and a step touches no others; the answer is the same as without.

    Returns:
        W, shape [items, items].
    """
    descent = _Descent(gram, l1, l2, tolerance)
    for _ in range(sweeps):
        if not sum(descent.step(item) for item in range(len(descent.left))):
            break
    return descent.matrix()


class _Descent:
    """The weights on the places of the Gram matrix, and what they leave of it."""

    def __init__(self, gram: sp.csr_array[Any], l1: float, l2: float, tolerance: float) -> None:
        self.gram, self.l1, self.l2, self.tolerance = gram, l1, l2, tolerance
        self.weights = np.zeros(gram.nnz, np.float32)
        # The Gram matrix less its product with W, transposed: a step then changes whole rows.
        self.left = gram.toarray().astype(np.float32)

    def step(self, item: int) -> bool:
        """Give one item its best weights for all others, all else fixed; whether any moved."""
        places = slice(self.gram.indptr[item], self.gram.indptr[item + 1])
        near, shared = self.gram.indices[places], self.gram.data[places]
        count, weights = shared[near == item], self.weights[places]
        if not len(count):  # nobody has it
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
        """W, shape [items, items]."""
        found = self.weights > 0
        row = np.repeat(np.arange(len(self.left)), np.diff(self.gram.indptr))[found]
        parts = (self.weights[found], (row, self.gram.indices[found]))
        return sp.csr_array(parts, shape=self.gram.shape)
