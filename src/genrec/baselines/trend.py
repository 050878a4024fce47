"""What comes next in time: transitions and the trend of popularity, weighed by what came later.

Leave-last-out lets a model learn from other users' future; weights fitted that way trust what used
to go together. Here they are fitted forward: experts learn from the log up to a point in time and
are asked for each user's first item after it, as a global-time split (and tomorrow) asks.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from genrec.arrays import Arrays, Floats
from genrec.collaborative.base import PriorRecommender
from genrec.collaborative.counts import ages, smoothed_popularity
from genrec.collaborative.pool import CELLS, POSITIONS, fit_pool, pooled
from genrec.collaborative.transitions import TransitionPrior
from genrec.data.histories import Histories, common_clock, count_before

PAST = 0.9
"""Share of the interactions, oldest first, that the experts learn from while weights are fitted."""
HALF_LIVES = (0.02, 0.1)
"""Of recent popularity, as shares of the log's time span."""


class Trend(PriorRecommender):
    """Transitions, popularity and recent popularity, pooled with weights fitted forward.

    Two popularities with weights of opposite sign are a trend: what rises is recommended. Where
    timestamps are no common time, or nobody comes back, it is transitions alone.
    """

    name = "trend"

    def __init__(self) -> None:
        self._prior = _TrendPool()


class _TrendPool:
    transitions: TransitionPrior
    recent: Floats
    """Shares of recent popularity, shape [len(HALF_LIVES), items]."""
    weights: Floats

    def fit(self, histories: Histories, n_items: int) -> Self:
        self.weights = np.eye(2 + len(HALF_LIVES))[0]
        if common_clock(histories):
            self._fit_weights(histories, n_items)
        return self._count(histories, n_items)

    def _fit_weights(self, histories: Histories, n_items: int) -> None:
        known = count_before(histories, float(np.quantile(histories.timestamps, PAST)))
        back = np.flatnonzero((known > 0) & (known < histories.lengths))
        targets = histories.items[histories.offsets[back] + known[back]]
        before = histories.head(back, known[back])
        new = [item not in row for row, item in zip(before, targets, strict=True)]
        asked = np.random.default_rng(0).permutation(np.flatnonzero(new))
        asked = asked[: min(POSITIONS, CELLS // n_items)]
        if not len(asked):
            return
        past = np.flatnonzero(known)
        self._count(histories.head(past, known[past]), n_items)
        rows = before.select(asked)
        experts = self._experts(rows)
        scores = np.array([np.broadcast_to(each, experts[0].shape) for each in experts], np.float32)
        self.weights = fit_pool(scores, targets[asked].astype(np.int64), ~rows.seen(n_items))

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
        return pooled(self.weights, self._experts(histories), seen, self.transitions.repeat_rate)

    def arrays(self) -> Arrays:
        return {**self.transitions.arrays(), "recent": self.recent, "weights": self.weights}

    def restore(self, arrays: Arrays) -> Self:
        self.transitions = TransitionPrior().restore(arrays)
        self.recent, self.weights = arrays["recent"], arrays["weights"]
        return self
