"""EASE: how much each item of a history speaks for every other one, in closed form.

Source: arXiv 1905.03375. With X the users x items matrix of ones and P the inverse of its Gram
matrix plus a ridge, item i speaks ``-P[i, j] / P[j, j]`` for item j. A user who is taken out
changes the Gram matrix by a product of one vector, hence P by another, so that what everybody else
says costs one product with P instead of a fit (Sherman and Morrison).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from scipy import linalg

from genrec.arrays import Floats, Floats32, Items
from genrec.histories import Histories

RIDGE = 300.0
"""Added to each item's count; better than 100 on MovieLens-100K's validation users."""
MOST_ITEMS = 15_000
"""Larger catalogues have no EASE: P has the square of their size, here .9 GB, thrice in the fit."""
BLOCK = 1024
"""Columns that are cut down at once."""
NEIGHBOURS = 512
"""Strongest entries of each column that the prior keeps for inference."""


def ones(histories: Histories, n_items: int) -> sp.csr_array[Any]:
    """Which items each history holds, as ones, shape [rows, items]."""
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    shape = (len(histories), n_items)
    x = sp.csr_array((np.ones(len(row), np.float32), (row, histories.items)), shape=shape)
    x.sum_duplicates()
    x.data[:] = 1.0
    return x


def invert(histories: Histories, n_items: int, ridge: float = RIDGE) -> Floats32:
    """P for the histories, shape [items, items]."""
    x = ones(histories, n_items)
    gram = (x.T @ x).toarray()
    gram[np.diag_indices(n_items)] += ridge
    # By Cholesky: a fifth of the time of numpy's inverse, which knows nothing of the matrix.
    return cast(Floats32, linalg.inv(gram, overwrite_a=True, assume_a="pos"))


def all_say(inverse: Floats32) -> Floats32:
    """What each item (row) says for every other (column), written over the inverse."""
    inverse /= -np.diag(inverse).copy()
    np.fill_diagonal(inverse, 0.0)
    return inverse


def speaks_for(inverse: Floats32, neighbours: int = NEIGHBOURS) -> sp.csr_array[Any]:
    """:func:`all_say` of a copy, only the strongest ``neighbours`` entries of each column."""
    size, blocks = len(inverse), []
    for start in range(0, size, BLOCK):
        columns = np.arange(start, min(start + BLOCK, size))
        says = -inverse[:, columns] / np.diag(inverse)[columns]
        says[columns, columns - start] = 0.0
        if (weak := size - neighbours) > 0:
            weaker = np.argpartition(np.abs(says), weak, axis=0)[:weak]
            np.put_along_axis(says, weaker, 0.0, axis=0)
        blocks.append(sp.csc_array(says))
    return sp.csr_array(sp.hstack(blocks))


def without(inverse: Floats32, history: Items) -> Callable[[Floats], Floats]:
    """What a history's items say to others, had this user not been counted.

    Returns:
        A function from weights of the history's items, shape [positions, items of the history], to
        scores, shape [positions, items].
    """
    own = np.unique(history)
    moved = inverse[own].sum(axis=0)
    factor = 1.0 / (1.0 - moved[own].sum())
    diagonal = np.diag(inverse) + factor * moved**2

    def scores(weights: Floats) -> Floats:
        dense = weights @ inverse[history] + factor * np.outer(weights @ moved[history], moved)
        found = -dense / diagonal
        for column, item in enumerate(history):  # an item says nothing to itself
            found[:, item] += weights[:, column]
        return cast(Floats, found)

    return scores
