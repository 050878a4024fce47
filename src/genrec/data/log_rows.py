"""Rows of a log: ids as places in a list, notes on odd ids, and rows that occur twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from genrec.arrays import Integers, Ints
from genrec.data.column_types import ids_of, is_plain, numbers_of
from genrec.data.columns import quantity_columns
from genrec.data.timestamps import ROUNDED

KEY = ("user", "item", "timestamp")
"""Columns that tell two rows apart."""


SEPARATORS = ("|", ";", ",", " ")
"""What may stand between the ids of several items in one cell."""


NULL_LIKE = ["null", "none", "nil", "na", "n/a", "#n/a", "nat", "undefined", "missing"]
"""Words that may be real or stand for a missing value. The words of NULLS never are a value."""


def coded_ids(column: pl.Series, path: Path) -> tuple[pl.Series, pl.Series]:
    """Return the place of each id among the distinct ids, and these sorted by (length, id).

    Args:
        column: ids of any plain type.
        path: the file, for messages.

    Returns:
        The places (u32, null for a blank id), as many as the column has, and the ids as text.

    Raises:
        DataError: The ids are not exact; see :func:`ids_of`.
    """
    values = column.unique()
    texts = ids_of(values, path)
    ids = sorted_ids(texts.drop_nulls())
    known = pl.DataFrame({"value": values, "text": texts}).join(
        ids.to_frame("text").with_row_index("code"), on="text", how="inner"
    )
    joined = column.to_frame("value").join(known, on="value", how="left", maintain_order="left")
    return joined["code"].rename(column.name), ids


def used_ids(places: Integers, ids: pl.Series) -> tuple[Integers, pl.Series]:
    """Leave out ids that are not used.

    Args:
        places: place of each id in ``ids``, integer [n].
        ids: the ids.

    Returns:
        The places in the ids that are left, integer [n], and these.
    """
    used = np.bincount(places, minlength=len(ids)) > 0
    if used.all():
        return places, ids
    return (np.cumsum(used) - 1)[places].astype(places.dtype), ids.filter(pl.Series(used))


def sorted_ids(ids: pl.Series) -> pl.Series:
    """Return the distinct ids sorted by (length, id)."""
    return ids.unique().to_frame("id").sort(pl.col("id").str.len_bytes(), "id")["id"]


def without_unused(
    table: pl.DataFrame, role: str, ids: pl.Series
) -> tuple[pl.DataFrame, pl.Series]:
    """Leave out ids that no row has."""
    places, kept = used_ids(table[role].to_numpy(), ids)
    return table.with_columns(pl.Series(role, places, pl.UInt32)), kept


def without_repeated(table: pl.DataFrame) -> pl.DataFrame:
    """Return the first row of each user, item and timestamp, in the order of the rows.

    Args:
        table: rows with the columns user, item, timestamp and row.
    """
    # Few rows have the timestamp of another row of their user, and only these can be repeated.
    ordered = table.select("row", *KEY).sort("user", "timestamp", "row")
    same = (pl.col("user") == pl.col("user").shift()) & (
        pl.col("timestamp") == pl.col("timestamp").shift()
    )
    same = same.fill_null(False)
    tied = ordered.filter(same | same.shift(-1, fill_value=False))
    del ordered
    first = tied.unique(KEY, keep="first", maintain_order=True)
    if first.height == tied.height:
        return table
    return table.join(
        tied.join(first, on="row", how="anti"), on="row", how="anti", maintain_order="left"
    )


def quantity_notes(frame: pl.DataFrame, path: Path) -> Iterator[str]:
    """Yield a note for each column of quantities of which some are below 1."""
    for name in quantity_columns(frame.columns):
        numbers = numbers_of(frame[name]) if is_plain(frame.schema[name]) else None
        if numbers is not None and (below := (numbers < 1).sum()):
            yield (
                f"{path}: column {name!r} is below 1 in {below} rows, which were read like the "
                "others; if they are returns or cancelled orders, remove them from the file"
            )


def id_notes(ids: pl.Series, places: pl.Series, path: Path) -> Iterator[str]:
    """Yield what a user should know of the ids of a log.

    Args:
        ids: the distinct ids.
        places: their places in the rows, named after the role of the ids.
        path: the file, for messages.
    """
    counts = np.bincount(places.to_numpy(), minlength=len(ids))
    yield from _null_like(ids, counts, places.name, path)
    yield from _rounded(ids, counts, places.name, path)
    if places.name == "item":
        yield from _lists(ids, path)


def _rounded(ids: pl.Series, counts: Ints, role: str, path: Path) -> Iterator[str]:
    """Yield a note if a spreadsheet has rounded long ids."""
    rounded = ids.str.contains(ROUNDED)
    if rounded.any():
        yield (
            f"{path}: {role} ids such as {ids.filter(rounded)[0]!r} (rows: "
            f"{counts[rounded.to_numpy()].sum()}) were rounded by a spreadsheet, so different ids "
            "may look the same; export them as text"
        )


def _lists(ids: pl.Series, path: Path) -> Iterator[str]:
    """Yield a note if at least half of the item ids look like lists of ids that others share."""
    for separator in SEPARATORS:
        joined = ids.filter(ids.str.contains(separator, literal=True))
        if 2 * len(joined) < len(ids):
            continue
        parts = ids.str.split(separator).explode().str.strip_chars()
        if 2 * parts.n_unique() > len(parts):
            continue
        if separator in "|;" or parts.str.contains(r"\d").all():  # else they may be titles
            yield (
                f"{path}: item ids such as {joined[0]!r} look like lists of items, and each was "
                "read as one item; give each item a row of its own"
            )
            return


def _null_like(ids: pl.Series, counts: Ints, role: str, path: Path) -> Iterator[str]:
    """Yield a note for each word among the ids that often means a missing value."""
    table = pl.DataFrame({"word": ids, "count": counts})
    words = table.filter(pl.col("word").str.to_lowercase().is_in(NULL_LIKE))
    for word, count in words.sort("count", descending=True).iter_rows():
        yield (
            f"{path}: the {role} id {word!r} was kept (rows: {count}); if it means a missing id, "
            "leave it empty in the file"
        )
