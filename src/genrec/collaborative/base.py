"""What recommenders without a language model share: lists out of scores, settings, arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from genrec.arrays import Arrays, Floats, Items
from genrec.collaborative.matrix import interaction_matrix
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.errors import ConfigError
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

    item_weights: sp.csr_array[Any]
    """Weight of a history's item (row) for every other item (column), shape [items, items]."""

    def scores(self, histories: Histories) -> Scores:
        x = interaction_matrix(histories, self.item_weights.shape[0])
        return cast(Scores, (x @ self.item_weights).toarray())

    def arrays(self) -> Arrays:
        return {part: getattr(self.item_weights, part) for part in ("data", "indices", "indptr")}

    def restore(self, arrays: Arrays) -> Self:
        size = len(arrays["indptr"]) - 1
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        self.item_weights = sp.csr_array(parts, shape=(size, size))
        return self


def check_setting(name: str, value: float, *, above: float | None = None, least: float = 0) -> None:
    """Refuse a number that is below ``least``, or not ``above`` a limit, or NaN.

    Raises:
        ConfigError: says which setting it is and what it may be.
    """
    allowed = value > above if above is not None else value >= least
    if not allowed:
        limit = f"above {above:g}" if above is not None else f"at least {least:g}"
        raise ConfigError(f"{name} must be {limit}, got {value}.")


BLOCK = 1024
"""Histories whose distributions are held at once."""


class Distribution(Protocol):
    """What a prior needs to be a recommender of its own; see :class:`.Prior`."""

    def fit(self, histories: Histories, n_items: int) -> Self: ...

    def probabilities(self, histories: Histories) -> Floats: ...

    def arrays(self) -> Arrays: ...

    def restore(self, arrays: Arrays) -> Self: ...


class PriorRecommender(Scoring):
    """Ranks items by a prior's probabilities; scores are their logarithms."""

    _prior: Distribution

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Count the training split; ``valid`` is not looked at."""
        self._prior.fit(train.histories, len(train.catalogue))
        return self

    def scores(self, histories: Histories) -> Scores:
        return np.log(self._prior.probabilities(histories))

    def log_likelihood(self, histories: Histories, targets: Items) -> Floats:
        """log p(target | history) over the whole catalogue, one value per row, in nats."""
        blocks = [
            np.arange(len(targets))[start : start + BLOCK]
            for start in range(0, len(targets), BLOCK)
        ]
        parts = [
            np.log(self._prior.probabilities(histories.select(rows)))[
                np.arange(len(rows)), targets[rows]
            ]
            for rows in blocks
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def arrays(self) -> Arrays:
        return self._prior.arrays()

    def restore(self, arrays: Arrays) -> Self:
        self._prior.restore(arrays)
        return self
