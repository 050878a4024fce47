"""EASE: item-to-item weights by least squares in closed form.

Source: arXiv 1905.03375. X is the binary users x items matrix, and P is the inverse of its Gram
matrix plus a ridge. The weight from item i to item j is ``-P[i, j] / P[j, j]``. Leaving out one
user changes the Gram matrix by a rank-one term, and so P (Sherman-Morrison). Scores without
that user therefore cost one product with P instead of a new fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import scipy.sparse as sp
from scipy import linalg

from genrec.arrays import Arrays, Floating, Floats, Floats32, Integers, Ints
from genrec.collaborative.base import Scores, Scoring, check_setting
from genrec.collaborative.counts import extended_matrix
from genrec.collaborative.expert import Expert, decayed_weights, log_votes
from genrec.collaborative.head import Head
from genrec.collaborative.matrix import (
    check_size,
    decayed_matrix,
    dense_product,
    interaction_matrix,
    matrix_arrays,
    merged_weights,
    restored_matrix,
    strongest_in_columns,
    training_ages,
)
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout

EASE_RIDGE = 300.0
"""Added to each item's count; better than 100 on MovieLens-100K's validation users."""


def gram_inverse(x: sp.csr_array[Any], ridge: float = EASE_RIDGE) -> Floats32:
    """Return P, the inverse of the regularised Gram matrix, shape [items, items].

    Args:
        x: the binary matrix of users and items, shape [users, items].
        ridge: added to the diagonal.
    """
    gram = (x.T @ x).toarray()
    gram[np.diag_indices(len(gram))] += ridge
    # Cholesky takes a fifth of the time of numpy's inverse, which cannot use positive definiteness.
    return cast(Floats32, linalg.inv(gram, overwrite_a=True, assume_a="pos"))


def item_weights(inverse: Floats32) -> Floats32:
    """Turn P into the weights from each item (row) to every other item (column), in place."""
    inverse /= -np.diag(inverse).copy()
    np.fill_diagonal(inverse, 0.0)
    return inverse


def top_weights(inverse: Floats32) -> sp.csr_array[Any]:
    """Return :func:`item_weights` of a copy, with only the strongest entries of each column.

    Args:
        inverse: P, shape [items, items]; left unchanged.
    """

    def block(columns: Ints) -> Floats32:
        found = -inverse[:, columns] / np.diag(inverse)[columns]
        found[columns, np.arange(len(columns))] = 0.0
        return cast(Floats32, found)

    return strongest_in_columns(len(inverse), block)


def leave_user_out(inverse: Floats32, history: Integers) -> Callable[[Floats], Floats32]:
    """Return a function that scores items as if one user had not been counted.

    Args:
        inverse: P, shape [items, items].
        history: the user's history.

    Returns:
        A function from weights of the history's items, shape [positions, items of the history], to
        scores, shape [positions, items].
    """
    own, place = np.unique(history, return_inverse=True)
    rows = inverse[own]
    moved = rows.sum(axis=0)
    factor = 1.0 / (1.0 - moved[own].sum())
    diagonal = np.diag(inverse) + factor * moved**2

    def scores(weights: Floats) -> Floats32:
        merged = merged_weights(weights, place).astype(np.float32)
        found = merged @ rows
        found += (factor * merged @ moved[own])[:, None] * moved
        found /= -diagonal
        found[:, own] += merged  # the diagonal of the weights is zero
        return cast(Floats32, found)

    return scores


@dataclass(eq=False)
class EASE(Scoring):
    """EASE (arXiv 1905.03375) with all its weights; it treats a history as a set.

    A catalogue of n items takes n² weights of four bytes: 0.57 GB for 12,000 items.
    """

    name = "ease"

    ridge: float = 100.0
    """Added to each item's count before the Gram matrix is inverted."""

    def __post_init__(self) -> None:
        check_setting("ridge", self.ridge, above=0.0)

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        check_size(self.name, len(train.catalogue))
        x = interaction_matrix(train.histories, len(train.catalogue))
        self._weights = item_weights(gram_inverse(x, self.ridge))

    def scores(self, histories: Histories) -> Scores:
        return cast(Scores, interaction_matrix(histories, len(self._weights)) @ self._weights)

    def arrays(self) -> Arrays:
        return {"says": self._weights}

    def restore(self, arrays: Arrays) -> Self:
        self._weights = arrays["says"]
        return self


DECAYS = (1.0, 0.9)
"""Decay of an item's weight per step back in the history, one for each of the expert's terms."""
FLOOR = 0.01
"""Score that every item has; see :func:`.log_votes`."""


class EASEExpert(Expert):
    """EASE as a part of the pool: on the whole history, and with more weight on its end."""

    name = "ease"
    terms = ("ease", "ease recent")
    head: Head
    inverse: Floats32 | None
    """P over the items of the head; ``None`` once loaded."""
    weights: sp.csr_array[Any]
    """Weights with the strongest entries of each column, for inference, shape [items, items]."""

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        size = len(train.catalogue)
        self.head = Head.of(train.histories, size)
        x = interaction_matrix(train.histories, size)
        self.inverse = gram_inverse(x if self.head.whole else x[:, self.head.items])
        self.weights = self.head.widened(top_weights(self.inverse))
        return self

    def scores(self, histories: Histories) -> list[Floats]:
        size = self.weights.shape[0]
        given = (decayed_matrix(histories, size, decay) for decay in DECAYS)
        found = [dense_product(each, self.weights) for each in given]
        return [log_votes(each, FLOOR) for each in found]

    def training_scores(self, history: Histories, start: int, stop: int) -> Sequence[Floating]:
        assert self.inverse is not None, "a loaded or extended expert has no training scores"
        ages = training_ages(len(history.items), start, stop)
        place = self.head.place[history.items]
        known = place >= 0
        weights = np.concatenate([decayed_weights(ages[:, known], decay) for decay in DECAYS])
        found = log_votes(leave_user_out(self.inverse, place[known])(weights), FLOOR)
        return np.split(self.head.spread(found, math.log(FLOOR)), len(DECAYS))

    def extended(self, like: Sequence[int | None], catalogue: Catalogue) -> Self:
        longer = copy(self)
        longer.weights, longer.inverse = extended_matrix(self.weights, like), None
        return longer

    def arrays(self) -> Arrays:
        return matrix_arrays(self.weights)

    def restore(self, arrays: Arrays) -> Self:
        self.weights = restored_matrix(arrays, len(arrays["indptr"]) - 1)
        self.inverse = None
        return self
