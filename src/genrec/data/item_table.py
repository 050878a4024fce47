"""The item table: one row per item with its title and metadata.

If the log itself holds the titles, its other columns that say the same of an item in every row
become metadata.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import polars as pl

from genrec.data.column_types import flat_column, ids_of, numbers_or_text, plain_columns, text_of
from genrec.data.columns import find_column, no_column
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
    log: pl.DataFrame, path: Path, item: str, title: str, others: Collection[str]
) -> tuple[pl.DataFrame, dict[str, object], list[str]]:
    """Return the item table that a log with titles contains.

    Args:
        log: the rows.
        path: the file, for messages.
        item: name of the id column.
        title: name of the title column.
        others: columns that may describe items.

    Returns:
        What :func:`read_items` returns, and the names of the columns that describe items.

    Raises:
        DataError: The ids or titles are no plain values.
    """
    table = log.select(item, title, *(flat_column(log[name]) for name in others))
    values = table.drop_nulls(item).group_by(item).agg(pl.exclude(title).drop_nulls().unique())
    kept = [name for name in others if (values[name].list.len() <= 1).all()]
    return *_unique_items(table.select(item, title, *kept), item, title, path), kept


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
