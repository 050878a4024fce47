"""What the model can say: the catalogue's titles in its own form, tokenised, in a trie.

Kept in the run folder and memory-mapped, so that a large catalogue is neither tokenised nor sorted
again, and changed without training: titles come and go, the others keep their form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from genrec.arrays import Mask
from genrec.errors import DataError, RunError
from genrec.language_model.titles import TitleTokens, prompt_titles, tokenize_titles
from genrec.language_model.trie import Trie, build_trie

_TEXTS = "titles.parquet"


@dataclass(frozen=True)
class TitleIndex:
    """Titles of a catalogue as the model reads and writes them.

    Attributes:
        texts: one for each item, unique.
        trie: of the items that can be recommended; the others stay readable in histories.
    """

    texts: list[str]
    trie: Trie

    @classmethod
    def build(
        cls, tokenizer: Any, titles: Sequence[str], *, form: str, limit: int, end: int
    ) -> Self:
        """Index display titles; see :func:`.prompt_titles` for form and limit."""
        texts = prompt_titles(titles, tokenizer, form=form, limit=limit)
        return cls(texts, build_trie(tokenize_titles(tokenizer, texts, end)))

    @property
    def titles(self) -> TitleTokens:
        """Tokens of every item's title."""
        return self.trie.titles

    @property
    def offered(self) -> Mask:
        """Which items can be recommended, shape [items]."""
        return self.trie.leaf_of >= 0

    def add(
        self, tokenizer: Any, titles: Sequence[str], *, form: str, limit: int, end: int
    ) -> TitleIndex:
        """The index with further items at its end; known items keep their form."""
        texts = prompt_titles(titles, tokenizer, form=form, limit=limit, taken=self.texts)
        tokens = self.titles + tokenize_titles(tokenizer, texts, end)
        added = np.arange(len(self.texts), len(tokens))
        items = np.concatenate([np.flatnonzero(self.offered), added])
        return TitleIndex(self.texts + texts, build_trie(tokens, items))

    def offer(self, items: Sequence[int], yes: bool) -> TitleIndex:
        """The index with some items in the trie (``yes``) or out of it."""
        offered = self.offered
        offered[list(items)] = yes
        if not offered.any():
            raise DataError("At least one item has to stay: an empty catalogue recommends nothing.")
        return TitleIndex(self.texts, build_trie(self.titles, np.flatnonzero(offered)))

    def save(self, folder: Path) -> None:
        """Write a new folder."""
        self.trie.save(folder)
        pl.DataFrame({"title": self.texts}).write_parquet(folder / _TEXTS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote, the trie memory-mapped.

        Raises:
            RunError: it is missing or damaged.
        """
        trie = Trie.load(folder)
        try:
            texts = pl.read_parquet(folder / _TEXTS)["title"].to_list()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise RunError(f"{folder / _TEXTS}: {error}; train the run again.") from None
        if not len(texts) == len(trie.titles) == len(trie.leaf_of):
            raise RunError(f"{folder}: its files do not belong together; train the run again.")
        return cls(texts, trie)
