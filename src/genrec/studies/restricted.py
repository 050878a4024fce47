"""A model that recommends only some of the items to each held-out user."""

from __future__ import annotations

from typing import Self

import numpy as np

from genrec.arrays import Floats, Items, Mask
from genrec.collaborative.words import item_facts, stems
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.model.genrec import GenRec
from genrec.recommender import TopK


class Restricted:
    """A model whose lists hold only the candidates of each user; its likelihood stays as it is."""

    def __init__(self, model: GenRec, candidates: Mask) -> None:
        """Restrict a model.

        Args:
            model: the model.
            candidates: mask of the items of each user, bool [users, items]. All users have to be
                asked for in one batch.
        """
        self._model, self._candidates = model, candidates
        self.name = model.name

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Fit the model; see :meth:`genrec.GenRec.fit`."""
        self._model.fit(train, valid)
        return self

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        """Recommend for all users; see :meth:`genrec.GenRec.recommend_batch`."""
        own = self._candidates
        return self._model.recommend_batch(histories, k, exclude_seen=exclude_seen, candidates=own)

    def log_likelihood(self, histories: Histories, targets: Items) -> Floats:
        """Return log p(target | history); see :meth:`genrec.GenRec.log_likelihood`."""
        return self._model.log_likelihood(histories, targets)


def with_all_words(catalogue: Catalogue, histories: Histories) -> Mask:
    """Return the items whose metadata hold all words of each row, bool [rows, items]."""
    facts = [frozenset(stems(fact).split()) for fact in item_facts(catalogue)]
    asked = [frozenset(stems(words or "").split()) for words in histories.words or ()]
    return np.array([[wanted <= known for known in facts] for wanted in asked])
