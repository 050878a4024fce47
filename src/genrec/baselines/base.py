"""What the baselines share: lists out of scores, item-to-item weights, settings and arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from genrec.arrays import Arrays
from genrec.ease import MOST_ITEMS, ones
from genrec.errors import ConfigError
from genrec.histories import Dataset, Histories, Holdout
from genrec.recommender import TopK, top_k

Scores = npt.NDArray[np.floating[Any]]


@dataclass(eq=False)
class Scoring(ABC):
    """A :class:`.Recommender` that gives every item a score; fields of subclasses are settings."""

    name: ClassVar[str]

    @abstractmethod
    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Learn from the training split; ``valid`` is not looked at unless a subclass says so."""

    @abstractmethod
    def scores(self, histories: Histories) -> Scores:
        """Any real numbers, higher for better items, shape [rows, items]."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """All that was learnt, as :func:`.save_baseline` writes it."""

    @abstractmethod
    def restore(self, arrays: Arrays) -> Self:
        """Inverse of :meth:`arrays`; returns itself."""

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        """The k items with the highest scores for each history; see :class:`.Recommender`."""
        return top_k(self.scores(histories), k, histories if exclude_seen else None)

    def arguments(self) -> dict[str, Any]:
        """The arguments that make another one like this, unfitted."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class ItemToItem(Scoring):
    """An item's score is the sum of what the items of a history, heard as a set, say for it."""

    says: sp.csr_array[Any]
    """Weight of a history's item (row) for every other item (column), shape [items, items]."""

    def scores(self, histories: Histories) -> Scores:
        return cast(Scores, (ones(histories, self.says.shape[0]) @ self.says).toarray())

    def arrays(self) -> Arrays:
        return {part: getattr(self.says, part) for part in ("data", "indices", "indptr")}

    def restore(self, arrays: Arrays) -> Self:
        size = len(arrays["indptr"]) - 1
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        self.says = sp.csr_array(parts, shape=(size, size))
        return self


def without_diagonal(matrix: sp.csr_array[Any]) -> sp.csr_array[Any]:
    """The matrix with nothing on its diagonal: an item is no reason for itself."""
    found = matrix.tocoo()
    row, column = found.coords
    off = row != column
    return sp.csr_array((found.data[off], (row[off], column[off])), shape=matrix.shape)


def strongest(matrix: sp.csr_array[Any], count: int) -> sp.csr_array[Any]:
    """The ``count`` largest entries of each row; of equal ones those with the lowest column."""
    lengths = np.diff(matrix.indptr)
    row = np.repeat(np.arange(matrix.shape[0]), lengths)
    order = np.lexsort((matrix.indices, -matrix.data, row))
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], lengths)
    kept = order[place < count]
    return sp.csr_array((matrix.data[kept], (row[kept], matrix.indices[kept])), shape=matrix.shape)


def check_setting(name: str, value: float, *, above: float | None = None, least: float = 0) -> None:
    """Refuse a number that is below ``least``, or not ``above`` a limit, or NaN.

    Raises:
        ConfigError: says which setting it is and what it may be.
    """
    allowed = value > above if above is not None else value >= least
    if not allowed:
        limit = f"above {above:g}" if above is not None else f"at least {least:g}"
        raise ConfigError(f"{name} must be {limit}, got {value}.")


def check_size(name: str, n_items: int) -> None:
    """Refuse a catalogue whose square does not fit the memory of an ordinary machine.

    Raises:
        ConfigError: says what to compare with instead.
    """
    if n_items > MOST_ITEMS:
        raise ConfigError(
            f"{name} needs an items x items matrix: {n_items} items are too many (at most "
            f"{MOST_ITEMS}); leave it out, or take itemknn, p3alpha or kernel."
        )
