"""The array types that modules share, and the places of rows of different lengths."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
"""64-bit floating-point numbers."""
Floats32 = NDArray[np.float32]
"""32-bit floating-point numbers."""
Floating = NDArray[np.floating[Any]]
"""Floating-point numbers of any width."""
Width = TypeVar("Width", bound=np.floating[Any])
"""The width of floating-point numbers that a function keeps."""
Ints = NDArray[np.int64]
"""64-bit integers."""
Ints32 = NDArray[np.int32]
"""32-bit integers."""
Integers = NDArray[np.integer[Any]]
"""Integers of any width."""
Items = Ints32
"""Indices of catalogue items."""
Mask = NDArray[np.bool_]
"""Booleans that select elements, such as candidates."""
Arrays = dict[str, NDArray[Any]]
"""Arrays by name, as files store them."""


def rows_and_places(lengths: Integers) -> tuple[Ints, Ints]:
    """Return the row of each element of rows that follow one another, and its place in that row.

    Args:
        lengths: number of elements of each row, shape [rows].

    Returns:
        Two arrays of shape [elements]. Lengths of 2, 0 and 1 give the rows 0, 0, 2 and the places
        0, 1, 0.
    """
    row = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return row, np.arange(len(row)) - starts[row]
