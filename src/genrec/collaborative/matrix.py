"""The user-item matrix, and operations on item-to-item matrices."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import numpy as np
import scipy.sparse as sp

from genrec.arrays import Arrays, Floats, Floats32, Integers, Ints, rows_and_places
from genrec.data.histories import Histories
from genrec.errors import ConfigError

MAX_DENSE_ITEMS = 15_000
"""Largest catalogue for EASE, whose weights have the size of the catalogue squared.

At this size the matrix takes 0.9 GB, and fitting holds three such matrices.
"""


NEIGHBOURS = 512
"""Number of strongest entries per column that experts keep for inference."""


COLUMN_BLOCK = 1024
"""Number of columns that are pruned at once."""


FEW_ROWS = 4
"""Rows up to which :func:`dense_product` takes them one by one."""


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
    row, place = rows_and_places(np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    kept = order[place < count]
    return sp.csr_array((matrix.data[kept], (row[kept], matrix.indices[kept])), shape=matrix.shape)


def strongest_in_columns(size: int, block: Callable[[Ints], Floats32]) -> sp.csr_array[Any]:
    """Return a matrix with only the :data:`NEIGHBOURS` strongest entries of each column.

    Args:
        size: number of rows and columns.
        block: function from column indices to these columns, shape [size, columns]; the result may
            be overwritten.
    """
    blocks = []
    for start in range(0, size, COLUMN_BLOCK):
        dense = block(np.arange(start, min(start + COLUMN_BLOCK, size)))
        if (weak := size - NEIGHBOURS) > 0:
            weaker = np.argpartition(np.abs(dense), weak, axis=0)[:weak]
            np.put_along_axis(dense, weaker, 0.0, axis=0)
        blocks.append(sp.csc_array(dense))
    return sp.csr_array(sp.hstack(blocks))


def matrix_arrays(matrix: sp.csr_array[Any], prefix: str = "", suffix: str = "") -> Arrays:
    """Return the arrays of a sparse matrix, for a file.

    Args:
        matrix: any sparse matrix in row order.
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


def dense_product(given: sp.csr_array[Any], weights: sp.csr_array[Any]) -> Floats:
    """Return the product of two sparse matrices as a dense one, shape [rows, columns].

    For a single row, SciPy's own product, which makes a sparse matrix first, takes seven times as
    long. Both ways add up in the same order, so the results are equal to the last digit.

    Args:
        given: shape [rows, items].
        weights: shape [items, columns].
    """
    if given.shape[0] > FEW_ROWS:
        return cast(Floats, (given @ weights).toarray())
    found = np.empty((given.shape[0], weights.shape[1]))
    for row, (start, stop) in enumerate(pairwise(given.indptr.tolist())):
        found[row] = weights[given.indices[start:stop]].T @ given.data[start:stop]
    return found


def decayed_matrix(histories: Histories, n_items: int, decay: float) -> sp.csr_array[Any]:
    """Return each history as weights of its items, shape [rows, items].

    An item at age a has the weight ``decay ** a``; the last item has age 0. Weights of repeated
    items add up.
    """
    lengths = histories.lengths
    # A product casts the indices of the other matrix, too, unless both have the same width.
    row = np.repeat(np.arange(len(histories), dtype=np.int32), lengths)
    age = np.repeat(histories.offsets[1:], lengths) - 1 - np.arange(len(histories.items))
    shape = (len(histories), n_items)
    return sp.csr_array((decay**age, (row, histories.items)), shape=shape)


def training_ages(length: int, start: int, stop: int) -> Integers:
    """Return the age of each history item at each position, negative for later items.

    Returns:
        Shape [stop - start, length].
    """
    return np.arange(start, stop)[:, None] - 1 - np.arange(length)


def merged_weights(weights: Floats, place: Integers, size: int | None = None) -> Floats:
    """Add up the weights of repeated items.

    Args:
        weights: weight of each history item, shape [positions, length].
        place: number of each history item among the distinct ones, shape [length].
        size: number of distinct items; the highest of ``place`` plus one if omitted.

    Returns:
        Shape [positions, distinct items].
    """
    merged = np.zeros((len(weights), place.max(initial=-1) + 1 if size is None else size))
    np.add.at(merged.T, place, weights.T)
    return merged
