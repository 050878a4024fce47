"""EASE: item-to-item weights by least squares in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

from genrec.arrays import Arrays
from genrec.baselines.base import Scores, Scoring, check_setting, check_size
from genrec.ease import all_say, invert, ones
from genrec.histories import Dataset, Histories, Holdout


@dataclass(eq=False)
class Ease(Scoring):
    """EASE (arXiv 1905.03375), which hears a history as a set; exact, with all its weights.

    A catalogue of n items takes n² weights of four bytes: .57 GB for 12,000 items.
    """

    name = "ease"

    ridge: float = 100.0
    """Added to each item's count before the Gram matrix is inverted."""

    def __post_init__(self) -> None:
        check_setting("ridge", self.ridge, above=0.0)

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Invert the Gram matrix of the training split; ``valid`` is not looked at.

        Raises:
            ConfigError: the catalogue is too large to be inverted.
        """
        check_size(self.name, len(train.catalogue))
        self._says = all_say(invert(train.histories, len(train.catalogue), self.ridge))
        return self

    def scores(self, histories: Histories) -> Scores:
        return cast(Scores, ones(histories, len(self._says)) @ self._says)

    def arrays(self) -> Arrays:
        return {"says": self._says}

    def restore(self, arrays: Arrays) -> Self:
        self._says = arrays["says"]
        return self
