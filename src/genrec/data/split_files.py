"""Splits by name, and splits that were made elsewhere and are read from a folder."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from genrec.arrays import Mask
from genrec.data.dataset import Dataset
from genrec.data.formats import read_table
from genrec.data.histories import histories_of
from genrec.data.interactions import Interactions, interactions_of_table
from genrec.data.splits import SPLITS, Split, is_split_name, split_at, split_by_name
from genrec.data.timestamps import seconds_of
from genrec.errors import DataError

TABLES = ("train", "valid", "test")


SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl")


def split_dataset(data: Dataset, name: str) -> Split:
    """Split a data set by the name of a split, or read a split from a folder.

    Args:
        data: the complete data set.
        name: ``"leave-last-out"``, ``"global-time"`` with or without options such as
            ``"global-time,target=last"`` (see :func:`.split_by_name`), or a folder with the tables
            train, valid and test (see :func:`read_split`).

    Raises:
        DataError: ``name`` is neither the name of a split nor a folder.
        ConfigError: An option of the split is unknown or invalid.
    """
    if is_split_name(name):
        return split_by_name(data, name)
    if Path(name).is_dir():
        return read_split(data, Path(name))
    raise DataError(
        f"Unknown split {name!r}; give {', '.join(SPLITS)}, or a folder with the tables train, "
        "valid and test."
    )


def read_split(data: Dataset, folder: Path) -> Split:
    """Read a split that was made elsewhere.

    The first row of a user in valid and in test is that user's target. Users without a training
    row get no target. Columns may have the names that they had in the log of the data set. The
    order of the parts is not checked here; the leak checks compare their times.

    Args:
        data: the data set that was split; it provides the catalogue.
        folder: holds the tables train, valid and test (Parquet, CSV, TSV or JSON lines) with
            users, items and timestamps.

    Raises:
        DataError: A table or column is missing, or an item is not in the catalogue of ``data``.
    """
    notes: list[str] = []
    tables = [_read_part(data, folder, part, number, notes) for number, part in enumerate(TABLES)]
    table = pl.concat(tables, how="diagonal_relaxed").sort(
        "user_id", "part", "timestamp", maintain_order=True
    )
    users = table.group_by("user_id", maintain_order=True).agg(
        *((pl.col("part") == number).sum().alias(part) for number, part in enumerate(TABLES))
    )
    train, valid, test = (users[part].to_numpy().astype(np.int64) for part in TABLES)
    whole = histories_of(table, train + valid + test, users["user_id"].to_list())
    facts: dict[str, Any] = {"rows": {p: t.height for p, t in _named(tables)}}
    parts = []
    for name, known, rows in (("valid", train, valid), ("test", train + valid, test)):
        targeted = np.flatnonzero((rows > 0) & (train > 0))
        facts[f"{name}_users_without_history"] = int(((rows > 0) & (train == 0)).sum())
        facts[f"{name}_later_items_not_asked"] = int(rows[targeted].sum()) - len(targeted)
        _check_users(folder, name, users["user_id"], train > 0, rows > 0, notes)
        parts.append((targeted, known[targeted]))
    if notes:
        facts["notes"] = notes
    rows = np.flatnonzero(train)
    own = Dataset(data.name, data.catalogue, whole, data.provenance)
    sizes = np.stack([train, valid, test]).astype("<i8")
    facts["fingerprint"] = sha256(own.fingerprint.encode() + sizes.tobytes()).hexdigest()[:16]
    own_train = whole.head(rows, train[rows])
    return split_at(own, own_train, parts, str(folder), facts, whole=data.fingerprint)


def _check_users(
    folder: Path, part: str, ids: pl.Series, trained: Mask, asked: Mask, notes: list[str]
) -> None:
    """Note users of valid or test who have no training row; refuse if that is all of them.

    The parts may write their ids in different ways.
    """
    missing = np.flatnonzero(asked & ~trained)
    if not len(missing):
        return
    example = (
        f"{ids[int(missing[0])]!r}, while train has users such as {ids[int(trained.argmax())]!r}"
    )
    if len(missing) == asked.sum():
        raise DataError(
            f"{folder}: no user of {part} has a row in train (the first is {example}); write the "
            "ids in the same way in all parts"
        )
    notes.append(
        f"{folder}: users of {part} without a row in train, who get no target: {len(missing)}, "
        f"e.g. {example}"
    )


def _named(tables: list[pl.DataFrame]) -> zip[tuple[str, pl.DataFrame]]:
    return zip(TABLES, tables, strict=True)


def _read_part(
    data: Dataset, folder: Path, part: str, number: int, notes: list[str]
) -> pl.DataFrame:
    paths = [path for suffix in SUFFIXES if (path := folder / f"{part}{suffix}").is_file()]
    if len(paths) != 1:
        found = f"holds {len(paths)} of them" if paths else "holds none of them"
        wanted = ", ".join(f"{part}{suffix}" for suffix in SUFFIXES)
        raise DataError(f"{folder}: exactly one of {wanted} is needed, but the folder {found}.")
    read = _read_log(data, paths[0])
    notes.extend(cast(list[str], read.source["notes"]))
    log = read.log
    index = {item_id: number for number, item_id in enumerate(data.catalogue.item_ids)}
    items = log["item_id"].replace_strict(index, default=None, return_dtype=pl.Int32)
    if items.null_count():
        unknown = log["item_id"].filter(items.is_null())[0]
        raise DataError(
            f"{paths[0]}: item {unknown!r} is not in the data set {data.name}; prepare the data "
            "set from the log that was split."
        )
    kept = ["user_id", "timestamp", *({"rating", "review"} & {*log.columns})]
    return log.select(kept).with_columns(item=items, part=pl.lit(number))


def _read_log(data: Dataset, path: Path) -> Interactions:
    """Read a part; columns that the log of the data set had are read as they were there."""
    table = read_table(path)
    source: Any = data.provenance.preparation.get("source", {})
    roles = ("user_id", "item_id", "timestamp", "rating", "review")
    known = {role: source.get("columns", {}).get(role) for role in roles}
    names: Any = {
        role.removesuffix("_id"): name for role, name in known.items() if name in table.rows.columns
    }
    unit = source.get("timestamp_unit", "")
    form = None
    if "%" in unit and "timestamp" in names:  # the parts may have another form than the log
        first = table.rows[names["timestamp"]].head(1)
        same = first.dtype == pl.String and not seconds_of(first, unit)[0].has_nulls()
        form = unit if same else None
    return interactions_of_table(table, path, timestamp_format=form, **names)
