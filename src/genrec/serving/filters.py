"""Filters of a request: conditions on the item table as a mask over the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from genrec.arrays import Mask
from genrec.data.catalogue import Catalogue
from genrec.errors import DataError


def filter_mask(catalogue: Catalogue, filters: Mapping[str, Mapping[str, Any]]) -> Mask:
    """Return a mask of the items that meet all conditions.

    Args:
        catalogue: the items.
        filters: for each column, its conditions: ``"equals"``, ``"in"``, ``"contains"`` (text in
            any case), ``"min"`` or ``"max"``, and the value of each. Missing metadata meet none.

    Returns:
        The mask, bool [items].

    Raises:
        DataError: The catalogue has no such column, or a value does not fit the column.
    """
    import polars as pl

    columns = ["item_id", "title", *catalogue.metadata.columns]
    for column in filters:
        if column not in columns:  # Polars would read names such as "^.*$" as patterns
            raise DataError(
                f"the item table has no column {column!r}; its columns are {', '.join(columns)}."
            )
    try:
        conditions = [
            _condition(pl.col(column), kind, value)
            for column, kinds in filters.items()
            for kind, value in kinds.items()
        ]
    except (pl.exceptions.PolarsError, OverflowError):
        raise DataError("a number of the filters is too large.") from None
    if not conditions:
        return np.ones(len(catalogue), dtype=bool)
    return catalogue.mask(where=pl.all_horizontal(conditions))


def _condition(column: Any, kind: str, value: Any) -> Any:
    import polars as pl

    if kind == "contains":
        text = column.cast(pl.String).str.to_lowercase()
        return text.str.contains(str(value).lower(), literal=True)
    if kind == "in":
        return pl.any_horizontal([_condition(column, "equals", each) for each in value])
    number = column.cast(pl.Float64, strict=False)
    if kind == "equals":
        return column.cast(pl.String) == value if isinstance(value, str) else number == value
    return number >= value if kind == "min" else number <= value
