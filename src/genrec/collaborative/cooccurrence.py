"""Directed co-occurrence: transition counts by gap, and the votes derived from them.

``C_g[i, j]`` counts how often item j followed item i at a gap in group g; its transpose is the
backward direction. Each recent item of a history votes for other items in proportion to its counts.
A vote has the weight ``w[d, g, a] = gap[d, g] * recency[d, a]`` for direction d, gap group g and
the age a of the voting item.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np
import scipy.sparse as sp

from genrec.arrays import Arrays, Floats, Integers, Ints, Items
from genrec.collaborative.base import PriorRecommender
from genrec.collaborative.counts import (
    discount_repeats,
    extended_counts,
    extended_matrix,
    item_counts,
    repeat_rate,
    smoothed_popularity,
)
from genrec.collaborative.matrix import matrix_arrays, restored_matrix
from genrec.collaborative.sparse import SparseDistributions, changed_shares
from genrec.data.catalogue import Catalogue
from genrec.data.histories import Histories

GAPS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 10))
"""Groups of gaps between two interactions of a history, as (first gap, last gap)."""


MAX_AGE = 20
"""Number of most recent history items that vote."""


SHRINKAGE = 5.0
"""Added to an item's count when its row is normalised, so that rare items have small votes."""


@dataclass(frozen=True)
class TransitionWeights:
    """Weights of the votes in each direction (forward, backward).

    Attributes:
        gap: weight of each group of gaps, shape [directions, len(GAPS)].
        recency: weight of a history item by its age, the last item first, shape
            [directions, MAX_AGE].
        popularity: weight of popularity, which is added to the votes.
    """

    gap: Floats
    recency: Floats
    popularity: float


FIXED_WEIGHTS = TransitionWeights(
    gap=np.array([[0.8 ** (g - 1) for g in range(1, 6)] + [0.0]]),
    recency=np.array([[0.8**age for age in range(MAX_AGE)]]),
    popularity=1.0,
)
"""Weights of the directed co-occurrence baseline: forward only, gaps up to 5, both decays 0.8."""


def count_by_gap(histories: Histories, n_items: int) -> list[sp.csr_array[Any]]:
    """Count for each group of gaps how often one item followed another.

    Returns:
        One matrix per group of :data:`GAPS`, each of shape [items, items].
    """
    items = histories.items
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    counted = []
    for first, last in GAPS:
        total = sp.csr_array((n_items, n_items), dtype=np.float64)
        for gap in range(first, last + 1):
            inside = row[gap:] == row[:-gap]
            both = (items[:-gap][inside], items[gap:][inside])
            total = total + sp.csr_array((np.ones(len(both[0])), both), shape=total.shape)
        counted.append(sp.csr_array(total))
    return counted


def weighted_transitions(
    by_gap: Sequence[sp.csr_array[Any]], weights: TransitionWeights
) -> list[sp.csr_array[Any]]:
    """Combine the counts of all gaps into one weighted matrix per direction."""
    combined = []
    for direction, by_group in enumerate(weights.gap):
        total = sp.csr_array(by_gap[0].shape, dtype=np.float64)
        for weight, counted in zip(by_group, by_gap, strict=True):
            if weight > 0:
                total = total + weight * (counted.T if direction else counted)
        combined.append(sp.csr_array(total))
    return combined


def gap_pairs(length: int) -> tuple[Ints, Ints, Ints]:
    """Return all pairs of places in a history whose gap is in a group of :data:`GAPS`.

    Returns:
        The earlier place, the later place and the gap's group of each pair.
    """
    group = np.repeat(np.arange(len(GAPS)), [last - first + 1 for first, last in GAPS])
    gaps = np.arange(1, len(group) + 1)
    counts = np.maximum(length - gaps, 0)
    earlier = np.concatenate([np.arange(count) for count in counts])
    return earlier, earlier + np.repeat(gaps, counts), np.repeat(group, counts)


