"""The item table: one row per item with its title and metadata.

If the log itself holds the titles, its other columns that say the same of an item in every row
become metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import polars as pl

from genrec.data.column_types import flat_column, ids_of, numbers_or_text, plain_columns, text_of
from genrec.data.columns import find_column, no_column, shown
from genrec.data.log_rows import NULL_LIKE


def read_items(
    table: pl.DataFrame, path: Path, item: str | None, title: str | None
) -> tuple[pl.DataFrame, dict[str, object]]:
    """Find the columns of an item table and validate it.

    Args:
        table: the rows.
        path: the file, for messages.
        item: name of the id column; recognised if ``None``.
        title: name of the title column; recognised if ``None``.

    Returns:
        One row per item with the columns item_id, title and the others, and facts on what was read.

    Raises:
        DataError: A column is missing or has no plain values.
    """
    item = find_column(table.columns, "item_id", item, path, extra="id")
    if item is None:
        raise no_column(path, "item id column", "item_table_id", table.columns)
    title = find_column(table.columns, "title", title, path)
    if title is None:
        raise no_column(path, "title column", "title", table.columns, header="--item-columns")
    return _unique_items(table, item, title, path)


def items_of_log(
    log: pl.DataFrame, path: Path, columns: Mapping[str, str], given: str | None
) -> tuple[pl.DataFrame | None, dict[str, object] | None, list[str]]:
    """Return the item table that a log with titles contains.

    A column that was recognised by its name is declined if it cannot hold the titles of items.

    Args:
        log: the rows.
        path: the file, for messages.
        columns: the columns of the log that have another role, by role.
        given: the title column that the user named, or ``None``.

    Returns:
        What :func:`read_items` returns, or ``None`` twice if the log has no titles; and notes.

    Raises:
        DataError: The ids or titles are no plain values, or the given column does not exist.
    """
    item = columns["item_id"]
    title = find_column(log.columns, "title", given, path)
    if title is None:
        return None, None, []
    others = [name for name in log.columns if name not in {*columns.values(), title}]
    table = log.select(*dict.fromkeys((item, title)), *(flat_column(log[name]) for name in others))
    values = table.drop_nulls(item).group_by(item).agg(pl.exclude(title).drop_nulls().unique())
    kept = [name for name in others if (values[name].list.len() <= 1).all()]
    table = table.select(*dict.fromkeys((item, title)), *kept)
    items, facts = _unique_items(table, item, title, path)
    reason = ""
    if 2 * cast(int, facts["conflicting_titles"]) > items.height:
        reason = "most items have several values"
    elif title.lower() == "name" and _is_of_users(log, columns["user_id"], item, title):
        reason = "all items of a user have the same value"
    if reason and given is None:
        note = (
            f"{path}: column {title!r} is no item title, because {reason}; name another one with "
            "--title COLUMN, or give --items FILE"
        )
        return None, None, [note]
    notes = [f"{path}: kept as metadata of the items: {shown(kept)}"] if kept else []
    return items, facts, notes


def shared_item(log: Sequence[str], table: pl.DataFrame, path: Path) -> str | None:
    """Return the column of item ids that a log and its item table both have, if there is one.

    It must be the first one of the log, or tell the rows of the item table apart.

    Args:
        log: the columns of the log.
        table: the item table.
        path: the log, for messages.
    """
    first = find_column(log, "item_id", None, path)
    both = [name for name in log if name in table.columns]
    shared = find_column(both, "item_id", None, path)
    known = shared is not None and (shared == first or table[shared].drop_nulls().is_unique().all())
    return shared if known else None


def _is_of_users(log: pl.DataFrame, user: str, item: str, title: str) -> bool:
    """Return whether a column has one value for each user who has several items."""
    by_user = (
        log.drop_nulls([item, title])
        .group_by(user)
        .agg(items=pl.col(item).n_unique(), titles=pl.col(title).n_unique())
    )
    several = by_user.filter(pl.col("items") > 1)
    return several.height > 0 and bool((several["titles"] == 1).all())


def _unique_items(
    table: pl.DataFrame, item: str, title: str, path: Path
) -> tuple[pl.DataFrame, dict[str, object]]:
    """Join the rows of each item id and count dropped and conflicting rows.

    The first row with a title counts. A value that it lacks comes from the next row with one.
    """
    table = plain_columns(table, {"item_id": item, "title": title}, path)
    named = [
        ids_of(table[item], path).alias("item_id"),
        text_of(table[title]).alias("title"),
    ]
    others = [name for name in table.columns if name not in (item, title, "item_id", "title")]
    metadata = (numbers_or_text(flat_column(table[name])) for name in others)
    frame = pl.DataFrame([*named, *metadata])
    known = frame.drop_nulls("item_id")
    titles = known.select("item_id", "title").drop_nulls().unique()
    first = known.sort(pl.col("title").is_null(), maintain_order=True)
    filled = pl.exclude("item_id").drop_nulls().first()
    items = first.group_by("item_id", maintain_order=True).agg(filled)
    return items, {
        "file": path.name,
        "title_column": title,
        "rows_read": frame.height,
        "null_ids": frame.height - known.height,
        "duplicate_ids": known.height - items.height,
        "conflicting_titles": titles.height - titles["item_id"].n_unique(),
    }


def item_notes(
    log: pl.Series, items: pl.DataFrame, facts: Mapping[str, object], *, own: bool
) -> Iterator[str]:
    """Yield what a user should know of an item table.

    Args:
        log: the distinct item ids of the log.
        items: the table.
        facts: the facts on what was read.
        own: whether the items have a table of their own, where one row for each is expected.
    """
    path = facts["file"]
    if several := facts["conflicting_titles"]:
        yield f"{path}: items with several titles, of which the first was kept: {several}"
    words = items["title"].drop_nulls().str.strip_chars()
    for word, count in (
        words.filter(words.str.to_lowercase().is_in(NULL_LIKE)).value_counts().rows()
    ):
        yield (
            f"{path}: the title {word!r} was kept (items: {count}); if it means a missing title, "
            "leave it empty in the file"
        )
    if 2 * (addresses := words.str.contains(r"^https?://\S+$")).sum() > len(words):
        yield (
            f"{path}: most titles are web addresses, e.g. {words.filter(addresses)[0]!r}; if "
            "another column holds the titles, name it with --title COLUMN"
        )
    if own and (blank := facts["null_ids"]):
        yield f"{path}: rows without an item id, which were left out: {blank}"
    if own and (repeated := facts["duplicate_ids"]):
        yield f"{path}: rows that repeat an item id, of which the first value counts: {repeated}"
    missing = log.to_frame("item_id").join(items, on="item_id", how="anti")["item_id"]
    if 0 < len(missing) < len(log):  # no match at all is an error later
        examples = ", ".join(map(repr, missing.sort().head(3)))
        bare = set(items["item_id"].str.strip_chars_start("0")) & set(
            missing.str.strip_chars_start("0")
        )
        zeros = "; they would be without leading zeros, so compare the ids" if bare else ""
        yield f"{path}: {len(missing)} items of the log are missing, e.g. {examples}{zeros}"
