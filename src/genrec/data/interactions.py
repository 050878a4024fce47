"""Reading and validation of an interaction log and its item table.

The log may be given as the folder that holds it. An item table beside the log is found by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from genrec.data.formats import flat_column, is_plain, plain_columns, read_table
from genrec.data.frames import polars_frame
from genrec.data.timestamps import seconds_of
from genrec.errors import DataError

# Accepted column names by role, in lower case with letters and digits only, in order of preference.
# `parent_asin` comes before `asin` because the metadata of Amazon 2023 use it as their key.
# `position` is not accepted as a timestamp because it orders only the items of one user.
_ALIASES = {
    "user_id": "userid user uid reviewerid customerid visitorid sessionid",
    "item_id": "itemid item iid movieid parentasin asin productid businessid trackid songid bookid "
    "recipeid articleid",
    "timestamp": "timestamp time unixreviewtime datetime date createdat reviewtime eventtime",
    "rating": "rating overall score stars",
    "review": "review reviewtext text",
    "title": "title movietitle itemtitle name itemname productname",
    "kind": "kind event eventtype action actiontype behavior behaviortype",
}


DISLIKES = ("dislike", "hide")
"""Kinds of events that say that a user does not want an item."""


# Ids that may be real or stand for a missing id. The words of NULLS never are an id.
_NULL_LIKE = ["null", "none", "nil", "na", "n/a", "nat", "undefined", "missing"]


_NUMBER = re.compile(r"\d+(\.\d+)?")


_BESIDE = {"ratings.csv": "movies.csv", "ratings.dat": "movies.dat", "u.data": "u.item"} | {
    f"interactions.{suffix}": f"items.{suffix}" for suffix in ("parquet", "csv", "tsv", "jsonl")
}


@dataclass(frozen=True)
class Interactions:
    """A validated log and its item table.

    Attributes:
        log: one row per interaction with the columns user_id (str), item_id (str), timestamp
            (f64: seconds since 1970, or any number that orders the rows) and row (u32: position in
            the file from 0, which breaks ties), all without nulls. If the log has them, also
            rating (f64) and review (str).
        items: one row per item with the columns item_id (str, unique), title (str or null) and the
            other columns of the item table unchanged; ``None`` if there are no titles at all.
        source: names of the files, the chosen columns, and the dropped rows by reason.
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
    kind: str | None = None,
    positive: Sequence[str] | None = None,
) -> Interactions:
    """Read and validate an interaction log and its item table.

    Args:
        log: a file in any supported format, or a folder that holds one log.
        items: the item table; if ``None``, a table with the usual name beside the log is used.
        user: name of the user id column; recognised by its usual names if ``None``.
        item: name of the item id column of the log, and of the item table if it has that column;
            recognised likewise.
        timestamp: name of the timestamp column; recognised likewise.
        rating: name of the rating column; recognised likewise.
        review: name of the review column; recognised likewise.
        title: name of the title column of the item table, or of the log if there is no item table;
            recognised likewise.
        kind: name of the column with the kind of each event; recognised likewise.
        positive: kinds of events to keep; all but :data:`DISLIKES` if ``None``.

    Raises:
        DataError: A file or a column is missing, or a value is invalid; the message names the file
            and the column and suggests a remedy.
    """
    path, items_path = _locate(Path(log), None if items is None else Path(items))
    table = read_table(path)
    there = None if items_path is None else read_table(items_path)
    names = _names(user, item, timestamp, rating, review, title, kind)
    notes = table.notes + ([] if there is None else there.notes)
    pair = None if there is None or items_path is None else (there.rows, items_path)
    source = {"log": path.name, "layout": table.layout}
    return _interactions(table.rows, path, pair, names, source, notes, positive)


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
    kind: str | None = None,
    positive: Sequence[str] | None = None,
) -> Interactions:
    """Validate a log and an item table that are pandas or Polars data frames.

    The arguments and errors are those of :func:`read_interactions`.
    """
    frame = polars_frame(interactions, "interactions")
    table = None if items is None else (polars_frame(items, "items"), Path("items"))
    names = _names(user, item, timestamp, rating, review, title, kind)
    source = {"log": "a data frame", "layout": "table"}
    return _interactions(frame, Path("interactions"), table, names, source, [], positive)


