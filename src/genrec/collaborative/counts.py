"""What several experts count alike: popularity, repeats, and what lies behind a position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import scipy.sparse as sp

from genrec.arrays import Floats, Items, Mask
from genrec.data.histories import Histories, common_clock


def smoothed_popularity(counts: Floats) -> Floats:
    """Popularity with one pseudo-count for each item."""
    return cast(Floats, (counts + 1.0) / (counts + 1.0).sum())


def seen_before(history: Items, start: int, stop: int, n_items: int) -> Mask:
    """Which items each position in ``start:stop`` has behind it, shape [stop - start, items]."""
    seen = np.zeros((stop - start, n_items), dtype=bool)
    seen[0, history[:start]] = True
    seen[np.arange(1, stop - start), history[start : stop - 1]] = True
    return np.logical_or.accumulate(seen, axis=0)


def repeat_rate(histories: Histories) -> float:
    """Share of interactions with an item the user had before, with one pseudo-count each way."""
    row = np.repeat(np.arange(len(histories)), np.diff(histories.offsets)).astype(np.int64)
    distinct = len(np.unique(row << 32 | histories.items))
    return (len(row) - distinct + 1) / (len(row) + 2)


def discount_repeats(votes: Floats, seen: Mask, repeat_rate: float) -> Floats:
    """Votes as a distribution in which items of the history keep the log's share of repeats."""
    votes[seen] *= repeat_rate
    votes /= votes.sum(axis=1, keepdims=True)
    return votes


def extended_counts(counts: Floats, like: Sequence[int | None]) -> Floats:
    """Counts for further items too; one like nothing known gets the mean."""
    mean = float(counts.mean())
    return np.append(counts, [mean if item is None else counts[item] for item in like])


def extended_matrix(matrix: sp.csr_array[Any], like: Sequence[int | None]) -> sp.csr_array[Any]:
    """Rows and columns for further items, those of the items they are like, or empty ones."""
    nothing = matrix.shape[0]
    source = [*range(nothing), *(nothing if item is None else item for item in like)]
    parts = (matrix.data, matrix.indices, np.append(matrix.indptr, matrix.nnz))
    padded = sp.csr_array(parts, shape=(nothing + 1, nothing + 1))
    return sp.csr_array(padded[source][:, source])


def ages(histories: Histories) -> Floats:
    """Ages of all interactions from 0, the newest, to 1; see :class:`RecentPopularity`."""
    times = histories.timestamps
    if len(times) and common_clock(histories):
        span = max(float(np.ptp(times)), np.finfo(float).tiny)
        return np.asarray((times.max() - times) / span)
    lengths = np.repeat(histories.lengths, histories.lengths)
    later = np.repeat(histories.offsets[1:], histories.lengths) - 1 - np.arange(len(lengths))
    return np.asarray(later / np.maximum(lengths - 1, 1))