def own_transitions(
    history: Integers, weights: TransitionWeights, sources: Integers, n_items: int
) -> list[Floats]:
    """Return what one history contributes to rows of the weighted matrices, one per direction.

    Args:
        history: items of the history, numbered from 0 to ``n_items``.
        weights: weights of the gaps.
        sources: items whose rows are wanted, in ascending order.
        n_items: number of distinct items.

    Returns:
        Two arrays of shape [sources, items].
    """
    earlier, later, group = gap_pairs(len(history))
    row_of = np.full(n_items, -1)
    row_of[sources] = np.arange(len(sources))
    own: list[Floats] = []
    for direction, by_group in enumerate(weights.gap):
        source, target = (later, earlier) if direction else (earlier, later)
        row = row_of[history[source]]
        kept = row >= 0
        where = row[kept] * n_items + history[target[kept]]
        votes = cast(
            Floats, np.bincount(where, by_group[group[kept]], minlength=len(sources) * n_items)
        )
        own.append(votes.reshape(len(sources), n_items))
    return own


class CooccurrencePrior:
    """Directed co-occurrence: items that followed the last items in other histories.

    ``votes(j) = sum over history items i of recency[age(i)] * C[i, j] / (count(i) + SHRINKAGE)``
    where ``C[i, j]`` sums ``gap[g]`` over every time j followed i at gap g. The distribution is the
    normalised sum of votes and a little popularity. Items already in the history are scaled by the
    repeat rate of the training data. The weights are fixed: gaps up to 5, both decays 0.8.
    """

    kind: ClassVar[str] = "cooccurrence"
    weights: TransitionWeights
    transitions: list[sp.csr_array[Any]]
    counts: Floats
    repeat_rate: float

    @property
    def item_counts(self) -> Floats:
        return self.counts

    def fit(self, histories: Histories, n_items: int) -> Self:
        self.counts = item_counts(histories, n_items)
        self.repeat_rate = repeat_rate(histories)
        by_gap = count_by_gap(histories, n_items)
        self.weights = self._choose_weights(histories, by_gap)
        self.transitions = weighted_transitions(by_gap, self.weights)
        return self

    def _choose_weights(
        self, histories: Histories, by_gap: Sequence[sp.csr_array[Any]]
    ) -> TransitionWeights:
        return FIXED_WEIGHTS

    def votes(self, histories: Histories) -> sp.csr_array[Any]:
        """Return the votes of each history's last items, sparse, shape [rows, items]."""
        recent = histories.tail(MAX_AGE)
        lengths = np.diff(recent.offsets)
        # A product casts the indices of the transitions, too, unless both have the same width.
        rows = np.repeat(np.arange(len(recent), dtype=np.int32), lengths)
        age = np.repeat(recent.offsets[1:], lengths) - 1 - np.arange(len(recent.items))
        shape = (len(recent), len(self.counts))
        total = sp.csr_array(shape, dtype=np.float64)
        for recency, transitions in zip(self.weights.recency, self.transitions, strict=True):
            weight = recency[age] / (self.counts[recent.items] + SHRINKAGE)
            total = total + sp.csr_array((weight, (rows, recent.items)), shape=shape) @ transitions
        return sp.csr_array(total)

    def all_votes(self, histories: Histories) -> Floats:
        """Return votes plus weighted popularity, dense, shape [rows, items]."""
        return cast(
            Floats,
            self.votes(histories).toarray()
            + self.weights.popularity * smoothed_popularity(self.counts),
        )

    def probabilities(self, histories: Histories) -> Floats:
        seen = histories.seen(len(self.counts))
        return discount_repeats(self.all_votes(histories), seen, self.repeat_rate)

    def training_probabilities(self, history: Histories, start: int, stop: int) -> Floats:
        votes = self.training_votes(history.items, start, stop, self.repeat_rate)
        votes /= votes.sum(axis=1, keepdims=True)
        return votes

    def training_votes(self, history: Items, start: int, stop: int, repeats: float = 1.0) -> Floats:
        """Return votes plus popularity at positions of a training history, without its own counts.

        Args:
            history: the items of a training history.
            start: first position.
            stop: end of the positions, exclusive.
            repeats: factor for items that precede the position.

        Returns:
            Shape [stop - start, items].
        """
        votes, items, known = self._training_votes(history, start, stop, repeats, sparse=False)
        votes += self.counts + 1.0
        votes[:, items] = known
        return cast(Floats, votes)

    def training_shares(self, history: Histories, start: int, stop: int) -> SparseDistributions:
        found = self._training_votes(history.items, start, stop, self.repeat_rate, sparse=True)
        return changed_shares(self.counts + 1.0, *found)

    def _training_votes(
        self, history: Items, start: int, stop: int, repeats: float, *, sparse: bool
    ) -> tuple[Any, Items, Floats]:
        """Return all users' votes, the history's items, and those items' votes without this user.

        The unit is one interaction's share of popularity. Only the third part includes popularity.
        """
        items, first_at, place = np.unique(history, return_index=True, return_inverse=True)
        first = max(0, start - MAX_AGE)
        voters = np.arange(first, max(first, stop - 1))
        age = np.arange(start, stop)[:, None] - 1 - voters
        others = self.counts[items] - np.bincount(place)
        unit = (self.counts + 1.0).sum() - len(history)
        scale = unit / self.weights.popularity / (others + SHRINKAGE)[place[voters]]
        votes: Any = sp.csr_array((stop - start, len(self.counts))) if sparse else 0.0
        known = np.zeros((stop - start, len(items)))
        sources, source = np.unique(place[voters], return_inverse=True)
        own = own_transitions(place, self.weights, sources, len(items))
        for recency, transitions, mine in zip(
            self.weights.recency, self.transitions, own, strict=True
        ):
            weight = np.where((age >= 0) & (age < MAX_AGE), recency[age.clip(0, MAX_AGE - 1)], 0.0)
            weight *= scale
            rows = transitions[history[voters]]
            votes = votes + (sp.csr_array(weight) @ rows if sparse else weight @ rows.toarray())
            known -= weight @ mine[source]
        known += votes[:, items].toarray() if sparse else votes[:, items]
        known = np.maximum(known, 0.0) + others + 1.0  # rounding may leave negative votes
        known[first_at < np.arange(start, stop)[:, None]] *= repeats
        return votes, items, known

    def extended(self, like: Sequence[int | None], catalogue: Catalogue | None = None) -> Self:
        longer = copy(self)
        longer.counts = extended_counts(self.counts, like)
        longer.transitions = [extended_matrix(matrix, like) for matrix in self.transitions]
        return longer

    def arrays(self) -> Arrays:
        arrays = {
            "counts": self.counts,
            "repeat_share": np.array(self.repeat_rate),
            "gap": self.weights.gap,
            "recency": self.weights.recency,
            "popularity": np.array(self.weights.popularity),
        }
        for direction, matrix in enumerate(self.transitions):
            arrays |= matrix_arrays(matrix, suffix=str(direction))
        return arrays

    def restore(self, arrays: Arrays) -> Self:
        self.counts, size = arrays["counts"], len(arrays["counts"])
        self.repeat_rate = float(arrays["repeat_share"])
        self.weights = TransitionWeights(
            arrays["gap"], arrays["recency"], float(arrays["popularity"])
        )
        self.transitions = [
            restored_matrix(arrays, size, suffix=str(direction))
            for direction in range(len(self.weights.gap))
        ]
        return self


class Cooccurrence(PriorRecommender):
    """Directed co-occurrence as a recommender; :class:`CooccurrencePrior` has the formula."""

    name = "cooccurrence"

    def __init__(self) -> None:
        self._prior = CooccurrencePrior()
