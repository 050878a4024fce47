"""Transitions: bidirectional co-occurrence with weights fitted by maximum likelihood.

Each recent item of the history votes for its neighbours in other histories. The votes are linear in
the weights, so the likelihood of a target needs two numbers per weight: the votes for the target
and the sum of all votes. Maximum likelihood over thousands of positions is then a fit of small
dense arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize

from genrec.arrays import Floats, Ints, Items
from genrec.collaborative.base import PriorRecommender
from genrec.collaborative.cooccurrence import (
    FIXED_WEIGHTS,
    GAPS,
    MAX_AGE,
    SHRINKAGE,
    CooccurrencePrior,
    TransitionWeights,
    gap_pairs,
)
from genrec.collaborative.expert import PriorExpert
from genrec.data.histories import Histories

FIT_POSITIONS = 20_000
"""Training positions for fitting the weights: the last ones of randomly drawn users."""


POSITIONS_PER_USER = 60
"""Most positions that one user contributes."""


LIMIT = 12.0
"""Bound of a log-weight; a weight that the data never need would otherwise diverge."""


WEIGHT_RIDGE = 1e-3
"""L2 penalty on the log-weights; it only matters where the data do not determine a weight."""


def fit_transition_weights(
    histories: Histories, by_gap: Sequence[sp.csr_array[Any]], counts: Floats
) -> TransitionWeights:
    """Fit the weights to the next unseen item, with each user's own counts subtracted.

    Args:
        histories: the training histories.
        by_gap: transition counts of each group of gaps; see :func:`.count_by_gap`.
        counts: training interactions of each item, shape [items].

    Returns:
        The maximum-likelihood weights, or :data:`.FIXED_WEIGHTS` without any position to fit.
    """
    both = [*by_gap, *(sp.csr_array(counted.T) for counted in by_gap)]
    sums = [np.asarray(counted.sum(axis=1), np.float64) for counted in both]
    target, total = [], []
    positions = 0
    for user in np.random.default_rng(0).permutation(len(histories)):
        history = histories[int(user)]
        if len(history) < 2:
            continue
        of_target, of_all = _user_votes(history, both, sums, counts)
        target.append(of_target)
        total.append(of_all)
        positions += len(of_target)
        if positions >= FIT_POSITIONS:
            break
    if not positions:
        return FIXED_WEIGHTS
    return _maximise(np.concatenate(target), np.concatenate(total))


def _user_votes(
    history: Items, both: Sequence[sp.csr_array[Any]], sums: Sequence[Floats], counts: Floats
) -> tuple[Floats, Floats]:
    """Return votes for each target and for all unseen items, per weight.

    The votes for unseen items are all votes minus those for items of the history. The cost
    therefore depends on the entries in the voters' rows, not on the size of the catalogue.

    Args:
        history: a training history.
        both: transition counts by gap, forward and then backward, each of shape [items, items].
        sums: sum of each item's row in each matrix of ``both``.
        counts: training interactions of each item, shape [items].

    Returns:
        Two arrays of shape [positions, 2 * len(GAPS) * MAX_AGE + 1]; popularity is the last
        column.
    """
    items, first_at, place = np.unique(history, return_index=True, return_inverse=True)
    stop = len(history)
    start = max(1, stop - POSITIONS_PER_USER)
    first = max(0, start - MAX_AGE)
    seen = first_at < np.arange(start, stop)[:, None]
    new = ~seen[np.arange(stop - start), place[start:]]  # the repeat rate models repeats
    seen, target, voters = seen[new].astype(np.float64), place[start:][new], place[first : stop - 1]
    age = (np.arange(start, stop)[:, None] - 1 - np.arange(first, stop - 1))[new]
    position, voter = np.nonzero((age >= 0) & (age < MAX_AGE))
    others = counts[items] - np.bincount(place)
    scale = 1.0 / (others + SHRINKAGE)[voters]
    own = _own_counts(place, len(items), voters)
    votes = np.zeros((2, len(target), len(both) * MAX_AGE + 1))
    for number, (counted, total, mine) in enumerate(zip(both, sums, own, strict=True)):
        column = number * MAX_AGE + age[position, voter]
        within = counted[items[voters]][:, items].toarray() - mine
        unseen = (total[items[voters]] - mine.sum(axis=1) - seen @ within.T) * scale
        votes[0, position, column] = (within[:, target].T * scale)[position, voter]
        votes[1, position, column] = unseen[position, voter]
    popularity = (others + 1.0) / ((counts + 1.0).sum() - stop)
    votes[0, :, -1], votes[1, :, -1] = popularity[target], 1.0 - seen @ popularity
    return votes[0], votes[1]


def _own_counts(place: Ints, size: int, voters: Ints) -> Floats:
    """Return one history's own transitions from its voters, shape [2 * len(GAPS), voters, size].

    Args:
        place: the history as indices of its ``size`` distinct items.
        size: number of distinct items.
        voters: the voting items, as such indices.
    """
    earlier, later, group = gap_pairs(len(place))
    rows = np.arange(len(GAPS))[:, None] * size + voters
    found = []
    for source, target in ((earlier, later), (later, earlier)):
        where = group * size + place[source], place[target]
        shape = (len(GAPS) * size, size)
        counted = sp.csr_array((np.ones(len(group)), where), shape=shape)
        found.append(counted[rows.ravel()].toarray())
    return np.concatenate(found).reshape(-1, len(voters), size)


def _maximise(target: Floats, total: Floats) -> TransitionWeights:
    groups = 2 * len(GAPS)

    def weights(logs: Floats) -> Floats:
        gap, recency = logs[:groups].reshape(2, -1, 1), logs[groups:-1].reshape(2, 1, MAX_AGE)
        return np.append(np.exp(gap + recency).ravel(), np.exp(logs[-1]))

    def loss(logs: Floats) -> tuple[float, Floats]:
        w = weights(logs)
        hit, mass = target @ w, total @ w
        value = float(np.mean(np.log(mass) - np.log(hit)))
        slope = ((total / mass[:, None] - target / hit[:, None]).mean(axis=0)) * w
        table = slope[:-1].reshape(2, len(GAPS), MAX_AGE)
        parts = table.sum(axis=2).ravel(), table.sum(axis=1).ravel(), slope[-1:]
        gradient = np.concatenate(parts) + 2 * WEIGHT_RIDGE * logs / len(logs)
        return value + WEIGHT_RIDGE * float(np.mean(logs**2)), gradient

    start = np.zeros(groups + 2 * MAX_AGE + 1)
    bounds = [(-LIMIT, LIMIT)] * len(start)
    logs = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    gap, recency = np.exp(logs[:groups]).reshape(2, -1), np.exp(logs[groups:-1]).reshape(2, -1)
    return TransitionWeights(gap, recency, float(np.exp(logs[-1])))


class TransitionPrior(CooccurrencePrior):
    """Co-occurrence in both directions with weights fitted to the training data.

    The weights of gap, recency and direction are the maximum-likelihood mixture over training
    positions, with each position's own user left out of the counts (see
    :func:`fit_transition_weights`).
    """

    kind: ClassVar[str] = "transitions"

    def _choose_weights(
        self, histories: Histories, by_gap: Sequence[sp.csr_array[Any]]
    ) -> TransitionWeights:
        return fit_transition_weights(histories, by_gap, self.counts)


class Transitions(PriorRecommender):
    """Transitions as a recommender; :class:`TransitionPrior` has the formula."""

    name = "transitions"

    def __init__(self) -> None:
        self._prior = TransitionPrior()


class TransitionExpert(PriorExpert):
    """Transitions as a part of the pool."""

    name = "transitions"
    terms = ("transitions",)

    def __init__(self) -> None:
        self.prior = TransitionPrior()

    def scores(self, histories: Histories) -> list[Floats]:
        return [np.log(self.prior.all_votes(histories))]

    def training_scores(self, history: Histories, start: int, stop: int) -> list[Floats]:
        return [np.log(self.prior.training_votes(history.items, start, stop))]
