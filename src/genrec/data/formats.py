"""Readers for tables in all supported file formats and layouts of public data sets.

Supported are CSV, TSV and JSON (also `.gz`), Parquet, folders of parts as Spark writes them,
RecBole's atomic files (`.inter`, `.item`), MovieLens (100K `u.data`, 1M and 10M `ratings.dat`,
later `ratings.csv`) and the Amazon reviews of 2014, 2018 and 2023.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from genrec.data.columns import shown, usual
from genrec.data.delimited import first_line, in_pieces, lines_of, read_delimited, unquoted
from genrec.data.encodings import open_file, utf8_of
from genrec.data.json_files import read_json
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


_DIGITS = re.compile(r"(\d+)")


_SEPARATORS = "\t,;|^~\x01"
"""The characters that may separate fields; the last one is Hive's."""


_COMMENT = re.compile(rb"\s*#[^\n]*\n")


_SEP_LINE = re.compile(rb'"?sep= ?([,;|\t])"?[,;]*\r?\n', re.IGNORECASE)
"""First line of a file that tells Excel the separator."""


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
    texts = not any(_format_of(part) == "parquet" for part in read)
    for part, table in read.items():
        first = next(iter(read.values())).rows.columns
        if texts and table.rows.width and set(table.rows.columns) != set(first):
            raise DataError(
                f"{part}: the columns differ from those of the first part ({shown(first)}); "
                "give every part the same header, or no part one and name them with --columns"
            )
    layout = next(iter(read.values())).layout
    return Table(pl.concat(frames, how="diagonal_relaxed"), layout, notes)


def _folder_values(folder: Path, part: Path) -> list[tuple[str, str]]:
    """Return the columns that the names of folders such as ``date=2024-01-31`` hold."""
    pairs = [name.partition("=") for name in part.parent.relative_to(folder).parts]
    return [(key, value) for key, mark, value in pairs if mark and key]


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
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    return "parquet" if suffix == "pq" else suffix


def _read_any(path: Path, columns: Sequence[str] | None, encoding: str | None) -> Table:
    name = path.name.lower().removesuffix(".gz")
    notes: list[str] = []
    match _format_of(path):
        case _ if name in _MOVIELENS and columns is None:
            return Table(_read_headless(path, *_MOVIELENS[name]), "movielens", [])
        case "inter" | "item":
            data, notes = utf8_of(path, encoding)
            frame, more = _from_recbole(data, path)
            return Table(frame, "recbole", notes + more)
        case suffix if suffix in _TEXT:
            frame, notes = _read_text(path, columns, encoding)
        case "parquet":
            frame = pl.read_parquet(path)
        case "jsonl" | "ndjson" | "json":
            data, notes = utf8_of(path, encoding)
            frame, more = read_json(data, str(path), usual)
            notes = notes + more
        case _:
            known = (
                ".csv, .tsv, .json, .jsonl (each also .gz), .parquet, .inter or a MovieLens file"
            )
            raise DataError(f"{path}: unknown file format; use {known}")
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
    separator, notes = separator or _separator(data), notes + more
    if columns is None and (columns := _known_columns(path, data, separator)):
        notes.append(f"{path}: the file has no header; its columns are {', '.join(columns)}")
    elif columns is not None and sum(map(usual, _first_fields(data, separator))) > 1:
        raise DataError(f"{path}: line 1 is a header already; leave out --columns")
    if separator == "::":
        if columns is None:
            header, _, data = data.lstrip().partition(b"\n")
            columns = header.decode().strip().split(separator)
        return _split(data, separator, list(columns)), notes
    frame, more = read_delimited(data, separator, str(path), columns)
    return frame, notes + more


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
        known = re.fullmatch(pattern, path.name.lower().removesuffix(".gz"))
        if known and len(first) == len(columns) and not any(map(usual, first)):
            # Many files are called ratings_….csv; in these columns the last one is a time.
            is_time = columns is not _RATINGS or re.fullmatch(r"\d{9,10}(\.0)?", first[-1])
            return list(columns) if is_time else None
    return None


def _first_fields(data: bytes, separator: str) -> list[str]:
    line = first_line(data.lstrip()).decode()
    return [part.strip().strip('"') for part in line.split(separator)]


def _separator(data: bytes) -> str:
    header = first_line(data.lstrip())
    if header.count(b"::") > 1:
        return "::"
    best = max(_SEPARATORS, key=lambda mark: header.count(mark.encode()))
    blanks = best.encode() not in header and sum(map(usual, header.decode().split(" "))) > 1
    return " " if blanks else best


def _read_headless(path: Path, separator: str, columns: list[str]) -> pl.DataFrame:
    """Read a MovieLens file without a header.

    Item tables are Latin-1 up to MovieLens 1M and UTF-8 from 10M on.
    """
    with open_file(path) as file:
        data = file.read()
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode()
    return _split(data, separator, columns)


def _split(data: bytes, separator: str, columns: list[str]) -> pl.DataFrame:
    """Split each line at a separator; the last column takes the rest of the line."""

    def read(piece: bytes) -> pl.DataFrame:
        # Polars does not accept a separator of two characters, so each line is split here.
        parts = lines_of(piece).str.strip_chars_end("\r").str.splitn(separator, len(columns))
        return parts.struct.rename_fields(columns).struct.unnest()

    frame = in_pieces(data, read)
    if columns is not _MOVIES:
        return frame
    flags = [pl.when(pl.col(genre).cast(pl.String) == "1").then(pl.lit(genre)) for genre in _GENRES]
    genres = pl.concat_str(flags, separator="|", ignore_nulls=True).alias("genres")
    return frame.with_columns(genres).drop(_GENRES)


def _from_recbole(data: bytes, path: Path) -> tuple[pl.DataFrame, list[str]]:
    """Read an atomic file; its columns are separated by tabs, or else by commas or blanks."""
    header = first_line(data)
    if b"\t" in header:
        return _restored(unquoted(data, "\t")), []
    if b"," not in header and b" " in header.strip():
        data = re.sub(rb"[ \t]+", b" ", re.sub(rb"(?m)^ +| +(?=\r?$)", b"", data))
        return _restored(unquoted(data, " ")), []
    frame, notes = read_delimited(data, ",", str(path))
    return _restored(frame), notes


def _restored(frame: pl.DataFrame) -> pl.DataFrame:
    """Strip type suffixes and restore the original form of MovieLens titles and genres."""
    frame = frame.rename({column: column.partition(":")[0] for column in frame.columns})
    renames = {"class": "genres", "genre": "genres", "release_year": "year"}
    frame = frame.rename({old: renames[old] for old in frame.columns if old in renames})
    if not {"movie_title", "year"} <= set(frame.columns):
        return frame
    title, year = pl.col("movie_title").cast(pl.String), pl.col("year").cast(pl.String)
    bare = year.str.contains(r"^\d{4}$") & ~title.str.contains(r"\(\d{4}\)$")
    titled = pl.when(bare).then(title + " (" + year + ")").otherwise(title)
    # RecBole separates the values of a token_seq by spaces; all other layouts use a bar.
    genre = pl.col("genres").cast(pl.String).str.replace_all(" ", "|")
    genres = [genre] if "genres" in frame.columns else []
    return frame.with_columns(titled.alias("movie_title"), *genres)
