"""The priors as recommenders of their own."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from genrec.histories import Dataset, Histories, Holdout
from genrec.priors import CooccurrencePrior, KernelPrior, PopularityPrior, Prior
from genrec.recommender import TopK, top_k


class _Counting:
    """Ranks items by a prior's probabilities; scores are their logarithms."""

    name: ClassVar[str]
    _prior: Prior

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Count the training split; ``valid`` is not looked at."""
        self._prior.fit(train.histories, len(train.catalogue))
        return self

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        """The k most probable items of each history; see :class:`.Recommender`."""
        scores = np.log(self._prior.probabilities(histories))
        return top_k(scores, k, histories if exclude_seen else None)


class Popularity(_Counting):
    """Most popular items first."""

    name = "popularity"

    def __init__(self) -> None:
        self._prior = PopularityPrior()


class Cooccurrence(_Counting):
    """Directed co-occurrence with the last items of the history; see the prior for the formula."""

    name = "cooccurrence"

    def __init__(self) -> None:
        self._prior = CooccurrencePrior()


class Kernel(_Counting):
    """Co-occurrence in both directions with fitted weights; GenRec's default prior by itself."""

    name = "kernel"

    def __init__(self) -> None:
        self._prior = KernelPrior()