def _names(*given: str | None) -> dict[str, str | None]:
    """Return the column names that the caller gave, in the order of the aliases, by role."""
    return dict(zip(_ALIASES, given, strict=True))


def _interactions(
    frame: pl.DataFrame,
    path: Path,
    items: tuple[pl.DataFrame, Path] | None,
    names: dict[str, str | None],
    source: Mapping[str, str],
    notes: list[str],
    positive: Sequence[str] | None,
) -> Interactions:
    """Find the columns and validate the log and the item table."""
    needed = ("user_id", "item_id", "timestamp")
    columns = {role: _need(frame.columns, role, names[role], path) for role in needed}
    for role in ("rating", "review", "kind"):
        found = _find(frame.columns, role, names[role], path)
        if found and (names[role] or is_plain(frame.schema[found])):
            columns[role] = found
        elif found:
            notes.append(f"{path}: column {found!r} is no {role}; it holds {frame.schema[found]}")
    table, table_source = None, None
    item, title = names["item_id"], names["title"]
    if items is not None:
        table, table_source = _item_table(*items, item, title)
    # In Amazon logs the column `title` holds the headline of the review, not the item's title.
    elif title or (source["layout"] != "amazon" and _find(frame.columns, "title", None, path)):
        title = _need(frame.columns, "title", title, path)
        pairs = frame.select(columns["item_id"], title)
        table, table_source = _unique_items(pairs, columns["item_id"], title, path)
    frame = plain_columns(frame, columns, path)
    frame = _wanted(frame, columns.pop("kind", None), positive, path, notes)
    rows, log_source = _validated_log(frame, columns, path, notes)
    whole = {**source, "columns": columns, **log_source, "item_table": table_source}
    return Interactions(rows, table, {**whole, "notes": notes})


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
        raise DataError(
            f"{folder}: the folder must hold exactly one log ({known}), found {found}; give the "
            "path of the log file instead"
        )
    return logs[0]


def _find(
    columns: Sequence[str], role: str, given: str | None, path: Path, extra: str = ""
) -> str | None:
    """Return the given column (it must exist), else the first known alias, else ``None``."""
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
    name = role.removesuffix("_id")
    remedy = f"name it with --{name} COLUMN (in Python {name}=COLUMN)"
    if any(_NUMBER.fullmatch(column) for column in columns):
        remedy = "line 1 looks like data: add a line such as user_id,item_id,rating,timestamp above"
    shown = ", ".join(columns[:20]) + (f" and {len(columns) - 20} more" if columns[20:] else "")
    return DataError(f"{path}: no {what} among {shown}; {remedy}")


def _validated_log(
    frame: pl.DataFrame, columns: dict[str, str], path: Path, notes: list[str]
) -> tuple[pl.DataFrame, dict[str, object]]:
    """Convert the columns of the log to their types and drop rows without ids and repeated rows.

    Returns:
        The log, and facts about what was read; ``notes`` is extended.
    """
    read = frame.height
    table = pl.DataFrame([frame[column].alias(role) for role, column in columns.items()])
    table = table.with_columns(_ids(table["user_id"]), _ids(table["item_id"])).with_row_index("row")
    with_user = table.drop_nulls("user_id")
    known = with_user.drop_nulls("item_id")
    if known.height == 0:
        raise DataError(f"{path}: no row has both a user and an item; check --user and --item")
    notes += [*_null_like(known, "user_id", path), *_null_like(known, "item_id", path)]
    seconds, unit, remark = seconds_of(known["timestamp"])
    notes += [f"{path}: column {columns['timestamp']!r} {remark}"] if remark else []
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
    reasons = ("without a user id", "without an item id", "repeated")
    counts = zip(reasons, dropped.values(), strict=True)
    if shown := [f"{count} {reason}" for reason, count in counts if count]:
        notes.append(f"{path}: dropped rows: {', '.join(shown)}")
    log = once.select(*key, "row", pl.exclude(*key, "row"))
    return log, {"rows_read": read, "timestamp_unit": unit, "dropped": dropped}


