"""Readers for tables in all supported file formats and layouts of public data sets.

Supported are CSV, TSV and JSON (also `.gz`, `.bz2` and `.xz`), Parquet, folders of parts as Spark
writes them, RecBole's atomic files (`.inter`, `.item`), MovieLens (100K `u.data`, 1M and 10M
`ratings.dat`, later `ratings.csv`) and the Amazon reviews of 2014, 2018 and 2023.
"""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import polars as pl

from genrec.data.columns import shown, usual
from genrec.data.delimited import first_line, in_pieces, lines_of, read_delimited, short_lines
from genrec.data.encodings import open_file, unpacked_name, utf8_of
from genrec.data.json_files import read_json
from genrec.data.recbole import read_recbole
from genrec.errors import DataError

_GENRES = [
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
]


_RATINGS = ["user_id", "item_id", "rating", "timestamp"]


_MOVIES = ["item_id", "title", "release_date", "video_release_date", "url", *_GENRES]


_MOVIELENS = {  # file → separator, column names
    "u.data": ("\t", _RATINGS),
    "u.item": ("|", _MOVIES),
    "ratings.dat": ("::", _RATINGS),
    "movies.dat": ("::", ["item_id", "title", "genres"]),
}


_CHECKINS = ["user_id", "timestamp", "latitude", "longitude", "item_id"]


_HEADLESS = {  # pattern of the names of public files without a header → column names
    r"ratings_\w+\.csv": _RATINGS,  # Amazon 2014
    r"loc-(gowalla|brightkite)_totalcheckins\.txt": _CHECKINS,
    r"userbehavior\.csv": [
        "user_id",
        "item_id",
        "category",
        "behavior_type",
        "timestamp",
    ],  # Taobao
    r"yoochoose-clicks\.dat": ["session_id", "timestamp", "item_id", "category"],
    r"userid-timestamp-artid-artname-traid-traname\.tsv": [  # Last.fm 1K
        *("user_id", "timestamp", "artist_id", "artist", "track_id", "title")
    ],
}


_TEXT = ("csv", "tsv", "txt", "dat", "data")


_NAMED = ("inter", "item", "parquet", "jsonl", "ndjson", "json")
"""Formats whose columns always have names."""


_DIGITS = re.compile(r"(\d+)")


_SEPARATORS = "\t,;|^~\x01"
"""The characters that may separate fields; the last one is Hive's."""


_LINES = 20
"""Lines from whose beginning the form of a text is recognised."""


NUMBER = r"^[+-]?[0-9]+([.,][0-9]+)?$"


_COMMENT = re.compile(rb"\s*#[^\n]*\n")


_SEP_LINE = re.compile(rb'"?sep= ?([,;|\t])"?[,;]*\r?\n', re.IGNORECASE)
"""First line of a file that tells Excel the separator."""


NULLS = ("\\N", "NaN", "nan", "NAN", "<NA>")
"""Words that databases and pandas write for a missing value."""


