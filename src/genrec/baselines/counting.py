"""Popularity, and the priors as recommenders of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from genrec.arrays import Arrays, Floats, Items
from genrec.baselines.base import Scores, Scoring, check_setting
from genrec.histories import Dataset, Histories, Holdout, common_clock
from genrec.priors import CooccurrencePrior, KernelPrior, PooledPrior, PopularityPrior

BLOCK = 1024
"""Histories whose distributions are held at once."""


class Distribution(Protocol):
    """What a prior needs to be a recommender of its own; see :class:`genrec.priors.Prior`."""

    def fit(self, histories: Histories, n_items: int) -> Self: ...

    def probabilities(self, histories: Histories) -> Floats: ...

    def arrays(self) -> Arrays: ...

    def restore(self, arrays: Arrays) -> Self: ...


class Counting(Scoring):
    """Ranks items by a prior's probabilities; scores are their logarithms."""

    _prior: Distribution

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Count the training split; ``valid`` is not looked at."""
        self._prior.fit(train.histories, len(train.catalogue))
        return self

    def scores(self, histories: Histories) -> Scores:
        return np.log(self._prior.probabilities(histories))

    def log_likelihood(self, histories: Histories, targets: Items) -> Floats:
        """log p(target | history) over the whole catalogue, one value per row, in nats."""
        blocks = [
            np.arange(len(targets))[start : start + BLOCK]
            for start in range(0, len(targets), BLOCK)
        ]
        parts = [
            np.log(self._prior.probabilities(histories.select(rows)))[
                np.arange(len(rows)), targets[rows]
            ]
            for rows in blocks
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def arrays(self) -> Arrays:
        return self._prior.arrays()

    def restore(self, arrays: Arrays) -> Self:
        self._prior.restore(arrays)
        return self


class Popularity(Counting):
    """Most popular items first."""

    name = "popularity"

    def __init__(self) -> None:
        self._prior = PopularityPrior()


class Cooccurrence(Counting):
    """Directed co-occurrence with the last items of the history; see the prior for the formula."""

    name = "cooccurrence"

    def __init__(self) -> None:
        self._prior = CooccurrencePrior()


class Kernel(Counting):
    """Co-occurrence in both directions with fitted weights; see the prior for the formula."""

    name = "kernel"

    def __init__(self) -> None:
        self._prior = KernelPrior()


class Pooled(Counting):
    """Kernel, EASE and popularity in a log-linear pool; GenRec's default prior by itself."""

    name = "pooled"

    def __init__(self) -> None:
        self._prior = PooledPrior()


@dataclass(eq=False)
class RecentPopularity(Scoring):
    """Popularity in which an interaction counts less the older it is.

    An interaction of age a weighs ``0.5 ** (a / half_life)``, where a is the share of the log's
    time span that lies after it. Where timestamps are no common time but count each user's items, a
    is the share of the user's own history that lies after it.
    """

    name = "popularity-recent"

    half_life: float = 0.02
    """Age at which an interaction weighs half, as a share of the time span."""

    def __post_init__(self) -> None:
        check_setting("half_life", self.half_life, above=0.0)

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Add up the weights; ``valid`` is not looked at."""
        weights = 0.5 ** (ages(train.histories) / self.half_life)
        self._weights = np.bincount(
            train.histories.items, weights=weights, minlength=len(train.catalogue)
        )
        return self

    def scores(self, histories: Histories) -> Scores:
        return np.tile(self._weights, (len(histories), 1))

    def arrays(self) -> Arrays:
        return {"weights": self._weights}

    def restore(self, arrays: Arrays) -> Self:
        self._weights = arrays["weights"]
        return self


def ages(histories: Histories) -> Floats:
    """Ages of all interactions from 0, the newest, to 1; see :class:`RecentPopularity`."""
    times = histories.timestamps
    if len(times) and common_clock(histories):
        span = max(float(np.ptp(times)), np.finfo(float).tiny)
        return np.asarray((times.max() - times) / span)
    lengths = np.repeat(histories.lengths, histories.lengths)
    later = np.repeat(histories.offsets[1:], histories.lengths) - 1 - np.arange(len(lengths))
    return np.asarray(later / np.maximum(lengths - 1, 1))
