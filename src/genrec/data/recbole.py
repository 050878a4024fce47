"""RecBole's atomic files, ``.inter`` and ``.item``."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from genrec.data.delimited import first_line, read_delimited, unquoted


def read_recbole(data: bytes, path: Path) -> tuple[pl.DataFrame, list[str]]:
    """Read an atomic file; its columns are separated by tabs, or else by commas or blanks.

    Args:
        data: the content of the file, UTF-8.
        path: the file, for messages.

    Returns:
        The rows with columns without type suffixes, and notes on how they were read.

    Raises:
        DataError: A line has more fields than the header.
    """
    header = first_line(data)
    if b"\t" in header:
        frame, notes = unquoted(data, "\t", str(path))
        return _restored(frame), notes
    if b"," not in header and b" " in header.strip():
        data = re.sub(rb"[ \t]+", b" ", re.sub(rb"(?m)^ +| +(?=\r?$)", b"", data))
        frame, notes = unquoted(data, " ", str(path))
        return _restored(frame), notes
    frame, notes = read_delimited(data, ",", str(path))
    return _restored(frame), notes


def _restored(frame: pl.DataFrame) -> pl.DataFrame:
    """Strip type suffixes and restore the original form of MovieLens titles and genres."""
    frame = frame.rename({column: column.partition(":")[0] for column in frame.columns})
    for old, new in (("genre", "genres"), ("class", "genres"), ("release_year", "year")):
        if old in frame.columns and new not in frame.columns:
            frame = frame.rename({old: new})
    if not {"movie_title", "year"} <= set(frame.columns):
        return frame
    title, year = pl.col("movie_title").cast(pl.String), pl.col("year").cast(pl.String)
    bare = year.str.contains(r"^\d{4}$") & ~title.str.contains(r"\(\d{4}\)$")
    titled = pl.when(bare).then(title + " (" + year + ")").otherwise(title)
    # RecBole separates the values of a token_seq by spaces; all other layouts use a bar.
    genre = pl.col("genres").cast(pl.String).str.replace_all(" ", "|")
    genres = [genre] if "genres" in frame.columns else []
    return frame.with_columns(titled.alias("movie_title"), *genres)
