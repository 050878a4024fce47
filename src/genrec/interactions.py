"""Read an interaction log and its item table, whatever their file format, and validate them.

Formats: CSV, TSV and JSON lines (`.gz` too), Parquet, RecBole atomic files (`.inter`, `.item`),
MovieLens (100K `u.data`, 1M and 10M `ratings.dat`, later `ratings.csv`), Amazon reviews of 2014,
2018 and 2023. A folder may stand for the log in it; an item table beside the log is found.
"""

from __future__ import annotations

import ast
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

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
_GENRES = [
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
]
_RATINGS = ["user_id", "item_id", "rating", "timestamp"]
_MOVIES = ["item_id", "title", "release_date", "video_release_date", "url", *_GENRES]
_HEADLESS = {  # file → separator, column names
    "u.data": ("\t", _RATINGS),
    "u.item": ("|", _MOVIES),
    "ratings.dat": ("::", _RATINGS),
    "movies.dat": ("::", ["item_id", "title", "genres"]),
}
_TIME_FORMATS = (
    *("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"),
    *("%Y-%m-%d", "%m %d, %Y"),  # the last one is Amazon's reviewTime
)
_BROKEN_FILE = (OSError, EOFError, zlib.error)
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
    frame, layout = _read_table(path)
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


def _read_table(path: Path) -> tuple[pl.DataFrame, str]:
    """The rows of a file, column names without type suffixes, and the name of its layout."""
    try:
        frame, layout = _read_any(path)
    except pl.exceptions.NoDataError:
        frame, layout = pl.DataFrame(), ""
    except (pl.exceptions.PolarsError, UnicodeError, *_BROKEN_FILE) as error:
        _check_utf8(path)
        reason = str(error).partition("\n")[0]
        remedy = "check that the file is whole and is what its suffix says"
        raise DataError(f"{path}: cannot be read ({reason}); {remedy}") from error
    if frame.height == 0:
        raise DataError(f"{path}: the file has no rows; download or export it again")
    return frame, layout


def _read_any(path: Path) -> tuple[pl.DataFrame, str]:
    name = path.name.lower().removesuffix(".gz")
    if name in _HEADLESS:
        return _read_headless(path, *_HEADLESS[name]), "movielens"
    match name.rpartition(".")[2]:
        case "inter" | "item":
            table = pl.read_csv(path, separator="\t", quote_char=None, infer_schema=False)
            return _from_recbole(table), "recbole"
        case "csv" | "tsv" | "txt":
            frame = pl.read_csv(path, separator=_separator(path), infer_schema=False)
        case "parquet" | "pq":
            frame = pl.read_parquet(path)
        case "jsonl" | "ndjson" | "json":
            frame = _read_json_lines(path)
        case _:
            known = ".csv, .tsv, .jsonl (each also .gz), .parquet, .inter or a MovieLens file"
            raise DataError(f"{path}: unknown file format; give {known}")
    amazon = {"asin", "parent_asin"} & set(frame.columns)
    return frame, "amazon" if amazon else "movielens" if "movieId" in frame.columns else "table"


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _separator(path: Path) -> str:
    with _open(path) as lines:
        header = lines.readline()
    return max("\t,;|", key=lambda mark: header.count(mark.encode()))


def _read_headless(path: Path, separator: str, columns: list[str]) -> pl.DataFrame:
    """MovieLens files without a header; item tables are Latin-1 up to 1M and UTF-8 from 10M on."""
    with _open(path) as file:
        data = file.read()
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode()
    # One column for the line, split afterwards: polars takes no separator of two characters.
    lines = pl.read_csv(
        data, separator="\x1f", quote_char=None, has_header=False, infer_schema=False
    ).to_series()
    parts = lines.str.strip_chars_end("\r").str.splitn(separator, len(columns))
    frame = parts.struct.rename_fields(columns).struct.unnest()
    if columns is not _MOVIES:
        return frame
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES]
    genres = pl.concat_str(flags, separator="|", ignore_nulls=True).alias("genres")
    return frame.with_columns(genres).drop(_GENRES)


