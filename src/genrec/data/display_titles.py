"""Display titles: cleaned titles, made unique for each item.

Cleaning unescapes HTML entities, normalises to Unicode NFC, removes control characters and reduces
white space to single spaces. If several items then share a title, a metadata value is appended
("Emma (1996)", "Clue [Board Games]"), or a number if no metadata differ ("Clue (2)"). Titles that
differ only in case count as different.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count

import polars as pl

# Metadata columns that can distinguish items with equal titles, in order of preference, and the
# form of the suffix.
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
    """Return the display form of a title: unescaped, NFC, on one line, with single spaces.

    Cleaning a clean title changes nothing.
    """
    while True:
        cleaned = " ".join(unicodedata.normalize("NFC", html.unescape(text)).split())
        cleaned = " ".join(_SURROGATES.sub("", _INVISIBLE.sub("", cleaned)).split())
        if cleaned == text:
            return text
        text = cleaned


def places_of(keys: Iterable[str]) -> dict[str, list[int]]:
    """Return the positions of each distinct key, in ascending order."""
    positions: defaultdict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        positions[key].append(index)
    return dict(positions)


def title_part(value: object) -> str:
    """Return a metadata value as it appears in a title.

    Of categories such as "A > B | C > D" it is "B"; "Comedy|Drama" becomes "Comedy, Drama".
    """
    first = str("" if value is None else value).split(" | ")[0]
    return clean_title(first.rpartition(" > ")[2].replace("|", ", "))


def disambiguate(titles: Sequence[str], metadata: pl.DataFrame) -> tuple[list[str], dict[str, int]]:
    """Make titles unique by appending metadata or numbers.

    Args:
        titles: clean titles, one per item.
        metadata: one row per item.

    Returns:
        The unique titles, and the number of changed titles per metadata column (or ``"number"``).
    """
    unique, changed = list(titles), Counter[str]()
    groups = [group for group in places_of(titles).values() if len(group) > 1]
    taken = set(titles)  # a changed title must not equal the title of another item
    columns = {name: form for name, form in _DISTINGUISHING.items() if name in metadata.columns}
    for group in groups:
        column, suffixes = _suffixes(metadata[group], columns)
        bare_is_free = True  # the first item without a suffix keeps the shared title
        for index, suffix in zip(group, suffixes, strict=True):
            title = f"{titles[index]} {suffix}".rstrip()
            if not suffix and bare_is_free:
                bare_is_free = False
                continue
            free = title not in taken
            unique[index] = title if free else _numbered(title, taken.__contains__)
            changed[column if free else "number"] += 1
            taken.add(unique[index])
    return unique, dict(changed)


def _suffixes(rows: pl.DataFrame, columns: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the column with the most distinct values in these rows, and the suffixes from it.

    The first such column wins a tie.
    """
    best, suffixes, most = "number", [""] * rows.height, 1
    for name, form in columns.items():
        values = [form.format(part) if (part := title_part(value)) else "" for value in rows[name]]
        if len(set(values)) > most:
            best, suffixes, most = name, values, len(set(values))
    return best, suffixes


def _numbered(title: str, taken: Callable[[str], bool]) -> str:
    return next(name for number in count(2) if not taken(name := f"{title} ({number})"))
