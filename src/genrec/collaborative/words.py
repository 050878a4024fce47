"""Words of a wish, such as "a comedy from the nineties", and their likeness to items.

An item's likeness is the share of the words that its title, its metadata and its decade hold,
relative to the item that holds most of them. Nothing is fitted but one weight, so new items are
found like any other, and the result is an item distribution that can be searched exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
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
DOUBT = 0.2
"""Probability that words are not what the user will choose (docs/decisions/0016)."""
FIRST_WEIGHT = 10.0
"""Weight of the words before it was fitted."""
MOST_WEIGHT = 20.0
"""Largest weight that is tried."""
MANY = 10
"""A word held by fewer items than this, or than one in 10,000, may have a related word."""
FEW = 3
"""A word held by fewer items than this has a related word from a lower likeness on."""
NEAR, NEARER = 0.23, 0.5
"""Least cosine of the related word of a word that few, or not so few, items hold."""
FORMS: tuple[Callable[[str], str], ...] = (
    lambda stem: f"{stem}s",
    lambda stem: f"{stem[:-1]}ies",
)
"""Forms of a stem that may have a vector if it has none."""
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
    """The words of a catalogue's items, and the likeness of other words to them.

    Args:
        catalogue: the items; their titles, metadata and decades are indexed.
        vectors: vectors of words, shape [words, size], of length 1, or 0 for an unknown word. With
            them, a word that few items hold also stands for the nearest word that many hold.
    """

    def __init__(
        self, catalogue: Catalogue, vectors: Callable[[Sequence[str]], Floats32] | None = None
    ) -> None:
        self._words = TextVectors(WORD).fit(described(catalogue))
        held: Any = self._words.vectors.T
        self._holders = sp.csr_array((held != 0).astype(np.float64))
        self._vectors = vectors
        self._many = max(MANY, len(catalogue) // 10_000)

    def likeness(self, words: Sequence[str]) -> Floats:
        """Return how many of each wish's words each item has, relative to the item with most.

        Returns:
            Numbers from 0 to 1, float64 [wishes, items]; all are 0 for a wish without known words.
        """
        occur: Any = self._words.queries([stems(text) for text in words])
        counts = ((occur != 0).astype(np.float64) @ self._holders).toarray()
        for row, text in enumerate(words):
            if related := self.related(text):
                counts[row] = self._meanings(text, related)
        return cast(Floats, counts / np.maximum(counts.max(axis=1, keepdims=True), 1.0))

    def _meanings(self, text: str, related: Mapping[str, str]) -> Floats:
        """Return how many meanings of a wish each item holds, float64 [items].

        A word and its related word are one meaning, and so are all words that share one.
        """
        meanings: dict[str, set[str]] = {}
        for word in _words(text):
            stem = _stem(word)
            near = _stem(related[word]) if word in related else stem
            meanings.setdefault(near, {near}).add(stem)
        held = [
            np.max([self._held(stem) for stem in sorted(alike)], axis=0)
            for alike in meanings.values()
        ]
        return cast(Floats, np.sum(held, axis=0))

    def _held(self, stem: str) -> Floats:
        """Return 1 for each item that holds a word and 0 for others, float64 [items]."""
        place = self._places.get(stem)
        if place is None:
            return np.zeros(self._holders.shape[1])
        return cast(Floats, self._holders[[place]].toarray()[0])

    def known(self, words: str) -> list[str]:
        """Return the words of a wish that the catalogue or a related word gives a meaning."""
        found, related = dict.fromkeys(_words(words)), self.related(words)
        return [word for word in found if _stem(word) in self._places or word in related]

    def related(self, words: str) -> dict[str, str]:
        """Return the words of a wish that few items hold, each with the word it also stands for."""
        found = {word: self._nearest(word) for word in _words(words)}
        return {word: near for word, near in found.items() if near is not None}

    def _nearest(self, word: str) -> str | None:
        """Return the word held by many items that is nearest to a word held by few."""
        holders = self._count(_stem(word))
        if self._vectors is None or holders >= self._many or not word.isalpha():
            return None
        own = [each for each in self._vectors([word, _stem(word)]) if each.any()]
        if not own:
            return None
        names, vectors = self._common
        if not names:
            return None
        cosines = vectors @ own[0]
        best = int(cosines.argmax())
        return names[best] if cosines[best] >= (NEAR if holders < FEW else NEARER) else None

    @cached_property
    def _places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self._words.words)}

    def _count(self, stem: str) -> int:
        """Return how many items hold a word."""
        place = self._places.get(stem)
        return 0 if place is None else int(np.diff(self._holders.indptr[place : place + 2])[0])

    @cached_property
    def _common(self) -> tuple[list[str], Floats32]:
        """The words held by many items, in a form that has a vector, and these vectors."""
        assert self._vectors is not None
        common = [
            word
            for word in self._words.words
            if self._count(word) >= self._many and word.isalpha() and word not in DECADES.values()
        ]
        names, vectors = list(common), self._vectors(common)
        for form in FORMS:
            shown = [form(word) for word in common]
            for row in np.flatnonzero(~vectors.any(axis=1, keepdims=True)):
                names[row] = shown[row]
            vectors = np.where(vectors.any(axis=1, keepdims=True), vectors, self._vectors(shown))
        known = np.flatnonzero(vectors.any(axis=1))
        return [names[row] for row in known], vectors[known]


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

    Each is a mixture: with probability :data:`DOUBT` the user chooses as if nothing had been said.

    Args:
        q: the distributions, shape [rows, items].
        likeness: likeness of each row's words to each item, of the same shape.
        weight: weight of the words.

    Returns:
        Shape [rows, items]; rows sum to 1, and every entry is positive where that of ``q`` is.
    """
    logits = np.log(q) + weight * likeness**POWER
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    meant = odds / odds.sum(axis=1, keepdims=True)
    return cast(Floats, (1 - DOUBT) * meant + DOUBT * q)


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
    plain = q[rows, targets]

    def loss(weight: float) -> float:
        sums: Floats32 = logits + np.float32(weight) * votes
        top = sums.max(axis=1)
        meant = np.exp(sums[rows, targets] - top) / np.exp(sums - top[:, None]).sum(axis=1)
        return float(-np.log((1 - DOUBT) * meant + DOUBT * plain).mean())

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
