"""Ranking metrics with one target per user, beyond-accuracy metrics, and bootstrap intervals.

HR@k, NDCG@k and MRR@k work on ranks: the 1-based position of a user's target in the user's list, or
0 if the list lacks it. They return one value per user. Tables show the mean; intervals and paired
comparisons need the values of each user.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from genrec.arrays import Floats, Integers, Ints, Items, Mask
from genrec.errors import ConfigError, DataError

_BLOCK = 1 << 22  # most resampled counts in memory at once: 32 MiB


class PairedDifference(NamedTuple):
    """Mean of ``a - b`` over the same users, with its bootstrap interval.

    Attributes:
        difference: the mean.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    difference: float
    low: float
    high: float


def target_ranks(items: Integers, targets: Integers) -> Items:
    """Find the rank of each target in its list.

    Args:
        items: item indices, best first, shape [users, k], padded with -1.
        targets: target items, >= 0, shape [users].

    Returns:
        1-based position of the first match, or 0 if there is none, int32 [users].

    Raises:
        DataError: lists and targets have different numbers of users.
    """
    if items.ndim != 2 or targets.shape != items.shape[:1]:
        raise DataError(
            f"Lists {items.shape} and targets {targets.shape} differ in their users. Pass one list "
            "per target."
        )
    matches = items == targets[:, None]
    found = matches.any(axis=1)
    if not found.any():  # covers k = 0, for which argmax is undefined
        return np.zeros(len(targets), np.int32)
    return np.where(found, matches.argmax(axis=1) + 1, 0).astype(np.int32)


def hit_rate(ranks: Integers, k: int) -> Floats:
    """Return HR@k per user: 1 if the target is among the first ``k``, else 0.

    With one target per user it equals Recall@k.

    Args:
        ranks: 1-based ranks, 0 if not in the list, any shape.
        k: cut-off.

    Raises:
        ConfigError: ``k`` is below 1.
    """
    return _within(ranks, k).astype(np.float64)


