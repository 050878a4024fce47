"""What every model and baseline obeys, and the one rule by which scores become a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from genrec.arrays import Floats, Items
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class TopK:
    """Lists for a batch of histories, best item first.

    items: int32 [rows, k] catalogue indices, -1 where fewer than k items could be recommended.
    scores: float64 [rows, k], never rising along a row, -inf where items is -1. Their meaning is
    the recommender's own (GenRec: log-probabilities).
    """

    items: Items
    scores: Floats

    def __post_init__(self) -> None:
        assert self.items.ndim == 2
        assert self.items.shape == self.scores.shape

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
        probability: p(item | history) over the whole catalogue; ``None`` from a recommender whose
            scores are no probabilities.
    """

    rank: int
    item_id: str
    title: str
    probability: float | None


@dataclass(frozen=True)
class Influence:
    """What one item of the history did for an item: log p with it minus log p without it, nats."""

    item_id: str
    title: str
    effect: float


def recommendations(
    catalogue: Catalogue, items: Items, log_probs: Floats | None
) -> list[Recommendation]:
    """One list for people to read.

    Args:
        items: item indices, best first, -1 where the list ends.
        log_probs: log p(item | history) of each, or ``None``.
    """
    known = items[items >= 0]
    probabilities = [None] * len(known) if log_probs is None else np.exp(log_probs).tolist()
    return [
        Recommendation(rank, catalogue.item_ids[item], catalogue.titles[item], probability)
        for rank, (item, probability) in enumerate(
            zip(known.tolist(), probabilities, strict=False), start=1
        )
    ]


@runtime_checkable
class Recommender(Protocol):
    """A named thing that learns from a data set and answers histories with lists."""

    @property
    def name(self) -> str:
        """Short name for tables and file names, e.g. "cooccurrence"."""
        ...

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Learn from `train`; `valid` may steer choices such as when to stop. Returns itself."""
        ...

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        """Return the `k` best next items for each history; rows do not influence each other.

        With `exclude_seen`, items of a row's own history are never in its list.
        """
        ...


def top_k(scores: NDArray[np.floating[Any]], k: int, seen: Histories | None = None) -> TopK:
    """Turn a score for every item into lists: highest first, equal scores by ascending item index.

    scores: [rows, items], left unchanged; -inf means "never recommend". seen: histories row-aligned
    with scores, whose items are left out. Rows with fewer than `k` items left are padded.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}.")
    keys = -scores  # ascending keys, so that NumPy's stable sort keeps lower indices first
    if keys.size and np.isnan(keys.min()):  # a minimum hands NaN on, without a mask of its own
        raise DataError("Scores contain NaN, so the items cannot be ordered; check the model.")
    if seen is not None:
        _mask_seen(keys, seen)
    best = _smallest(keys, min(k, keys.shape[1]))
    return _padded(best, np.take_along_axis(keys, best, axis=1), k)


def _mask_seen(keys: NDArray[np.floating[Any]], seen: Histories) -> None:
    if len(seen) != len(keys):
        raise DataError(f"{len(keys)} rows of scores need as many histories, got {len(seen)}.")
    rows = np.repeat(np.arange(len(keys)), np.diff(seen.offsets))
    keys[rows, seen.items] = np.inf


def _smallest(keys: NDArray[np.floating[Any]], k: int) -> NDArray[np.intp]:
    """Columns of each row's k smallest keys in (key, column) order, for 0 <= k <= columns."""
    if k == 0:
        return np.empty((len(keys), 0), np.intp)
    limit = np.partition(keys, k - 1, axis=1)[:, k - 1 : k]
    chosen = keys < limit
    tied = keys == limit
    room = k - np.count_nonzero(chosen, axis=1)
    # A partition keeps *some* of the items tied at the limit; the rule wants the lowest indices.
    crowded = np.flatnonzero(np.count_nonzero(tied, axis=1) > room)
    places = np.cumsum(tied[crowded], axis=1, dtype=np.int32)
    tied[crowded] &= places <= room[crowded, None]
    columns = np.nonzero(chosen | tied)[1].reshape(len(keys), k)
    order = np.argsort(np.take_along_axis(keys, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)


def _padded(columns: NDArray[np.intp], keys: NDArray[np.floating[Any]], k: int) -> TopK:
    rows, width = columns.shape
    items = np.full((rows, k), -1, np.int32)
    scores = np.full((rows, k), -np.inf)
    items[:, :width] = np.where(keys == np.inf, -1, columns)
    scores[:, :width] = -keys
    return TopK(items, scores)
