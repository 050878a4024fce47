"""The head of a catalogue: the items on which dense item-to-item matrices are fitted.

A matrix of items times items grows with the square of the catalogue. In a large catalogue the rare
items have too few interactions for such a model to say anything about them. So the linear experts
are fitted on the most frequent items only, and give every other item the score of no votes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from genrec.arrays import Floats32, Ints
from genrec.collaborative.counts import item_counts
from genrec.collaborative.matrix import MAX_DENSE_ITEMS
from genrec.data.histories import Histories

LEAST = 5
"""Fewest interactions of an item in the head of a large catalogue."""


@dataclass(frozen=True, eq=False)
class Head:
    """The most frequent items of a catalogue, or all of a small one.

    Attributes:
        items: the items of the head in ascending order, shape [size].
        place: number of each item of the catalogue within the head, or -1, shape [items].
    """

    items: Ints
    place: Ints

    @classmethod
    def of(cls, histories: Histories, n_items: int) -> Head:
        """Choose all items, or the most frequent ones where they exceed :data:`.MAX_DENSE_ITEMS`.

        Those have :data:`LEAST` interactions or more, unless no item has.
        """
        counts = item_counts(histories, n_items)
        size = n_items
        if n_items > MAX_DENSE_ITEMS:
            size = min(MAX_DENSE_ITEMS, max(1, int((counts >= LEAST).sum())))
        items = np.sort(np.argsort(-counts, kind="stable")[:size])
        place = np.full(n_items, -1)
        place[items] = np.arange(len(items))
        return cls(items, place)

    @property
    def whole(self) -> bool:
        """Whether the head is the whole catalogue."""
        return len(self.items) == len(self.place)

    def widened(self, matrix: sp.csr_array[Any]) -> sp.csr_array[Any]:
        """Return a matrix over the head's items as one over the catalogue, empty elsewhere."""
        if self.whole:
            return matrix
        found, shape = matrix.tocoo(), (len(self.place), len(self.place))
        row, column = found.coords
        return sp.csr_array((found.data, (self.items[row], self.items[column])), shape=shape)

    def spread(self, scores: Floats32, other: float) -> Floats32:
        """Return scores of the head's items as scores of all items.

        Args:
            scores: shape [rows, size].
            other: score of every item outside of the head.

        Returns:
            Shape [rows, items].
        """
        if self.whole:
            return scores
        found = np.full((len(scores), len(self.place)), other, np.float32)
        found[:, self.items] = scores
        return found