def _wanted(
    frame: pl.DataFrame,
    column: str | None,
    positive: Sequence[str] | None,
    path: Path,
    notes: list[str],
) -> pl.DataFrame:
    """Keep the events of the positive kinds, or leave out dislikes if none are given."""
    if column is None:
        if positive is None:
            return frame
        raise _no_column(path, "kind column", "kind", frame.columns)
    kinds = frame[column].cast(pl.String).str.strip_chars().str.to_lowercase()
    if positive is None:
        kept = frame.filter(~kinds.is_in(DISLIKES).fill_null(False))
    else:
        kept = frame.filter(kinds.is_in([each.lower() for each in positive]).fill_null(False))
    if not kept.height:
        found = ", ".join(kinds.drop_nulls().unique().sort().head(10))
        raise DataError(
            f"{path}: no event of column {column!r} has a positive kind (the kinds are {found}); "
            "choose some with --positive KINDS"
        )
    if out := frame.height - kept.height:
        names = ", ".join(DISLIKES) if positive is None else f"others than {', '.join(positive)}"
        notes.append(f"{path}: left out {out} events of the kinds {names} (column {column!r})")
    return kept


def _ids(column: pl.Series) -> pl.Series:
    """Convert ids to text; blank ids become null.

    If all numbers of the column are whole, 7.00, 7.0 and 7 are the same id. pandas writes 7.0 for a
    column of whole numbers with missing values.
    """
    if column.dtype.is_float():
        whole = column.cast(pl.Int64, strict=False)
        column = whole if (whole == column).all() else column
    text = column.cast(pl.String).str.strip_chars()
    text = text.set(text == "", None)
    decimals = text.str.extract(r"^[+-]?\d+\.(\d+)$")
    if not decimals.str.contains("^0+$").all():
        return text
    return text.str.replace(r"^([+-]?\d+)\.0+$", "$1")


def _null_like(log: pl.DataFrame, role: str, path: Path) -> Iterator[str]:
    """Yield a note for each word among the ids that often means a missing value."""
    ids = log[role]
    words = ids.filter(ids.str.to_lowercase().is_in(_NULL_LIKE)).value_counts(sort=True)
    for word, count in words.iter_rows():
        name = role.removesuffix("_id")
        yield (
            f"{path}: the {name} id {word!r} was kept (rows: {count}); if it means a missing id, "
            "leave it empty in the file"
        )


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
        f" correct them or name another column with --{role} COLUMN"
    )


def _item_table(
    table: pl.DataFrame, path: Path, item: str | None, title: str | None
) -> tuple[pl.DataFrame, dict[str, object]]:
    item = item if item in table.columns else None
    item = _need(table.columns, "item_id", item, path, extra="id")
    return _unique_items(table, item, _need(table.columns, "title", title, path), path)


def _unique_items(
    table: pl.DataFrame, item: str, title: str, path: Path
) -> tuple[pl.DataFrame, dict[str, object]]:
    """Keep the first row with a title of each item id and count dropped and conflicting rows."""
    table = plain_columns(table, {"item_id": item, "title": title}, path)
    named = [_ids(table[item]).alias("item_id"), table[title].cast(pl.String).alias("title")]
    others = [name for name in table.columns if name not in (item, title, "item_id", "title")]
    frame = pl.DataFrame([*named, *(flat_column(table[name]) for name in others)])
    known = frame.drop_nulls("item_id")
    titles = known.select("item_id", "title").drop_nulls().unique()
    first = known.sort(pl.col("title").is_null(), maintain_order=True)
    items = first.unique("item_id", keep="first", maintain_order=True)
    return items, {
        "file": path.name,
        "rows_read": frame.height,
        "null_ids": frame.height - known.height,
        "duplicate_ids": known.height - items.height,
        "conflicting_titles": titles.height - titles["item_id"].n_unique(),
    }
