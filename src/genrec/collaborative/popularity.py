"""Popularity, as a prior and as two recommenders."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from genrec.arrays import Arrays, Floats
from genrec.collaborative.base import PriorRecommender, Scores, Scoring, check_setting
from genrec.collaborative.counts import ages, extended_counts, item_counts, smoothed_popularity
from genrec.collaborative.expert import PriorExpert
from genrec.collaborative.sparse import SparseDistributions
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout


class PopularityPrior:
    """q is each item's share of the interactions plus one pseudo-count; it ignores the history."""

    kind: ClassVar[str] = "popularity"
    counts: Floats

    @property
    def item_counts(self) -> Floats:
        return self.counts

    def fit(self, histories: Histories, n_items: int) -> Self:
        self.counts = item_counts(histories, n_items)
        return self

    def probabilities(self, histories: Histories) -> Floats:
        return np.tile(smoothed_popularity(self.counts), (len(histories), 1))

    def training_probabilities(self, history: Histories, start: int, stop: int) -> Floats:
        return self.training_shares(history, start, stop).dense()

    def training_shares(self, history: Histories, start: int, stop: int) -> SparseDistributions:
        items, own = np.unique(history.items, return_counts=True)
        rows = stop - start
        row = np.repeat(np.arange(rows), len(items))
        return SparseDistributions(
            self.counts + 1.0, row, np.tile(items, rows), np.tile(-1.0 * own, rows), rows
        )

    def extended(self, like: Sequence[int | None], catalogue: Catalogue | None = None) -> Self:
        longer = copy(self)
        longer.counts = extended_counts(self.counts, like)
        return longer

    def arrays(self) -> Arrays:
        return {"counts": self.counts}

    def restore(self, arrays: Arrays) -> Self:
        self.counts = arrays["counts"]
        return self


class Popularity(PriorRecommender):
    """Recommends the most popular items."""

    name = "popularity"

    def __init__(self) -> None:
        self._prior = PopularityPrior()


@dataclass(eq=False)
class RecentPopularity(Scoring):
    """Popularity in which older interactions count less.

    An interaction of age a has weight ``0.5 ** (a / half_life)``. The age is the share of the
    data's time span that lies after the interaction. Where timestamps only number each user's
    items, the age is the share of the user's own history that lies after it.
    """

    name = "popularity-recent"

    half_life: float = 0.02
    """Age at which an interaction has weight 0.5, as a share of the time span."""

    def __post_init__(self) -> None:
        check_setting("half_life", self.half_life, above=0.0)

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        weights = 0.5 ** (ages(train.histories) / self.half_life)
        counts = np.bincount(train.histories.items, weights=weights, minlength=len(train.catalogue))
        self._weights = counts.astype(np.float64)  # without any item they would be whole numbers

    def scores(self, histories: Histories) -> Scores:
        return np.tile(self._weights, (len(histories), 1))

    def arrays(self) -> Arrays:
        return {"weights": self._weights}

    def restore(self, arrays: Arrays) -> Self:
        self._weights = arrays["weights"]
        return self


class PopularityExpert(PriorExpert):
    """Popularity as a part of the pool, where its weight is mostly negative.

    The other experts contain popularity already, some of them too much of it.
    """

    name = "popularity"
    terms = ("popularity",)

    def __init__(self) -> None:
        self.prior = PopularityPrior()

    def scores(self, histories: Histories) -> list[Floats]:
        return [np.log(smoothed_popularity(self.prior.counts))[None]]

    def training_scores(self, history: Histories, start: int, stop: int) -> list[Floats]:
        counts = self.prior.counts
        others = counts - np.bincount(history.items, minlength=len(counts))
        return [np.log(smoothed_popularity(others))[None]]
