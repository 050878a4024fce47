"""Preparation of a validated log: k-core, chronological order and item numbers.

The interactions of a user are ordered by (timestamp, row in the log). With ``ties="shuffled"``
rows with equal timestamps are permuted at random instead, to measure how much that rule matters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, TypedDict, cast

import numpy as np
import polars as pl

from genrec.arrays import Integers, Mask
from genrec.data.catalogue import Catalogue
from genrec.data.display_titles import clean_title, disambiguate, title_part
from genrec.data.histories import Histories, histories_of
from genrec.data.interactions import Interactions
from genrec.data.log_rows import sorted_ids, used_ids
from genrec.data.statistics import dataset_statistics
from genrec.errors import ConfigError, DataError


class Preparation(TypedDict, total=False):
    """The settings of :meth:`genrec.Dataset.from_interactions`."""

    min_user: int
    min_item: int
    min_rating: float | None
    max_users: int | None
    ties: Literal["log", "shuffled"]
    all_items: bool
    renumber: bool
    seed: int


def build_catalogue(
    items: pl.DataFrame | None, item_ids: Sequence[str]
) -> tuple[Catalogue, dict[str, object]]:
    """Build a catalogue with unique display titles.

    An item without a title is called "Untitled Board Games B001XYZ" after the last part of its
    category, or "Untitled item B001XYZ".

    Args:
        items: item table with the columns item_id, title and any metadata.
        item_ids: ids of the catalogue's items, in the order of their indices.

    Returns:
        The catalogue, and a report with the numbers of items, untitled items, items missing from
        the table, table rows without interactions, titles changed by cleaning and duplicate titles
        (an earlier item has the same one), and how many of these each metadata column made unique.

    Raises:
        DataError: There is no item table, or it holds none of the items.
    """
    if items is None:
        remedy = "give an item table (--items FILE) or name the log's title column (--title COLUMN)"
        raise DataError(f"the log has no item titles, which GenRec needs; {remedy}")
    wanted = pl.DataFrame({"item_id": list(item_ids)}, schema={"item_id": pl.String})
    table = wanted.join(items, on="item_id", how="left", maintain_order="left")
    unknown = wanted.join(items, on="item_id", how="anti").height
    if wanted.height and unknown == wanted.height:
        shown = f"{item_ids[0]!r} in the log, {items['item_id'].first()!r} in the item table"
        remedy = "name the id column (--item COLUMN) or give the matching table (--items FILE)"
        raise DataError(f"no item of the log is in the item table ({shown}); {remedy}")
    metadata = table.drop("item_id", "title")
    raw = [title or "" for title in table["title"].to_list()]
    cleaned = [clean_title(title) for title in raw]
    titles = [title or name for title, name in zip(cleaned, _fallbacks(table), strict=True)]
    unique, changed = disambiguate(titles, metadata)
    report: dict[str, object] = {
        "items": len(unique),
        "untitled": cleaned.count(""),
        "not_in_item_table": unknown,
        "items_without_interactions": items.join(wanted, on="item_id", how="anti").height,
        "changed_by_cleaning": sum(old != new for old, new in zip(raw, cleaned, strict=True)),
        "duplicate_titles": len(titles) - len(set(titles)),
        "disambiguated_by": changed,
    }
    return Catalogue(list(item_ids), unique, metadata), report


def _fallbacks(table: pl.DataFrame) -> Iterator[str]:
    names = [name for name in ("category", "categories", "main_category") if name in table.columns]
    for row in table.select("item_id", *names).iter_rows():
        kind = next(filter(None, map(title_part, row[1:])), "item")
        yield clean_title(f"Untitled {kind} {row[0]}")


def prepared(
    interactions: Interactions,
    *,
    min_user: int = 1,
    min_item: int = 1,
    min_rating: float | None = None,
    max_users: int | None = None,
    ties: Literal["log", "shuffled"] = "log",
    all_items: bool = False,
    renumber: bool = False,
    seed: int = 0,
) -> tuple[Catalogue, Histories, dict[str, Any]]:
    """Prepare catalogue and histories; arguments and errors of ``Dataset.from_interactions``.

    Returns:
        The catalogue, the histories, and the facts that ``dataset.json`` records.
    """
    if ties not in ("log", "shuffled"):
        raise ConfigError(f"ties is {ties!r}; give 'log' or 'shuffled'")
    if min(min_user, min_item, 1 if max_users is None else max_users) < 1:
        raise ConfigError(
            f"min_user={min_user}, min_item={min_item}, max_users={max_users}: give 1 or more for "
            "each"
        )
    if seed < 0:
        raise ConfigError(f"seed is {seed}; give 0 or more")
    log, rated = _rated_at_least(interactions.rows, min_rating)
    random = np.random.default_rng(seed)
    users, user_ids = used_ids(log["user"].to_numpy(), interactions.user_ids)
    drawn = (random.permutation(len(user_ids)) < (max_users or len(user_ids)))[users]
    core, rounds = _core(users, log["item"].to_numpy(), drawn, min_user, min_item)
    del users
    kept = replace(interactions, rows=log if core.all() else log.filter(pl.Series(core)))
    del log
    histories, item_ids = _chronological(kept, all_items, ties, renumber, random)
    catalogue, report = build_catalogue(interactions.items, item_ids)
    dropped = {"not_drawn": int((~drawn).sum()), "not_in_core": int((drawn & ~core).sum())}
    facts = dataset_statistics(histories, len(item_ids)) | {
        "tie_rule": f"(timestamp, {'row in the log' if ties == 'log' else 'random'})",
        "core": {"min_user": min_user, "min_item": min_item, "rounds": rounds},
        "draw": {"max_users": max_users, "seed": seed},
        "dropped": {**dropped, **rated},
        "item_order": "random" if renumber else "(length of id, id)",
        "catalogue": report,
        "source": interactions.source,
    }
    return catalogue, histories, facts


def known_histories(interactions: Interactions, catalogue: Catalogue) -> tuple[Histories, int]:
    """Return the histories of a log over a catalogue that exists.

    Args:
        interactions: the log.
        catalogue: the items; events on other items are left out.

    Returns:
        The histories, users sorted by (length of id, id), and the number of events left out.
    """
    index = _places(interactions.item_ids, pl.Series(catalogue.item_ids, dtype=pl.String))
    items = index.gather(interactions.rows["item"]).alias("item")
    log = interactions.rows.with_columns(items).drop_nulls("item")
    users, user_ids = used_ids(log["user"].to_numpy(), interactions.user_ids)
    table = log.with_columns(pl.Series("user", users)).sort("user", "timestamp", "row")
    lengths = np.bincount(users, minlength=len(user_ids))
    return histories_of(table, lengths, user_ids.to_list()), interactions.rows.height - log.height


def _places(ids: pl.Series, known: pl.Series) -> pl.Series:
    """Return the place of each id among known ones (i32), null if it is not among them."""
    places = pl.DataFrame({"id": known, "place": np.arange(len(known), dtype=np.int32)})
    return ids.to_frame("id").join(places, on="id", how="left", maintain_order="left")["place"]


def _rated_at_least(
    log: pl.DataFrame, least: float | None
) -> tuple[pl.DataFrame, dict[str, float]]:
    """Return the rows with a rating of at least ``least``, and counts of the others."""
    if least is None:
        return log, {}
    if "rating" not in log.columns:
        remedy = "name the rating column (--rating COLUMN) or omit the minimum"
        raise DataError(f"min_rating={least:g} needs ratings, but the log has none; {remedy}")
    unrated = log["rating"].null_count()
    kept = log.filter(pl.col("rating") >= least)
    if not kept.height:
        best = cast(float | None, log["rating"].max())
        highest = "no row has one" if best is None else f"the highest is {best:g}"
        raise DataError(f"no rating is {least:g} or more ({highest}); lower or omit min_rating")
    below = log.height - kept.height - unrated
    return kept, {"min_rating": least, "below_min_rating": below, "without_rating": unrated}


def _core(
    users: Integers, items: Integers, keep: Mask, min_user: int, min_item: int
) -> tuple[Mask, int]:
    """Return the k-core, the largest part of ``keep`` that meets both minima.

    Returns:
        The mask of the rows, and the number of rounds until nothing more was dropped.
    """
    rounds = 0
    while True:
        active = np.bincount(users[keep], minlength=users.max() + 1) >= min_user
        frequent = np.bincount(items[keep], minlength=items.max() + 1) >= min_item
        kept = keep & active[users] & frequent[items]
        if not kept.any():
            raise DataError(
                f"no user is left with min_user={min_user} and min_item={min_item}; lower them or "
                "use more data"
            )
        if kept.sum() == keep.sum():
            return keep, rounds
        keep, rounds = kept, rounds + 1


def _chronological(
    log: Interactions, all_items: bool, ties: str, renumber: bool, random: np.random.Generator
) -> tuple[Histories, list[str]]:
    """Return the histories of a log and the ids of their items, or of all items of its table."""
    users, user_ids = used_ids(log.rows["user"].to_numpy(), log.user_ids)
    items, items_of_log = used_ids(log.rows["item"].to_numpy(), log.item_ids)
    item_ids = items_of_log
    if all_items and log.items is not None:
        item_ids = sorted_ids(pl.concat([items_of_log, log.items["item_id"]]))
    index = _places(items_of_log, item_ids).to_numpy()
    if renumber:
        drawn = random.permutation(len(item_ids))
        index, item_ids = np.argsort(drawn).astype(np.int32)[index], item_ids.gather(drawn)
    table = log.rows.with_columns(pl.Series("user", users), pl.Series("item", index[items]))
    if ties == "shuffled":
        table = table.with_columns(pl.Series("row", random.permutation(table.height)))
    lengths = np.bincount(users)
    table = table.sort("user", "timestamp", "row").drop("user", "row")
    return histories_of(table, lengths, user_ids.to_list()), item_ids.to_list()
