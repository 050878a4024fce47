"""The catalogue: item ids and the one unique display title of each, safe to show and to type.

A display title is cleaned (HTML entities unescaped, Unicode NFC, control characters removed, white
space folded to single blanks). Where two items then share a title, metadata tells them apart
("Emma (1996)", "Clue [Board Games]"), and only where that fails a number does ("Clue (2)"). Unique
means different after that cleaning; titles that differ in case alone stay as they are.
"""

from __future__ import annotations

import difflib
import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from pathlib import Path

import numpy as np
import polars as pl

from genrec.arrays import Mask
from genrec.errors import DataError, UnknownItemError
from genrec.files import replacing

# Metadata that may tell items of one title apart, in order of preference, and how it is written.
_DISTINGUISHING = {"year": "({})", "release_year": "({})"} | dict.fromkeys(
    [
        *("brand", "store", "manufacturer", "artist", "author", "creator", "director", "publisher"),
        *("platform", "edition", "format", "size", "color", "category", "categories"),
        *("main_category", "genres"),
    ],
    "[{}]",
)
# C0, C1, zero-width and bidirectional marks, byte order marks, lone surrogates. The joiners U+200C
# and U+200D stay: Persian, Indic scripts and emoji need them.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_YEAR = re.compile(r" \(\d{4}\)$")
_POOL = 20_000  # titles compared by edit distance: about half a second


def clean_title(text: str) -> str:
    """The title as it is shown: unescaped, NFC, one line, single blanks. Cleaning twice is once."""
    while True:
        cleaned = " ".join(unicodedata.normalize("NFC", html.unescape(text)).split())
        cleaned = " ".join(_SURROGATES.sub("", _INVISIBLE.sub("", cleaned)).split())
        if cleaned == text:
            return text
        text = cleaned


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

    def index_of(self, title_or_id: str) -> int:
        """Index of an item by exact title, else id, else title in any case, else without "(year)".

        The last two count only where one item matches. Raises UnknownItemError with close titles.
        """
        key = title_or_id.strip()
        for exact in (self._by_title, self._by_id):
            if key in exact:
                return exact[key]
        folded = clean_title(key).casefold()
        matches = self._by_folded_title.get(folded) or self._by_yearless_title.get(folded) or []
        if len(matches) == 1:
            return matches[0]
        raise UnknownItemError(self._unknown(key, folded, matches))

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
    ) -> Mask:
        """Which items a recommendation may come from, bool[items].

        allow, block: titles or ids; only those, never those. where: a Polars expression or the text
        of an SQL condition on item_id, title and the metadata columns, e.g. "genres LIKE '%Comedy%'
        AND year > 1990"; unknown values do not meet it. Raises UnknownItemError or DataError.
        """
        mask = np.ones(len(self), dtype=bool)
        if allow is not None:
            mask[:] = False
            mask[[self.index_of(entry) for entry in allow]] = True
        mask[[self.index_of(entry) for entry in block]] = False
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
        return _positions(title.casefold() for title in self.titles)

    @cached_property
    def _by_yearless_title(self) -> dict[str, list[int]]:
        return _positions(_YEAR.sub("", title).casefold() for title in self.titles)

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


def _positions(keys: Iterable[str]) -> dict[str, list[int]]:
    positions: defaultdict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        positions[key].append(index)
    return dict(positions)


def build_catalogue(
    items: pl.DataFrame | None, item_ids: Sequence[str]
) -> tuple[Catalogue, dict[str, object]]:
    """The catalogue of `item_ids`, in that order, with titles from `items` (item_id, title, …).

    An item without a title is called "Untitled Board Games B001XYZ" after the last part of its
    category, or "Untitled item B001XYZ". The report counts items, untitled ones, those missing from
    the table, table rows of no item, duplicate titles (an earlier item has it), and what told them
    apart.
    """
    if items is None:
        remedy = "give an item table (--items FILE) or name the log's title column (--title COLUMN)"
        raise DataError(f"the log has no item titles, and GenRec recommends by title; {remedy}")
    wanted = pl.DataFrame({"item_id": list(item_ids)}, schema={"item_id": pl.String})
    table = wanted.join(items, on="item_id", how="left", maintain_order="left")
    unknown = wanted.join(items, on="item_id", how="anti").height
    if wanted.height and unknown == wanted.height:
        shown = f"{item_ids[0]!r} in the log, {items['item_id'].first()!r} in the item table"
        remedy = "name the id columns (--item) or give the right --items"
        raise DataError(f"no item of the log is in the item table ({shown}); {remedy}")
    metadata = table.drop("item_id", "title")
    raw = [title or "" for title in table["title"].to_list()]
    cleaned = [clean_title(title) for title in raw]
    titles = [title or name for title, name in zip(cleaned, _fallbacks(table), strict=True)]
    unique, mended = _disambiguate(titles, metadata)
    report: dict[str, object] = {
        "items": len(unique),
        "untitled": cleaned.count(""),
        "not_in_item_table": unknown,
        "items_without_interactions": items.join(wanted, on="item_id", how="anti").height,
        "changed_by_cleaning": sum(old != new for old, new in zip(raw, cleaned, strict=True)),
        "duplicate_titles": len(titles) - len(set(titles)),
        "disambiguated_by": mended,
    }
    return Catalogue(list(item_ids), unique, metadata), report


def _fallbacks(table: pl.DataFrame) -> Iterator[str]:
    names = [name for name in ("category", "categories", "main_category") if name in table.columns]
    for row in table.select("item_id", *names).iter_rows():
        kind = next(filter(None, map(_leaf, row[1:])), "item")
        yield clean_title(f"Untitled {kind} {row[0]}")


def _leaf(value: object) -> str:
    """A metadata value as it stands in a title: "A > B | C > D" is "B", "Comedy|Drama" a list."""
    first = str("" if value is None else value).split(" | ")[0]
    return clean_title(first.rpartition(" > ")[2].replace("|", ", "))


def _disambiguate(
    titles: Sequence[str], metadata: pl.DataFrame
) -> tuple[list[str], dict[str, int]]:
    """Unique titles, and how many items each column (or "number") told apart."""
    unique, mended = list(titles), Counter[str]()
    groups = [group for group in _positions(titles).values() if len(group) > 1]
    taken = set(titles)  # no mended title may take the name of another item
    columns = {name: form for name, form in _DISTINGUISHING.items() if name in metadata.columns}
    for group in groups:
        column, suffixes = _suffixes(metadata[group], columns)
        bare_is_free = True  # the first item that has nothing to add keeps the shared title
        for index, suffix in zip(group, suffixes, strict=True):
            title = f"{titles[index]} {suffix}".rstrip()
            if not suffix and bare_is_free:
                bare_is_free = False
                continue
            free = title not in taken
            unique[index] = title if free else _numbered(title, taken.__contains__)
            mended[column if free else "number"] += 1
            taken.add(unique[index])
    return unique, dict(mended)


def _suffixes(rows: pl.DataFrame, columns: Mapping[str, str]) -> tuple[str, list[str]]:
    """The column with the most different values in these rows (the first such), and its values."""
    best, suffixes, most = "number", [""] * rows.height, 1
    for name, form in columns.items():
        values = [form.format(leaf) if (leaf := _leaf(value)) else "" for value in rows[name]]
        if len(set(values)) > most:
            best, suffixes, most = name, values, len(set(values))
    return best, suffixes


def _numbered(title: str, taken: Callable[[str], bool]) -> str:
    return next(name for number in count(2) if not taken(name := f"{title} ({number})"))
