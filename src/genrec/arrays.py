"""The array types that modules hand to each other, defined once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Ints32 = NDArray[np.int32]
Integers = NDArray[np.integer[Any]]
"""Integers of any width."""
Items = Ints32
"""Indices of catalogue items."""
Mask = NDArray[np.bool_]
Arrays = dict[str, NDArray[Any]]
"""Arrays by name, as files store them."""
