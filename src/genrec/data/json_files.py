"""JSON in the forms in which people keep tables: lines, arrays of objects, and objects by id."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import polars as pl

from genrec.data.column_types import series_of
from genrec.errors import DataError


def read_json(
    data: bytes, name: str, is_column: Callable[[str], bool]
) -> tuple[pl.DataFrame, list[str]]:
    """Read JSON text as a table.

    Known forms are one object per line; an array of objects; an object of columns, as pandas writes
    it; an object of objects by id; and histories such as ``{"user": ["item", "item"]}``.

    Args:
        data: the text in UTF-8.
        name: name of the file, for messages.
        is_column: whether a key is a column that a log or an item table may have.

    Returns:
        The rows, and notes on how they were read.

    Raises:
        DataError: A line is no JSON object, or the text has another form.
        polars.exceptions.PolarsError: The values of a column have no common type.
    """
    lines = None if data.lstrip()[:1] == b"[" else _lines(data)
    if lines is not None and lines.height > 1:
        return lines, []
    whole = _parsed(data, name)
    if whole is None:
        # Reading line by line is slower, but it accepts the Amazon metadata of 2014 and the error
        # message can name the invalid line.
        return _frame(list(_records(data.decode(), name))), []
    return _table(whole, name, is_column)


def _lines(data: bytes) -> pl.DataFrame | None:
    try:
        return pl.read_ndjson(data, infer_schema_length=None)
    except pl.exceptions.NoDataError:
        raise
    except pl.exceptions.PolarsError:
        return None


def _parsed(data: bytes, name: str) -> Any:
    """Return the value of the text, or ``None`` if it is not one JSON value."""
    twice = ""

    def noticed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
        return found

    try:
        whole = json.loads(data, object_pairs_hook=noticed)
        if twice and isinstance(whole, dict) and _all(list(whole.values()), list):
            raise DataError(
                f"{name}: the key {twice!r} occurs twice, so one of its values would be lost; join "
                "them or rename one"
            )
        return whole
    except (ValueError, RecursionError):
        return None


def _table(
    whole: Any, name: str, is_column: Callable[[str], bool]
) -> tuple[pl.DataFrame, list[str]]:
    """Return the rows of one JSON value."""
    if isinstance(whole, dict):  # {"count": 2, "results": [{…}, …]}
        inner = [value for value in whole.values() if value and _all(value, dict)]
        whole = inner[0] if len(inner) == 1 and not any(map(is_column, whole)) else whole
    if _all(whole, dict):
        return _frame(whole), []
    if isinstance(whole, dict) and whole:
        values, named = list(whole.values()), any(map(is_column, whole))
        if _all(values, dict):
            rows = [{"id": key, **value} for key, value in whole.items()]
            return (_columns(whole, name) if named else _frame(rows)), []
        if not _all(values, list):
            return _frame([whole]), []
        if named:
            return _columns(whole, name), []
        if all(_all(value, str | int) for value in values):
            note = f"{name}: each key was read as a user, its list as the user's items in order"
            return _histories(whole), [note]
    raise DataError(
        f"{name}: the JSON value is no table; give one object per line, an array of objects, or "
        'histories such as {"user": ["item", "item"]}'
    )


def _all(value: Any, kind: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)


def _histories(whole: Mapping[str, list[Any]]) -> pl.DataFrame:
    rows = [
        (user, str(item), place)
        for user, items in whole.items()
        for place, item in enumerate(items)
    ]
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _columns(whole: Mapping[str, Any], name: str) -> pl.DataFrame:
    """Read ``{column: [values]}`` or ``{column: {row: value}}``."""
    rows = dict.fromkeys(
        row for column in whole.values() if isinstance(column, dict) for row in column
    )
    columns = {
        key: [value.get(row) for row in rows] if isinstance(value, dict) else value
        for key, value in whole.items()
    }
    lengths = {key: len(values) for key, values in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{key}: {length}" for key, length in list(lengths.items())[:10])
        raise DataError(
            f"{name}: the columns have different lengths ({shown}); give each row a value in each "
            "column"
        )
    return pl.DataFrame([series_of(key, values) for key, values in columns.items()])


def _frame(records: list[dict[str, Any]]) -> pl.DataFrame:
    if not records:
        return pl.DataFrame()
    frame = pl.from_dicts(records, infer_schema_length=None, strict=False)
    for column in frame:
        values = [record.get(column.name) for record in records]
        if column.null_count() > values.count(None):
            frame = frame.with_columns(series_of(column.name, values))
    return frame


def _records(text: str, name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if text := line.strip().removesuffix(","):
            yield _record(text, f"{name}: line {number}")


def _record(line: str, where: str) -> dict[str, Any]:
    for parse in (json.loads, _python_literal):  # as the Amazon metadata of 2014
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on odd escapes in Python literals
                record = parse(line)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(record, dict):
            return record
    raise DataError(f"{where} is not a JSON object; the file must hold one object per line")


def _python_literal(line: str) -> Any:
    """Return the JSON value of a Python literal, in which keys may be numbers."""
    return json.loads(json.dumps(ast.literal_eval(line)))
