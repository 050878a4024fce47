"""The interface of all models and baselines, and the rule that turns scores into lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from genrec.arrays import Floats, Ints, Items
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.errors import ConfigError, DataError

DENSE_CELLS = 2**24
"""Most cells of a table of histories times items at once, which are 128 MiB of scores."""


@dataclass(frozen=True, eq=False)
class TopK:
    """Lists for a batch of histories, best item first.

    Attributes:
        items: catalogue indices, int32 [rows, k]; -1 where fewer than k items could be recommended.
        scores: float64 [rows, k], descending along each row; -inf where items is -1. Their meaning
            depends on the recommender (GenRec: log-probabilities).
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
        rank: 1-based rank in the list.
        item_id: the item's id.
        title: the item's title.
        probability: p(item | history) over the whole catalogue; ``None`` if the recommender's
            scores are not probabilities.
    """

    rank: int
    item_id: str
    title: str
    probability: float | None


@dataclass(frozen=True)
class Influence:
    """The effect of one history item on a recommended item.

    Attributes:
        item_id: id of the history item.
        title: title of the history item.
        effect: log p with the history item minus log p without it, in nats.
    """

    item_id: str
    title: str
    effect: float


def recommendations(
    catalogue: Catalogue, items: Items, log_probs: Floats | None
) -> list[Recommendation]:
    """Convert one list of item indices for display.

    Args:
        catalogue: the catalogue.
        items: item indices, best first, padded with -1.
        log_probs: log p(item | history) of each item, or ``None``.
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
    """A named model that learns from a data set and recommends items for histories."""

    @property
    def name(self) -> str:
        """Short name for tables and file names, e.g. "cooccurrence"."""
        ...

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Learn from the training split.

        Args:
            train: the training split.
            valid: held-out targets, for choices such as early stopping.

        Returns:
            The recommender itself.
        """
        ...

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        """Return the k best next items for each history; rows do not influence each other.

        Args:
            histories: one history per row.
            k: length of the lists.
            exclude_seen: leave out items of a row's own history.
        """
        ...


def row_blocks(rows: int, n_items: int) -> list[Ints]:
    """Return the rows in blocks of at most :data:`DENSE_CELLS` cells, one block at least."""
    size = max(1, DENSE_CELLS // max(1, n_items))
    return [np.arange(start, min(start + size, rows)) for start in range(0, max(1, rows), size)]


def top_k(scores: NDArray[np.floating[Any]], k: int, seen: Histories | None = None) -> TopK:
    """Turn a score for every item into lists, highest score first.

    Equal scores are ordered by ascending item index. Rows with fewer than ``k`` items are padded.

    Args:
        scores: shape [rows, items]; left unchanged. -inf means that an item is never recommended.
        k: length of the lists.
        seen: histories, one per row of the scores, whose items are left out.

    Raises:
        ConfigError: ``k`` is below 1.
        DataError: scores contain NaN, or the numbers of rows differ.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}.")
    keys = -scores  # ascending keys, so that NumPy's stable sort keeps lower indices first
    if keys.size and np.isnan(keys.min()):  # min propagates NaN and needs no mask of its own
        raise DataError("Scores contain NaN, so the items cannot be ordered. Check the model.")
    if seen is not None:
        _mask_seen(keys, seen)
    best = _smallest(keys, min(k, keys.shape[1]))
    return _padded(best, np.take_along_axis(keys, best, axis=1), k)


def _mask_seen(keys: NDArray[np.floating[Any]], seen: Histories) -> None:
    if len(seen) != len(keys):
        raise DataError(
            f"{len(keys)} rows of scores need as many histories, got {len(seen)}. Pass one history "
            "per row."
        )
    rows = np.repeat(np.arange(len(keys)), np.diff(seen.offsets))
    keys[rows, seen.items] = np.inf


def _smallest(keys: NDArray[np.floating[Any]], k: int) -> NDArray[np.intp]:
    """Return the columns of each row's k smallest keys in (key, column) order, for k <= columns."""
    if k == 0:
        return np.empty((len(keys), 0), np.intp)
    limit = np.partition(keys, k - 1, axis=1)[:, k - 1 : k]
    chosen = keys < limit
    tied = keys == limit
    room = k - np.count_nonzero(chosen, axis=1)
    # np.partition keeps arbitrary items tied at the limit; the rule requires the lowest indices.
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
