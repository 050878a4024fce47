"""The array types that modules share."""

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
