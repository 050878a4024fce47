"""A data set: a catalogue, one history for each user, and the folder that holds them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import polars as pl

from genrec.data.catalogue import Catalogue
from genrec.data.histories import Histories, histories_of
from genrec.data.interactions import Interactions, interactions_from_frames
from genrec.data.prepare import prepared
from genrec.data.provenance import Provenance
from genrec.errors import DataError
from genrec.files import is_free, replace_folder

FORMAT = 1  # of a data set folder


_FILES = ("items.parquet", "users.parquet", "histories.parquet", "dataset.json")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A catalogue, one history for each user, and where they come from."""

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
        seed: int = 0,
    ) -> Self:
        """Histories and catalogue of a log that :func:`genrec.read_interactions` read.

        Items are numbered by (length of id, id): numbers by their place in the log would give the
        next item away.

        Args:
            name: what reports call the data set.
            min_user: k-core: interactions that each user has at least (repeats count).
            min_item: k-core: interactions that each item has at least.
            min_rating: leave out interactions with a lower rating, or without one.
            max_users: draw this many users with ``seed``, before the k-core; all if ``None``.
            ties: order of a user's interactions with equal timestamps: that of the log, or random.

        Raises:
            DataError: there are no titles, or nothing is left.
            ConfigError: a minimum is below one.
        """
        catalogue, histories, facts = prepared(
            interactions,
            min_user=min_user,
            min_item=min_item,
            min_rating=min_rating,
            max_users=max_users,
            ties=ties,
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
        user: str | None = None,
        item: str | None = None,
        timestamp: str | None = None,
        title: str | None = None,
        rating: str | None = None,
        review: str | None = None,
        **preparation: Any,
    ) -> Self:
        """A data set from data frames of pandas or Polars.

        Args:
            interactions: one row for each interaction: user id, item id, timestamp (a number or a
                date; it orders each user's rows), and perhaps a rating, a review, a title.
            items: one row for each item: item id, title, and any metadata to filter by. It may be
                left out if the interactions have a title column.
            user: column of the user id; found by its usual names if not given. So are ``item``,
                ``timestamp``, ``title``, ``rating`` and ``review``.
            preparation: ``min_user``, ``min_item``, ``min_rating``, ``max_users``, ``ties``,
                ``seed``: see :meth:`from_interactions`.

        Raises:
            DataError: a column is missing or holds what it should not; the message names it.
        """
        found = interactions_from_frames(
            interactions,
            items,
            user=user,
            item=item,
            timestamp=timestamp,
            title=title,
            rating=rating,
            review=review,
        )
        return cls.from_interactions(found, name=name, **preparation)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over ids, titles and the flat arrays; equal data have equal fingerprints."""
        digest, rows = hashlib.sha256(), self.histories
        for names in (self.catalogue.item_ids, self.catalogue.titles, rows.user_ids):
            digest.update(json.dumps(names).encode())
        for array, kind in ((rows.items, "<i4"), (rows.offsets, "<i8"), (rows.timestamps, "<f8")):
            digest.update(np.ascontiguousarray(array, dtype=kind).data)
        if rows.ratings is not None:
            digest.update(np.ascontiguousarray(rows.ratings, dtype="<f4").data)
        return digest.hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write items, users and histories (Parquet) and dataset.json; all of it or nothing.

        Replaces an older data set folder, but raises DataError for any other file or folder.
        """
        folder = Path(folder)
        if not is_free(folder) and not (folder / "dataset.json").is_file():
            raise DataError(f"{folder}: exists and is no data set folder; give another --out")
        replace_folder(folder, self._write)

    def _write(self, folder: Path) -> None:
        folder.mkdir()
        rows = self.histories
        self.catalogue.save(folder / "items.parquet")
        users = {"user_id": pl.Series(rows.user_ids, dtype=pl.String), "length": rows.lengths}
        pl.DataFrame(users).write_parquet(folder / "users.parquet")
        flat = {"item": rows.items, "timestamp": rows.timestamps}
        flat |= {} if rows.ratings is None else {"rating": rows.ratings}
        flat |= {} if rows.reviews is None else {"review": rows.reviews}
        pl.DataFrame(flat).write_parquet(folder / "histories.parquet")
        head = {"name": self.name, "format": FORMAT, "genrec": _version()}
        info = {**self.provenance.to_json(), **head, "fingerprint": self.fingerprint}
        text = json.dumps(info, indent=2, ensure_ascii=False)
        (folder / "dataset.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Read and verify what `save` wrote; raises DataError saying what is wrong with it."""
        folder, again = Path(folder), "make it again with `genrec prepare`"
        if missing := [name for name in _FILES if not (folder / name).is_file()]:
            raise DataError(f"{folder}: not a data set folder, {missing[0]} is missing; {again}")
        try:
            info = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
            version = info["format"]
            if version != FORMAT:
                raise DataError(f"{folder}: format {version}, this GenRec reads {FORMAT}; {again}")
            catalogue = Catalogue.load(folder / "items.parquet")
            provenance = Provenance.from_json(info, str(folder.resolve()))
            data = cls(info["name"], catalogue, _read_histories(folder), provenance)
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{folder}: damaged ({type(error).__name__}: {error}); {again}"
            ) from error
        if info.get("fingerprint") != data.fingerprint:
            raise DataError(f"{folder}: its files do not match its fingerprint; {again}")
        return data


def _read_histories(folder: Path) -> Histories:
    users = pl.read_parquet(folder / "users.parquet")
    table = pl.read_parquet(folder / "histories.parquet")
    return histories_of(table, users["length"].to_numpy(), users["user_id"].to_list())


def _version() -> str:
    try:
        return importlib.metadata.version("genrec")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
