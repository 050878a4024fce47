"""Reading and validation of an interaction log and its item table.

The log may be given as the folder that holds it. An item table beside the log is found by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

import polars as pl

from genrec.data.column_types import is_plain, numbers_of, plain_columns
from genrec.data.columns import (
    ROW,
    ColumnNames,
    date_and_time,
    find_column,
    need_column,
    no_column,
    option,
    order_column,
    rival_notes,
)
from genrec.data.event_kinds import wanted_events
from genrec.data.formats import Table, read_table
from genrec.data.frames import polars_frame
from genrec.data.item_table import item_notes, items_of_log, read_items, shared_item
from genrec.data.locate import locate
from genrec.data.log_rows import (
    KEY,
    coded_ids,
    id_notes,
    quantity_notes,
    without_repeated,
    without_unused,
)
from genrec.data.timestamps import (
    formats_of,
    seconds_of,
    tie_remarks,
    time_remarks,
    unclear_dates,
)
from genrec.errors import DataError


@dataclass(frozen=True)
class Interactions:
    """A validated log and its item table.

    A log repeats each id many times, so the rows hold the places of the ids in two lists.

    Attributes:
        rows: one row per interaction with the columns user (u32: place in ``user_ids``), item (u32:
            place in ``item_ids``), timestamp (f64: seconds since 1970, or any number that orders
            the rows) and row (u32: position in the file from 0, which breaks ties), all without
            nulls. If the log has them, also rating (f64) and review (str).
        user_ids: the users of the log (str), sorted by (length, id).
        item_ids: the items of the log (str), likewise.
        items: one row per item with the columns item_id (str, unique), title (str or null) and the
            other columns of the item table unchanged; ``None`` if there are no titles at all.
        source: names of the files, the chosen columns, and the dropped rows by reason.
    """

    rows: pl.DataFrame
    user_ids: pl.Series
    item_ids: pl.Series
    items: pl.DataFrame | None = None
    source: dict[str, object] = field(default_factory=dict)

    @property
    def log(self) -> pl.DataFrame:
        """The rows with the columns user_id and item_id (str) instead of user and item."""
        rows = self.rows
        ids = [
            self.user_ids.gather(rows["user"]).alias("user_id"),
            self.item_ids.gather(rows["item"]).alias("item_id"),
        ]
        return rows.select(*ids, pl.exclude("user", "item"))


def read_interactions(
    log: str | Path,
    *,
    items: str | Path | None = None,
    positive: Sequence[str] | None = None,
    timestamp_format: str | None = None,
    columns: Sequence[str] | None = None,
    item_columns: Sequence[str] | None = None,
    encoding: str | None = None,
    **names: Unpack[ColumnNames],
) -> Interactions:
    """Read and validate an interaction log and its item table.

    Args:
        log: a file in any supported format, or a folder that holds one log or its parts.
        items: the item table; if ``None``, a table with the usual name beside the log is used.
        positive: kinds of events to keep; all but :data:`.DISLIKES` if ``None``.
        timestamp_format: format of the timestamps as ``strptime`` has it, e.g. ``"%d/%m/%Y"``;
            recognised if ``None``.
        columns: names of all columns of the log if it is a text file without a header.
        item_columns: likewise, of the item table.
        encoding: encoding of text files; recognised if ``None``.
        names: names of columns that do not have usual names; see
            :class:`~genrec.data.columns.ColumnNames`.

    Raises:
        DataError: A file or a column is missing, or a value is invalid; the message names the file
            and the column and suggests a remedy.
    """
    path, items_path = locate(Path(log), None if items is None else Path(items))
    tables = [read_table(path, columns, encoding)]
    there = None if items_path is None else read_table(items_path, item_columns, encoding)
    pair = None if there is None or items_path is None else (there.rows, items_path)
    notes = tables[0].notes + ([] if there is None else there.notes)
    own = find_column(tables[0].rows.columns, "title", None, path)
    if items is None and pair is not None and own and tables[0].layout == "table":
        notes.append(f"{path}: titles come from {pair[1].name}, not from its own column {own!r}")
    reader = _Reader(path, names, positive, timestamp_format, notes)
    return reader.interactions(tables.pop(), pair, path.name)


def interactions_of_table(
    table: Table, path: Path, *, timestamp_format: str | None = None, **names: Unpack[ColumnNames]
) -> Interactions:
    """Validate a log that :func:`.read_table` has read; its errors are those of this function.

    Args:
        table: the rows.
        path: the file, for messages.
        timestamp_format: as in :func:`read_interactions`.
        names: likewise.
    """
    reader = _Reader(path, names, None, timestamp_format, list(table.notes))
    return reader.interactions(table, None, path.name)


def interactions_from_frames(
    interactions: Any,
    items: Any = None,
    *,
    positive: Sequence[str] | None = None,
    timestamp_format: str | None = None,
    **names: Unpack[ColumnNames],
) -> Interactions:
    """Validate a log and an item table that are pandas or Polars data frames.

    The arguments and errors are those of :func:`read_interactions`.
    """
    table = Table(polars_frame(interactions, "interactions"), "table", [])
    pair = None if items is None else (polars_frame(items, "items"), Path("items"))
    reader = _Reader(Path("interactions"), names, positive, timestamp_format, [])
    return reader.interactions(table, pair, "a data frame")


@dataclass(frozen=True)
class _Reader:
    """Validates one log and its item table.

    Attributes:
        path: the log, for messages.
        names: the columns that the user named.
        positive: the kinds of events to keep.
        timestamp_format: format of the timestamps.
        notes: what the user should know; the list grows while reading.
    """

    path: Path
    names: ColumnNames
    positive: Sequence[str] | None
    timestamp_format: str | None
    notes: list[str]

    def interactions(
        self, table: Table, items: tuple[pl.DataFrame, Path] | None, name: str
    ) -> Interactions:
        """Find the columns and validate the log and the item table."""
        frame, layout, _ = table
        del table  # a large log is not kept twice
        item, item_of_items = self._item_columns(frame.columns, items)
        timestamp = self.names.get("timestamp")
        if timestamp == ROW and ROW not in frame.columns:
            frame = frame.with_row_index(ROW)
        elif timestamp is None and (both := date_and_time(frame.columns)):
            raise DataError(
                f"{self.path}: the columns {both[0]!r} and {both[1]!r} may both be a part of the "
                "time; join them in one column, or choose one with --timestamp COLUMN"
            )
        needed = {"user_id": self.names.get("user"), "item_id": item, "timestamp": timestamp}
        columns = {
            role: need_column(frame.columns, role, given, self.path)
            for role, given in needed.items()
        }
        if layout == "table":
            named = {**needed, "item_id": self.names.get("item")}
            self.notes.extend(rival_notes(frame.columns, columns, named, self.path))
        columns |= self._optional_columns(frame)
        if items is None:
            found, facts = self._own_items(frame, columns, layout)
        else:
            found, facts = read_items(*items, item_of_items, self.names.get("title"))
        if facts is not None:
            self._note_titles(str(facts["title_column"]), *(items or (frame, self.path)))
        types = {role: str(frame.schema[column]) for role, column in columns.items()}
        types.pop("kind", None)
        frame = plain_columns(frame, columns, self.path)
        kind = columns.pop("kind", None)
        frame, places = self._wanted(frame, kind)
        others, by_role = frame.columns, {role: frame[each] for role, each in columns.items()}
        del frame
        by_role["row"] = places
        read, counts = self._validated(by_role, columns, order_column(others))
        if found is not None and facts is not None:
            self.notes.extend(item_notes(read.item_ids, found, facts, own=items is not None))
        source = {"log": name, "layout": layout, "columns": columns, "types": types, **counts}
        return replace(
            read, items=found, source={**source, "item_table": facts, "notes": self.notes}
        )

    def _note_titles(self, chosen: str, table: pl.DataFrame, path: Path) -> None:
        """Note if another column might hold the titles as well."""
        named = {"title": self.names.get("title")}
        self.notes.extend(rival_notes(table.columns, {"title": chosen}, named, path))

    def _wanted(self, frame: pl.DataFrame, kind: str | None) -> tuple[pl.DataFrame, pl.Series]:
        """Keep the events of some kinds; return them and their places in the file, from 0."""
        wanted, told = wanted_events(frame, kind, self.positive, self.path)
        places = pl.int_range(frame.height, dtype=pl.UInt32, eager=True).alias("row")
        if wanted is not None:
            frame, places = frame.filter(wanted), places.filter(wanted)
        self.notes.extend([*told, *quantity_notes(frame, self.path)])
        return frame, places

    def _item_columns(
        self, columns: Sequence[str], items: tuple[pl.DataFrame, Path] | None
    ) -> tuple[str | None, str | None]:
        """Return the id columns of the log and of the item table, ``None`` for those to recognise.

        ``item`` may name the column of both tables or of one of them. If it is not given, a column
        that both tables have comes first.
        """
        item, own = self.names.get("item"), self.names.get("item_table_id")
        if items is None:
            if own is not None:
                raise DataError(f"{self.path}: --item-table-id needs an item table (--items FILE)")
            return item, None
        there = items[0].columns
        if own is not None and own not in there:
            raise no_column(items[1], f"column {own!r}", "item_table_id", there)
        if item is None and own is None:
            item = shared_item(columns, items[0], self.path)
        own = own or (item if item in there else None)
        return (None if item in there and item not in columns else item), own

    def _own_items(
        self, frame: pl.DataFrame, columns: dict[str, str], layout: str
    ) -> tuple[pl.DataFrame | None, dict[str, object] | None]:
        """Return the item table that the log itself contains, if it has titles."""
        title = self.names.get("title")
        # In Amazon logs the column `title` holds the headline of the review, not the item's title.
        if title is None and layout == "amazon":
            return None, None
        items, facts, notes = items_of_log(frame, self.path, columns, title)
        self.notes.extend(notes)
        return items, facts

    def _optional_columns(self, frame: pl.DataFrame) -> dict[str, str]:
        """Return the columns of ratings, reviews and kinds by role.

        A column that the user named must exist and fit; any other is left out with a note.
        """
        given = {"rating": self.names.get("rating"), "review": self.names.get("review")}
        columns = {}
        for role, name in {**given, "kind": self.names.get("kind")}.items():
            found = find_column(frame.columns, role, name, self.path)
            reason = "" if found is None or name else _unfit(frame[found], role)
            if found is not None and not reason:
                columns[role] = found
            elif found is not None:
                self.notes.append(
                    f"{self.path}: column {found!r} is no {role}, because {reason}; name another "
                    f"one with {option(role)} COLUMN, or decline with {option(role)} none"
                )
        return columns

    def _validated(
        self, columns: dict[str, pl.Series], names: dict[str, str], order: str | None
    ) -> tuple[Interactions, dict[str, object]]:
        """Convert the columns to their types and drop rows without ids and repeated rows.

        Args:
            columns: the columns by role, and ``row``, the place of each row in the file; the
                dictionary is emptied.
            names: their names.
            order: a column that may replace the times.

        Returns:
            The log without an item table, and facts about what was read.
        """
        users, user_ids = coded_ids(columns.pop("user_id"), self.path)
        items, item_ids = coded_ids(columns.pop("item_id"), self.path)
        table = pl.DataFrame({"user": users, "item": items, **columns})
        columns.clear()
        nothing = pl.all_horizontal(pl.exclude("row").is_null())
        blank = table.filter(pl.col("user").is_null()).select(nothing.sum()).item()
        read = table.height - blank
        table = table.drop_nulls("user")
        with_user = table.height
        table = table.drop_nulls("item")
        with_both = table.height
        if with_both == 0:
            raise DataError(
                f"{self.path}: no row has both a user and an item; check --user and --item"
            )
        table, user_ids = without_unused(table, "user", user_ids)
        table, item_ids = without_unused(table, "item", item_ids)
        for role, ids in (("user", user_ids), ("item", item_ids)):
            self.notes.extend(id_notes(ids, table[role], self.path))
        table, unit = self._converted(table, names, order)
        table = without_repeated(table)
        dropped = {
            "null_user": read - with_user,
            "null_item": with_user - with_both,
            "duplicate": with_both - table.height,
        }
        reasons = ("without a user id", "without an item id", "repeated")
        pairs = zip(reasons, dropped.values(), strict=True)
        if told := [f"{count} {reason}" for reason, count in pairs if count]:
            self.notes.append(f"{self.path}: dropped rows: {', '.join(told)}")
        rows = table.select("user", "item", "timestamp", "row", pl.exclude(*KEY, "row"))
        facts = {"rows_read": read, "timestamp_unit": unit, "dropped": dropped}
        return Interactions(rows, user_ids, item_ids), facts

    def _converted(
        self, known: pl.DataFrame, columns: dict[str, str], order: str | None
    ) -> tuple[pl.DataFrame, str]:
        """Return the rows with times in seconds, ratings and reviews, and the unit of the times.

        ``order`` is a column that may replace the times.
        """
        times = known["timestamp"]
        seconds, unit, remark = seconds_of(times, self.timestamp_format)
        self._check(known, "timestamp", seconds.is_finite(), columns, order)
        name, remarks = columns["timestamp"], [remark] if remark else []
        remarks += time_remarks(times, seconds, unit) if name != ROW else ()
        known = known.with_columns(seconds.alias("timestamp"))
        remarks += tie_remarks(known)
        self.notes.extend(f"{self.path}: column {name!r} {each}" for each in remarks)
        if "rating" in columns:
            ratings = numbers_of(known["rating"])
            self._check(known, "rating", ratings.is_not_null() | known["rating"].is_null(), columns)
            known = known.with_columns(ratings)
        if "review" in columns:
            known = known.with_columns(pl.col("review").cast(pl.String))
        return known, unit

    def _check(
        self,
        frame: pl.DataFrame,
        role: str,
        good: pl.Series,
        columns: dict[str, str],
        order: str | None = None,
    ) -> None:
        bad = ~good.fill_null(False)
        if not bad.any():
            return
        row, value = frame.filter(bad).select("row", role).row(0)
        first = f"{'empty' if value is None else repr(str(value))} in data row {row + 1}"
        kind, remedy = "numbers", "correct them"
        if role == "timestamp" and self.timestamp_format:
            kind = f"times of the format {self.timestamp_format!r}"
        elif role == "timestamp":
            kind = "numbers or times in a known format"
            remedy = "correct them, name their format with --timestamp-format '%d/%m/%Y %H:%M'"
            if unclear_dates(frame["timestamp"]) and (forms := formats_of(str(value))):
                kind = "clear times, because the day or the month may come first"
                remedy = f"say which with --timestamp-format {' or '.join(map(repr, forms))}"
        raise DataError(
            f"{self.path}: {bad.sum()} values of column {columns[role]!r} are not {kind}, the first"
            f" {first}; {remedy}, or name another column with {option(role)} {order or 'COLUMN'}"
        )


def _unfit(column: pl.Series, role: str) -> str:
    """Return why a column that was recognised by its name cannot have that role, or ""."""
    if not is_plain(column.dtype) or (role == "rating" and column.dtype == pl.Binary):
        return f"it holds {column.dtype} values"
    if role == "rating":
        bad = column.filter(numbers_of(column).is_null() & column.is_not_null())
        if len(bad):
            return f"{len(bad)} values are no numbers, the first {bad[0]!r}"
    return ""