def ndcg(ranks: Integers, k: int) -> Floats:
    """Return NDCG@k per user: 1 / log2(rank + 1) within the first ``k``, else 0.

    There is one relevant item, so the ideal DCG is 1 and needs no division.

    Args:
        ranks: 1-based ranks, 0 if not in the list, any shape.
        k: cut-off.

    Raises:
        ConfigError: ``k`` is below 1.
    """
    return np.where(_within(ranks, k), 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def mrr(ranks: Integers, k: int) -> Floats:
    """Return MRR@k per user: 1 / rank within the first ``k``, else 0.

    Args:
        ranks: 1-based ranks, 0 if not in the list, any shape.
        k: cut-off.

    Raises:
        ConfigError: ``k`` is below 1.
    """
    return np.where(_within(ranks, k), 1.0 / np.maximum(ranks, 1), 0.0)


def coverage(items: Integers, n_items: int) -> float:
    """Return the share of the catalogue's items that occur in at least one list.

    Numbers that are no item of the catalogue, such as -1, are ignored.

    Raises:
        DataError: the catalogue is empty.
    """
    if n_items < 1:
        raise DataError(f"Coverage needs a catalogue with at least one item, got {n_items}.")
    return float(np.unique(_real(items, n_items)).size / n_items)


def gini(items: Integers, n_items: int) -> float:
    """Return the Gini coefficient of how often each item is recommended.

    It is 0 if all items are recommended equally often, and close to 1 if all users get the same
    few. Items that are never recommended count; numbers that are no item, such as -1, do not.

    Raises:
        DataError: no item is recommended.
    """
    counts = np.sort(np.bincount(_real(items, n_items), minlength=n_items))
    if not counts.sum():
        raise DataError("The Gini coefficient needs at least one recommended item.")
    below = np.cumsum(counts) / counts.sum()  # Lorenz curve at 1/n, 2/n, ..., 1
    return float((n_items + 1 - 2 * below.sum()) / n_items)


def novelty(items: Integers, counts: Integers) -> float:
    """Return the mean surprise of the recommended items, in bits.

    The surprise of an item is -log2 of its share of the interactions. Source: the mean
    self-information of doi 10.1145/2043932.2043955.

    Args:
        items: item indices, any shape; numbers that are no item, such as -1, are ignored.
        counts: training interactions of each item, shape [items]. One is added to each, so that
            items without interactions have a surprise, too.
    """
    shares = (counts + 1.0) / (counts.sum() + len(counts))
    return float(-np.log2(shares[_real(items, len(counts))]).mean())


def _real(items: Integers, n_items: int) -> Integers:
    """Return the numbers that are items of the catalogue, in one dimension."""
    return items[(items >= 0) & (items < n_items)]


def bootstrap_interval(
    values: Floats,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
    owner: Ints | None = None,
) -> tuple[float, float]:
    """Return the percentile interval of a mean under a bootstrap over users.

    Drawing users with replacement is equivalent to drawing how often each distinct value occurs. A
    metric at k has at most k + 1 distinct values, so drawing multinomial counts gives the same
    distribution at a fraction of the cost. Values of the same user are not independent; with
    ``owner`` users are drawn with all their values, and the mean is over the values drawn.

    Args:
        values: one finite number per user, or per target; the order does not matter.
        seed: random seed.
        resamples: number of resamples.
        level: confidence level.
        owner: number of the user of each value, if users have several.

    Raises:
        DataError: there is no user.
        ConfigError: ``resamples`` or ``level`` is out of range.
    """
    if not values.size:
        raise DataError("A bootstrap interval needs at least one user.")
    if resamples < 1 or not 0.0 < level < 1.0:
        raise ConfigError(
            f"A bootstrap needs resamples >= 1 and 0 < level < 1, got resamples={resamples} and "
            f"level={level}."
        )
    rng = np.random.default_rng(seed)
    if owner is None:
        means = _resampled_means(values, rng, resamples)
    else:
        means = _means_of_resampled_users(values, owner, rng, resamples)
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def paired_difference(
    a: Floats,
    b: Floats,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
    owner: Ints | None = None,
) -> PairedDifference:
    """Return the mean of ``a - b`` over the same users, with its bootstrap interval.

    Users differ far more from each other than two models do on one user. This interval is therefore
    much narrower than those of the two models. Use it, and not their overlap, to decide whether one
    model is better.

    Args:
        a: values of the first model, shape [users] or [targets].
        b: values of the second model, of the same users in the same order.
        seed: random seed.
        resamples: number of resamples.
        level: confidence level.
        owner: number of the user of each value, if users have several.

    Raises:
        DataError: the numbers of users differ.
    """
    if a.shape != b.shape:
        raise DataError(
            f"Paired values need the same users, got {a.size} and {b.size}. Pass one value per "
            "user of the same holdout."
        )
    differences = a - b
    low, high = bootstrap_interval(differences, seed, resamples, level, owner)
    return PairedDifference(float(differences.mean()), low, high)


def _within(ranks: Integers, k: int) -> Mask:
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}.")
    return (ranks >= 1) & (ranks <= k)


def _resampled_means(values: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    distinct, counts = np.unique(values, return_counts=True)
    users = values.size
    block = max(1, _BLOCK // distinct.size)
    means = np.empty(resamples)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        draws = rng.multinomial(users, counts / users, size=rows)
        means[start : start + rows] = draws @ distinct / users
    return means


def _means_of_resampled_users(
    values: Floats, owner: Ints, rng: np.random.Generator, resamples: int
) -> Floats:
    _, user, counts = np.unique(owner, return_inverse=True, return_counts=True)
    sums, users = np.bincount(user, values), len(counts)
    means = np.empty(resamples)
    for number in range(resamples):
        draws = np.bincount(rng.integers(users, size=users), minlength=users)
        means[number] = draws @ sums / (draws @ counts)
    return means
