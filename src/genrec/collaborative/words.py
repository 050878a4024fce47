"""Words of a wish, such as "a comedy from the nineties", and their likeness to items.

An item's likeness is the share of the words that its title, its metadata and its decade hold,
relative to the item that holds most of them. Nothing is fitted but one weight, so new items are
found like any other, and the result is an item distribution that can be searched exactly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize_scalar

from genrec.arrays import Floats, Floats32
from genrec.collaborative.text import WORD, TextVectors, item_texts
from genrec.data.catalogue import Catalogue
from genrec.data.histories import Histories
from genrec.errors import DataError

POWER = 2
"""Power of the share of words, so that items with all words stand out (docs/decisions/0016)."""
MOST_LETTERS = 1000
"""Longest text of a wish."""
FIRST_WEIGHT = 4.0
"""Weight of the words before it was fitted."""
MOST_WEIGHT = 10.0
"""Largest weight that is tried."""
LOWEST = -60.0
"""Lowest logit relative to the likeliest item, so that no item becomes impossible."""
DECADES = {
    1920: "twenties",
    1930: "thirties",
    1940: "forties",
    1950: "fifties",
    1960: "sixties",
    1970: "seventies",
    1980: "eighties",
    1990: "nineties",
}
"""Names of the decades that are unambiguous."""
_YEAR = re.compile(r"\b(1[89]\d\d|20\d\d)\b")
_LITTLE = (
    "a about an and any are at be by film films for from i in is it item items like me movie "
    "movies my of on one or please product products some something that the to want we what who "
    "with would you"
)
_COMMON = frozenset(_LITTLE.split())
"""Words that say nothing about what is wanted."""


class WordIndex:
    """The words of a catalogue's items, and the likeness of other words to them."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Index the titles, the metadata and the decades of all items."""
        self._words = TextVectors(WORD).fit(described(catalogue))
        held: Any = self._words.vectors.T
        self._holders = sp.csr_array((held != 0).astype(np.float64))

    def likeness(self, words: Sequence[str]) -> Floats:
        """Return how many of each wish's words each item has, relative to the item with most.

        Returns:
            Numbers from 0 to 1, float64 [wishes, items]; all are 0 for a wish without known words.
        """
        queries: Any = self._words.queries([stems(text) for text in words])
        counts = ((queries != 0).astype(np.float64) @ self._holders).toarray()
        return cast(Floats, counts / np.maximum(counts.max(axis=1, keepdims=True), 1.0))

    def known(self, words: str) -> list[str]:
        """Return the words of a wish that occur in the catalogue, in their order."""
        found = _words(words)
        return [word for word in dict.fromkeys(found) if _stem(word) in self._words.vocabulary]


def heard(q: Floats, histories: Histories, index: WordIndex, weight: float) -> Floats:
    """Return the distributions of some histories after their users' words.

    Args:
        q: the distributions without words, shape [rows, items].
        histories: one row per distribution, some of them with words; the others stay as they are.
        index: the words of the catalogue.
        weight: weight of the words.
    """
    words = list(histories.words or ())
    rows = [row for row, text in enumerate(words) if text]
    changed = q.copy()
    likeness = index.likeness([str(words[row]) for row in rows])
    changed[rows] = with_words(q[rows], likeness, weight)
    return changed


def with_words(q: Floats, likeness: Floats, weight: float) -> Floats:
    """Return distributions whose items are likelier the more they are like the words.

    Args:
        q: the distributions, shape [rows, items].
        likeness: likeness of each row's words to each item, of the same shape.
        weight: weight of the words.

    Returns:
        Shape [rows, items]; rows sum to 1, and every entry is positive where that of ``q`` is.
    """
    logits = np.log(q) + weight * likeness**POWER
    logits -= logits.max(axis=1, keepdims=True)
    odds = np.exp(np.maximum(logits, LOWEST))
    return cast(Floats, odds / odds.sum(axis=1, keepdims=True))


def fit_weight(q: Floats, likeness: Floats, targets: Sequence[int]) -> float:
    """Return the weight of the words with which the targets are likeliest.

    Args:
        q: distributions without words, shape [rows, items].
        likeness: likeness of each row's words to each item, of the same shape.
        targets: the item that each row's user chose.
    """
    logits = np.log(q).astype(np.float32)
    votes = (likeness**POWER).astype(np.float32)
    rows = np.arange(len(targets))

    def loss(weight: float) -> float:
        sums: Floats32 = logits + np.float32(weight) * votes
        top = sums.max(axis=1)
        total = np.log(np.exp(sums - top[:, None]).sum(axis=1)) + top
        return float((total - sums[rows, targets]).mean())

    found = minimize_scalar(loss, bounds=(0.0, MOST_WEIGHT), method="bounded")
    return float(found.x)


def described(catalogue: Catalogue) -> list[str]:
    """Return the stems of each item's title, metadata and decade."""
    titles, facts = catalogue.titles, item_facts(catalogue)
    return [stems(f"{title} {fact}") for title, fact in zip(titles, facts, strict=True)]


def item_facts(catalogue: Catalogue) -> list[str]:
    """Return what the metadata say of each item, and the decade of its year; not its title."""
    metadata = item_texts(catalogue).get("metadata", [""] * len(catalogue))
    columns = catalogue.metadata.columns
    years = catalogue.metadata["year"].to_list() if "year" in columns else catalogue.titles
    return [
        " ".join(filter(None, (text.replace("|", " "), _decade(year))))
        for text, year in zip(metadata, years, strict=True)
    ]


def checked_words(words: str | None) -> str | None:
    """Return a wish, ``None`` for an empty one.

    Raises:
        DataError: It is too long.
    """
    if words is not None and len(words) > MOST_LETTERS:
        raise DataError(
            f"words may have at most {MOST_LETTERS:,} characters, got {len(words):,}; shorten them"
        )
    return words if words and words.strip() else None


def stems(text: str) -> str:
    """Return the words of a text in a form that is the same for singular and plural."""
    return " ".join(_stem(word) for word in _words(text))


def _words(text: str) -> list[str]:
    plain = text.casefold().replace("'s", "").replace("\u2019s", "")
    return [word for word in re.findall(r"\w+", plain) if word not in _COMMON]


def _stem(word: str) -> str:
    if word.isdecimal() or len(word) < 4 or word in DECADES.values():
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _decade(value: object) -> str:
    """Return the names of the decade of a year, or of the last year in a title."""
    years = _YEAR.findall(str(value or ""))
    if not years:
        return ""
    first = int(years[-1]) // 10 * 10
    return f"{first}s {first % 100:02d}s {DECADES.get(first, '')}".strip()
