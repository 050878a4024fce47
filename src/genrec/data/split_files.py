"""A split by name, or one that was made elsewhere and lies in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from genrec.data.dataset import Dataset
from genrec.data.histories import histories_of
from genrec.data.interactions import read_interactions
from genrec.data.splits import SPLITS, Split, split_at
from genrec.errors import DataError

PARTS = ("train", "valid", "test")


SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl")


def split_dataset(data: Dataset, name: str) -> Split:
    """Split by the name that the command line and ``genrec.json`` use, or as a folder says.

    Raises:
        DataError: neither a known name nor a folder with train, valid and test.
    """
    if name in SPLITS:
        return SPLITS[name](data)
    if Path(name).is_dir():
        return read_split(data, Path(name))
    raise DataError(
        f"Unknown split {name!r}; known are {', '.join(SPLITS)}, or give a folder with the tables "
        "train, valid and test."
    )


def read_split(data: Dataset, folder: Path) -> Split:
    """A split made elsewhere: tables train, valid and test with users, items and timestamps.

    A user's first row in valid and in test is asked for; users without a training row are not
    asked. The order of the parts is taken as it is: the leak checks look at the times.

    Raises:
        DataError: a table or column is missing, or an item is not in the catalogue of ``data``.
    """
    tables = [_read_part(data, folder, part, number) for number, part in enumerate(PARTS)]
    table = pl.concat(tables).sort("user_id", "part", "timestamp", maintain_order=True)
    users = table.group_by("user_id", maintain_order=True).agg(
        *((pl.col("part") == number).sum().alias(part) for number, part in enumerate(PARTS))
    )
    train, valid, test = (users[part].to_numpy().astype(np.int64) for part in PARTS)
    whole = histories_of(table, train + valid + test, users["user_id"].to_list())
    facts: dict[str, Any] = {"rows": {p: t.height for p, t in _named(tables)}}
    parts = []
    for name, known, rows in (("valid", train, valid), ("test", train + valid, test)):
        asked = np.flatnonzero((rows > 0) & (train > 0))
        facts[f"{name}_users_without_history"] = int(((rows > 0) & (train == 0)).sum())
        facts[f"{name}_later_items_not_asked"] = int(rows[asked].sum()) - len(asked)
        parts.append((asked, known[asked]))
    rows = np.flatnonzero(train)
    own = Dataset(data.name, data.catalogue, whole, data.provenance)
    own_train = whole.head(rows, train[rows])
    return split_at(own, own_train, parts, str(folder), facts, whole=data.fingerprint)


def _named(tables: list[pl.DataFrame]) -> zip[tuple[str, pl.DataFrame]]:
    return zip(PARTS, tables, strict=True)


def _read_part(data: Dataset, folder: Path, part: str, number: int) -> pl.DataFrame:
    paths = [path for suffix in SUFFIXES if (path := folder / f"{part}{suffix}").is_file()]
    if len(paths) != 1:
        found = f"{len(paths)} of them are" if paths else "none is"
        wanted = ", ".join(f"{part}{suffix}" for suffix in SUFFIXES)
        raise DataError(f"{folder}: one of {wanted} is needed, {found} there.")
    log = read_interactions(paths[0]).log
    index = {item_id: number for number, item_id in enumerate(data.catalogue.item_ids)}
    items = log["item_id"].replace_strict(index, default=None, return_dtype=pl.Int32)
    if items.null_count():
        unknown = log["item_id"].filter(items.is_null())[0]
        raise DataError(
            f"{paths[0]}: item {unknown!r} is not in the data set {data.name}; prepare the data "
            "set from the log that was split."
        )
    return pl.DataFrame(
        {"user_id": log["user_id"], "item": items, "timestamp": log["timestamp"]}
    ).with_columns(part=pl.lit(number))
