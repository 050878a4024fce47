"""The data set: a catalogue, one history per user, and the folder that stores them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, Unpack, cast

import numpy as np
import polars as pl

from genrec.arrays import Arrays
from genrec.data.catalogue import Catalogue
from genrec.data.columns import ColumnNames, shown
from genrec.data.histories import Histories, histories_of, offsets_of
from genrec.data.interactions import Interactions, interactions_from_frames
from genrec.data.prepare import Preparation, prepared
from genrec.data.provenance import Provenance
from genrec.errors import DataError
from genrec.files import is_free, map_array_folder, replace_folder, write_array_folder

FORMAT = 2
"""Version of the data set folder's layout; 1 had the histories in one Parquet file."""


class FrameOptions(ColumnNames, Preparation):
    """What :meth:`Dataset.from_frames` takes by name."""


_FILES = ("items.parquet", "users.parquet", "dataset.json")
_OWN = {*_FILES, "histories", "histories.parquet", "reviews.parquet", ".DS_Store"}
"""What the folder of a data set may hold."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A catalogue, one history per user, and the provenance of both.

    Attributes:
        name: name of the data set in reports.
        catalogue: the items.
        histories: one row per user; its item indices refer to ``catalogue``.
        provenance: source files, preparation and split of the data.
    """

    name: str
    catalogue: Catalogue
    histories: Histories
    provenance: Provenance = field(default_factory=Provenance)

    @classmethod
    def from_interactions(
        cls,
        interactions: Interactions,
        *,
        name: str,
        min_user: int = 1,
        min_item: int = 1,
        min_rating: float | None = None,
        max_users: int | None = None,
        ties: Literal["log", "shuffled"] = "log",
        all_items: bool = False,
        renumber: bool = False,
        seed: int = 0,
    ) -> Self:
        """Prepare a data set from a log that :func:`genrec.read_interactions` has read.

        Items are numbered in the order of (length of id, id). Numbers in the order of the log would
        leak which item comes next.

        Args:
            interactions: the validated log and its item table.
            name: name of the data set in reports.
            min_user: minimum number of interactions per user (k-core); repeats count.
            min_item: minimum number of interactions per item (k-core).
            min_rating: drop interactions with a lower rating or without one; keep all if ``None``.
            max_users: draw this many users with ``seed``, before the k-core; all if ``None``.
            ties: order of a user's interactions with equal timestamps: ``"log"`` keeps the order
                of the log, ``"shuffled"`` is random.
            all_items: keep the items of the item table that have no interactions.
            renumber: number the items at random, if their ids follow the order of the log.
            seed: seed of the drawn users, of shuffled ties and of random numbers.

        Raises:
            DataError: The items have no titles, or no interaction is left.
            ConfigError: A minimum or ``max_users`` is below 1.
        """
        catalogue, histories, facts = prepared(
            interactions,
            min_user=min_user,
            min_item=min_item,
            min_rating=min_rating,
            max_users=max_users,
            ties=ties,
            all_items=all_items,
            renumber=renumber,
            seed=seed,
        )
        return cls(name, catalogue, histories, Provenance(facts))

    @classmethod
    def from_frames(
        cls,
        interactions: Any,
        items: Any = None,
        *,
        name: str = "frames",
        positive: Sequence[str] | None = None,
        timestamp_format: str | None = None,
        **options: Unpack[FrameOptions],
    ) -> Self:
        """Prepare a data set from pandas or Polars data frames.

        Args:
            interactions: one row per interaction with a user id, an item id and a timestamp (a
                number or a date, which orders each user's rows), and optionally a rating, a review,
                a kind of event and a title.
            items: one row per item with an item id, a title and any metadata to filter by.
                Optional if the interactions have a title column.
            name: name of the data set in reports.
            positive: kinds of events to keep; all but dislikes if ``None``.
            timestamp_format: format of timestamps that are texts; recognised if ``None``.
            options: names of columns (``user``, ``item``, ``item_table_id``, ``timestamp``,
                ``rating``, ``review``, ``title`` and ``kind``; each is recognised by its usual
                names if missing), and the settings of :meth:`from_interactions`.

        Raises:
            DataError: A column is missing or holds invalid values; the message names it.
            ConfigError: A minimum or ``max_users`` is below 1.
        """
        known = ColumnNames.__annotations__
        names = {
            key: str(value)  # pandas numbers the columns of a table without names
            for key, value in options.items()
            if key in known and value is not None
        }
        settings = {key: value for key, value in options.items() if key not in known}
        found = interactions_from_frames(
            interactions,
            items,
            positive=positive,
            timestamp_format=timestamp_format,
            **cast(ColumnNames, names),
        )
        return cls.from_interactions(found, name=name, **cast(Preparation, settings))

    def __repr__(self) -> str:
        rows = self.histories
        return (
            f"Dataset({self.name!r}, {len(rows)} users, {len(self.catalogue)} items, "
            f"{len(rows.items)} interactions)"
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over ids, titles and the flat arrays; equal data have equal fingerprints."""
        digest, rows = hashlib.sha256(), self.histories
        for names in (self.catalogue.item_ids, self.catalogue.titles, rows.user_ids):
            digest.update(json.dumps(names).encode())
        for array, kind in ((rows.items, "<i4"), (rows.offsets, "<i8"), (rows.timestamps, "<f8")):
            digest.update(np.ascontiguousarray(array, dtype=kind).data)
        if rows.ratings is not None:
            digest.update(np.ascontiguousarray(rows.ratings, dtype="<f4").data)
        return digest.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write items and users (Parquet), histories (arrays) and dataset.json, atomically.

        An older data set in ``folder`` is replaced.

        Raises:
            DataError: ``folder`` is a file, or a non-empty folder that holds no data set or more
                than one.
        """
        folder = Path(folder)
        if not is_free(folder) and not (folder / "dataset.json").is_file():
            raise DataError(
                f"{folder}: exists and is not a data set folder; choose another output folder"
            )
        if folder.exists() and (others := sorted({path.name for path in folder.iterdir()} - _OWN)):
            raise DataError(
                f"{folder}: holds more than a data set ({shown(others)}), which would be deleted; "
                "move it away, or choose another output folder"
            )
        replace_folder(folder, self._write)

    def _write(self, folder: Path) -> None:
        folder.mkdir()
        rows = self.histories
        self.catalogue.save(folder / "items.parquet")
        users = {"user_id": pl.Series(rows.user_ids, dtype=pl.String), "length": rows.lengths}
        pl.DataFrame(users).write_parquet(folder / "users.parquet")
        flat: Arrays = {"items": rows.items, "timestamps": rows.timestamps}
        flat |= {} if rows.ratings is None else {"ratings": rows.ratings}
        write_array_folder(folder / "histories", flat)
        if rows.reviews is not None:
            pl.DataFrame({"review": rows.reviews}).write_parquet(folder / "reviews.parquet")
        head = {"name": self.name, "format": FORMAT, "genrec": _version()}
        info = {**self.provenance.to_json(), **head, "fingerprint": self.fingerprint}
        text = json.dumps(info, indent=2, ensure_ascii=False)
        (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Read and verify a data set that :meth:`save` wrote.

        The flat arrays of the histories are mapped from their files, so that processes share them.

        Raises:
            DataError: A file is missing, damaged, of another format version, or does not match the
                fingerprint.
        """
        folder, again = Path(folder), "create it again with `genrec prepare`"
        if missing := [name for name in _FILES if not (folder / name).is_file()]:
            raise DataError(f"{folder}: not a data set folder, {missing[0]} is missing; {again}")
        try:
            info = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            version = info["format"]
            if version not in (1, FORMAT):
                raise DataError(
                    f"{folder}: the folder has format {version}, but this version of GenRec reads "
                    f"the formats 1 and {FORMAT}; {again}"
                )
            catalogue = Catalogue.load(folder / "items.parquet")
            provenance = Provenance.from_json(info, str(folder.resolve()))
            data = cls(info["name"], catalogue, _read_histories(folder), provenance)
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{folder}: the data set is damaged ({type(error).__name__}: {error}); {again}"
            ) from error
        if info.get("fingerprint") != data.fingerprint:
            raise DataError(f"{folder}: the files do not match the fingerprint; {again}")
        return data


def _read_histories(folder: Path) -> Histories:
    users = pl.read_parquet(folder / "users.parquet")
    lengths, user_ids = users["length"].to_numpy(), users["user_id"].to_list()
    if (folder / "histories.parquet").is_file():
        return histories_of(pl.read_parquet(folder / "histories.parquet"), lengths, user_ids)
    # Plain arrays over the maps, whose slices are faster; writable, because torch needs that.
    maps = map_array_folder(folder / "histories", writable=True)
    flat = {name: np.asarray(each) for name, each in maps.items()}
    reviews = folder / "reviews.parquet"
    return Histories(
        flat["items"],
        offsets_of(lengths),
        user_ids,
        flat["timestamps"],
        flat.get("ratings"),
        pl.read_parquet(reviews)["review"] if reviews.is_file() else None,
    )


def _version() -> str:
    try:
        return importlib.metadata.version("genrec")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
