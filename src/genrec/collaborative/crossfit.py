"""Cross-fitting: any recommender that scores all items becomes a prior.

The users are divided into folds. In training, a user's scores come from a model that was fitted on
the other folds, so that it has not seen the user's targets. These scores and popularity enter a
log-linear pool with fitted weights, which turns scores of any scale into a distribution.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import ClassVar, Protocol, Self, cast

import numpy as np

from genrec.arrays import Arrays, Floats, Items
from genrec.collaborative.counts import (
    extended_counts,
    repeat_rate,
    seen_before,
    smoothed_popularity,
)
from genrec.collaborative.pool import fit_weights, pooled
from genrec.data.histories import Histories

FOLDS = 4
"""Number of folds of users."""


class Scorer(Protocol):
    """A recommender that gives every item a score."""

    epochs: int
    """Number of training epochs; :meth:`fit` with a loss sets it by early stopping."""

    def fit(
        self, histories: Histories, n_items: int, loss: Callable[[Self], float] | None = None
    ) -> Self:
        """Learn from histories.

        Args:
            histories: the training histories.
            n_items: size of the catalogue.
            loss: evaluates the model on held-out users after each epoch, for early stopping.

        Returns:
            The scorer itself.
        """
        ...

    def scores(self, histories: Histories) -> Floats:
        """Return real-valued scores, higher for likelier items, shape [rows, items]."""
        ...

    def arrays(self) -> Arrays: ...

    def restore(self, arrays: Arrays) -> Self: ...


class CrossFittedPrior:
    """A :class:`Scorer` as a prior; a subclass sets ``kind`` and creates the scorer.

    Attributes:
        kind: name of the prior.
        parts: one scorer per fold, each fitted without that fold's users; empty once loaded.
        counts: training interactions of each item, shape [items].
    """

    kind: ClassVar[str]
    parts: list[Scorer]
    counts: Floats

    @property
    def item_counts(self) -> Floats:
        return self.counts

    def scorer(self) -> Scorer:
        """Create an unfitted scorer."""
        raise NotImplementedError

    def fit(self, histories: Histories, n_items: int) -> Self:
        self.counts = np.bincount(histories.items, minlength=n_items).astype(np.float64)
        self.repeat_rate = repeat_rate(histories)
        self.source = np.arange(n_items)
        fold = np.array([_fold(history) for history in histories])
        self.parts = []
        for number in range(FOLDS):
            kept_out = histories.select(np.flatnonzero(fold == number))
            others = histories.select(np.flatnonzero(fold != number))
            part = self.scorer()
            self.parts.append(part.fit(others, n_items, partial(_loss, histories=kept_out)))
        self.whole = self.scorer()
        self.whole.epochs = round(np.mean([part.epochs for part in self.parts]))
        self.whole.fit(histories, n_items)
        self.weights = fit_weights(histories, n_items, self._training_experts)
        return self

    def probabilities(self, histories: Histories) -> Floats:
        experts = [self._scores(histories), np.log(smoothed_popularity(self.counts))[None]]
        return pooled(self.weights, experts, histories.seen(len(self.counts)), self.repeat_rate)

    def training_probabilities(self, history: Items, start: int, stop: int) -> Floats:
        seen = seen_before(history, start, stop, len(self.counts))
        experts = self._training_experts(history, start, stop)
        return pooled(self.weights, experts, seen, self.repeat_rate)

    def _training_experts(self, history: Items, start: int, stop: int) -> list[Floats]:
        assert self.parts, "a loaded or extended prior has no training distribution"
        before = Histories.from_lists([history[:t].tolist() for t in range(start, stop)])
        others = self.counts - np.bincount(history, minlength=len(self.counts))
        return [
            self.parts[_fold(history)].scores(before),
            np.log(smoothed_popularity(others))[None],
        ]

    def _scores(self, histories: Histories) -> Floats:
        """Return scores of the model that was fitted on all users.

        A later item is replaced by the item it is like. One like ``None`` is left out of the
        histories and gets the mean score.
        """
        known = [self.source[history] for history in histories]
        rows = Histories.from_lists([items[items >= 0].tolist() for items in known])
        scores = self.whole.scores(rows)
        with_average = np.append(scores, scores.mean(axis=1, keepdims=True), axis=1)
        return cast(Floats, with_average[:, self.source])

    def extended(self, like: Sequence[int | None]) -> Self:
        longer = copy(self)
        longer.counts = extended_counts(self.counts, like)
        twins = [-1 if item is None else self.source[item] for item in like]
        longer.source, longer.parts = np.append(self.source, twins), []
        return longer

    def arrays(self) -> Arrays:
        own = {
            "counts": self.counts,
            "source": self.source,
            "weights": self.weights,
            "repeat_share": np.array(self.repeat_rate),
        }
        return own | {f"scorer.{name}": value for name, value in self.whole.arrays().items()}

    def restore(self, arrays: Arrays) -> Self:
        self.counts, self.source = arrays["counts"], arrays["source"]
        self.weights, self.repeat_rate = arrays["weights"], float(arrays["repeat_share"])
        start = "scorer."
        own = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
        self.whole, self.parts = self.scorer().restore(own), []
        return self


def _fold(history: Items) -> int:
    """Return the fold of a user, which depends on the history alone."""
    return zlib.crc32(history.astype(np.int32).tobytes()) % FOLDS


def _loss(scorer: Scorer, histories: Histories) -> float:
    """Return the mean negative log-likelihood (nats) of each history's last item given the rest."""
    rows = [row for row in range(len(histories)) if len(histories[row]) > 1]
    if not rows:
        return 0.0
    scores = scorer.scores(Histories.from_lists([histories[row][:-1].tolist() for row in rows]))
    targets = [int(histories[row][-1]) for row in rows]
    top = scores.max(axis=1)
    odds = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top
    return float((odds - scores[np.arange(len(rows)), targets]).mean())
