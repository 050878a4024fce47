"""Readers for tables in all supported file formats and layouts of public data sets.

Supported are CSV, TSV and JSON lines (also `.gz`), Parquet, RecBole atomic files (`.inter`,
`.item`), MovieLens (100K `u.data`, 1M and 10M `ratings.dat`, later `ratings.csv`) and the Amazon
reviews of 2014, 2018 and 2023.
"""

from __future__ import annotations

import ast
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, cast
from uuid import UUID

import polars as pl

from genrec.data.delimited import lines_of, read_delimited
from genrec.errors import DataError

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


NULLS = ("\\N", "NaN", "nan", "<NA>")
"""Words that databases and pandas write for a missing value."""


_BROKEN_FILE = (OSError, EOFError, zlib.error)


class Table(NamedTuple):
    """A table as read.

    Attributes:
        rows: the rows; column names are without RecBole's type suffixes, and missing values and the
            words of :data:`NULLS` are null.
        layout: ``"movielens"``, ``"recbole"``, ``"amazon"`` or ``"table"``.
        notes: what a user should know of how the file was read.
    """

    rows: pl.DataFrame
    layout: str
    notes: list[str]


def read_table(path: Path) -> Table:
    """Read a table and recognise its layout.

    Args:
        path: a file in any supported format.

    Raises:
        DataError: The file cannot be read, has an unknown format or has no rows.
    """
    try:
        frame, layout, notes = _read_any(path)
    except pl.exceptions.NoDataError:
        frame, layout, notes = pl.DataFrame(), "", []
    except (pl.exceptions.PolarsError, UnicodeError, *_BROKEN_FILE) as error:
        _check_utf8(path)
        reason = str(error).partition("\n")[0]
        remedy = "check that the file is complete and that its suffix matches its format"
        raise DataError(f"{path}: cannot be read ({reason}); {remedy}") from error
    if frame.height == 0:
        raise DataError(f"{path}: the file has no rows; download or export it again")
    return Table(without_null_words(frame), layout, notes)


def without_null_words(frame: pl.DataFrame) -> pl.DataFrame:
    """Replace empty texts, the words of :data:`NULLS` and NaN by null."""
    text = pl.col(pl.String)
    missing = text.str.strip_chars().is_in(["", *NULLS])
    return frame.with_columns(
        pl.when(missing).then(None).otherwise(text).name.keep(),
        pl.col(pl.Float32, pl.Float64).fill_nan(None),
    )


def _read_any(path: Path) -> Table:
    name = path.name.lower().removesuffix(".gz")
    if name in _HEADLESS:
        return Table(_read_headless(path, *_HEADLESS[name]), "movielens", [])
    notes: list[str] = []
    match name.rpartition(".")[2]:
        case "inter" | "item":
            table = pl.read_csv(path, separator="\t", quote_char=None, infer_schema=False)
            return Table(_from_recbole(table), "recbole", notes)
        case "csv" | "tsv" | "txt":
            with _open(path) as file:
                data = file.read()
            frame, notes = read_delimited(data, _separator(data), str(path))
        case "parquet" | "pq":
            frame = pl.read_parquet(path)
        case "jsonl" | "ndjson" | "json":
            frame = _read_json_lines(path)
        case _:
            known = ".csv, .tsv, .jsonl (each also .gz), .parquet, .inter or a MovieLens file"
            raise DataError(f"{path}: unknown file format; use {known}")
    amazon = {"asin", "parent_asin"} & set(frame.columns)
    layout = "amazon" if amazon else "movielens" if "movieId" in frame.columns else "table"
    return Table(frame, layout, notes)


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _separator(data: bytes) -> str:
    header = BytesIO(data).readline()
    return max("\t,;|", key=lambda mark: header.count(mark.encode()))


def _read_headless(path: Path, separator: str, columns: list[str]) -> pl.DataFrame:
    """Read a MovieLens file without a header.

    Item tables are Latin-1 up to MovieLens 1M and UTF-8 from 10M on.
    """
    with _open(path) as file:
        data = file.read()
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode()
    # Polars does not accept a separator of two characters, so each line is split here.
    parts = lines_of(data).str.strip_chars_end("\r").str.splitn(separator, len(columns))
    frame = parts.struct.rename_fields(columns).struct.unnest()
    if columns is not _MOVIES:
        return frame
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES]
    genres = pl.concat_str(flags, separator="|", ignore_nulls=True).alias("genres")
    return frame.with_columns(genres).drop(_GENRES)


def _from_recbole(frame: pl.DataFrame) -> pl.DataFrame:
    """Strip type suffixes and restore the original form of MovieLens titles and genres."""
    frame = frame.rename({column: column.partition(":")[0] for column in frame.columns})
    renames = {"class": "genres", "genre": "genres", "release_year": "year"}
    frame = frame.rename({old: renames[old] for old in frame.columns if old in renames})
    if not {"movie_title", "year"} <= set(frame.columns):
        return frame
    title, year = pl.col("movie_title"), pl.col("year")
    bare = year.str.contains(r"^\d{4}$") & ~title.str.contains(r"\(\d{4}\)$")
    titled = pl.when(bare).then(title + " (" + year + ")").otherwise(title)
    # RecBole separates the values of a token_seq by spaces; all other layouts use a bar.
    genres = [pl.col(name).str.replace_all(" ", "|") for name in frame.columns if name == "genres"]
    return frame.with_columns(titled.alias("movie_title"), *genres)


def _check_utf8(path: Path) -> None:
    """Raise a DataError that names the first line that is not UTF-8, if this is a text file."""
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
        # Reading line by line is slower, but it accepts the Amazon metadata of 2014 and the error
        # message can name the invalid line.
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
            raise DataError(
                f"{path}: column {name!r} holds {kind} values, which cannot be a {role}; convert "
                f"it, or name another column with --{role.removesuffix('_id')} COLUMN"
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
    if isinstance(column.dtype, pl.List) and not cast(pl.DataType, column.dtype.inner).is_nested():
        return column.cast(pl.List(pl.String)).list.join(mark)
    return column.struct.json_encode() if column.dtype == pl.Struct else column
