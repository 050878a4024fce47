"""The user x item matrix and what is done with item x item matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from genrec.data.histories import Histories
from genrec.errors import ConfigError

MAX_DENSE_ITEMS = 15_000
"""Larger catalogues have no EASE: P has the square of their size, here .9 GB, thrice in the fit."""


def interaction_matrix(histories: Histories, n_items: int) -> sp.csr_array[Any]:
    """Which items each history holds, as ones, shape [rows, items]."""
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    shape = (len(histories), n_items)
    x = sp.csr_array((np.ones(len(row), np.float32), (row, histories.items)), shape=shape)
    x.sum_duplicates()
    x.data[:] = 1.0
    return x


def without_diagonal(matrix: sp.csr_array[Any]) -> sp.csr_array[Any]:
    """The matrix with nothing on its diagonal: an item is no reason for itself."""
    found = matrix.tocoo()
    row, column = found.coords
    off = row != column
    return sp.csr_array((found.data[off], (row[off], column[off])), shape=matrix.shape)


def strongest(matrix: sp.csr_array[Any], count: int) -> sp.csr_array[Any]:
    """The ``count`` largest entries of each row; of equal ones those with the lowest column."""
    lengths = np.diff(matrix.indptr)
    row = np.repeat(np.arange(matrix.shape[0]), lengths)
    order = np.lexsort((matrix.indices, -matrix.data, row))
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], lengths)
    kept = order[place < count]
    return sp.csr_array((matrix.data[kept], (row[kept], matrix.indices[kept])), shape=matrix.shape)


def check_size(name: str, n_items: int) -> None:
    """Refuse a catalogue whose square does not fit the memory of an ordinary machine.

    Raises:
        ConfigError: says what to compare with instead.
    """
    if n_items > MAX_DENSE_ITEMS:
        raise ConfigError(
            f"{name} needs an items x items matrix: {n_items} items are too many (at most "
            f"{MAX_DENSE_ITEMS}); leave it out, or take itemknn, p3alpha or transitions."
        )
