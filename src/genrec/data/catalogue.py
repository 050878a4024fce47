"""The catalogue: all items with their ids, unique display titles and metadata."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import polars as pl

from genrec.arrays import Mask
from genrec.data.columns import shown
from genrec.data.display_titles import clean_title, distinguishing, places_of, title_part
from genrec.errors import DataError, UnknownItemError
from genrec.files import replacing

_SUFFIX = re.compile(r"( \(\d+\)| \[[^\[\]]*\])+$")
"""Years, numbers and metadata that end titles and tell namesakes apart."""


_POOL = 20_000  # maximum number of titles compared by edit distance; takes about half a second


By = Literal["either", "title", "id"]
"""How a string refers to an item: by its title, by its id, or by either of them."""


def text_list(entries: Iterable[str]) -> Iterable[str]:
    """Return the entries; a single text, which would be read letter by letter, is refused.

    Raises:
        DataError: ``entries`` is a text.
    """
    if isinstance(entries, str):
        raise DataError(f"a list of titles or ids is needed, not one text: give [{entries!r}]")
    return entries


@dataclass(frozen=True, eq=False, repr=False)
class Catalogue:
    """The n items that can be recommended, with indices 0 to n - 1.

    Attributes:
        item_ids: n distinct ids, as in the log.
        titles: n distinct display titles.
        metadata: the other columns of the item table, n rows; a frame without columns if the table
            has no others.

    Raises:
        DataError: The three parts differ in length, or an id or a title occurs twice.
    """

    item_ids: list[str]
    titles: list[str]
    metadata: pl.DataFrame

    def __post_init__(self) -> None:
        rows = self.metadata.height if self.metadata.width else len(self.item_ids)
        if not len(self.item_ids) == len(self.titles) == rows:
            raise DataError(
                "a catalogue needs one id, one title and one metadata row per item; got "
                f"{len(self.item_ids)} ids, {len(self.titles)} titles and {rows} metadata rows"
            )
        for kind, values in (("item id", self.item_ids), ("title", self.titles)):
            if len(set(values)) < len(values):
                twice = Counter(values).most_common(1)[0][0]
                raise DataError(
                    f"{kind} {twice!r} occurs twice; ids and titles must be unique "
                    "(build_catalogue makes titles unique)"
                )

    def __repr__(self) -> str:
        return f"Catalogue({len(self)} items)"

    def __len__(self) -> int:
        return len(self.item_ids)

    def index_of(self, entry: str, *, by: By = "either") -> int:
        """Return the index of the item with the given title or id.

        A title may differ in case or lack its "(year)" or "[genre]" if only one item matches.
        Programs should set ``by``, because the film with the title "21" is not the item with the id
        "21".

        Args:
            entry: a title or an id.
            by: whether the entry is a ``"title"``, an ``"id"``, or ``"either"``.

        Raises:
            UnknownItemError: No item matches (the message lists close titles), or several do.
        """
        if by not in get_args(By):
            raise DataError(f"by is {by!r}; give one of {', '.join(get_args(By))}")
        if not isinstance(entry, str):
            raise DataError(f"{entry!r} is not a text; items are named by titles or ids, as str")
        key = entry.strip()
        titled = self._by_title.get(key) if by != "id" else None
        named = self._by_id.get(key) if by != "title" else None
        if titled is not None and named is not None and titled != named:
            raise UnknownItemError(
                f"{key!r} is the title of item {self.item_ids[titled]!r} and the id of "
                f"{self.titles[named]!r}; choose one of them with by='title' or by='id' (on the "
                "command line give the id with --history-id; over HTTP use "
                '{"title": …} or {"item_id": …})'
            )
        exact = named if titled is None else titled
        if exact is not None:
            return exact
        if by == "id":
            raise UnknownItemError(
                f"the id {key!r} is not in the catalogue of {len(self):,} items; give an id "
                f"such as {self.item_ids[0]!r}"
            )
        folded = clean_title(key).casefold()
        matches = self._by_folded_title.get(folded) or self._by_bare_title.get(folded) or []
        if len(matches) == 1:
            return matches[0]
        raise UnknownItemError(self._unknown(key, folded, matches))

    def indices(self, entries: Iterable[str], *, by: By = "either") -> list[int]:
        """Return the index of each entry; see :meth:`index_of`."""
        entries = text_list(entries)
        return [self.index_of(entry, by=by) for entry in entries]

    def holds(self, item_id: str) -> bool:
        """Return whether the catalogue has an item with this id."""
        return item_id in self._by_id

    def detail(self, index: int) -> str | None:
        """Return metadata that tell an item from others with the same title, else also its id.

        Returns:
            A short line, or ``None`` if no other item has the title, apart from years and suffixes.
        """
        return self._details.get(index)

    @cached_property
    def _details(self) -> dict[int, str]:
        found = {}
        for namesakes in self._by_bare_title.values():
            if len(namesakes) == 1:
                continue
            lines = {item: self._line(item) for item in namesakes}
            counts = Counter(lines.values())
            for item, line in lines.items():
                own = "" if counts[line] == 1 else f"id {self.item_ids[item]}"
                found[item] = " · ".join(filter(None, (line, own)))
        return found

    def _line(self, index: int) -> str:
        """Return an item's most telling metadata."""
        values = (self.metadata[name][index] for name in distinguishing(self.metadata))
        return " · ".join(islice(dict.fromkeys(filter(None, map(title_part, values))), 3))

    def subset(self, indices: Sequence[int] | np.ndarray) -> Catalogue:
        """Return a catalogue of the items at ``indices``, in that order."""
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
        """Return the candidates of a request: a mask of the items that may be recommended.

        Args:
            allow: titles or ids of the only candidates; all items if ``None``.
            block: titles or ids of items that are not candidates.
            where: a condition on item_id, title and the metadata columns, as a Polars expression
                or as SQL text, e.g. ``"genres LIKE '%Comedy%' AND year > 1990"``. Items with a
                missing value do not meet it.
            by: whether ``allow`` and ``block`` hold titles, ids, or either.

        Returns:
            The mask, bool [items].

        Raises:
            UnknownItemError: An entry of ``allow`` or ``block`` is not in the catalogue.
            DataError: ``where`` is not a valid condition; the message lists the columns.
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
                raise DataError(
                    f"{where} is no condition on single items; give one such as \"title = 'Emma'\""
                )
        except pl.exceptions.PolarsError as error:
            reason = str(error).partition("\n")[0][:200]
            columns = shown([f"{name} ({kind})" for name, kind in table.schema.items()])
            texts = "; a column of texts is compared with a text, as in year > '1995'"
            hint = texts * reason.startswith("cannot compare string")
            raise DataError(f"{where}: {reason}; the columns are {columns}{hint}") from None
        return met.fill_null(False).to_numpy()

    def extended(
        self, titles: Sequence[str], item_ids: Sequence[str], metadata: pl.DataFrame | None = None
    ) -> Catalogue:
        """Return a catalogue with new items appended; their titles are cleaned first.

        Args:
            titles: display titles of the new items.
            item_ids: their ids, as many as titles.
            metadata: one row per new item; missing columns are filled with nulls.

        Raises:
            DataError: An id or a title is empty or already taken, the numbers of titles and ids
                differ, or the metadata do not fit the columns of this catalogue.
        """
        titles = [clean_title(title) for title in text_list(titles)]
        item_ids = _stripped(item_ids)
        if len(titles) != len(item_ids):
            raise DataError(
                f"{len(titles)} titles need as many item ids, got {len(item_ids)}; give one id per "
                "title"
            )
        new = (("item id", item_ids, self._by_id), ("title", titles, self._by_title))
        for kind, values, known in new:
            counts = Counter(values)
            for value in values:
                if not value or value in known or counts[value] > 1:
                    raise DataError(
                        f"{kind} {value!r} is empty or taken; every item needs its own {kind}"
                    )
        rows = pl.DataFrame({name: [None] * len(titles) for name in self.metadata.columns})
        if metadata is not None:
            if metadata.height != len(titles):
                raise DataError(
                    f"the metadata have {metadata.height} rows for {len(titles)} new items; give "
                    "one row per item"
                )
            rows = rows.with_columns(metadata.get_columns()) if rows.width else metadata
        try:
            fitting = rows.select(self.metadata.columns).cast(self.metadata.schema)
        except pl.exceptions.PolarsError as error:
            reason = str(error).partition("\n")[0]
            raise DataError(
                f"the metadata do not fit the columns of the catalogue ({reason}); the columns are "
                f"{shown(self.metadata.columns) or 'none'}"
            ) from None
        joined = pl.concat([self.metadata, fitting])
        return Catalogue([*self.item_ids, *item_ids], [*self.titles, *titles], joined)

    def save(self, path: str | Path) -> None:
        """Write a Parquet file with the columns item_id, title and the metadata, atomically."""
        with replacing(Path(path)) as partial:
            self._table().write_parquet(partial)

    def _table(self) -> pl.DataFrame:
        return pl.DataFrame(
            {"item_id": self.item_ids, "title": self.titles},
            schema={"item_id": pl.String, "title": pl.String},
        ).hstack(self.metadata)

    @classmethod
    def load(cls, path: str | Path) -> Catalogue:
        """Read a catalogue that :meth:`save` wrote.

        Raises:
            DataError: The file is missing or is not a catalogue.
        """
        try:
            table = pl.read_parquet(path)
            ids, titles = table["item_id"].to_list(), table["title"].to_list()
        except (OSError, pl.exceptions.PolarsError) as error:
            reason = str(error).partition("\n")[0]
            remedy = "make its folder again with `genrec prepare` or `genrec train`"
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
    def _by_bare_title(self) -> dict[str, list[int]]:
        return places_of(_bare(title) for title in self.titles)

    def _unknown(self, key: str, folded: str, matches: list[int]) -> str:
        if matches:
            named = ", ".join(f"{self.titles[i]!r} (id {self.item_ids[i]})" for i in matches[:5])
            return f"{key!r} names {len(matches)} items: {named}; give one full title or an item id"
        close = ", ".join(repr(self.titles[index]) for index in self._close(folded)) or "none"
        where = f"not in the catalogue of {len(self):,} items"
        return f"{key!r} is {where}; close titles: {close}; give a full title or an item id"

    def _close(self, folded: str) -> list[int]:
        """Return up to three items: titles that contain the text, then titles spelled similarly."""
        by_title = self._by_folded_title
        containing = islice((title for title in by_title if folded and folded in title), 3)
        words = set(folded.split())
        pool = list(by_title)
        if len(pool) > _POOL:  # edit distance is slow, so compare only titles that share a word
            pool = list(islice((title for title in pool if words & set(title.split())), _POOL))
        similar = difflib.get_close_matches(folded, pool, n=3, cutoff=0.5)
        found = dict.fromkeys([*containing, *similar])
        return [by_title[title][0] for title in islice(found, 3)]


def _stripped(item_ids: Sequence[str]) -> list[str]:
    """Return ids as they are looked up, without blanks around them."""
    for entry in text_list(item_ids):
        if not isinstance(entry, str):
            raise DataError(f"the item id {entry!r} is not a text; give {str(entry)!r}")
    return [entry.strip() for entry in item_ids]


def _bare(title: str) -> str:
    return _SUFFIX.sub("", title).casefold()
