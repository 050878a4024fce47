"""Titles as the model reads and writes them: short, unique, and tokenised once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from genrec.arrays import Ints, Ints32

_YEAR = re.compile(r"\s*\((?:1[89]|20)\d\d\)$")


@dataclass(frozen=True, eq=False)
class TitleTokens:
    """Closed titles in item order, one after the other.

    Attributes:
        tokens: flat, each title closed by the end token.
        offsets: title of item ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``.
    """

    tokens: Ints32
    offsets: Ints

    @classmethod
    def from_lists(cls, titles: Iterable[Sequence[int]]) -> Self:
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
        """Tokens of each title, the end token included."""
        return np.diff(self.offsets)

    def __add__(self, other: TitleTokens) -> TitleTokens:
        tokens = np.concatenate([self.tokens, other.tokens])
        return TitleTokens(tokens, np.append(self.offsets, self.offsets[-1] + other.offsets[1:]))


def tokenize_titles(tokenizer: Any, titles: Sequence[str], end: int) -> TitleTokens:
    """Tokens of each title, closed by ``end``."""
    if not titles:
        return TitleTokens.from_lists([])
    encoded = tokenizer(list(titles), add_special_tokens=False)["input_ids"]
    return TitleTokens.from_lists([*tokens, end] for tokens in encoded)


def prompt_titles(
    titles: Sequence[str],
    tokenizer: Any,
    *,
    form: str,
    limit: int,
    taken: Sequence[str] = (),
) -> list[str]:
    """Titles as the model reads and writes them: unique, and short if ``form`` is ``"short"``.

    A short title loses its year unless it needs it to be unique (half of a MovieLens title's
    tokens are the digits of its year), then its tail beyond ``limit`` tokens. None is one of
    those already ``taken``.
    """
    if form == "display":
        return list(titles)
    bare = [_YEAR.sub("", title) or title for title in titles]
    short = _unless_ambiguous(taken, bare, titles)
    encoded = tokenizer(short, add_special_tokens=False)["input_ids"] if short else []
    cut = [
        tokenizer.decode(tokens[:limit]).rstrip("\ufffd").strip() if len(tokens) > limit else title
        for tokens, title in zip(encoded, short, strict=True)
    ]
    return _unless_ambiguous(taken, cut, short, titles)


def _unless_ambiguous(
    taken: Sequence[str], preferred: list[str], *longer: Sequence[str]
) -> list[str]:
    """Each preferred form, or the next longer form where it is not unique."""
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
