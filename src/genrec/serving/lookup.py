"""Typeahead over titles: prefix matches first, then titles with similar spelling."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from rapidfuzz import fuzz, process

WORD = re.compile(r"\w+")
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
)
"""Letters of Thai, Lao, Burmese, Khmer, Japanese and Chinese, which set no spaces between words."""
ARTICLES = {"a", "an", "the", "le", "la", "les", "der", "die", "das", "el", "il"}
CUTOFF = 70.0
"""Minimum similarity (0 to 100) of two words that count as misspellings of each other."""
MOST_ENTRIES = 4000
"""Maximum number of prefix matches that are ranked; a single letter has many more."""
SHORTEST_FUZZY = 4
"""Minimum length of a word for fuzzy matching; shorter words resemble too many others."""


def fold(text: str) -> str:
    """Return the text without case and accents."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


def _endings(word: str) -> list[str]:
    return [word[start:] for start in range(1, len(word))]


class Lookup:
    """An immutable index of titles, which threads may share."""

    def __init__(self, item_ids: Sequence[str], titles: Sequence[str]) -> None:
        """Index ids and titles; an item's index is its position in both lists."""
        self._size = len(titles)
        self._words = [WORD.findall(fold(title)) for title in titles]
        # Entries are (word, rank of the match, length, item). They are sorted, so the words with a
        # given prefix form one range.
        entries = []
        for item, words in enumerate(self._words):
            shown = [word for word in words if word not in ARTICLES] or words
            for place, word in enumerate(words):
                first = int(word != (shown[0] if shown else "") and place > 0)
                entries.append((word, first, len(titles[item]), item))
            # A word of a script without spaces may begin at each of its letters.
            inner = [end for word in words if UNSPACED.search(word) for end in _endings(word)]
            entries += [(word, 1, len(titles[item]), item) for word in inner]
            words += inner
        self._entries = sorted(set(entries))
        self._starts = [entry[0] for entry in self._entries]
        self._ids = {fold(item_id): item for item, item_id in enumerate(item_ids)}
        self._by_word: dict[str, list[int]] = {}
        for word, _, _, item in self._entries:
            self._by_word.setdefault(word, []).append(item)
        self._known = [word for word in self._by_word if len(word) >= SHORTEST_FUZZY]

    def __len__(self) -> int:
        return self._size

    def find(self, query: str, limit: int = 10) -> list[int]:
        """Find items by the beginnings of words, by similar spelling, or by id.

        Args:
            query: text that a user has typed.
            limit: maximum number of items.

        Returns:
            Item indices, best match first.
        """
        words = WORD.findall(fold(query))
        if not words or limit < 1:
            return []
        found: dict[int, None] = {}
        exact = self._ids.get(fold(query.strip()))
        if exact is not None:
            found[exact] = None
        found |= dict.fromkeys(self._beginning(words))
        if not found:
            found |= dict.fromkeys(self._nearly(words))
        return list(found)[:limit]

    def _beginning(self, words: Sequence[str]) -> list[int]:
        """Return items with a word that begins with each query word.

        Titles that begin with the first query word come first, then shorter titles.
        """
        rarest = min(words, key=lambda word: self._count(word))
        start, stop = self._range(rarest)
        best: dict[int, tuple[int, int, int]] = {}
        for word, first, length, item in self._entries[start : min(stop, start + MOST_ENTRIES)]:
            if not self._holds(item, words):
                continue
            begins = first if rarest == words[0] else self._late(item, words[0])
            rank = (begins, int(word != rarest), length)
            best[item] = min(best.get(item, rank), rank)
        return sorted(best, key=lambda item: (*best[item], item))

    def _late(self, item: int, word: str) -> int:
        """Return 0 if the title begins with a word, ignoring an article, else 1."""
        shown = [each for each in self._words[item] if each not in ARTICLES] or self._words[item]
        starts = (self._words[item][0], shown[0])
        return int(not any(each.startswith(word) for each in starts))

    def _holds(self, item: int, words: Sequence[str]) -> bool:
        return all(any(own.startswith(word) for own in self._words[item]) for word in words)

    def _nearly(self, words: Sequence[str]) -> Iterator[int]:
        """Yield items with words spelled like the query words, the best matches first.

        Short query words are prefixes of many words, so they count only for items that also match
        a long one.
        """
        scores: dict[int, float] = {}
        for word in sorted(words, key=len, reverse=True):
            short = len(word) < SHORTEST_FUZZY
            for item, score in self._alike(word).items():
                if not short or item in scores:
                    scores[item] = scores.get(item, 0.0) + score
        least = CUTOFF * len(words) * 0.6
        yield from sorted(
            (item for item in scores if scores[item] >= least),
            key=lambda item: (-scores[item], len(self._words[item]), item),
        )

    def _alike(self, word: str) -> dict[int, float]:
        if len(word) < SHORTEST_FUZZY:
            start, stop = self._range(word)
            return {entry[3]: 100.0 for entry in self._entries[start : min(stop, start + 500)]}
        near = process.extract(word, self._known, scorer=fuzz.ratio, score_cutoff=CUTOFF, limit=20)
        found: dict[int, float] = {}
        for known, score, _ in near:
            for item in self._by_word[known][:500]:
                found[item] = max(found.get(item, 0.0), score)
        return found

    def _count(self, word: str) -> int:
        start, stop = self._range(word)
        return stop - start

    def _range(self, prefix: str) -> tuple[int, int]:
        return (
            bisect_left(self._starts, prefix),
            bisect_left(self._starts, prefix + "\U0010ffff"),
        )
