"""A hard filter by words, to compare with words that only make items likelier."""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import numpy as np

from genrec.arrays import Mask
from genrec.collaborative.words import item_facts, stems
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.model.genrec import GenRec
from genrec.recommender import TopK


class Filtered:
    """A model that recommends only items whose metadata hold all words of the request."""

    def __init__(self, model: GenRec) -> None:
        self._model = model
        self.name = model.name
        self._facts = [frozenset(stems(fact).split()) for fact in item_facts(model.catalogue)]

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Fit the model; see :meth:`genrec.GenRec.fit`."""
        self._model.fit(train, valid)
        return self

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        """Recommend for many histories at once; see :meth:`genrec.GenRec.recommend_batch`."""
        words = histories.words or [None] * len(histories)
        allowed = np.stack([self._allowed(text) for text in words])
        plain = replace(histories, words=None)
        return self._model.recommend_batch(plain, k, exclude_seen=exclude_seen, candidates=allowed)

    def _allowed(self, words: str | None) -> Mask:
        wanted = frozenset(stems(words or "").split())
        return np.array([wanted <= facts for facts in self._facts])
