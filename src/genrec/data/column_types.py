"""Which types of columns can be ids, times, numbers and texts, and their plain form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import polars as pl

from genrec.data.columns import option
from genrec.errors import DataError


def series_of(name: str, values: Sequence[Any]) -> pl.Series:
    """Return values of Python as a column, as texts if Polars has no type for all of them.

    It has none for whole numbers beyond 128 bits, which it would make null.
    """
    column = pl.Series(name, values, strict=False)
    if column.null_count() == sum(value is None for value in values):
        return column
    texts = [None if value is None else str(value) for value in values]
    return pl.Series(name, texts, pl.String)


def plain_columns(frame: pl.DataFrame, columns: Mapping[str, str], path: Path) -> pl.DataFrame:
    """Return the table with columns of bytes as text, and refuse columns without plain values.

    Bytes are UTF-8 text or UUIDs of 16 bytes, which Parquet files hold.

    Args:
        frame: the table.
        columns: the columns that are used, by role.
        path: the file, for messages.

    Raises:
        DataError: A column holds lists, structs, times of day, durations or other bytes.
    """
    for role, name in columns.items():
        kind = frame.schema[name]
        if kind == pl.Binary:
            frame = frame.with_columns(_text_of_bytes(frame[name]))
            kind = frame.schema[name]
        if kind == pl.Binary or not is_plain(kind):
            remedy = "give each element a row of its own" if kind == pl.List else "convert it"
            raise DataError(
                f"{path}: column {name!r} holds {kind} values, which cannot be the {role}; "
                f"{remedy}, or name another column with {option(role)} COLUMN"
            )
    return frame


def is_plain(kind: pl.DataType) -> bool:
    """Return whether values of a type can be an id, a time, a number or a text."""
    return not (kind.is_nested() or kind in (pl.Duration, pl.Time, pl.Object))


def _text_of_bytes(column: pl.Series) -> pl.Series:
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:
        values = column.to_list()
        if any(value is not None and len(value) != 16 for value in values):
            return column
        texts = [None if value is None else str(UUID(bytes=value)) for value in values]
        return pl.Series(column.name, texts, pl.String)


def flat_column(column: pl.Series) -> pl.Series:
    """Convert nested columns to text; other columns stay unchanged.

    A category path becomes "A > B", several paths "A > B | C", other lists "a|b", and structs JSON.
    """
    mark = " > " if column.name.lower() in ("category", "categories") else "|"
    if column.dtype == pl.List(pl.List(pl.String)):
        return column.list.eval(pl.element().list.join(mark)).list.join(" | ")
    inner = cast(pl.DataType, getattr(column.dtype, "inner", pl.Null()))
    if isinstance(column.dtype, pl.List) and not inner.is_nested() and inner != pl.Binary:
        return column.cast(pl.List(pl.String)).list.join(mark)
    if not column.dtype.is_nested() and column.dtype != pl.Object:
        return column
    # Polars cannot write every type as JSON, such as bytes.
    texts = [None if each is None else _json(each) for each in column.to_list()]
    return pl.Series(column.name, texts, pl.String)


def _json(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":"))


EXACT: dict[Any, int] = {pl.Float16: 2**11, pl.Float32: 2**24, pl.Float64: 2**53}
"""Number from which floats of a type leave out whole numbers."""


_HIDDEN = "[\u200b\u200e\u200f\u2060\ufeff]"
"""Characters without a width, which come from copied text and from joined files."""


def ids_of(column: pl.Series, path: Path) -> pl.Series:
    """Convert ids to text; blank ids become null.

    If all numbers of the column are whole, 7.00, 7.0 and 7 are the same id. pandas writes 7.0 for a
    column of whole numbers with missing values. But 7.000 may be seven thousand.
    """
    if column.dtype.is_float():
        limit = EXACT[type(column.dtype)]
        if (column.cast(pl.Float64).abs() >= limit).any():
            raise DataError(
                f"{path}: column {column.name!r} holds ids as floating-point numbers from "
                f"2^{limit.bit_length() - 1} on, which are not exact, so different ids may look "
                "the same; store them as whole numbers or as texts"
            )
    text = text_of(column).str.replace_all(_HIDDEN, "").str.strip_chars()
    text = text.set(text == "", None)
    decimals = text.str.extract(r"^[+-]?[0-9]+\.([0-9]+)$")
    if not decimals.str.contains("^0+$").all() or (decimals == "000").any():
        return text
    return text.str.replace(r"^([+-]?[0-9]+)\.0+$", "$1")


def text_of(column: pl.Series) -> pl.Series:
    """Convert a column to text; floats that are all whole become 7, not 7.0."""
    return (_whole(column) if column.dtype.is_float() else column).cast(pl.String)


def _whole(numbers: pl.Series) -> pl.Series:
    """Return floats as integers if all of them are whole."""
    whole = numbers.cast(pl.Int64, strict=False)
    return whole if (whole == numbers).all() else numbers


def numbers_of(column: pl.Series) -> pl.Series:
    """Convert a column to floats; values that are no finite numbers become null.

    If the column cannot be read otherwise, a comma before one or two digits is a decimal comma.
    """
    numbers = _finite(column)
    if column.dtype != pl.String or numbers.null_count() == column.null_count():
        return numbers
    text = column.str.strip_chars().str.replace(r"^([+-]?[0-9]+),([0-9]{1,2})$", "$1.$2")
    return _finite(text)


def _finite(column: pl.Series) -> pl.Series:
    numbers = column.cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite(), None)


def numbers_or_text(column: pl.Series) -> pl.Series:
    """Convert a text column that holds nothing but numbers; filters can then compare them.

    Codes such as 01234, whose zeros count, stay text.
    """
    if column.dtype != pl.String or column.null_count() == len(column):
        return column
    text = column.str.strip_chars()
    if not text.str.contains(r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?$").all():
        return column
    return _whole(text.cast(pl.Float64))
