"""The priors and their parts as recommenders of their own."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from genrec.ease import invert, ones, speaks_for
from genrec.histories import Dataset, Histories, Holdout
from genrec.priors import CooccurrencePrior, KernelPrior, PooledPrior, PopularityPrior, Prior
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
    """Co-occurrence in both directions with fitted weights; see the prior for the formula."""

    name = "kernel"

    def __init__(self) -> None:
        self._prior = KernelPrior()


class Pooled(_Counting):
    """Kernel, EASE and popularity in a log-linear pool; GenRec's default prior by itself."""

    name = "pooled"

    def __init__(self) -> None:
        self._prior = PooledPrior()


class Ease:
    """EASE (arXiv 1905.03375), which hears a history as a set."""

    name = "ease"

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Invert the Gram matrix of the training split; ``valid`` is not looked at."""
        self._says = speaks_for(invert(train.histories, len(train.catalogue)))
        return self

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        """The k items that the history speaks for most; see :class:`.Recommender`."""
        scores = (ones(histories, self._says.shape[0]) @ self._says).toarray()
        return top_k(scores, k, histories if exclude_seen else None)
