"""Prompt titles: the form of a title that the model reads and writes.

Prompt titles are unique, optionally shortened, and tokenised once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from genrec.arrays import Ints, Ints32
from genrec.data.display_titles import numbered
from genrec.errors import BackboneError

LONG = 4
"""Multiple of the limit from which on a title is never used whole, even if its beginning is not
unique."""
_YEAR = re.compile(r"\s*\((?:1[89]|20)\d\d\)$")


@dataclass(frozen=True, eq=False)
class TitleTokens:
    """Tokens of all titles in item order, in one flat array.

    Attributes:
        tokens: all titles one after the other, each closed by the end token.
        offsets: the title of item ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``; shape [items +
            1].
    """

    tokens: Ints32
    offsets: Ints

    @classmethod
    def from_lists(cls, titles: Iterable[Sequence[int]]) -> Self:
        """Build from one token sequence per title, each already closed by the end token."""
        rows = [np.asarray(title, np.int32) for title in titles]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, np.int32), *rows]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, item: int) -> Ints32:
        return self.tokens[self.offsets[item] : self.offsets[item + 1]]

    def __iter__(self) -> Iterator[Ints32]:
        return (self[item] for item in range(len(self)))

    @property
    def lengths(self) -> Ints:
        """Number of tokens of each title, end token included, shape [items]."""
        return np.diff(self.offsets)

    def __add__(self, other: TitleTokens) -> TitleTokens:
        tokens = np.concatenate([self.tokens, other.tokens])
        return TitleTokens(tokens, np.append(self.offsets, self.offsets[-1] + other.offsets[1:]))


def tokenize_titles(tokenizer: Any, titles: Sequence[str], end: int) -> TitleTokens:
    """Tokenise titles and close each with the token ``end``.

    Raises:
        BackboneError: A title contains ``end``.
    """
    if not titles:
        return TitleTokens.from_lists([])
    encoded = tokenizer(list(titles), add_special_tokens=False)["input_ids"]
    for title, tokens in zip(titles, encoded, strict=True):
        if end in tokens:
            raise BackboneError(
                f"The title {title!r} contains the mark that closes titles. Set separator=newline."
            )
    return TitleTokens.from_lists([*tokens, end] for tokens in encoded)


def prompt_titles(
    titles: Sequence[str],
    tokenizer: Any,
    *,
    form: str,
    limit: int,
    taken: Sequence[str] = (),
) -> list[str]:
    """Return the prompt form of each title.

    A shortened title loses its year, unless the year makes it unique: half of a MovieLens title's
    tokens are the digits of its year. It is then cut after ``limit`` tokens. Where titles begin
    alike, they stay whole; very long ones keep their beginning and their end instead.

    Args:
        titles: display titles.
        tokenizer: a transformers tokenizer.
        form: ``"short"`` shortens titles; ``"display"`` keeps them as they are.
        limit: most tokens of a shortened title.
        taken: titles that the result must not contain.

    Returns:
        Titles in the order of ``titles``, each unique and none in ``taken``.
    """
    if form == "display":
        return list(titles)
    bare = [_YEAR.sub("", title) or title for title in titles]
    short = _unless_ambiguous(taken, bare, titles)
    encoded = tokenizer(short, add_special_tokens=False)["input_ids"] if short else []
    cut, bounded, longest = list(short), list(short), list(titles)
    for index, tokens in enumerate(encoded):
        if len(tokens) > limit:
            cut[index] = _text(tokenizer, tokens[:limit])
        if len(tokens) > LONG * limit:
            tail = max(1, limit // 3)
            ends = (tokens[: limit - tail], tokens[-tail:])
            bounded[index] = " … ".join(_text(tokenizer, end) for end in ends)
            longest[index] = bounded[index]
    unique = _unless_ambiguous(taken, cut, bounded, longest)
    return tell_apart(unique, set(taken))


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Return the text of some tokens, without halves of characters at its ends."""
    return str(tokenizer.decode(tokens)).strip("\ufffd").strip()


def tell_apart(titles: list[str], seen: set[str]) -> list[str]:
    """Append a number to each title that was seen before, in place.

    Args:
        titles: the titles, which are changed.
        seen: titles that are taken already; it grows.

    Returns:
        ``titles``, now distinct.
    """
    every = seen | set(titles)
    for index, title in enumerate(titles):
        if title in seen:
            titles[index] = numbered(title, every.__contains__)
            every.add(titles[index])
        seen.add(titles[index])
    return titles


def _unless_ambiguous(
    taken: Sequence[str], preferred: list[str], *longer: Sequence[str]
) -> list[str]:
    """Return each preferred form, or the next longer form where it is not unique."""
    current, forms = preferred, [preferred, *longer]
    level = [0] * len(preferred)
    while True:
        counts = Counter(taken)
        counts.update(current)
        clashes = [
            i for i, text in enumerate(current) if counts[text] > 1 and level[i] < len(longer)
        ]
        if not clashes:
            return current
        for i in clashes:
            level[i] += 1
        current = [forms[step][i] for i, step in enumerate(level)]