def _from_recbole(frame: pl.DataFrame) -> pl.DataFrame:
    """Strip type suffixes; make RecBole's MovieLens titles and genres those of the originals."""
    frame = frame.rename({column: column.partition(":")[0] for column in frame.columns})
    renames = {"class": "genres", "genre": "genres", "release_year": "year"}
    frame = frame.rename({old: renames[old] for old in frame.columns if old in renames})
    if not {"movie_title", "year"} <= set(frame.columns):
        return frame
    title, year = pl.col("movie_title"), pl.col("year")
    bare = year.str.contains(r"^\d{4}$") & ~title.str.contains(r"\(\d{4}\)$")
    titled = pl.when(bare).then(title + " (" + year + ")").otherwise(title)
    # A token_seq is separated by blanks; everyone else separates genres by a bar.
    genres = [pl.col(name).str.replace_all(" ", "|") for name in frame.columns if name == "genres"]
    return frame.with_columns(titled.alias("movie_title"), *genres)


def _check_utf8(path: Path) -> None:
    """Raise a DataError that names the first line of a text file that is not UTF-8."""
    offset = 0
    if path.suffix in (".parquet", ".pq"):
        return
    with suppress(*_BROKEN_FILE), _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                where = f"line {number}, byte offset {offset + error.start}"
                remedy = "convert it, e.g. iconv -f latin1 -t utf-8"
                raise DataError(f"{path}: not UTF-8 at {where}; {remedy}") from error
            offset += len(line)


def _read_json_lines(path: Path) -> pl.DataFrame:
    try:
        return pl.read_ndjson(path, infer_schema_length=None)
    except pl.exceptions.NoDataError:
        raise
    except pl.exceptions.PolarsError:
        # Line by line is slower, but reads Amazon 2014 metadata and can name the bad line.
        return pl.from_dicts(list(_records(path)), infer_schema_length=None, strict=False)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    _check_utf8(path)
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if text := line.decode().strip():
                yield _record(text, f"{path}: line {number}")


def _record(line: str, where: str) -> dict[str, Any]:
    for parse in (json.loads, ast.literal_eval):  # Amazon 2014 metadata are Python literals
        try:
            record = parse(line)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(record, dict):
            return record
    raise DataError(f"{where} is not a JSON object; the file must hold one object per line")


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
    table = pl.DataFrame([_flat(frame[column]).alias(role) for role, column in columns.items()])
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
    table, _ = _read_table(path)
    item = item if item in table.columns else None
    item = _need(table.columns, "item_id", item, path, extra="id")
    return _unique_items(table, item, _need(table.columns, "title", title, path), path)


def _unique_items(
    table: pl.DataFrame, item: str, title: str, path: Path
) -> tuple[pl.DataFrame, dict[str, object]]:
    """One row per item id, the first one; what the others held is counted."""
    named = [_ids(table[item]).alias("item_id"), table[title].cast(pl.String).alias("title")]
    others = [name for name in table.columns if name not in (item, title, "item_id", "title")]
    frame = pl.DataFrame([*named, *(_flat(table[name]) for name in others)])
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


def _flat(column: pl.Series) -> pl.Series:
    """Lists as text (categories "A > B", several "A > B | C", others "a|b"), else as is."""
    mark = " > " if column.name.lower() in ("category", "categories") else "|"
    if column.dtype == pl.List(pl.List(pl.String)):
        return column.list.eval(pl.element().list.join(mark)).list.join(" | ")
    if isinstance(column.dtype, pl.List) and not cast(pl.DataType, column.dtype.inner).is_nested():
        return column.cast(pl.List(pl.String)).list.join(mark)
    return column.struct.json_encode() if column.dtype == pl.Struct else column
