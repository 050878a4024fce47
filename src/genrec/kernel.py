"""Transition counts by gap and direction, and how much each of them should weigh.

``C_g[i, j]`` counts how often j followed i at a gap in group g; its transpose is the backward
direction. A kernel weighs gap groups, directions and the ages of history items:
``w[d, g, a] = gap[d, g] * recency[d, a]``. As votes are linear in w, the likelihood of a target
needs two numbers for each weight, the target's votes and all votes, so that maximum likelihood over
thousands of positions is a fit of small dense arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize

from genrec.arrays import Floats, Integers, Ints, Items, Mask
from genrec.histories import Histories

GAPS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 10))
"""Groups of gaps between two interactions of a history, first and last gap of each."""
HISTORY = 20
"""Most recent history items that vote."""
SHRINKAGE = 5.0
"""Added to an item's count when its row is normalised: rare items say little."""
POSITIONS = 20_000
"""Training positions a kernel is fitted on, the last ones of users drawn at random."""
POSITIONS_PER_USER = 60
LIMIT = 12.0
"""Bound of a log-weight; a weight that the log never needs would run away."""
RIDGE = 1e-3
"""Pull of the log-weights to zero; it only matters where the log says nothing about a weight."""


@dataclass(frozen=True)
class Kernel:
    """Weights of the directions (forward, backward).

    Attributes:
        gap: weight of each group of gaps, shape [directions, len(GAPS)].
        recency: weight of a history item by its age, the last item first, shape
            [directions, HISTORY].
        popularity: weight of popularity beside the votes.
    """

    gap: Floats
    recency: Floats
    popularity: float


FIXED = Kernel(
    gap=np.array([[0.8 ** (g - 1) for g in range(1, 6)] + [0.0]]),
    recency=np.array([[0.8**age for age in range(HISTORY)]]),
    popularity=1.0,
)
"""Directed co-occurrence as a baseline: forward only, gaps up to 5, both decays .8."""


def share(counts: Floats) -> Floats:
    """Popularity with one pseudo-count for each item."""
    return cast(Floats, (counts + 1.0) / (counts + 1.0).sum())


def count_by_gap(histories: Histories, n_items: int) -> list[sp.csr_array[Any]]:
    """For each group of gaps, how often one item followed another, shape [items, items]."""
    items = histories.items
    row = np.repeat(np.arange(len(histories)), histories.lengths)
    counted = []
    for first, last in GAPS:
        total = sp.csr_array((n_items, n_items), dtype=np.float64)
        for gap in range(first, last + 1):
            inside = row[gap:] == row[:-gap]
            pairs = (items[:-gap][inside], items[gap:][inside])
            total = total + sp.csr_array((np.ones(len(pairs[0])), pairs), shape=total.shape)
        counted.append(sp.csr_array(total))
    return counted


def combine(by_gap: Sequence[sp.csr_array[Any]], kernel: Kernel) -> list[sp.csr_array[Any]]:
    """One weighted matrix for each direction of the kernel."""
    combined = []
    for direction, weights in enumerate(kernel.gap):
        total = sp.csr_array(by_gap[0].shape, dtype=np.float64)
        for weight, counted in zip(weights, by_gap, strict=True):
            if weight > 0:
                total = total + weight * (counted.T if direction else counted)
        combined.append(sp.csr_array(total))
    return combined


def pairs(length: int) -> tuple[Ints, Ints, Ints]:
    """Places of each two interactions of a history that count, and the group of their gap."""
    group = np.repeat(np.arange(len(GAPS)), [last - first + 1 for first, last in GAPS])
    gaps = np.arange(1, len(group) + 1)
    counts = np.maximum(length - gaps, 0)
    earlier = np.concatenate([np.arange(count) for count in counts])
    return earlier, earlier + np.repeat(gaps, counts), np.repeat(group, counts)


def own_transitions(history: Integers, kernel: Kernel, n_items: int) -> list[sp.csr_array[Any]]:
    """What one history adds to the combined matrices."""
    earlier, later, group = pairs(len(history))
    both = history[earlier], history[later]
    own = []
    for direction, weights in enumerate(kernel.gap):
        where = both[::-1] if direction else both
        own.append(sp.csr_array((weights[group], where), shape=(n_items, n_items)))
    return own


