"""The commands `genrec data list`, `genrec data get` and `genrec prepare`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.cli.options import Json, Seed, split_names
from genrec.cli.output import megabytes, print_json, print_table
from genrec.errors import ConfigError


def data_list(
    every: Annotated[
        bool, typer.Option("--all", help="Also list every category of the Amazon reviews.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the data sets and language models that are known by name."""
    from genrec.assets.known import list_assets

    assets = list_assets()
    if as_json:
        return print_json([asdict(asset) for asset in assets])
    rows: dict[str, tuple[str, ...]] = {}
    for a in assets:
        family, slash, _ = a.name.partition("/")
        name = f"{family}/CATEGORY" if slash and not (every or a.cached) else a.name
        cached = "cached" if a.cached else ""
        rows.setdefault(name, (a.kind, name, cached, megabytes(a.size), a.licence))
    # With all names listed, the licence column would truncate names that users need to copy.
    shown = 4 if every else 5
    header = ("kind", "name", "", "MB", "licence")[:shown]
    print_table(header, [row[:shown] for row in rows.values()])
    if not every:
        print("Run `genrec data list --all` to list the categories.")
    return None


def data_get(
    name: Annotated[
        str, typer.Argument(help="Name of a data set or model (see `genrec data list`).")
    ],
) -> None:
    """Download a data set or language model into the cache and print its path."""
    from genrec.assets.known import backbone_folder, dataset_files, list_assets

    kinds = {asset.name: asset.kind for asset in list_assets()}
    print(backbone_folder(name) if kinds.get(name) == "backbone" else dataset_files(name))


if TYPE_CHECKING:
    from genrec.data.dataset import Dataset
    from genrec.data.interactions import Interactions

LARGE = 50_000_000
"""Bytes of a log from which on `genrec prepare` announces its steps."""
_READING = ("items", "timestamp_format", "encoding")
_LISTS = ("positive", "columns", "item_columns")
_PREPARATION = ("min_user", "min_item", "min_rating", "max_users", "all_items", "renumber", "seed")

Log = Annotated[
    Path,
    typer.Argument(
        help="Interaction log: a CSV, TSV, Parquet, JSON lines (.gz allowed) or RecBole "
        ".inter file, or a folder that holds one."
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="Data set folder to write; needed unless --check is given.")
]
Check = Annotated[
    bool, typer.Option("--check", help="Only show how the files are understood; write nothing.")
]
Items = Annotated[Path | None, typer.Option(help="Table of the items with their ids and titles.")]
User = Annotated[str | None, typer.Option(help="Name of the user id column.")]
Item = Annotated[
    str | None, typer.Option(help="Name of the item id column of either table or of both.")
]
ItemTableId = Annotated[
    str | None, typer.Option(help="Name of the id column of the item table, if it has another.")
]
Timestamp = Annotated[
    str | None,
    typer.Option(
        help="Name of the timestamp column, which orders the log; row if the rows are in order."
    ),
]
TimestampFormat = Annotated[
    str | None, typer.Option(help="Format of the timestamps, e.g. '%d/%m/%Y %H:%M'.")
]
Rating = Annotated[str | None, typer.Option(help="Name of the rating column; none for no ratings.")]
Review = Annotated[str | None, typer.Option(help="Name of the review text column, or none.")]
Kind = Annotated[
    str | None, typer.Option(help="Name of the column with the kind of each event, or none.")
]
Columns = Annotated[
    str | None,
    typer.Option(help="Columns of a log without a header, e.g. user,item,rating,timestamp."),
]
ItemColumns = Annotated[
    str | None, typer.Option(help="Columns of an item table without a header, e.g. item,title.")
]
Encoding = Annotated[
    str | None, typer.Option(help="Encoding of text files, e.g. cp1251; default: recognised.")
]
AllItems = Annotated[
    bool, typer.Option("--all-items", help="Keep items of the item table without interactions.")
]
Renumber = Annotated[
    bool,
    typer.Option("--renumber", help="Number the items at random, if ids follow the log's order."),
]
Positive = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated kinds of events to keep, e.g. view,purchase. Default: all but "
        "dislike and hide."
    ),
]
Title = Annotated[str | None, typer.Option(help="Name of the item title column.")]
MinUser = Annotated[int, typer.Option(help="Minimum number of interactions per user (k-core).")]
MinItem = Annotated[int, typer.Option(help="Minimum number of interactions per item (k-core).")]
MinRating = Annotated[
    float | None,
    typer.Option(help="Minimum rating; lower and missing ratings are dropped."),
]
MaxUsers = Annotated[
    int | None, typer.Option(help="Maximum number of users, drawn at random with --seed.")
]
ShuffleTies = Annotated[
    bool,
    typer.Option(
        help="Order interactions with equal timestamps at random instead of by their row in "
        "the log, to measure how much that order matters."
    ),
]


