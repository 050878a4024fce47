"""Experts: scores for every item, which a log-linear pool combines into a distribution.

An expert has one or more *terms*. Each term gives every item a score on the scale of log votes, and
gets a weight of its own in the pool (see :mod:`genrec.collaborative.pool`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from genrec.arrays import Arrays, Floating, Floats, Integers, Width
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout


class Expert(ABC):
    """One part of the pool.

    Attributes:
        name: name in :data:`.EXPERTS`, in settings and in saved files.
        leaves_user_out: whether :meth:`training_scores` exist. An expert without them would reveal
            the targets in training. It joins the pool after the language model is trained.
        max_items: largest catalogue that the expert can handle; ``None`` for any.
        terms: names of the terms; none if the data have nothing that the expert could use.
        seed: seed of an expert that draws random numbers.
    """

    name: ClassVar[str]
    leaves_user_out: ClassVar[bool] = True
    max_items: ClassVar[int | None] = None
    terms: tuple[str, ...]
    seed: int = 0

    @abstractmethod
    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Fit the expert to the training data.

        Args:
            train: the training data.
            valid: validation targets, for experts that stop early.

        Returns:
            The expert itself.
        """

    def refit(self, train: Dataset) -> Self:
        """Return a copy that is fitted to more data, with what early stopping found before."""
        return copy(self).fit(train)

    @abstractmethod
    def scores(self, histories: Histories) -> list[Floats]:
        """Return the score of each item after each history.

        Returns:
            One array per term, of shape [rows, items], or [1, items] if all rows are alike.
        """

    def training_scores(self, history: Histories, start: int, stop: int) -> Sequence[Floating]:
        """Return scores at positions of one training history, without that user's own data.

        Args:
            history: one training history as the only row.
            start: first position.
            stop: end of the positions, exclusive.

        Returns:
            One array per term, of shape [stop - start, items] or [1, items]. Row ``t`` knows
            the first ``start + t`` items.
        """
        raise NotImplementedError(f"{self.name} cannot leave a user out")

    @abstractmethod
    def extended(self, like: Sequence[int | None], catalogue: Catalogue) -> Self:
        """Return a copy with further items at its end; see :meth:`.Prior.extended`."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """Return the fitted state for a file."""

    @abstractmethod
    def restore(self, arrays: Arrays) -> Self:
        """Load the state that :meth:`arrays` returned.

        Returns:
            The expert itself.
        """


class PriorExpert(Expert):
    """An expert whose state is a prior of counts; a subclass gives the scores.

    Attributes:
        prior: the prior, unfitted until :meth:`fit`.
    """

    prior: Any

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        self.prior = type(self.prior)().fit(train.histories, len(train.catalogue))
        return self

    def extended(self, like: Sequence[int | None], catalogue: Catalogue) -> Self:
        longer = copy(self)
        longer.prior = self.prior.extended(like)
        return longer

    def arrays(self) -> Arrays:
        return cast(Arrays, self.prior.arrays())

    def restore(self, arrays: Arrays) -> Self:
        self.prior.restore(arrays)
        return self


def log_votes(scores: NDArray[Width], floor: float) -> NDArray[Width]:
    """Return the logarithm of scores as votes; negative scores count as none.

    In a log-linear pool, the logarithm of a linear model's score is worth more than the score
    itself (docs/decisions/0014-experts.md).

    Args:
        scores: real-valued scores, any shape.
        floor: added to the votes, so that no item is impossible.
    """
    return cast(NDArray[Width], np.log(np.maximum(scores, 0.0) + floor))


def decayed_weights(history_ages: Integers, decay: float) -> Floats:
    """Return ``decay ** age`` for past items and 0 for later ones (negative ages)."""
    return np.where(history_ages >= 0, decay ** np.maximum(history_ages, 0), 0.0)
