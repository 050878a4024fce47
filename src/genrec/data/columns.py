"""The roles of columns, their usual names, and the messages if a column is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from genrec.errors import DataError

# Accepted column names by role, in lower case with letters and digits only, in order of preference.
# `parent_asin` comes before `asin` because the metadata of Amazon 2023 use it as their key.
# `position` is not accepted as a timestamp because it orders only the items of one user.
_ALIASES = {
    "user_id": "userid user uid reviewerid customerid visitorid sessionid",
    "item_id": "itemid item iid movieid parentasin asin productid businessid trackid songid bookid "
    "recipeid articleid isbn stockcode animeid gameid newsid",
    "timestamp": "timestamp time unixreviewtime datetime date createdat reviewtime eventtime ts "
    "eventtimestamp invoicedate orderdate purchasedate",
    "rating": "rating overall score stars",
    "review": "review reviewtext text",
    "title": "title movietitle booktitle itemtitle itemname productname name",
    "kind": "kind event eventtype action actiontype behavior behaviortype",
}


# Names of columns that hold the order of a user's items, not a time.
_ORDERS = "position order rank index seq sequence step"


# Names of columns that hold how many pieces were bought.
_QUANTITIES = "quantity qty lineitemquantity"


# Names of columns that may hold the time of day beside a column `date`.
_CLOCKS = "time hour clock timeofday hourofday"


_LONG_NAME = 40  # characters of a column's name in a message


ROW = "row"
"""What ``timestamp`` may be if the rows of the log are in order of time."""


NONE = "none"
"""What rating, review, title or kind may be if the column with the usual name is another thing."""


_BINARY = frozenset((".parquet", ".pq", ".json", ".jsonl", ".ndjson", ".inter", ".item"))
"""Suffixes of files whose columns have names of their own."""


_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?|\d{1,4}[-./]\d\d?[-./]\d\d.*")


class ColumnNames(TypedDict, total=False):
    """Names of columns; each is recognised by its usual names if it is missing or ``None``.

    Attributes:
        user: the user ids.
        item: the item ids of the log and of the item table, or of the one that has this column.
        item_table_id: the item ids of the item table.
        timestamp: what orders the log: numbers, dates or texts; ``"row"`` for the order of rows.
        rating: the ratings; ``"none"`` for no ratings.
        review: the texts of reviews; ``"none"`` for none.
        title: the titles of the item table, or of the log if there is no item table.
        kind: the kinds of events; ``"none"`` for none.
    """

    user: str | None
    item: str | None
    item_table_id: str | None
    timestamp: str | None
    rating: str | None
    review: str | None
    title: str | None
    kind: str | None


def usual(column: str) -> bool:
    """Return whether a column has a usual name of any role."""
    return any(_folded(column) in aliases.split() for aliases in _ALIASES.values())


def date_and_time(columns: Sequence[str]) -> tuple[str, str] | None:
    """Return the column ``date`` and one of times of day if there is no other timestamp."""
    folded = {_folded(name): name for name in reversed(columns)}
    clock = next((folded[name] for name in _CLOCKS.split() if name in folded), None)
    if "timestamp" in folded or "date" not in folded or clock is None:
        return None
    return folded["date"], clock


def rival_notes(
    there: Sequence[str],
    columns: Mapping[str, str],
    named: Mapping[str, str | None],
    path: Path,
) -> Iterator[str]:
    """Yield a note if another column might be the user, the item or the timestamp as well.

    Args:
        there: the columns of the log.
        columns: the columns that were chosen, by role.
        named: the columns whose choice needs no note, by role.
        path: the file, for messages.
    """
    for role, name in named.items():
        aliases, chosen = _ALIASES[role].split(), columns[role]
        others = [each for each in there if each != chosen and _folded(each) in aliases]
        if others and name is None:
            yield (
                f"{path}: column {chosen!r} was taken as the {role}, but it might be "
                f"{' or '.join(map(repr, others))}; name it with {option(role)} COLUMN"
            )


def find_column(
    columns: Sequence[str], role: str, given: str | None, path: Path, extra: str = ""
) -> str | None:
    """Return the given column (it must exist), else the first with a usual name, else ``None``.

    Args:
        columns: the columns of the table.
        role: e.g. ``"user_id"``.
        given: the column that the user named, or ``None``; :data:`NONE` declines a column.
        path: the file, for messages.
        extra: further usual names.

    Raises:
        DataError: The given column does not exist.
    """
    if given == NONE and given not in columns:
        return None
    if given is not None and given not in columns:
        raise no_column(path, f"column {given!r}", role, columns)
    folded = {_folded(name): name for name in reversed(columns)}
    aliases = f"{_ALIASES[role]} {extra}".split()
    return given or next((folded[alias] for alias in aliases if alias in folded), None)


def need_column(
    columns: Sequence[str], role: str, given: str | None, path: Path, extra: str = ""
) -> str:
    """Return what :func:`find_column` returns; a missing column is an error.

    Raises:
        DataError: There is no such column; the message lists the columns and says what to do.
    """
    column = find_column(columns, role, given, path, extra)
    if column is None:
        raise no_column(path, f"{role} column", role, columns)
    return column


def looks_like_data(columns: Sequence[str]) -> bool:
    """Return whether the names of columns are rather the values of a first row."""
    return any(map(_NUMBER.fullmatch, columns)) and sum(map(usual, columns)) < 2


def no_column(
    path: Path, what: str, role: str, columns: Sequence[str], header: str = "--columns"
) -> DataError:
    """Return the error for a missing column.

    Args:
        path: the file.
        what: what is missing, e.g. ``"column 'x'"``.
        role: e.g. ``"user_id"``.
        columns: the columns of the table.
        header: the option that names the columns of a file without a header.
    """
    binary = not path.exists() or not _BINARY.isdisjoint(path.suffixes)
    remedy = _remedy(role, columns, None if binary else header)
    return DataError(f"{path}: no {what} among {shown(columns)}; {remedy}")


def shown(names: Sequence[str]) -> str:
    """Return names for a message, which stays short whatever the names are."""
    cut = [name if len(name) <= _LONG_NAME else f"{name[:_LONG_NAME]}…" for name in names[:20]]
    return ", ".join(cut) + (f" and {len(names) - 20} more" if names[20:] else "")


def quantity_columns(columns: Sequence[str]) -> list[str]:
    """Return the columns of quantities, recognised by their usual names."""
    return [name for name in columns if _folded(name) in _QUANTITIES.split()]


def order_column(columns: Sequence[str]) -> str | None:
    """Return the column that orders each user's items, recognised by its usual names."""
    return next((name for name in columns if _folded(name) in _ORDERS.split()), None)


def option(role: str) -> str:
    """Return the option of the command line that names the column of a role."""
    return "--item-table-id" if role == "item_table_id" else f"--{role.removesuffix('_id')}"


def _remedy(role: str, columns: Sequence[str], header: str | None) -> str:
    name = option(role)[2:].replace("-", "_")
    if header is not None and looks_like_data(columns):
        items = role == "item_table_id" or header != "--columns"
        header = "--item-columns" if items else header
        example = "item,title" if items else "user,item,rating,timestamp"
        return (
            f"line 1 looks like data: name the columns with {header}, e.g. {header} {example} (in "
            f"Python {header[2:].replace('-', '_')}=[…])"
        )
    if header is not None and len(columns) == 1:
        return (
            "the table has one column only: separate the fields by a comma, semicolon, tab, bar, "
            "^ or ~, and remove lines above the names of the columns"
        )
    remedy = f"name it with {option(role)} COLUMN (in Python {name}=COLUMN)"
    if role != "timestamp":
        return remedy
    order = order_column(columns) or ROW
    meaning = (
        "if the rows are in order of time"
        if order == ROW
        else "if that column orders each user's items"
    )
    return f"{remedy}, or give --timestamp {order} {meaning}"


def _folded(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