def prepare(
    log: Log,
    out: Out = None,
    items: Items = None,
    user: User = None,
    item: Item = None,
    item_table_id: ItemTableId = None,
    timestamp: Timestamp = None,
    timestamp_format: TimestampFormat = None,
    rating: Rating = None,
    review: Review = None,
    title: Title = None,
    kind: Kind = None,
    positive: Positive = None,
    columns: Columns = None,
    item_columns: ItemColumns = None,
    encoding: Encoding = None,
    min_user: MinUser = 1,
    min_item: MinItem = 1,
    min_rating: MinRating = None,
    max_users: MaxUsers = None,
    shuffle_ties: ShuffleTies = False,
    all_items: AllItems = False,
    renumber: Renumber = False,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Prepare a data set folder from an interaction log and item titles."""
    from genrec.data.columns import ColumnNames
    from genrec.data.interactions import read_interactions

    given = dict(locals())
    how = {name: given[name] for name in (*ColumnNames.__annotations__, *_READING)}
    how |= {name: given[name] and split_names(given[name]) for name in _LISTS}
    say = _announcer(log)
    say(f"reading {log}")
    read = read_interactions(log, **how)
    if check:
        return _show(read, as_json)
    if out is None:
        raise ConfigError("give a folder for the data set with --out FOLDER, or only --check")
    settings = {name: given[name] for name in _PREPARATION}
    settings["ties"] = "shuffled" if shuffle_ties else "log"
    data = _saved(read, out, settings, say)
    if as_json:
        return print_json(
            {"folder": str(out), "fingerprint": data.fingerprint, **data.provenance.to_json()}
        )
    return _summarise(data, out)


def _saved(
    read: Interactions, out: Path, settings: dict[str, Any], say: Callable[[str], None]
) -> Dataset:
    from genrec.data.dataset import Dataset

    say(f"ordering {read.rows.height:,} interactions")
    data = Dataset.from_interactions(read, name=out.name, **settings)
    say(f"writing {out}")
    data.save(out)
    return data


def _announcer(log: Path) -> Callable[[str], None]:
    """Return a function that announces a step on standard error if the log is large."""
    large = log.is_file() and log.stat().st_size > LARGE

    def say(step: str) -> None:
        if large:
            print(f"{step} …", file=sys.stderr, flush=True)

    return say


def _show(read: Interactions, as_json: bool) -> None:
    """Print how a log and its item table were understood."""
    from genrec.data.columns import shown
    from genrec.data.overview import overview

    facts = overview(read)
    if as_json:
        return print_json(facts)
    print(
        f"{facts['log']} ({facts['layout']}): {facts['rows']} rows, of which "
        f"{facts['interactions']} are kept: {facts['users']} users, {facts['items']} items"
    )
    rows = [
        (role, each["column"], each["type"], str(each["first"])[:40])
        for role, each in facts["columns"].items()
    ]
    print_table(("role", "column", "type", "first value"), rows)
    times, dropped = facts["times"], facts["dropped"]
    print(f"times: {times['first']} to {times['last']} (unit: {times['unit']})")
    print(
        f"dropped rows: {dropped['null_user']} without a user id, {dropped['null_item']} without "
        f"an item id, {dropped['duplicate']} repeated"
    )
    if table := facts["item_table"]:
        print(
            f"items from {table['file']}, titles from column {table['title_column']!r}: "
            f"{table['rows_read']} rows, {table['duplicate_ids']} with "
            f"an id that occurred before, {facts['items_without_title']} items of the log without "
            f"a title, {facts['items_without_interactions']} items without interactions; metadata: "
            f"{shown(facts['metadata']) or 'none'}"
        )
    else:
        print("items: no titles, which GenRec needs; give --items FILE or --title COLUMN")
    for note in facts["notes"]:
        print(f"note: {note}")
    return None


def _summarise(data: Dataset, out: Path) -> None:
    """Print what a prepared data set holds and what the user should know of it."""
    prepared = data.provenance.preparation
    counts, catalogue = prepared["counts"], prepared["catalogue"]
    print(
        f"{out}: {counts['users']} users, {counts['items']} items, "
        f"{counts['interactions']} interactions; {catalogue['untitled']} items without a title, "
        f"{catalogue['duplicate_titles']} duplicate titles made unique (details in dataset.json)"
    )
    for note in prepared["source"].get("notes", []):
        print(f"note: {note}")
    if unrated := prepared["dropped"].get("without_rating"):
        print(f"note: {unrated} interactions without a rating were left out")
    if left_out := catalogue["items_without_interactions"]:
        print(
            f"note: {left_out} items of the item table have no interactions and were left out; "
            "--all-items keeps them"
        )
