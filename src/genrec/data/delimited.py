"""Delimited text such as CSV and TSV, with quotes as the standard has them or as plain characters.

RFC 4180 encloses a field in quotes if it holds a separator, a line break or a quote. Many files,
tab-separated ones above all, hold titles with quotes that enclose nothing. A reader that takes such
a quote for the start of a field swallows the rows up to the next quote without an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import cast

import polars as pl

from genrec.data.columns import looks_like_data
from genrec.errors import DataError

MOST_LINES = 1000
"""Maximum number of lines of one quoted field."""
PIECE = 2**26
"""Bytes of text that are split into columns at once."""
_QUOTED = r'"(?:[^"]|"")*"'
"""A field in quotes."""
_WHOLE = r"^(0|-?[1-9][0-9]{0,14})$"
"""A whole number that is written as it would be printed."""


def read_delimited(
    data: bytes, separator: str, name: str, columns: Sequence[str] | None = None
) -> tuple[pl.DataFrame, list[str]]:
    """Read delimited text; columns of the result are text, or whole numbers as :func:`in_pieces`.

    A field is quoted if its first character is a quote and another quote ends it before a separator
    or the end of a line. Any other quote is a character. A quoted field may span several lines,
    unless each of these lines would be a row by itself and no other field of the file must span
    lines.

    Args:
        data: the content of the file, UTF-8.
        separator: the character between two fields.
        name: name of the file, for messages.
        columns: names of the columns if the text has no header.

    Returns:
        The rows, and notes on quotes that were read as characters.

    Raises:
        DataError: A line has more fields than the header.
        polars.exceptions.PolarsError: The text cannot be read.
        UnicodeError: The text is not UTF-8.
    """
    data, quoted, told = _without_blanks(data, separator.encode()), b'"' in data, []
    odd = _odd_lines(data, separator) if quoted else 0
    if odd and b'\\"' in data:
        doubled = _with_doubled_quotes(data, separator.encode())
        if (left := _odd_lines(doubled, separator)) < odd:
            told = [f'{name}: \\" was read as a quote inside of a quoted field']
            data, odd = doubled, left
    if not odd:
        try:
            quote = '"' if quoted else None
            table = _table(data, separator, quote, columns)
            _check_names([_original(each, table.columns) for each in table.columns], name)
            return table, told + short_lines(table, data, separator, name)
        except pl.exceptions.PolarsError:  # a line is too long: the reader below names it
            pass
    frame, notes = _Lines(data.decode("utf-8-sig"), separator, name, columns).table()
    return _with_whole_numbers(frame), told + notes


def first_line(data: bytes) -> bytes:
    """Return the first line of text, without a copy of the others."""
    return BytesIO(data).readline()


def _without_blanks(data: bytes, separator: bytes) -> bytes:
    """Remove blanks between separators and quotes if the header has a blank after each separator.

    The quotes would be characters otherwise.
    """
    header, blank = first_line(data), separator + b" "
    as_many = header.count(separator) == header.count(blank) > 0
    if not (separator.strip() and as_many and blank + b'"' in data):
        return data
    # Each quoted field is found whole, because it may hold a separator with a blank.
    field = rb'(?m)(^|%b *)("(?:[^"]|"")*")' % re.escape(separator)
    return re.sub(field, lambda found: (found[1] and separator) + found[2], data)


def _with_doubled_quotes(data: bytes, separator: bytes) -> bytes:
    r"""Double the quotes that have a backslash in front, as Spark and MySQL write them."""
    mark = re.escape(separator)
    field = rb'(?m)(?:^|(?<=%b))"(?:[^"\\\n]|\\.|"")*"(?=%b|\r?$)' % (mark, mark)
    return re.sub(field, lambda found: found[0].replace(b'\\"', b'""'), data)


def _table(
    data: bytes, separator: str, quote: str | None, columns: Sequence[str] | None
) -> pl.DataFrame:
    names = None if columns is None else list(columns)

    def read(piece: bytes) -> pl.DataFrame:
        nonlocal names
        if names is None:
            frame = pl.read_csv(piece, separator=separator, quote_char=quote, infer_schema=False)
            names = frame.columns
            return frame
        schema = dict.fromkeys(names, pl.String)
        return pl.read_csv(
            piece, separator=separator, quote_char=quote, has_header=False, schema=schema
        )

    return in_pieces(data, read)


def unquoted(data: bytes, separator: str, name: str) -> tuple[pl.DataFrame, list[str]]:
    """Read delimited text with a header in which quotes are characters; return rows and notes."""
    try:
        table = _table(data, separator, None, None)
    except pl.exceptions.ComputeError:
        raise _too_long(data, separator, name) from None
    return table, short_lines(table, data, separator, name, quoted=False)


def short_lines(
    table: pl.DataFrame,
    data: bytes,
    separator: str,
    name: str,
    *,
    quoted: bool = True,
    skipped: int = 0,
) -> list[str]:
    """Return a note if some lines have fewer fields than the table has columns.

    Args:
        table: the rows as read, in which missing fields are null.
        data: the content of the file, one row a line.
        separator: the character or characters between two fields.
        name: name of the file, for messages.
        quoted: whether a separator in quotes is a part of the field.
        skipped: number of lines above ``data`` in the file.
    """
    if not table.width or not table[:, -1].has_nulls():
        return []
    first, count, before = 0, 0, skipped
    for piece in _pieces(data):
        lines = lines_of(piece)
        bare = lines.str.replace_all(_QUOTED, "") if quoted and b'"' in piece else lines
        short = (bare.str.count_matches(separator, literal=True) < table.width - 1).arg_true()
        first = first if count or not len(short) else before + cast(int, short[0]) + 1
        count, before = count + len(short), before + len(lines)
    return _short(first, count, name)


def _too_long(data: bytes, separator: str, name: str) -> DataError:
    """Return the error for the first line with more fields than the header."""
    lines = data.decode().splitlines()
    width = lines[0].count(separator)
    bad = next((at for at, line in enumerate(lines) if line.count(separator) > width), 0)
    return DataError(
        f"{name}: line {bad + 1} has {lines[bad].count(separator) + 1} fields, but there are "
        f"{width + 1} columns; correct that line"
    )


def _short(first: int, count: int, name: str) -> list[str]:
    note = (
        f"{name}: fewer fields than the table has columns in {_lines_from(first, count)}; the "
        "missing fields are empty (a field that spans lines must be in quotes)"
    )
    return [note] if count else []


def _original(name: str, names: Sequence[str]) -> str:
    """Return the name of a column as the file has it; Polars renames those that occur twice."""
    original = name.rpartition("_duplicated_")[0]
    return original if original in names else name


def _check_names(columns: Sequence[str], name: str) -> None:
    if len(set(columns)) == len(columns):
        return
    remedy = "rename one"
    if looks_like_data(columns):
        remedy = (
            "line 1 looks like data, so name the columns with --columns, or with --item-columns "
            "for an item table"
        )
    raise DataError(f"{name}: two columns have the same name; {remedy}")


def in_pieces(data: bytes, read: Callable[[bytes], pl.DataFrame]) -> pl.DataFrame:
    """Read text whose lines are records, a piece at a time, to save memory.

    A column becomes Int64 if every value in it is a whole number of up to 15 digits that is printed
    as the file has it. So the text of each value stays known. Other columns stay as they are.

    Args:
        data: the content of the file.
        read: reads some lines; the first ones begin with the header, if there is one.
    """
    pieces = [_with_whole_numbers(read(piece)).get_columns()[::-1] for piece in _pieces(data)]
    columns = []
    while pieces[0]:
        parts = [piece.pop() for piece in pieces]  # a column is not kept in pieces and whole
        kinds = {part.dtype for part in parts if part.null_count() < len(part)}
        kind = kinds.pop() if len(kinds) == 1 else pl.String
        columns.append(pl.concat([part.cast(kind) for part in parts], rechunk=True))
    return pl.DataFrame(columns)


def _pieces(data: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data) or not start:
        end = data.find(b"\n", start + PIECE) + 1 or len(data)
        yield data[start:end]
        start = max(1, end)


def _with_whole_numbers(frame: pl.DataFrame) -> pl.DataFrame:
    texts = (name for name, kind in frame.schema.items() if kind == pl.String)
    whole = [
        name
        for name in texts
        if frame[name].head(100).str.contains(_WHOLE).all()
        and frame[name].null_count() < frame.height
        and frame[name].str.contains(_WHOLE).all()
    ]
    return frame.with_columns(pl.col(whole).cast(pl.Int64))


def lines_of(data: bytes) -> pl.Series:
    """Return each line of UTF-8 text; empty lines are null."""
    return pl.read_csv(
        data, separator="\x1f", quote_char=None, has_header=False, infer_schema=False
    ).to_series()


def _odd_lines(data: bytes, separator: str) -> int:
    """Return the number of lines that are no record by themselves whose quotes enclose fields."""
    bare, quoted = rf'[^"{re.escape(separator)}]*', r'"(?:[^"]|"")*"'
    one = f"(?:{quoted}|{bare})"
    pattern = rf"^{one}(?:{re.escape(separator)}{one})*\r?$"
    found = (lines_of(piece).str.contains(pattern).fill_null(True) for piece in _pieces(data))
    return sum(len(lines) - int(lines.sum()) for lines in found)


@dataclass
class _Record:
    """The fields of one record; ``end`` is the line after it."""

    fields: list[str]
    end: int
    open: bool = False  # a field starts with a quote that does not enclose it
    unclear: bool = False  # it spans lines, each of which could be a record


def _lines_from(first: int, count: int) -> str:
    more = f" and {count - 1} more line{'s' * (count > 2)}" if count > 1 else ""
    return f"line {first}{more}"


@dataclass
class _Lines:
    """Splits text into records line by line."""

    text: str
    separator: str
    name: str
    columns: Sequence[str] | None
    lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = [line.removesuffix("\r") for line in self.text.split("\n")]
        mark = re.escape(self.separator)
        self._field = re.compile(
            rf'(?:"([^"]*(?:""[^"]*)*)"(?={mark}|\Z)|([^{mark}\n]*))({mark}|\Z)'
        )
        self._closing = re.compile(rf'"(?:{mark}|\Z)')

    def table(self) -> tuple[pl.DataFrame, list[str]]:
        """Return all rows and the notes."""
        first = next((at for at, line in enumerate(self.lines) if line.strip()), None)
        if first is None:
            return pl.DataFrame(), []
        header = self._record(first, None)
        names = header.fields if self.columns is None else list(self.columns)
        start, width = header.end if self.columns is None else first, len(names)
        rows = self._rows(start, width, join_unclear=False)
        spanning = any(row.end > start + 1 for start, row in rows)
        if spanning and any(row.unclear for _, row in rows):
            rows = self._rows(start, width, join_unclear=True)
        _check_names(names, self.name)
        filled = [row.fields + [""] * (width - len(row.fields)) for _, row in rows]
        schema = dict.fromkeys(names, pl.String)
        frame = pl.DataFrame(filled, schema=schema, orient="row")
        joined = [start for start, row in rows if row.unclear and row.end > start + 1]
        notes = self._notes([start for start, row in rows if row.open])
        short = [start + 1 for start, row in rows if len(row.fields) < width]
        notes += _short(min(short, default=0), len(short), self.name)
        if joined:
            notes.append(
                f"{self.name}: quoted fields that span lines, each of which could be a row, were "
                f"read as one field ({_lines_from(joined[0] + 1, len(joined))}); if they are rows, "
                "remove the quotes"
            )
        return frame, notes

    def _notes(self, opened: Sequence[int]) -> list[str]:
        if not opened:
            return []
        many = _lines_from(opened[0] + 1, len(opened))
        return [f"{self.name}: quotes that do not enclose a field were read as characters ({many})"]

    def _rows(self, start: int, width: int, join_unclear: bool) -> list[tuple[int, _Record]]:
        rows = []
        while start < len(self.lines):
            if self.lines[start].strip():
                row = self._record(start, width, join_unclear)
                if any(row.fields[width:]):
                    raise DataError(
                        f"{self.name}: line {start + 1} has {len(row.fields)} fields, but there "
                        f"are {width} columns; put fields that hold {self.separator!r} in quotes"
                    )
                del row.fields[width:]  # separators at the end of the line
                rows.append((start, row))
                start = row.end
            else:
                start += 1
        return rows

    def _record(self, start: int, width: int | None, join_unclear: bool = False) -> _Record:
        """Split the record that starts in a line; it spans lines if a quoted field does."""
        alone = self._split(self.lines[start], start + 1)
        assert alone is not None  # one line can always be split
        if not alone.open or width is None:
            return alone
        for end in range(start + 2, min(start + MOST_LINES, len(self.lines)) + 1):
            if not self._closing.search(self.lines[end - 1]):
                continue
            joined = self._split("\n".join(self.lines[start:end]), end)
            if joined is None or joined.open:
                continue
            if len(joined.fields) != width:
                break
            joined.unclear = all(self._width(line) == width for line in self.lines[start:end])
            alone.unclear = joined.unclear
            return joined if join_unclear or not joined.unclear else alone
        return alone

    def _width(self, line: str) -> int:
        record = self._split(line, 0)
        return 0 if record is None else len(record.fields)

    def _split(self, text: str, end: int) -> _Record | None:
        """Split text into fields; ``None`` if a line break is outside of a quoted field."""
        record, position = _Record([], end), 0
        while match := self._field.match(text, position):
            enclosed, plain, mark = match.groups()
            record.fields.append(plain if enclosed is None else enclosed.replace('""', '"'))
            record.open |= enclosed is None and plain.startswith('"')
            position = match.end()
            if not mark:
                return record
        return None
