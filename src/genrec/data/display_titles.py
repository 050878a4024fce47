"""Display titles: cleaned titles, made unique for each item.

Cleaning unescapes HTML entities, removes HTML tags and control characters, normalises to Unicode
NFC and reduces white space to single spaces. If several items then share a title, a metadata value
is appended ("Emma (1996)", "Clue [Board Games]"), or a number if no metadata differ ("Clue (2)").
Titles that differ only in case count as different.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

import polars as pl

# Metadata columns that can distinguish items with equal titles, in order of preference, and the
# form of the suffix.
_DISTINGUISHING = {"year": "({})", "release_year": "({})"} | dict.fromkeys(
    [
        *("brand", "store", "manufacturer", "artist", "author", "creator", "director", "publisher"),
        *("platform", "edition", "format", "size", "color", "city", "neighborhood", "address"),
        *("location", "region", "state", "country", "category", "categories", "main_category"),
        "genres",
    ],
    "[{}]",
)


_LISTS = ("category", "categories", "genres")
"""Columns whose values may be lists that are separated by commas."""


_LONGEST = 60  # characters of a suffix that joins the values of a list


# C0, C1, zero-width and bidirectional marks, byte order marks, lone surrogates. The joiners U+200C
# and U+200D stay: Persian, Indic scripts and emoji need them.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")


# Tags that stand inside of words or lines, and those that part lines.
_INLINE = re.compile(r"</?(?:b|i|u|em|strong|small|big|su[bp]|span|font|a)(?:\s[^<>]*)?/?>", re.I)
_BLOCK = re.compile(r"</?(?:br|p|div|li|[uo]l|h[1-6]|t[rd])(?:\s[^<>]*)?/?>", re.I)


_SURROGATES = re.compile("[\ud800-\udfff]")


def clean_title(text: str) -> str:
    """Return the display form of a title: without HTML, NFC, on one line, with single spaces.

    Cleaning a clean title changes nothing.
    """
    while True:
        # Without their semicolon, entities may be parts of words, as in "macro&micro".
        plain = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
        if "<" in plain:
            plain = _BLOCK.sub(" ", _INLINE.sub("", plain))
        cleaned = " ".join(unicodedata.normalize("NFC", plain).split())
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
    first = _text(value).split(" | ")[0]
    return clean_title(first.rpartition(" > ")[2].replace("|", ", "))


def _text(value: object) -> str:
    """Return a metadata value as text; missing values and their words are empty."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str("" if value is None else value).strip()
    if text.lower() in ("none", "null", "nan", "n/a", "na", "unknown"):
        return ""
    if text.startswith("['") and text.endswith("']"):  # a list as Python writes it
        return "|".join(re.findall(r"'([^']*)'", text))
    return text


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
    known = distinguishing(metadata)
    for group in groups:
        columns = {name: [_value(name, value) for value in metadata[name][group]] for name in known}
        column, suffixes = _suffixes(columns, range(len(group)))
        bare_is_free = True  # the first item without a suffix keeps the shared title
        for place, index in enumerate(group):
            suffix = suffixes[place]
            title = f"{titles[index]} {suffix}".rstrip()
            if not suffix and bare_is_free:
                bare_is_free = False
                continue
            free = title not in taken
            unique[index] = title if free else numbered(title, taken.__contains__)
            changed[column if free else "number"] += 1
            taken.add(unique[index])
    return unique, dict(changed)


def distinguishing(metadata: pl.DataFrame) -> list[str]:
    """Return the columns that can tell items with one title apart, the most useful first."""
    return [name for name in _DISTINGUISHING if name in metadata.columns]


class _Value(NamedTuple):
    """A metadata value: its parts, and what they are kinds of ("A" of "A > B")."""

    parts: tuple[str, ...]
    parents: tuple[str, ...]

    @property
    def whole(self) -> str:
        """All parts in alphabetical order, so that lists are compared as sets."""
        return ", ".join(sorted(self.parts))


def _value(column: str, value: object) -> _Value:
    """Split a metadata value into what a suffix may say."""
    text = _text(value)
    paths = [path.split(" > ") for path in re.split(r" ?\| ?", text)]
    if column in _LISTS and len(paths) == 1 and len(paths[0]) == 1:
        paths = [[part.strip()] for part in text.split(",")]
    parents = [part for path in paths for part in reversed(path[:-1])]
    return _Value(_distinct(path[-1] for path in paths), _distinct(parents))


def _distinct(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(filter(None, dict.fromkeys(map(clean_title, parts))))


def _suffixes(
    columns: Mapping[str, Sequence[_Value]], places: Sequence[int]
) -> tuple[str, dict[int, str]]:
    """Tell items with one title apart by as few and as short values as possible.

    Args:
        columns: the value of each item, by column, in order of preference.
        places: the items to tell apart, as places in these lists.

    Returns:
        The column with the most distinct values, and the suffix of each item. Where that column
        does not tell items apart, others follow.
    """
    best, suffixes, most = "number", dict.fromkeys(places, ""), 1
    for name, values in columns.items():
        labels = _labels([values[place] for place in places], _DISTINGUISHING[name])
        if len(set(labels)) > most:
            best, most = name, len(set(labels))
            suffixes = dict(zip(places, labels, strict=True))
    if best == "number":
        return best, suffixes
    others = {name: values for name, values in columns.items() if name != best}
    for alike in places_of(suffixes.values()).values():
        same = [places[place] for place in alike]
        if len(same) > 1:
            for place, more in _suffixes(others, same)[1].items():
                suffixes[place] = f"{suffixes[place]} {more}".strip()
    return best, suffixes


def _labels(values: Sequence[_Value], form: str) -> list[str]:
    """Return a suffix for each item: a part that only its value has, else the whole value.

    Lists with the same parts in another order get the same suffix, and so do long lists.
    """
    same: dict[frozenset[str], _Value] = {}
    values = [same.setdefault(frozenset((*each.parts, *each.parents)), each) for each in values]
    counts = Counter(part for value in values for part in {*value.parts, *value.parents})
    wholes = Counter(value.whole for value in values)
    labels = []
    for value in values:
        label = next((part for part in value.parts if counts[part] == 1), "")
        if not label and (wholes[value.whole] > 1 or len(value.whole) > _LONGEST):
            label = next((part for part in value.parents if counts[part] == 1), "")
        short = len(value.parts) == 1 or len(value.whole) <= _LONGEST
        label = label or (value.whole if short else "")
        labels.append(form.format(label) if label else "")
    return labels


def numbered(title: str, taken: Callable[[str], bool]) -> str:
    """Return the title with the first number that makes it free, e.g. "Clue (2)"."""
    return next(name for number in count(2) if not taken(name := f"{title} ({number})"))
