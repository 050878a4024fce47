"""Data frames of pandas and Polars."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from genrec.data.column_types import series_of
from genrec.data.formats import without_null_words
from genrec.errors import DataError


def polars_frame(frame: Any, name: str) -> pl.DataFrame:
    """Return a Polars or pandas frame as a Polars frame; an index with a name is a column."""
    if isinstance(frame, pl.LazyFrame):
        frame = _collected(frame, name)
    if not isinstance(frame, pl.DataFrame):
        try:
            frame = _with_index(frame)
            columns = [str(column) for column in frame.columns]
        except (AttributeError, TypeError):
            kind = type(frame).__name__
            raise DataError(
                f"{name}: a data frame of pandas or Polars is needed, got {kind}"
            ) from None
        if twice := [column for column in columns if columns.count(column) > 1]:
            raise DataError(f"{name}: two columns have the name {twice[0]!r}; rename one")
        frame = pl.DataFrame([_named_series(frame[column], column, name) for column in frame])
    if frame.height == 0:
        raise DataError(f"{name}: the frame has no rows; give one row per interaction or item")
    return without_null_words(frame)


def _collected(frame: pl.LazyFrame, name: str) -> pl.DataFrame:
    try:
        return frame.collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{name}: the lazy frame cannot be read ({reason}); correct what it reads"
        ) from None


def _with_index(frame: Any) -> Any:
    """Return a pandas frame with an index such as ``user_id`` as columns."""
    names = list(getattr(getattr(frame, "index", None), "names", [None]))
    unnamed = any(name is None or name in frame.columns for name in names)
    return frame if unnamed else frame.reset_index()


def _named_series(column: Any, name: object, frame: str) -> pl.Series:
    try:
        return _series(column, str(name))
    except (AttributeError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{frame}: column {name!r} cannot be read ({reason}); convert it to one type of "
            "numbers, texts or times"
        ) from None


def _series(column: Any, name: str) -> pl.Series:
    """Convert a pandas column; missing values become null."""
    if getattr(column.dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    missing = column.isna().to_numpy()
    # Nullable integers would become floating-point numbers, which hold 15 digits only.
    whole = getattr(column.dtype, "kind", "") in "iu" and missing.any()
    values = column.astype(object).to_numpy() if whole else column.to_numpy()
    if values.dtype.kind == "M":
        values = values.astype("datetime64[us]")  # Polars knows no seconds
    if values.dtype.kind in "iufbM":
        return pl.Series(name, values, nan_to_null=True)
    pairs = zip(values.tolist(), missing, strict=True)
    return series_of(name, [None if gone else _plain(value) for value, gone in pairs])


def _plain(value: Any) -> Any:
    """Return a number of numpy as one of Python; Polars would give its type to all values."""
    return value.item() if isinstance(value, np.number | np.bool_ | np.str_) else value
