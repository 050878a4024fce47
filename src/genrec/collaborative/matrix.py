"""The user-item matrix, and operations on item-to-item matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from genrec.arrays import Arrays
from genrec.data.histories import Histories
from genrec.errors import ConfigError

MAX_DENSE_ITEMS = 15_000
"""Largest catalogue for EASE, whose weights have the size of the catalogue squared.

At this size the matrix takes 0.9 GB, and fitting holds three such matrices.
"""


CSR_PARTS = ("data", "indices", "indptr")
"""Attributes of SciPy's sparse arrays that hold the matrix."""


def interaction_matrix(histories: Histories, n_items: int) -> sp.csr_array[Any]:
    """Return the binary matrix of which items each history holds, shape [rows, items]."""
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    shape = (len(histories), n_items)
    x = sp.csr_array((np.ones(len(row), np.float32), (row, histories.items)), shape=shape)
    x.sum_duplicates()
    x.data[:] = 1.0
    return x


def without_diagonal(matrix: sp.csr_array[Any]) -> sp.csr_array[Any]:
    """Return the matrix without its diagonal, so that no item recommends itself."""
    found = matrix.tocoo()
    row, column = found.coords
    off = row != column
    return sp.csr_array((found.data[off], (row[off], column[off])), shape=matrix.shape)


def strongest(matrix: sp.csr_array[Any], count: int) -> sp.csr_array[Any]:
    """Keep the ``count`` largest entries of each row; ties go to the lowest column."""
    lengths = np.diff(matrix.indptr)
    row = np.repeat(np.arange(matrix.shape[0]), lengths)
    order = np.lexsort((matrix.indices, -matrix.data, row))
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], lengths)
    kept = order[place < count]
    return sp.csr_array((matrix.data[kept], (row[kept], matrix.indices[kept])), shape=matrix.shape)


def matrix_arrays(matrix: sp.csr_array[Any], prefix: str = "", suffix: str = "") -> Arrays:
    """Return the arrays of a sparse square matrix, for a file.

    Args:
        matrix: shape [items, items].
        prefix: beginning of the arrays' names.
        suffix: end of the arrays' names.
    """
    return {f"{prefix}{part}{suffix}": getattr(matrix, part) for part in CSR_PARTS}


def restored_matrix(
    arrays: Arrays, size: int, prefix: str = "", suffix: str = ""
) -> sp.csr_array[Any]:
    """Return the matrix whose :func:`matrix_arrays` are among the given arrays.

    Raises:
        ValueError: the matrix does not have ``size`` rows and columns.
    """
    data, indices, starts = (arrays[f"{prefix}{part}{suffix}"] for part in CSR_PARTS)
    return sp.csr_array((data, indices, starts), shape=(size, size))


def check_size(name: str, n_items: int) -> None:
    """Refuse a catalogue whose square does not fit the memory of an ordinary machine.

    Raises:
        ConfigError: the catalogue has more than :data:`MAX_DENSE_ITEMS` items; the message names
            alternatives.
    """
    if n_items > MAX_DENSE_ITEMS:
        raise ConfigError(
            f"{name} needs an items x items matrix: {n_items} items are too many (at most "
            f"{MAX_DENSE_ITEMS}). Leave {name} out, or use itemknn, p3alpha or transitions."
        )
