"""Statistics that several experts need: popularity, repeats, and items seen before a position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from genrec.arrays import Floats, Ints, Items, Mask, Width
from genrec.data.histories import Histories, common_clock, distinct_pairs


def smoothed_popularity(counts: Floats) -> Floats:
    """Return each item's share of the interactions, with one pseudo-count per item."""
    return cast(Floats, (counts + 1.0) / (counts + 1.0).sum())


def item_counts(histories: Histories, n_items: int) -> Floats:
    """Return the number of interactions of each item, shape [items]."""
    return np.bincount(histories.items, minlength=n_items).astype(np.float64)


def seen_before(history: Items, start: int, stop: int, n_items: int) -> Mask:
    """Return which items precede each position of ``start:stop`` in a history.

    Returns:
        Shape [stop - start, items].
    """
    seen = np.zeros((stop - start, n_items), dtype=bool)
    seen[0, history[:start]] = True
    seen[np.arange(1, stop - start), history[start : stop - 1]] = True
    return np.logical_or.accumulate(seen, axis=0)


def repeat_rate(histories: Histories) -> float:
    """Return the share of interactions that repeat an earlier item of the same user.

    One pseudo-count is added to repeats and one to first-time interactions.
    """
    count = len(histories.items)
    return (count - distinct_pairs(histories) + 1) / (count + 2)


def discount_repeats(votes: NDArray[Width], seen: Mask, repeat_rate: float) -> NDArray[Width]:
    """Turn votes into a distribution and scale items of the history by the repeat rate, in place.

    Args:
        votes: positive weights, shape [rows, items]; overwritten.
        seen: items that each row's history holds, shape [rows, items].
        repeat_rate: factor for these items; see :func:`repeat_rate`.

    Returns:
        ``votes``, whose rows now sum to 1.
    """
    votes[seen] *= repeat_rate
    votes /= votes.sum(axis=1, keepdims=True)
    return votes


def extended_counts(counts: Floats, like: Sequence[int | None]) -> Floats:
    """Return counts with further items at the end.

    A new item gets the count of the item it is ``like``, or the mean count for ``None``.
    """
    mean = float(counts.mean())
    return np.append(counts, [mean if item is None else counts[item] for item in like])


def extended_source(source: Ints, like: Sequence[int | None]) -> Ints:
    """Return the column that holds each item's scores, with entries for further items.

    A new item gets the column of the item it is ``like``, or for ``None`` the last column (-1).
    """
    return np.append(source, [-1 if item is None else source[item] for item in like])


def extended_matrix(matrix: sp.csr_array[Any], like: Sequence[int | None]) -> sp.csr_array[Any]:
    """Return an item-to-item matrix with rows and columns for further items.

    A new item gets the row and column of the item it is ``like``, or empty ones for ``None``.
    """
    nothing = matrix.shape[0]
    source = [*range(nothing), *(nothing if item is None else item for item in like)]
    parts = (matrix.data, matrix.indices, np.append(matrix.indptr, matrix.nnz))
    padded = sp.csr_array(parts, shape=(nothing + 1, nothing + 1))
    return sp.csr_array(padded[source][:, source])


def ages(histories: Histories) -> Floats:
    """Return the age of every interaction, from 0 (newest) to 1 (oldest).

    :class:`.RecentPopularity` defines the age.
    """
    times = histories.timestamps
    if len(times) and common_clock(histories):
        span = max(float(np.ptp(times)), np.finfo(float).tiny)
        return np.asarray((times.max() - times) / span)
    lengths = np.repeat(histories.lengths, histories.lengths)
    later = np.repeat(histories.offsets[1:], histories.lengths) - 1 - np.arange(len(lengths))
    return np.asarray(later / np.maximum(lengths - 1, 1))
