"""What was understood of a log and its item table, to look at before a data set is made."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from genrec.data.interactions import Interactions
from genrec.data.timestamps import A_DATE


def overview(read: Interactions) -> dict[str, Any]:
    """Summarise a log that has been read.

    Args:
        read: the log and its item table.

    Returns:
        Numbers of rows, users and items; for each role the column, its type in the file and its
        first value as read; unit, first and last time; dropped rows; the item table; notes.
    """
    source, rows = cast(dict[str, Any], read.source), read.rows
    log = replace(read, rows=rows.head(1)).log
    columns = {
        role: {"column": name, "type": source["types"][role], "first": log[role][0]}
        for role, name in source["columns"].items()
    }
    times = {"unit": source["timestamp_unit"], "first": rows["timestamp"].min()}
    times["last"] = rows["timestamp"].max()
    if times["first"] > A_DATE:
        for end in ("first", "last"):
            with suppress(ValueError, OverflowError, OSError):  # no date after the year 9999
                times[end] = datetime.fromtimestamp(times[end], UTC).isoformat(" ", "seconds")
    facts = {
        "log": source["log"],
        "layout": source["layout"],
        "rows": source["rows_read"],
        "interactions": rows.height,
        "users": len(read.user_ids),
        "items": len(read.item_ids),
        "columns": columns,
        "times": times,
        "dropped": source["dropped"],
        "item_table": source["item_table"],
    }
    if read.items is not None:
        titled = read.items.drop_nulls("title")
        known = read.item_ids.to_frame("item_id")
        facts["items_without_title"] = known.join(titled, on="item_id", how="anti").height
        facts["items_without_interactions"] = read.items.join(
            known, on="item_id", how="anti"
        ).height
        facts["metadata"] = [n for n in read.items.columns if n not in ("item_id", "title")]
    return {**facts, "notes": source["notes"]}
