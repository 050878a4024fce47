"""Base classes of recommenders without a language model.

They turn scores into lists, check settings, and convert the fitted state to and from arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from genrec.arrays import Arrays, Floats, Ints, Items
from genrec.collaborative.counts import item_counts
from genrec.collaborative.matrix import interaction_matrix, matrix_arrays, restored_matrix
from genrec.data.catalogue import By, Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.errors import ConfigError, NotFittedError
from genrec.recommender import Recommendation, TopK, recommendations, row_blocks, top_k

Scores = npt.NDArray[np.floating[Any]]


class FromScores(ABC):
    """A :class:`.Recommender` that ranks items by a score for every item."""

    is_distribution: ClassVar[bool] = False
    """Whether the scores are log p(item | history)."""
    fitted = False
    """Whether the recommender was fitted or loaded."""

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Fit the recommender to the training split.

        Args:
            train: the training split.
            valid: held-out targets; only recommenders with early stopping use them.

        Returns:
            The recommender itself.

        Raises:
            ConfigError: the settings do not fit the data, for example because the catalogue is too
                large.
        """
        self.learn_from(train)
        self._fit(train, valid)
        self.fitted = True
        return self

    def learn_from(self, train: Dataset) -> None:
        """Store the catalogue and the number of training interactions of each item."""
        self._catalogue = train.catalogue
        counts = item_counts(train.histories, len(train.catalogue))
        self._item_counts: Floats | None = counts

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name for tables and file names."""

    @abstractmethod
    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        """Fit the model; :meth:`fit` does what all recommenders share."""

    @abstractmethod
    def scores(self, histories: Histories) -> Scores:
        """Return real-valued scores, higher for better items, shape [rows, items]."""

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue that the recommender was fitted on.

        Raises:
            NotFittedError: the recommender is not fitted, or it was loaded from a file, which
                stores no titles.
        """
        found = getattr(self, "_catalogue", None)
        if found is None:
            raise NotFittedError(f"{self.name} has no catalogue yet. Call fit(train) first.")
        return cast(Catalogue, found)

    @property
    def item_counts(self) -> Floats | None:
        """Training interactions of each item, shape [items]; ``None`` if unknown."""
        return getattr(self, "_item_counts", None)

    def recommend(
        self,
        history: Sequence[str],
        k: int = 10,
        *,
        by: By = "either",
        exclude_seen: bool = True,
    ) -> list[Recommendation]:
        """Return the k best next items for one history.

        Args:
            history: titles or item ids, oldest first.
            k: length of the list.
            by: whether the history holds titles, ids, or either.
            exclude_seen: leave out items of the history.

        Returns:
            The items, best first. Scores are log-probabilities where the model has a distribution.
        """
        rows = Histories.from_lists([self.catalogue.indices(history, by=by)])
        top = self.recommend_batch(rows, k, exclude_seen=exclude_seen)
        scores = top.scores[0] if self.is_distribution else None
        return recommendations(self.catalogue, top.items[0], scores)

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        """Return the k best-scored items for each history; see :class:`.Recommender`."""
        if not self.fitted:
            raise NotFittedError(f"{self.name} is not fitted yet. Call fit(train) first.")
        parts = []
        for rows in self._row_blocks(len(histories)):
            block = histories.select(rows)
            parts.append(top_k(self.scores(block), k, block if exclude_seen else None))
        return TopK(
            np.concatenate([each.items for each in parts]),
            np.concatenate([each.scores for each in parts]),
        )

    def _row_blocks(self, rows: int) -> list[Ints]:
        """Return the rows in blocks whose scores fit into memory."""
        return row_blocks(rows, 1 if self.item_counts is None else len(self.item_counts))


@dataclass(eq=False)
class Scoring(FromScores):
    """A score-based recommender that a file can store; a subclass's fields are its settings."""

    name: ClassVar[str]

    @abstractmethod
    def arrays(self) -> Arrays:
        """Return the fitted state as the arrays that :func:`.save_baseline` writes."""

    @abstractmethod
    def restore(self, arrays: Arrays) -> Self:
        """Load the state that :meth:`arrays` returned.

        Returns:
            The recommender itself.
        """

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments that create an unfitted copy."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class ItemToItem(Scoring):
    """Scores an item by the sum of its weights from the distinct items of the history."""

    item_weights: sp.csr_array[Any]
    """Weight from a history's item (row) to every other item (column), shape [items, items]."""

    def scores(self, histories: Histories) -> Scores:
        x = interaction_matrix(histories, self.item_weights.shape[0])
        return cast(Scores, (x @ self.item_weights).toarray())

    def arrays(self) -> Arrays:
        return matrix_arrays(self.item_weights)

    def restore(self, arrays: Arrays) -> Self:
        self.item_weights = restored_matrix(arrays, len(arrays["indptr"]) - 1)
        return self


def check_setting(name: str, value: float, *, above: float | None = None, least: float = 0) -> None:
    """Refuse a number that is NaN, below ``least``, or not ``above`` a limit.

    Args:
        name: the setting, for the message.
        value: the number to check.
        above: exclusive lower limit; replaces ``least`` if given.
        least: inclusive lower limit.

    Raises:
        ConfigError: the value is not allowed; the message names the setting and its limit.
    """
    allowed = value > above if above is not None else value >= least
    if not allowed:
        limit = f"above {above:g}" if above is not None else f"at least {least:g}"
        raise ConfigError(f"{name} must be {limit}, got {value}.")


class Distribution(Protocol):
    """The part of :class:`.Prior` that makes it a recommender of its own."""

    def probabilities(self, histories: Histories) -> Floats: ...

    def arrays(self) -> Arrays: ...

    def restore(self, arrays: Arrays) -> Self: ...


class PriorRecommender(Scoring):
    """Ranks items by the probabilities of a prior; the scores are their logarithms."""

    is_distribution = True
    _prior: Distribution

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        prior: Any = self._prior
        prior.fit(train.histories, len(train.catalogue))

    def scores(self, histories: Histories) -> Scores:
        return np.log(self._prior.probabilities(histories))

    def log_likelihood(self, histories: Histories, targets: Items) -> Floats:
        """Return log p(target | history), normalised over the whole catalogue.

        Args:
            histories: one history per row.
            targets: one item per row.

        Returns:
            One value per row, in nats.
        """
        parts = [
            np.log(self._prior.probabilities(histories.select(rows)))[
                np.arange(len(rows)), targets[rows]
            ]
            for rows in self._row_blocks(len(targets))
        ]
        return np.concatenate(parts)

    def arrays(self) -> Arrays:
        return self._prior.arrays()

    def restore(self, arrays: Arrays) -> Self:
        self._prior.restore(arrays)
        return self
