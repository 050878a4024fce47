"""Trend: transitions and popularity trends, with weights fitted to what came later in time.

With a leave-last-out split, a model can learn from other users' future, and its weights rely on
what used to occur together. Here the weights are fitted forward in time. The experts learn from the
interactions up to a point in time, and the weights are fitted to each user's first item after it.
This is the situation of a global-time split, and of a service in use.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Self

import numpy as np

from genrec.arrays import Arrays, Floats
from genrec.collaborative.base import PriorRecommender
from genrec.collaborative.counts import ages, smoothed_popularity
from genrec.collaborative.fusion import CELLS, USERS, Examples, Weights, fit_weights
from genrec.collaborative.pool import pooled
from genrec.collaborative.transitions import TransitionPrior
from genrec.data.histories import Histories, common_clock, count_before

PAST = 0.9
"""Share of the interactions, oldest first, that the experts learn from while weights are fitted."""
HALF_LIVES = (0.02, 0.1)
"""Half-lives of recent popularity, as shares of the data's time span."""


class Trend(PriorRecommender):
    """Transitions, popularity and recent popularity, pooled with weights fitted forward in time.

    Two popularities with weights of opposite sign express a trend: items whose popularity rises are
    recommended. Where timestamps share no common clock, or no user returns, only transitions are
    used.
    """

    name = "trend"

    def __init__(self) -> None:
        self._prior = _TrendPool()


class _TrendPool:
    transitions: TransitionPrior
    recent: Floats
    """Recent popularity for each half-life, shape [len(HALF_LIVES), items]; rows sum to 1."""
    weights: Weights

    def fit(self, histories: Histories, n_items: int) -> Self:
        self.weights = Weights.first(2 + len(HALF_LIVES))
        if len(histories.items) and common_clock(histories):
            self._fit_weights(histories, n_items)
        return self._count(histories, n_items)

    def _fit_weights(self, histories: Histories, n_items: int) -> None:
        known = count_before(histories, float(np.quantile(histories.timestamps, PAST)))
        back = np.flatnonzero((known > 0) & (known < histories.lengths))
        targets = histories.items[histories.offsets[back] + known[back]]
        before = histories.head(back, known[back])
        new = [item not in row for row, item in zip(before, targets, strict=True)]
        drawn = np.random.default_rng(0).permutation(np.flatnonzero(new))
        drawn = drawn[: min(USERS, CELLS // n_items)]
        if not len(drawn):
            return
        past = np.flatnonzero(known)
        self._count(histories.head(past, known[past]), n_items)
        rows = before.select(drawn)
        experts = self._experts(rows)
        scores = np.array([np.broadcast_to(each, experts[0].shape) for each in experts], np.float32)
        alike = np.ones(len(drawn), np.int64)  # one set of weights for all lengths
        chosen = targets[drawn].astype(np.int64)
        self.weights = fit_weights(Examples(scores, chosen, ~rows.seen(n_items), alike, drawn))

    def _count(self, histories: Histories, n_items: int) -> Self:
        self.transitions = TransitionPrior().fit(histories, n_items)
        age = ages(histories)
        counts = [np.bincount(histories.items, 0.5 ** (age / h), n_items) for h in HALF_LIVES]
        self.recent = np.array(
            [smoothed_popularity(np.asarray(count, np.float64)) for count in counts]
        )
        return self

    def _experts(self, histories: Histories) -> list[Floats]:
        popularity = np.log([smoothed_popularity(self.transitions.counts), *self.recent])
        return [np.log(self.transitions.all_votes(histories)), *popularity[:, None]]

    def probabilities(self, histories: Histories) -> Floats:
        seen = histories.seen(len(self.transitions.counts))
        weights = self.weights.of(np.ones(len(histories), np.int64))
        return pooled(weights, self._experts(histories), seen, self.transitions.repeat_rate)

    def arrays(self) -> Arrays:
        weights = self.weights.base
        return {**self.transitions.arrays(), "recent": self.recent, "weights": weights}

    def restore(self, arrays: Arrays) -> Self:
        self.transitions = TransitionPrior().restore(arrays)
        self.recent, base = arrays["recent"], arrays["weights"]
        self.weights = replace(Weights.first(len(base)), base=base)
        return self
