"""The catalogue: item ids and the one unique display title of each, safe to show and to type."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from genrec.arrays import Mask
from genrec.data.display_titles import clean_title, places_of
from genrec.errors import DataError, UnknownItemError
from genrec.files import replacing

_YEAR = re.compile(r" \(\d{4}\)$")


_POOL = 20_000  # titles compared by edit distance: about half a second


By = Literal["either", "title", "id"]
"""What a string names an item by."""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items by index 0..n-1.

    item_ids: n distinct ids of the log. titles: n distinct display titles. metadata: n rows of the
    other columns of the item table (no columns where there are none).
    """

    item_ids: list[str]
    titles: list[str]
    metadata: pl.DataFrame

    def __post_init__(self) -> None:
        rows = self.metadata.height if self.metadata.width else len(self.item_ids)
        if not len(self.item_ids) == len(self.titles) == rows:
            raise DataError("a catalogue needs one id, one title and one metadata row per item")
        for kind, values in (("item id", self.item_ids), ("title", self.titles)):
            if len(set(values)) < len(values):
                twice = Counter(values).most_common(1)[0][0]
                raise DataError(f"{kind} {twice!r} occurs twice; build_catalogue makes them unique")

    def __len__(self) -> int:
        return len(self.item_ids)

    def index_of(self, entry: str, *, by: By = "either") -> int:
        """Index of an item by its title or id.

        A title may differ in case or lack its "(year)", where one item alone matches. Programs
        should say which of the two they give: a film called "21" is not the item with the id "21".

        Args:
            entry: a title or an id.
            by: what the entry is: a ``"title"``, an ``"id"``, or ``"either"``.

        Raises:
            UnknownItemError: nothing matches (the message has close titles), or several items do.
        """
        key = entry.strip()
        titled = self._by_title.get(key) if by != "id" else None
        named = self._by_id.get(key) if by != "title" else None
        if titled is not None and named is not None and titled != named:
            raise UnknownItemError(
                f"{key!r} is the title of item {self.item_ids[titled]!r} and the id of "
                f"{self.titles[named]!r}; say which is meant with by='title' or by='id' (on the "
                "command line --history or --history-id with the other item's id, over HTTP "
                '{"title": …} or {"item_id": …})'
            )
        exact = named if titled is None else titled
        if exact is not None:
            return exact
        if by == "id":
            raise UnknownItemError(
                f"the id {key!r} is not in the catalogue of {len(self):,} items; an id of it is "
                f"{self.item_ids[0]!r}"
            )
        folded = clean_title(key).casefold()
        matches = self._by_folded_title.get(folded) or self._by_yearless_title.get(folded) or []
        if len(matches) == 1:
            return matches[0]
        raise UnknownItemError(self._unknown(key, folded, matches))

    def indices(self, entries: Iterable[str], *, by: By = "either") -> list[int]:
        """:meth:`index_of` for each entry."""
        return [self.index_of(entry, by=by) for entry in entries]

    def holds(self, item_id: str) -> bool:
        """Whether there is an item of that id."""
        return item_id in self._by_id

    def subset(self, indices: Sequence[int] | np.ndarray) -> Catalogue:
        """The items at `indices`, in that order."""
        rows = [int(index) for index in indices]
        ids, titles = ([values[row] for row in rows] for values in (self.item_ids, self.titles))
        return Catalogue(ids, titles, self.metadata[rows] if self.metadata.width else self.metadata)

    def mask(
        self,
        *,
        allow: Iterable[str] | None = None,
        block: Iterable[str] = (),
        where: str | pl.Expr | None = None,
        by: By = "either",
    ) -> Mask:
        """Which items a recommendation may come from: the ``candidates`` of a request.

        Args:
            allow: only these items.
            block: never these items.
            where: a Polars expression, or the text of an SQL condition, on item_id, title and the
                metadata columns, e.g. ``"genres LIKE '%Comedy%' AND year > 1990"``. An item whose
                value is unknown does not meet it.
            by: whether ``allow`` and ``block`` hold titles, ids, or either.

        Returns:
            bool, shape [items].

        Raises:
            UnknownItemError: an entry is not in the catalogue.
            DataError: the condition cannot be read.
        """
        mask = np.ones(len(self), dtype=bool)
        if allow is not None:
            mask[:] = False
            mask[self.indices(allow, by=by)] = True
        mask[self.indices(block, by=by)] = False
        return mask if where is None else mask & self._meets(where)

    def _meets(self, where: str | pl.Expr) -> Mask:
        table = self._table()
        try:
            condition = pl.sql_expr(where) if isinstance(where, str) else where
            met = table.select(met=condition)["met"]
            if met.dtype != pl.Boolean or len(met) != len(self):
                raise DataError(f"{where} is no condition on single items, e.g. \"title = 'Emma'\"")
        except pl.exceptions.PolarsError as error:
            reason = str(error).partition("\n")[0]
            columns = ", ".join(f"{name} ({kind})" for name, kind in table.schema.items())
            raise DataError(f"{where}: {reason}; the columns are {columns}") from None
        return met.fill_null(False).to_numpy()

    def extended(
        self, titles: Sequence[str], item_ids: Sequence[str], metadata: pl.DataFrame | None = None
    ) -> Catalogue:
        """The catalogue with further items at its end; their titles are cleaned first.

        Raises DataError where an id or a title is empty or taken, or metadata do not fit.
        """
        titles = [clean_title(title) for title in titles]
        if len(titles) != len(item_ids):
            raise DataError(f"{len(titles)} titles need as many item ids, got {len(item_ids)}")
        new = (("item id", item_ids, self._by_id), ("title", titles, self._by_title))
        for kind, values, known in new:
            for value in values:
                if not value or value in known or values.count(value) > 1:
                    raise DataError(f"{kind} {value!r} is empty or taken; every item needs its own")
        rows = pl.DataFrame({name: [None] * len(titles) for name in self.metadata.columns})
        if metadata is not None:
            rows = rows.with_columns(metadata.get_columns()) if rows.width else metadata
        try:
            fitting = rows.select(self.metadata.columns).cast(self.metadata.schema)
        except pl.exceptions.PolarsError as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"metadata do not fit the catalogue's: {reason}") from None
        joined = pl.concat([self.metadata, fitting])
        return Catalogue([*self.item_ids, *item_ids], [*self.titles, *titles], joined)

    def save(self, path: str | Path) -> None:
        """Write one Parquet file (item_id, title, the metadata columns); all of it or nothing."""
        with replacing(Path(path)) as partial:
            self._table().write_parquet(partial)

    def _table(self) -> pl.DataFrame:
        return pl.DataFrame(
            {"item_id": self.item_ids, "title": self.titles},
            schema={"item_id": pl.String, "title": pl.String},
        ).hstack(self.metadata)

    @classmethod
    def load(cls, path: str | Path) -> Catalogue:
        """Read what `save` wrote; raises DataError where the file is missing or something else."""
        try:
            table = pl.read_parquet(path)
            ids, titles = table["item_id"].to_list(), table["title"].to_list()
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = str(error).partition("\n")[0]
            remedy = "make it again with `genrec prepare`"
            raise DataError(f"{path}: not a readable catalogue ({reason}); {remedy}") from error
        return cls(ids, titles, table.drop("item_id", "title"))

    @cached_property
    def _by_title(self) -> dict[str, int]:
        return {title: index for index, title in enumerate(self.titles)}

    @cached_property
    def _by_id(self) -> dict[str, int]:
        return {item_id: index for index, item_id in enumerate(self.item_ids)}

    @cached_property
    def _by_folded_title(self) -> dict[str, list[int]]:
        return places_of(title.casefold() for title in self.titles)

    @cached_property
    def _by_yearless_title(self) -> dict[str, list[int]]:
        return places_of(_YEAR.sub("", title).casefold() for title in self.titles)

    def _unknown(self, key: str, folded: str, matches: list[int]) -> str:
        if matches:
            named = ", ".join(f"{self.titles[i]!r} (id {self.item_ids[i]})" for i in matches[:5])
            return f"{key!r} names {len(matches)} items: {named}; give one full title or an item id"
        close = ", ".join(repr(self.titles[index]) for index in self._close(folded)) or "none"
        where = f"not in the catalogue of {len(self):,} items"
        return f"{key!r} is {where}; close titles: {close}; give a full title or an item id"

    def _close(self, folded: str) -> list[int]:
        """Up to three items: titles that contain the text, then titles spelled nearly like it."""
        by_title = self._by_folded_title
        containing = islice((title for title in by_title if folded and folded in title), 3)
        words = set(folded.split())
        pool = list(by_title)
        if len(pool) > _POOL:  # edit distance is slow: only titles that share a word
            pool = list(islice((title for title in pool if words & set(title.split())), _POOL))
        similar = difflib.get_close_matches(folded, pool, n=3, cutoff=0.5)
        found = dict.fromkeys([*containing, *similar])
        return [by_title[title][0] for title in islice(found, 3)]
