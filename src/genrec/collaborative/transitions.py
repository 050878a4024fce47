"""Co-occurrence in both directions, with weights fitted to the log by maximum likelihood.

As votes are linear in the weights, the likelihood of a target needs two numbers for each weight,
the target's votes and all votes, so that maximum likelihood over thousands of positions is a fit
of small dense arrays.
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
from genrec.data.histories import Histories

POSITIONS = 20_000
"""Training positions the weights are fitted on, the last ones of users drawn at random."""


POSITIONS_PER_USER = 60


LIMIT = 12.0
"""Bound of a log-weight; a weight that the log never needs would run away."""


RIDGE = 1e-3
"""Pull of the log-weights to zero; it only matters where the log says nothing about a weight."""


def fit_transition_weights(
    histories: Histories, by_gap: Sequence[sp.csr_array[Any]], counts: Floats
) -> TransitionWeights:
    """Maximum-likelihood weights for the next unseen item, each user's own counts subtracted."""
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
        if positions >= POSITIONS:
            break
    if not positions:
        return FIXED_WEIGHTS
    return _maximise(np.concatenate(target), np.concatenate(total))


def _user_votes(
    history: Items, both: Sequence[sp.csr_array[Any]], sums: Sequence[Floats], counts: Floats
) -> tuple[Floats, Floats]:
    """Votes for each target and for all unseen items, per weight.

    The votes for unseen items are all votes less those for items of the history, so that the cost
    follows what the voters' rows hold and not the size of the catalogue.

    Args:
        sums: all votes of each item in each of ``both``.

    Returns:
        Two arrays of shape [positions, 2 * len(GAPS) * MAX_AGE + 1]; popularity comes last.
    """
    items, first_at, place = np.unique(history, return_index=True, return_inverse=True)
    stop = len(history)
    start = max(1, stop - POSITIONS_PER_USER)
    first = max(0, start - MAX_AGE)
    seen = first_at < np.arange(start, stop)[:, None]
    new = ~seen[np.arange(stop - start), place[start:]]  # repeats are not what transitions are for
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
    """A history's own transitions from its voters, shape [2 * len(GAPS), voters, size].

    Args:
        place: the history as indices of its ``size`` distinct items.
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
        gradient = np.concatenate(parts) + 2 * RIDGE * logs / len(logs)
        return value + RIDGE * float(np.mean(logs**2)), gradient

    start = np.zeros(groups + 2 * MAX_AGE + 1)
    bounds = [(-LIMIT, LIMIT)] * len(start)
    logs = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    gap, recency = np.exp(logs[:groups]).reshape(2, -1), np.exp(logs[groups:-1]).reshape(2, -1)
    return TransitionWeights(gap, recency, float(np.exp(logs[-1])))


class TransitionPrior(CooccurrencePrior):
    """Co-occurrence in both directions with weights fitted to the log.

    The weights of gap, recency and direction are the maximum-likelihood mixture over training
    positions whose own user was not counted (see :func:`fit_transition_weights`).
    """

    kind: ClassVar[str] = "transitions"

    def _choose_weights(
        self, histories: Histories, by_gap: Sequence[sp.csr_array[Any]]
    ) -> TransitionWeights:
        return fit_transition_weights(histories, by_gap, self.counts)


class Transitions(PriorRecommender):
    """Co-occurrence in both directions with fitted weights; see the prior for the formula."""

    name = "transitions"

    def __init__(self) -> None:
        self._prior = TransitionPrior()
