"""Validate an interaction log and its item table.

A folder may stand for the log in it; an item table beside the log is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import polars as pl

from genrec.data.formats import flat_column, read_table
from genrec.errors import DataError

# Column names in lower case, letters and digits only, in order of preference. `parent_asin` comes
# first because Amazon 2023 keys its metadata by it; `position` orders one user's items, not time.
_ALIASES = {
    "user_id": "userid user uid reviewerid customerid visitorid",
    "item_id": "itemid item iid movieid parentasin asin productid",
    "timestamp": "timestamp time unixreviewtime datetime date createdat reviewtime",
    "rating": "rating overall score stars",
    "review": "review reviewtext text",
    "title": "title movietitle itemtitle name itemname productname",
}


_BESIDE = {"ratings.csv": "movies.csv", "ratings.dat": "movies.dat", "u.data": "u.item"} | {
    f"interactions.{suffix}": f"items.{suffix}" for suffix in ("parquet", "csv", "tsv", "jsonl")
}


_TIME_FORMATS = (
    *("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"),
    *("%Y-%m-%d", "%m %d, %Y"),  # the last one is Amazon's reviewTime
)


# 1e11 seconds is the year 5138: a median beyond it counts smaller units.
_TIME_UNITS = ((1e17, 1e9, "nanoseconds"), (1e14, 1e6, "microseconds"), (1e11, 1e3, "milliseconds"))


@dataclass(frozen=True)
class Interactions:
    """A validated log and its item table.

    log: user_id (str), item_id (str), timestamp (f64: epoch seconds, or any number that orders the
        rows), row (u32: place in the file from 0, breaks ties), all without nulls, and where known
        rating (f64) and review (str).
    items: item_id (str, unique), title (str or null), the other columns as they came; None where
        there are no titles at all.
    source: the files (names only), the columns chosen, the rows dropped and why.
    """

    log: pl.DataFrame
    items: pl.DataFrame | None
    source: dict[str, object] = field(default_factory=dict)


def read_interactions(
    log: str | Path,
    *,
    items: str | Path | None = None,
    user: str | None = None,
    item: str | None = None,
    timestamp: str | None = None,
    rating: str | None = None,
    review: str | None = None,
    title: str | None = None,
) -> Interactions:
    """Read a log (file or folder) and its item table; columns named here override the aliases.

    `title` names a column of the item table, or of the log where there is no item table; so does
    `item` where the item table has that column. Raises DataError naming file, column and remedy.
    """
    path, items_path = _locate(Path(log), None if items is None else Path(items))
    frame, layout = read_table(path)
    given = {"user_id": user, "item_id": item, "timestamp": timestamp}
    columns = {role: _need(frame.columns, role, name, path) for role, name in given.items()}
    for role, name in (("rating", rating), ("review", review)):
        if found := _find(frame.columns, role, name, path):
            columns[role] = found
    table, table_source = None, None
    if items_path is not None:
        table, table_source = _item_table(items_path, item, title)
    # The `title` of an Amazon review is the headline of the review.
    elif title or (layout != "amazon" and _find(frame.columns, "title", None, path)):
        title = _need(frame.columns, "title", title, path)
        names = frame.select(columns["item_id"], title)
        table, table_source = _unique_items(names, columns["item_id"], title, path)
    rows, log_source = _validated_log(frame, columns, path)
    source = {"log": path.name, "layout": layout, "columns": columns, **log_source}
    return Interactions(rows, table, {**source, "item_table": table_source})


def interactions_from_frames(
    interactions: Any,
    items: Any = None,
    *,
    user: str | None = None,
    item: str | None = None,
    timestamp: str | None = None,
    rating: str | None = None,
    review: str | None = None,
    title: str | None = None,
) -> Interactions:
    """:func:`read_interactions` for data frames of pandas or Polars instead of files."""
    path, frame = Path("interactions"), _polars(interactions, "interactions")
    given = {"user_id": user, "item_id": item, "timestamp": timestamp}
    columns = {role: _need(frame.columns, role, name, path) for role, name in given.items()}
    for role, name in (("rating", rating), ("review", review)):
        if found := _find(frame.columns, role, name, path):
            columns[role] = found
    table, table_source = None, None
    if items is not None:
        there = _polars(items, "items")
        table, table_source = _items_of(there, Path("items"), item, title)
    elif title or _find(frame.columns, "title", None, path):
        title = _need(frame.columns, "title", title, path)
        names = frame.select(columns["item_id"], title)
        table, table_source = _unique_items(names, columns["item_id"], title, path)
    rows, log_source = _validated_log(frame, columns, path)
    source = {"log": "a data frame", "layout": "table", "columns": columns, **log_source}
    return Interactions(rows, table, {**source, "item_table": table_source})


def _polars(frame: Any, name: str) -> pl.DataFrame:
    """A frame of Polars or pandas as one of Polars."""
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    table: pl.DataFrame
    if isinstance(frame, pl.DataFrame):
        table = frame
    else:
        try:
            table = pl.DataFrame(frame) if isinstance(frame, Mapping) else pl.from_pandas(frame)
        except (TypeError, ValueError, ImportError, pl.exceptions.PolarsError) as error:
            kind = type(frame).__name__
            raise DataError(
                f"{name}: a data frame of pandas or Polars is needed, got {kind} ({error})"
            ) from None
    if table.height == 0:
        raise DataError(f"{name}: the frame has no rows")
    return table


def _locate(log: Path, items: Path | None) -> tuple[Path, Path | None]:
    log = _log_inside(log) if log.is_dir() else log
    if items is None:
        beside = log.with_name(_BESIDE.get(log.name, log.name))
        beside = log.with_suffix(".item") if log.suffix == ".inter" else beside
        items = beside if beside != log and beside.is_file() else None
    for path in filter(None, (log, items)):
        if not path.is_file():
            raise DataError(f"{path}: no such file; check the path")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty; download or export it again")
    return log, items


def _log_inside(folder: Path) -> Path:
    logs = [folder / name for name in _BESIDE if (folder / name).is_file()]
    logs += sorted(folder.glob("*.inter"))
    if len(logs) != 1:
        found = ", ".join(path.name for path in logs) or "none"
        known = ", ".join([*_BESIDE, "NAME.inter"])
        raise DataError(f"{folder}: need one log of {known}; found {found}; give the file itself")
    return logs[0]


def _find(
    columns: Sequence[str], role: str, given: str | None, path: Path, extra: str = ""
) -> str | None:
    """The column named by a flag (it must exist), else the first known alias, else None."""
    if given is not None and given not in columns:
        raise _no_column(path, f"column {given!r}", role, columns)
    folded = {"".join(filter(str.isalnum, name.lower())): name for name in reversed(columns)}
    aliases = f"{_ALIASES[role]} {extra}".split()
    return given or next((folded[alias] for alias in aliases if alias in folded), None)


def _need(columns: Sequence[str], role: str, given: str | None, path: Path, extra: str = "") -> str:
    column = _find(columns, role, given, path, extra)
    if column is None:
        raise _no_column(path, f"{role} column", role, columns)
    return column


def _no_column(path: Path, what: str, role: str, columns: Sequence[str]) -> DataError:
    flag = f"--{role.removesuffix('_id')} COLUMN"
    return DataError(f"{path}: no {what} among {', '.join(columns)}; name it with {flag}")


def _validated_log(
    frame: pl.DataFrame, columns: dict[str, str], path: Path
) -> tuple[pl.DataFrame, dict[str, object]]:
    read = frame.height
    table = pl.DataFrame(
        [flat_column(frame[column]).alias(role) for role, column in columns.items()]
    )
    table = table.with_columns(_ids(table["user_id"]), _ids(table["item_id"])).with_row_index("row")
    with_user = table.drop_nulls("user_id")
    known = with_user.drop_nulls("item_id")
    if known.height == 0:
        raise DataError(f"{path}: no row has both a user and an item; check --user and --item")
    seconds, unit = _seconds(known["timestamp"])
    _check(known, "timestamp", seconds.is_finite(), columns, path)
    known = known.with_columns(seconds.alias("timestamp"))
    if "rating" in columns:
        ratings = known["rating"].cast(pl.Float64, strict=False)
        _check(known, "rating", ratings.is_not_null() | known["rating"].is_null(), columns, path)
        known = known.with_columns(ratings)
    if "review" in columns:
        known = known.with_columns(pl.col("review").cast(pl.String))
    key = ["user_id", "item_id", "timestamp"]
    once = known.unique(key, keep="first", maintain_order=True)
    dropped = {
        "null_user": read - with_user.height,
        "null_item": with_user.height - known.height,
        "duplicate": known.height - once.height,
    }
    log = once.select(*key, "row", pl.exclude(*key, "row"))
    return log, {"rows_read": read, "timestamp_unit": unit, "dropped": dropped}


def _ids(column: pl.Series) -> pl.Series:
    """Ids as text: 7.0 and 7 are one id, blank ids are null."""
    if column.dtype.is_float():
        whole = column.cast(pl.Int64, strict=False)
        column = whole if (whole == column).all() else column
    text = column.cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


def _seconds(column: pl.Series) -> tuple[pl.Series, str]:
    """Epoch seconds (f64, null where unreadable) and their unit; times without a zone are UTC."""
    if column.dtype.is_temporal():
        return column.cast(pl.Datetime("us"), strict=False).dt.epoch("us") / 1e6, "datetime"
    numbers = column.cast(pl.Float64, strict=False)
    size = cast(float, numbers.abs().median() or 0.0)
    units = (unit for limit, *unit in _TIME_UNITS if size > limit)
    divisor, unit = cast(tuple[float, str], next(units, (1.0, "as given")))
    numbers = numbers / divisor
    if column.dtype != pl.String or numbers.null_count() == column.null_count():
        return numbers, unit
    text = column.str.strip_chars()
    times = [text.str.to_datetime(form, time_zone="UTC", strict=False) for form in _TIME_FORMATS]
    times.append(text.str.to_datetime("%+", strict=False))
    seconds = [time.dt.epoch("us") / 1e6 for time in times]
    return pl.select(pl.coalesce(numbers, *seconds)).to_series(), "text"


def _check(
    frame: pl.DataFrame, role: str, good: pl.Series, columns: dict[str, str], path: Path
) -> None:
    bad = ~good.fill_null(False)
    if not bad.any():
        return
    row, value = frame.filter(bad).select("row", role).row(0)
    kind = "numbers" if role == "rating" else "numbers or ISO 8601 times"
    first = f"{'empty' if value is None else repr(value)} in data row {row + 1}"
    raise DataError(
        f"{path}: {bad.sum()} values of column {columns[role]!r} are not {kind}, the first {first};"
        f" mend them or name another column with --{role} COLUMN"
    )


def _item_table(
    path: Path, item: str | None, title: str | None
) -> tuple[pl.DataFrame, dict[str, object]]:
    return _items_of(read_table(path)[0], path, item, title)


def _items_of(
    table: pl.DataFrame, path: Path, item: str | None, title: str | None
) -> tuple[pl.DataFrame, dict[str, object]]:
    item = item if item in table.columns else None
    item = _need(table.columns, "item_id", item, path, extra="id")
    return _unique_items(table, item, _need(table.columns, "title", title, path), path)


def _unique_items(
    table: pl.DataFrame, item: str, title: str, path: Path
) -> tuple[pl.DataFrame, dict[str, object]]:
    """One row per item id, the first one; what the others held is counted."""
    named = [_ids(table[item]).alias("item_id"), table[title].cast(pl.String).alias("title")]
    others = [name for name in table.columns if name not in (item, title, "item_id", "title")]
    frame = pl.DataFrame([*named, *(flat_column(table[name]) for name in others)])
    known = frame.drop_nulls("item_id")
    items = known.unique("item_id", keep="first", maintain_order=True)
    titles = known.select("item_id", "title").unique()
    return items, {
        "file": path.name,
        "rows_read": frame.height,
        "null_ids": frame.height - known.height,
        "duplicate_ids": known.height - items.height,
        "conflicting_titles": titles.height - items.height,
    }
