"""Data frames of pandas and Polars."""

from __future__ import annotations

from typing import Any

import polars as pl

from genrec.data.formats import without_null_words
from genrec.errors import DataError


def polars_frame(frame: Any, name: str) -> pl.DataFrame:
    """Return a Polars or pandas frame as a Polars frame."""
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if not isinstance(frame, pl.DataFrame):
        try:
            frame = pl.DataFrame([_series(frame[column], str(column)) for column in frame.columns])
        except (AttributeError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
            kind = type(frame).__name__
            raise DataError(
                f"{name}: a data frame of pandas or Polars is needed, got {kind} ({error})"
            ) from None
    if frame.height == 0:
        raise DataError(f"{name}: the frame has no rows; give one row per interaction or item")
    return without_null_words(frame)


def _series(column: Any, name: str) -> pl.Series:
    """Convert a pandas column; missing values become null."""
    if getattr(column.dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    values = column.to_numpy()
    if values.dtype.kind in "iufbM":
        return pl.Series(name, values, nan_to_null=True)
    missing = column.isna().to_numpy()
    kept = [None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]
    return pl.Series(name, kept, strict=False)