_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""What Hive and Spark name the folder of rows whose value is missing."""


_BROKEN_FILE = (OSError, EOFError, zlib.error, lzma.LZMAError)


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


def read_table(
    path: Path, columns: Sequence[str] | None = None, encoding: str | None = None
) -> Table:
    """Read a table and recognise its layout.

    Args:
        path: a file in any supported format, or a folder with parts of a table.
        columns: names of the columns of a text file without a header.
        encoding: encoding of a text file; recognised if ``None``.

    Raises:
        DataError: The file cannot be read, has an unknown format or has no rows.
    """
    try:
        if path.is_dir():
            frame, layout, notes = _read_parts(path, columns, encoding)
        else:
            frame, layout, notes = _read_any(path, columns, encoding)
    except pl.exceptions.NoDataError:
        frame, layout, notes = pl.DataFrame(), "", []
    except (pl.exceptions.PolarsError, UnicodeError, *_BROKEN_FILE) as error:
        reason = str(error).partition("\n")[0][:200]
        remedy = "check that the file is complete and that its suffix matches its format"
        raise DataError(f"{path}: cannot be read ({reason}); {remedy}") from error
    if frame.height == 0:
        raise DataError(f"{path}: the file has no rows; download or export it again")
    return Table(without_null_words(frame), layout, notes)


def parts_of(folder: Path) -> list[Path]:
    """Return the parts of a table that Spark wrote as a folder, in order of their numbers."""
    parts = [path for path in folder.rglob("part-*") if path.is_file()]
    hidden = ("_", ".")  # what a failed job left behind
    parts = [p for p in parts if not any(n.startswith(hidden) for n in p.relative_to(folder).parts)]
    return sorted(parts, key=lambda path: [_natural(name) for name in path.parts])


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part or -1), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(name)]


def _read_parts(folder: Path, columns: Sequence[str] | None, encoding: str | None) -> Table:
    parts = parts_of(folder)
    if not parts:
        raise DataError(f"{folder}: the folder holds no files part-*; give the path of a file")
    read = {part: _read_any(part, columns, encoding) for part in parts if part.stat().st_size}
    notes = [note for table in read.values() for note in table.notes]
    frames = [
        table.rows.with_columns(
            pl.lit(value).alias(key) for key, value in _folder_values(folder, part)
        )
        for part, table in read.items()
        if table.rows.height
    ]
    if not frames:
        return Table(pl.DataFrame(), "table", notes)
    texts = all(_format_of(part) in _TEXT for part in read)  # JSON leaves out missing values
    for part, table in read.items():
        first = next(iter(read.values())).rows.columns
        if texts and table.rows.width and set(table.rows.columns) != set(first):
            raise DataError(
                f"{part}: the columns differ from those of the first part ({shown(first)}); "
                "give every part the same header, or no part one and name them with --columns"
            )
    layout = next(iter(read.values())).layout
    return Table(pl.concat(frames, how="diagonal_relaxed"), layout, notes)


def _folder_values(folder: Path, part: Path) -> list[tuple[str, str | None]]:
    """Return the columns that the names of folders such as ``date=2024-01-31`` hold."""
    pairs = [name.partition("=") for name in part.parent.relative_to(folder).parts]
    return [
        (unquote(key), None if value == _NO_VALUE else unquote(value))
        for key, mark, value in pairs
        if mark and key
    ]


def without_null_words(frame: pl.DataFrame) -> pl.DataFrame:
    """Replace empty texts, the words of :data:`NULLS` and NaN by null."""
    frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
    text = pl.col(pl.String)
    missing = text.str.strip_chars().is_in(["", *NULLS])
    return frame.with_columns(
        pl.when(missing).then(None).otherwise(text).name.keep(),
        pl.col(pl.Float32, pl.Float64).fill_nan(None),
    )


def _format_of(path: Path) -> str:
    """Return the suffix that says which format a file has."""
    suffix = unpacked_name(path).rpartition(".")[2]
    if suffix.startswith("part-") or unpacked_name(path) in _MOVIELENS:  # Hadoop's have no suffix
        return "txt"
    return "parquet" if suffix == "pq" else suffix


def _read_any(path: Path, columns: Sequence[str] | None, encoding: str | None) -> Table:
    notes: list[str] = []
    suffix = _format_of(path)
    if columns is not None and suffix in _NAMED:
        raise DataError(
            f"{path}: the columns of this file have names, so leave out --columns (of an item "
            "table --item-columns); choose columns with --user, --item, --timestamp and --title"
        )
    match suffix:
        case _ if columns is None and (known := _movielens(path)):
            data, _ = utf8_of(path, encoding)  # older files of MovieLens are not UTF-8
            frame, notes = _split(data, *known, path)
            return Table(frame, "movielens", notes)
        case "inter" | "item":
            data, notes = utf8_of(path, encoding)
            frame, more = read_recbole(data, path)
            return Table(frame, "recbole", notes + more)
        case _ if suffix in _TEXT:
            frame, notes = _read_text(path, columns, encoding)
        case "parquet":
            frame = pl.read_parquet(path)
        case "jsonl" | "ndjson" | "json":
            data, notes = utf8_of(path, encoding)
            frame, more = read_json(data, str(path), usual)
            notes = notes + more
        case _:
            formats = ".csv, .tsv, .json, .jsonl (each also .gz), .parquet, .inter"
            raise DataError(f"{path}: unknown file format; use {formats} or a MovieLens file")
    amazon = {"asin", "parent_asin"} & set(frame.columns)
    layout = "amazon" if amazon else "movielens" if "movieId" in frame.columns else "table"
    return Table(frame, layout, notes)


def _read_text(
    path: Path, columns: Sequence[str] | None, encoding: str | None
) -> tuple[pl.DataFrame, list[str]]:
    data, notes = utf8_of(path, encoding)
    if not data or data.isspace():
        return pl.DataFrame(), notes
    separator = None
    if told := _SEP_LINE.match(data):
        separator, data = told[1].decode(), b"\n" + data[told.end() :]
    data, more = _without_comments(data, path)
    named = columns is not None
    separator, notes = separator or _separator(data, columns), notes + more
    if columns is None and (columns := _known_columns(path, data, separator)):
        notes.append(f"{path}: the file has no header; its columns are {', '.join(columns)}")
    elif columns is not None and sum(map(usual, _first_fields(data, separator))) > 1:
        raise DataError(f"{path}: line 1 is a header already; leave out --columns")
    if separator == "::":
        header = b""
        if columns is None:
            header, _, data = data.lstrip().partition(b"\n")
            columns = header.decode().strip().split(separator)
        frame, more = _split(data, separator, list(columns), path, skipped=int(header > b""))
    else:
        frame, more = read_delimited(data, separator, str(path), columns)
    return frame, notes + more + (_header_note(frame, path) if named else [])


def _without_comments(data: bytes, path: Path) -> tuple[bytes, list[str]]:
    """Remove lines that begin with # above the table; a header may begin with # itself.

    A line with as many fields as the line below is a row and stays.
    """
    notes, removed = [], 0
    while found := _COMMENT.match(data):
        rest = data[found.end() :]
        separator = _separator(rest)
        bare = found[0].lstrip().removeprefix(b"#").lstrip()
        if sum(map(usual, _first_fields(bare, separator))) > 1:
            data = bare + rest
            break
        if len(_first_fields(found[0], separator)) == len(_first_fields(rest, separator)) > 1:
            break
        data, removed = rest, removed + 1
    if removed:
        lines = "the first line, which begins" if removed == 1 else f"{removed} lines, which begin"
        notes.append(f"{path}: left out {lines} with #, as a comment")
    return data, notes


def _known_columns(path: Path, data: bytes, separator: str) -> list[str] | None:
    """Return the columns of a public file without a header, recognised by its name."""
    first = _first_fields(data, separator)
    for pattern, columns in _HEADLESS.items():
        known = re.fullmatch(pattern, unpacked_name(path))
        if known and len(first) == len(columns) and not any(map(usual, first)):
            # Many files are called ratings_….csv; in these columns the last one is a time.
            is_time = columns is not _RATINGS or re.fullmatch(r"\d{9,10}(\.0)?", first[-1])
            return list(columns) if is_time else None
    return None


def _first_fields(data: bytes, separator: str) -> list[str]:
    line = first_line(data.lstrip()).decode()
    return [part.strip().strip('"') for part in line.split(separator)]


def _separator(data: bytes, columns: Sequence[str] | None = None) -> str:
    """Return what separates the fields, as the first line shows.

    If the columns are known, the first lines show which character separates as many fields.
    """
    header = first_line(data.lstrip())
    if header.count(b"::") > 1:
        return "::"
    lines = data.lstrip().split(b"\n", _LINES)[:_LINES] if columns else []

    def fit(mark: str) -> tuple[int, int]:
        counts = [line.count(mark.encode()) for line in lines]
        return counts.count(len(columns or ()) - 1), header.count(mark.encode())

    best = max(_SEPARATORS, key=fit)
    blanks = best.encode() not in header and sum(map(usual, header.decode().split(" "))) > 1
    return " " if blanks else best


def _header_note(frame: pl.DataFrame, path: Path) -> list[str]:
    """Return a note if the first row may be the header of a table whose columns were named."""
    if any(re.match(NUMBER, str(value)) for value in frame.row(0)):
        return []
    for column in frame.head(_LINES):
        number = column.cast(pl.String).str.contains(NUMBER)
        if len(number) > 2 and number[0] is False and number[1:].all(ignore_nulls=False):
            note = (
                f"{path}: line 1 was read as a row, but {column[0]!r} may be the name of a column"
            )
            return [f"{note}; if it is, remove the line"]
    return []


def _movielens(path: Path) -> tuple[str, list[str]] | None:
    """Return separator and columns of a MovieLens file without a header, recognised by its name."""
    separator, columns = _MOVIELENS.get(unpacked_name(path), ("", []))
    if not columns:
        return None
    with open_file(path) as file:
        first = _first_fields(file.readline().decode("latin-1").encode(), separator)
    return (separator, columns) if len(first) > 2 and sum(map(usual, first)) < 2 else None


def _split(
    data: bytes, separator: str, columns: list[str], path: Path, skipped: int = 0
) -> tuple[pl.DataFrame, list[str]]:
    """Split each line at a separator; the last column takes the rest of the line."""

    def read(piece: bytes) -> pl.DataFrame:
        # Polars does not accept a separator of two characters, so each line is split here.
        parts = lines_of(piece).str.strip_chars_end("\r").str.splitn(separator, len(columns))
        return parts.struct.rename_fields(columns).struct.unnest()

    frame = in_pieces(data, read)
    notes = short_lines(frame, data, separator, str(path), quoted=False, skipped=skipped)
    if columns is not _MOVIES:
        return frame, notes
    flags = [pl.when(pl.col(genre).cast(pl.String) == "1").then(pl.lit(genre)) for genre in _GENRES]
    genres = pl.concat_str(flags, separator="|", ignore_nulls=True).alias("genres")
    return frame.with_columns(genres).drop(_GENRES), notes
