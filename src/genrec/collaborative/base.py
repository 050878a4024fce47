"""What recommenders without a language model share: lists out of scores, settings, arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from genrec.arrays import Arrays, Floats, Items
from genrec.collaborative.matrix import interaction_matrix
from genrec.data.catalogue import By, Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.errors import ConfigError, NotFittedError
from genrec.recommender import Recommendation, TopK, recommendations, top_k

Scores = npt.NDArray[np.floating[Any]]


class FromScores(ABC):
    """A :class:`.Recommender` whose lists come from a score for every item."""

    is_distribution: ClassVar[bool] = False
    """Whether the scores are log p(item | history)."""
    fitted = False
    """Whether it was fitted or loaded."""

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Learn from the training split.

        Args:
            valid: used only by recommenders that choose by it when to stop.

        Raises:
            ConfigError: the settings do not fit the data, e.g. a catalogue that is too large.
        """
        self.learn_from(train)
        self._fit(train, valid)
        self.fitted = True
        return self

    def learn_from(self, train: Dataset) -> None:
        """Note the catalogue, and how often each item was learnt from."""
        self._catalogue = train.catalogue
        self._item_counts: Floats | None = np.bincount(
            train.histories.items, minlength=len(train.catalogue)
        ).astype(np.float64)

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables and file names."""

    @abstractmethod
    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        """Learn; :meth:`fit` without what all have in common."""

    @abstractmethod
    def scores(self, histories: Histories) -> Scores:
        """Any real numbers, higher for better items, shape [rows, items]."""

    @property
    def catalogue(self) -> Catalogue:
        """The items that it was fitted on.

        Raises:
            NotFittedError: it is not fitted, or was loaded from a file, which holds no titles.
        """
        found = getattr(self, "_catalogue", None)
        if found is None:
            raise NotFittedError(f"{self.name} knows no catalogue yet: call fit(train) first.")
        return cast(Catalogue, found)

    @property
    def item_counts(self) -> Floats | None:
        """Interactions of each item that it was fitted on, shape [items]; ``None`` if unknown."""
        return getattr(self, "_item_counts", None)

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        *,
        by: By = "either",
        exclude_seen: bool = True,
    ) -> list[Recommendation]:
        """The k best next items after titles or item ids, oldest first.

        Args:
            by: read the history as titles, as ids, or as either.
        """
        rows = Histories.from_lists([self.catalogue.indices(history, by=by)])
        top = self.recommend_batch(rows, k, exclude_seen=exclude_seen)
        scores = top.scores[0] if self.is_distribution else None
        return recommendations(self.catalogue, top.items[0], scores)

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        """The k items with the highest scores for each history; see :class:`.Recommender`."""
        if not self.fitted:
            raise NotFittedError(f"{self.name} is not fitted yet: call fit(train) first.")
        return top_k(self.scores(histories), k, histories if exclude_seen else None)


@dataclass(eq=False)
class Scoring(FromScores):
    """A recommender from scores that a file can hold; fields of subclasses are settings."""

    name: ClassVar[str]

    @abstractmethod
    def arrays(self) -> Arrays:
        """All that was learnt, as :func:`.save_baseline` writes it."""

    @abstractmethod
    def restore(self, arrays: Arrays) -> Self:
        """Inverse of :meth:`arrays`; returns itself."""

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

    is_distribution = True
    _prior: Distribution

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        self._prior.fit(train.histories, len(train.catalogue))

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
