"""The commands `genrec data list`, `genrec data get` and `genrec prepare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genrec.cli.options import Json, Seed
from genrec.cli.output import megabytes, print_json, print_table


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

Log = Annotated[
    Path,
    typer.Argument(
        help="Interaction log: a CSV, TSV, Parquet, JSON lines (.gz allowed) or RecBole "
        ".inter file, or a folder that holds one."
    ),
]
Out = Annotated[Path, typer.Option(help="Data set folder to write.")]
Items = Annotated[Path | None, typer.Option(help="Table of the items with their ids and titles.")]
User = Annotated[str | None, typer.Option(help="Name of the user id column.")]
Item = Annotated[str | None, typer.Option(help="Name of the item id column.")]
Timestamp = Annotated[
    str | None, typer.Option(help="Name of the timestamp column, which orders the log.")
]
Rating = Annotated[str | None, typer.Option(help="Name of the rating column.")]
Review = Annotated[str | None, typer.Option(help="Name of the review text column.")]
Kind = Annotated[str | None, typer.Option(help="Name of the column with the kind of each event.")]
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
    out: Out,
    items: Items = None,
    user: User = None,
    item: Item = None,
    timestamp: Timestamp = None,
    rating: Rating = None,
    review: Review = None,
    title: Title = None,
    kind: Kind = None,
    positive: Positive = None,
    min_user: MinUser = 1,
    min_item: MinItem = 1,
    min_rating: MinRating = None,
    max_users: MaxUsers = None,
    shuffle_ties: ShuffleTies = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Prepare a data set folder from an interaction log and item titles."""
    from genrec.data.dataset import Dataset
    from genrec.data.interactions import read_interactions

    columns = {"user": user, "item": item, "timestamp": timestamp, "rating": rating, "kind": kind}
    kinds = None if positive is None else [each.strip() for each in positive.split(",")]
    read = read_interactions(
        log, items=items, review=review, title=title, positive=kinds, **columns
    )
    data = Dataset.from_interactions(
        read,
        name=out.name,
        min_user=min_user,
        min_item=min_item,
        min_rating=min_rating,
        max_users=max_users,
        ties="shuffled" if shuffle_ties else "log",
        seed=seed,
    )
    data.save(out)
    if as_json:
        return print_json(
            {"folder": str(out), "fingerprint": data.fingerprint, **data.provenance.to_json()}
        )
    return _summarise(data, out)


def _summarise(data: Dataset, out: Path) -> None:
    counts, catalogue = (data.provenance.preparation[name] for name in ("counts", "catalogue"))
    print(
        f"{out}: {counts['users']} users, {counts['items']} items, "
        f"{counts['interactions']} interactions; {catalogue['untitled']} items without a title, "
        f"{catalogue['duplicate_titles']} duplicate titles made unique (details in dataset.json)"
    )
    for note in data.provenance.preparation["source"].get("notes", []):
        print(f"note: {note}")
