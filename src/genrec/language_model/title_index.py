"""The title index: prompt titles of a catalogue, their tokens, and the trie over them.

The run folder stores the index, and loading memory-maps it, so that a large catalogue is not
tokenised and sorted again. Items can be added and removed without training; all other titles keep
their form.
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
    """Prompt titles of a catalogue and the trie over them.

    Attributes:
        texts: prompt title of each item, unique.
        trie: the items that can be recommended; other items may still occur in histories.
    """

    texts: list[str]
    trie: Trie

    @classmethod
    def build(
        cls, tokenizer: Any, titles: Sequence[str], *, form: str, limit: int, end: int
    ) -> Self:
        """Index display titles; :func:`.prompt_titles` explains ``form`` and ``limit``."""
        texts = prompt_titles(titles, tokenizer, form=form, limit=limit)
        return cls(texts, build_trie(tokenize_titles(tokenizer, texts, end)))

    @property
    def titles(self) -> TitleTokens:
        """Title tokens of every item."""
        return self.trie.titles

    @property
    def offered(self) -> Mask:
        """Which items can be recommended, shape [items]."""
        return self.trie.leaf_of >= 0

    def whole_trie(self) -> Trie:
        """Return the trie over all titles, including those that cannot be recommended."""
        return self.trie if self.offered.all() else build_trie(self.titles)

    def add(
        self, tokenizer: Any, titles: Sequence[str], *, form: str, limit: int, end: int
    ) -> TitleIndex:
        """Return an index with further items at its end; existing items keep their titles."""
        texts = prompt_titles(titles, tokenizer, form=form, limit=limit, taken=self.texts)
        tokens = self.titles + tokenize_titles(tokenizer, texts, end)
        added = np.arange(len(self.texts), len(tokens))
        items = np.concatenate([np.flatnonzero(self.offered), added])
        return TitleIndex(self.texts + texts, build_trie(tokens, items))

    def offer(self, items: Sequence[int], yes: bool) -> TitleIndex:
        """Return an index with some items added to the trie (``yes``) or removed from it.

        Raises:
            DataError: no item would remain.
        """
        offered = self.offered
        offered[list(items)] = yes
        if not offered.any():
            raise DataError("At least one item must stay in the catalogue. Remove fewer items.")
        return TitleIndex(self.texts, build_trie(self.titles, np.flatnonzero(offered)))

    def save(self, folder: Path) -> None:
        """Write the index to a new folder."""
        self.trie.save(folder)
        pl.DataFrame({"title": self.texts}).write_parquet(folder / _TEXTS)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read an index that :meth:`save` wrote; the trie is memory-mapped.

        Raises:
            RunError: a file is missing or damaged.
        """
        trie = Trie.load(folder)
        try:
            texts = pl.read_parquet(folder / _TEXTS)["title"].to_list()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise RunError(
                f"{folder / _TEXTS} cannot be read ({error}). Train the run again."
            ) from None
        if not len(texts) == len(trie.titles) == len(trie.leaf_of):
            raise RunError(f"The files in {folder} do not belong together. Train the run again.")
        return cls(texts, trie)