def seen_before(history: Items, start: int, stop: int, n_items: int) -> Mask:
    """Which items each position in ``start:stop`` has behind it, shape [stop - start, items]."""
    seen = np.zeros((stop - start, n_items), dtype=bool)
    seen[0, history[:start]] = True
    seen[np.arange(1, stop - start), history[start : stop - 1]] = True
    return np.logical_or.accumulate(seen, axis=0)


def repeat_share(histories: Histories) -> float:
    """Share of interactions with an item the user had before, with one pseudo-count each way."""
    row = np.repeat(np.arange(len(histories)), np.diff(histories.offsets)).astype(np.int64)
    distinct = len(np.unique(row << 32 | histories.items))
    return (len(row) - distinct + 1) / (len(row) + 2)


def discount_repeats(votes: Floats, seen: Mask, share: float) -> Floats:
    """Votes as a distribution in which items of the history keep the log's share of repeats."""
    votes[seen] *= share
    votes /= votes.sum(axis=1, keepdims=True)
    return votes


def extended_counts(counts: Floats, like: Sequence[int | None]) -> Floats:
    """Counts for further items too; one like nothing known gets the mean."""
    mean = float(counts.mean())
    return np.append(counts, [mean if item is None else counts[item] for item in like])


def fit_kernel(histories: Histories, by_gap: Sequence[sp.csr_array[Any]], counts: Floats) -> Kernel:
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
        return FIXED
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
        Two arrays of shape [positions, 2 * len(GAPS) * HISTORY + 1]; popularity comes last.
    """
    items, first_at, place = np.unique(history, return_index=True, return_inverse=True)
    stop = len(history)
    start = max(1, stop - POSITIONS_PER_USER)
    first = max(0, start - HISTORY)
    seen = first_at < np.arange(start, stop)[:, None]
    new = ~seen[np.arange(stop - start), place[start:]]  # repeats are not what the kernel is for
    seen, target, voters = seen[new].astype(np.float64), place[start:][new], place[first : stop - 1]
    age = (np.arange(start, stop)[:, None] - 1 - np.arange(first, stop - 1))[new]
    position, voter = np.nonzero((age >= 0) & (age < HISTORY))
    others = counts[items] - np.bincount(place)
    scale = 1.0 / (others + SHRINKAGE)[voters]
    own = _own_counts(place, len(items), voters)
    votes = np.zeros((2, len(target), len(both) * HISTORY + 1))
    for number, (counted, total, mine) in enumerate(zip(both, sums, own, strict=True)):
        column = number * HISTORY + age[position, voter]
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
    earlier, later, group = pairs(len(place))
    rows = np.arange(len(GAPS))[:, None] * size + voters
    found = []
    for source, target in ((earlier, later), (later, earlier)):
        where = group * size + place[source], place[target]
        shape = (len(GAPS) * size, size)
        counted = sp.csr_array((np.ones(len(group)), where), shape=shape)
        found.append(counted[rows.ravel()].toarray())
    return np.concatenate(found).reshape(-1, len(voters), size)


def _maximise(target: Floats, total: Floats) -> Kernel:
    groups = 2 * len(GAPS)

    def weights(logs: Floats) -> Floats:
        gap, recency = logs[:groups].reshape(2, -1, 1), logs[groups:-1].reshape(2, 1, HISTORY)
        return np.append(np.exp(gap + recency).ravel(), np.exp(logs[-1]))

    def loss(logs: Floats) -> tuple[float, Floats]:
        w = weights(logs)
        hit, mass = target @ w, total @ w
        value = float(np.mean(np.log(mass) - np.log(hit)))
        slope = ((total / mass[:, None] - target / hit[:, None]).mean(axis=0)) * w
        table = slope[:-1].reshape(2, len(GAPS), HISTORY)
        parts = table.sum(axis=2).ravel(), table.sum(axis=1).ravel(), slope[-1:]
        gradient = np.concatenate(parts) + 2 * RIDGE * logs / len(logs)
        return value + RIDGE * float(np.mean(logs**2)), gradient

    start = np.zeros(groups + 2 * HISTORY + 1)
    bounds = [(-LIMIT, LIMIT)] * len(start)
    logs = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    gap, recency = np.exp(logs[:groups]).reshape(2, -1), np.exp(logs[groups:-1]).reshape(2, -1)
    return Kernel(gap, recency, float(np.exp(logs[-1])))
