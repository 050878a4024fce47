"""HR@k, NDCG@k, MRR@k on full rankings with one target per user, what the lists cover, intervals.

Everything works on ranks: the 1-based position of a user's target in the list made for that user,
0 where the list lacks it. The metrics return one value per user; their mean is the number in a
table, and the per-user values are what intervals and paired comparisons need.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from genrec.arrays import Floats, Integers, Items, Mask
from genrec.errors import ConfigError, DataError

_BLOCK = 1 << 22  # resampled counts held at once: 32 MiB


class PairedDifference(NamedTuple):
    """Mean of `a - b` over the same users, with the ends of its bootstrap interval."""

    difference: float
    low: float
    high: float


def target_ranks(items: Integers, targets: Integers) -> Items:
    """Find each target in its list.

    items: [users, k] item indices, best first, -1 where a list ends. targets: [users], >= 0.
    Returns int32 [users]: the 1-based position of the first match, 0 where there is none.
    """
    if items.ndim != 2 or targets.shape != items.shape[:1]:
        raise DataError(f"Lists {items.shape} and targets {targets.shape} differ in their users.")
    matches = items == targets[:, None]
    found = matches.any(axis=1)
    if not found.any():  # also the only case in which k may be 0, where argmax has no answer
        return np.zeros(len(targets), np.int32)
    return np.where(found, matches.argmax(axis=1) + 1, 0).astype(np.int32)


def hit_rate(ranks: Integers, k: int) -> Floats:
    """HR@k per user: 1 if the target is among the first `k`, else 0. Equals Recall@k here."""
    return _within(ranks, k).astype(np.float64)


def ndcg(ranks: Integers, k: int) -> Floats:
    """NDCG@k per user: 1 / log2(rank + 1) within the first `k`, else 0.

    There is one relevant item, so the ideal DCG is 1 and nothing is left to divide by.
    """
    return np.where(_within(ranks, k), 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def mrr(ranks: Integers, k: int) -> Floats:
    """MRR@k per user: 1 / rank within the first `k`, else 0."""
    return np.where(_within(ranks, k), 1.0 / np.maximum(ranks, 1), 0.0)


def coverage(items: Integers, n_items: int) -> float:
    """Share of the catalogue's `n_items` items that stand in at least one list (-1 is ignored)."""
    if n_items < 1:
        raise DataError("Coverage needs a catalogue with at least one item.")
    return float(np.unique(items[items >= 0]).size / n_items)


def gini(items: Integers, n_items: int) -> float:
    """Gini coefficient of how often each of the `n_items` items is recommended (-1 is ignored).

    0: all equally often; towards 1: the same few for everybody. Items that nobody gets count.
    """
    counts = np.sort(np.bincount(items[items >= 0], minlength=n_items))
    if not counts.sum():
        raise DataError("The Gini coefficient needs at least one recommended item.")
    below = np.cumsum(counts) / counts.sum()  # Lorenz curve at 1/n, 2/n, ..., 1
    return float((n_items + 1 - 2 * below.sum()) / n_items)


def novelty(items: Integers, counts: Integers) -> float:
    """Mean surprise of the recommended items, in bits: -log2 of an item's share of interactions.

    counts: [items] training interactions, of which each item gets one more, so that items without
    any have a surprise, too. Source: the mean self-information of doi 10.1145/2043932.2043955.
    """
    shares = (counts + 1.0) / (counts.sum() + len(counts))
    return float(-np.log2(shares[items[items >= 0]]).mean())


def bootstrap_interval(
    values: Floats, seed: int, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean under a bootstrap over users.

    values: one finite number per user. The order of the users does not matter. Drawing users with
    replacement is drawing how often each distinct value comes up, and a metric at k has at most
    k + 1 of those: so the multinomial counts are drawn, which is the same law at a fraction of
    the cost.
    """
    if not values.size:
        raise DataError("A bootstrap interval needs at least one user.")
    if resamples < 1 or not 0.0 < level < 1.0:
        raise ConfigError("A bootstrap needs resamples >= 1 and 0 < level < 1.")
    means = _resampled_means(values, np.random.default_rng(seed), resamples)
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def paired_difference(
    a: Floats, b: Floats, seed: int = 0, resamples: int = 1000, level: float = 0.95
) -> PairedDifference:
    """Mean of `a - b`, both for the same users in the same order, with its bootstrap interval.

    Users differ far more from each other than two models do on one user, so this interval is much
    narrower than the two models' own: it, not their overlap, says whether one is better.
    """
    if a.shape != b.shape:
        raise DataError(f"Paired values need the same users; got {a.size} and {b.size}.")
    differences = a - b
    low, high = bootstrap_interval(differences, seed, resamples, level)
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
