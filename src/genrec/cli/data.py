"""`genrec data list`, `genrec data get` and `genrec prepare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import Json, Seed
from genrec.cli.output import megabytes, print_json, print_table


def data_list(
    every: Annotated[bool, typer.Option("--all", help="Each category of Amazon, too.")] = False,
    as_json: Json = False,
) -> None:
    """List data sets and backbones that are known by name."""
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
    # A name that is cut off cannot be typed: all of them leave no room for licences.
    shown = 4 if every else 5
    header = ("kind", "name", "", "MB", "licence")[:shown]
    print_table(header, [row[:shown] for row in rows.values()])
    if not every:
        print("genrec data list --all names the categories.")
    return None


def data_get(name: Annotated[str, typer.Argument(help="See `genrec data list`.")]) -> None:
    """Fetch a data set or backbone into the cache and print where it is."""
    from genrec.assets.known import backbone_folder, dataset_files, list_assets

    kinds = {asset.name: asset.kind for asset in list_assets()}
    print(backbone_folder(name) if kinds.get(name) == "backbone" else dataset_files(name))


def prepare(
    log: Annotated[
        Path, typer.Argument(help="CSV, TSV, Parquet, JSONL(.gz), .inter, or a folder.")
    ],
    out: Annotated[Path, typer.Option(help="Data set folder to write.")],
    items: Annotated[Path | None, typer.Option(help="Item table with ids and titles.")] = None,
    user: Annotated[str | None, typer.Option(help="Column of the user id.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item id.")] = None,
    timestamp: Annotated[str | None, typer.Option(help="Column that orders the log.")] = None,
    rating: Annotated[str | None, typer.Option(help="Column of the rating.")] = None,
    review: Annotated[str | None, typer.Option(help="Column of the review text.")] = None,
    title: Annotated[str | None, typer.Option(help="Column of the item's title.")] = None,
    min_user: Annotated[int, typer.Option(help="k-core: interactions of each user.")] = 1,
    min_item: Annotated[int, typer.Option(help="k-core: interactions of each item.")] = 1,
    min_rating: Annotated[
        float | None, typer.Option(help="Leave out interactions that are rated lower.")
    ] = None,
    max_users: Annotated[int | None, typer.Option(help="Draw this many users.")] = None,
    shuffle_ties: Annotated[
        bool, typer.Option(help="Control: order equal timestamps at random, not by the log.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Turn a log and item titles into a data set folder."""
    from genrec.data.dataset import Dataset
    from genrec.data.interactions import read_interactions

    columns = {"user": user, "item": item, "timestamp": timestamp, "rating": rating}
    read = read_interactions(log, items=items, review=review, title=title, **columns)
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
    counts, catalogue = (data.provenance.preparation[name] for name in ("counts", "catalogue"))
    print(
        f"{out}: {counts['users']} users, {counts['items']} items, "
        f"{counts['interactions']} interactions; {catalogue['untitled']} items without a title, "
        f"{catalogue['duplicate_titles']} duplicate titles told apart (details in dataset.json)"
    )
    return None
