"""Display titles: cleaned, and one for each item.

A display title is cleaned (HTML entities unescaped, Unicode NFC, control characters removed, white
space folded to single blanks). Where two items then share a title, metadata tells them apart
("Emma (1996)", "Clue [Board Games]"), and only where that fails a number does ("Clue (2)"). Unique
means different after that cleaning; titles that differ in case alone stay as they are.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count

import polars as pl

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


def clean_title(text: str) -> str:
    """The title as it is shown: unescaped, NFC, one line, single blanks. Cleaning twice is once."""
    while True:
        cleaned = " ".join(unicodedata.normalize("NFC", html.unescape(text)).split())
        cleaned = " ".join(_SURROGATES.sub("", _INVISIBLE.sub("", cleaned)).split())
        if cleaned == text:
            return text
        text = cleaned


def places_of(keys: Iterable[str]) -> dict[str, list[int]]:
    positions: defaultdict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        positions[key].append(index)
    return dict(positions)


def title_part(value: object) -> str:
    """A metadata value as it stands in a title: "A > B | C > D" is "B", "Comedy|Drama" a list."""
    first = str("" if value is None else value).split(" | ")[0]
    return clean_title(first.rpartition(" > ")[2].replace("|", ", "))


def disambiguate(titles: Sequence[str], metadata: pl.DataFrame) -> tuple[list[str], dict[str, int]]:
    """Unique titles, and how many items each column (or "number") told apart."""
    unique, mended = list(titles), Counter[str]()
    groups = [group for group in places_of(titles).values() if len(group) > 1]
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
        values = [form.format(part) if (part := title_part(value)) else "" for value in rows[name]]
        if len(set(values)) > most:
            best, suffixes, most = name, values, len(set(values))
    return best, suffixes


def _numbered(title: str, taken: Callable[[str], bool]) -> str:
    return next(name for number in count(2) if not taken(name := f"{title} ({number})"))
