"""Item-based nearest neighbours and random walks, on sparse matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from genrec.collaborative.base import ItemToItem, check_setting
from genrec.collaborative.matrix import interaction_matrix, strongest, without_diagonal
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout


@dataclass(eq=False)
class ItemKNN(ItemToItem):
    """Cosine similarity of two items' users, limited to each item's nearest neighbours.

    Source: Deshpande and Karypis, Item-based top-N recommendation algorithms (ACM TOIS, 2004).
    """

    name = "itemknn"

    neighbours: int = 50
    """Number of most similar items that an item gives a weight to."""
    shrinkage: float = 0.0
    """Added to the product of the two norms, which lowers the similarity of rare items."""

    def __post_init__(self) -> None:
        check_setting("neighbours", self.neighbours, least=1)
        check_setting("shrinkage", self.shrinkage)

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        x = self._weighted(
            interaction_matrix(train.histories, len(train.catalogue)).astype(np.float64)
        )
        similar = _cosine(x, self.shrinkage)
        self.item_weights = strongest(without_diagonal(similar), self.neighbours)

    def _weighted(self, x: sp.csr_array[Any]) -> sp.csr_array[Any]:
        """Return the weight of each interaction, shape [users, items]."""
        return x


@dataclass(eq=False)
class ItemKNNBM25(ItemKNN):
    """:class:`ItemKNN` on BM25 weights, with users as documents and items as words.

    An item's rarity (IDF) is the same for all its users, so the cosine cancels it. The effect of
    BM25 is that a user with many items adds less to the similarity of each pair of them.
    """

    name = "itemknn-bm25"

    k1: float = 1.2
    """Saturation of repeated words in BM25."""
    b: float = 0.75
    """Length normalisation: 0 treats all users alike, 1 normalises by a user's number of items."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting("k1", self.k1)
        check_setting("b", self.b)

    def _weighted(self, x: sp.csr_array[Any]) -> sp.csr_array[Any]:
        return bm25(x, self.k1, self.b)


@dataclass(eq=False)
class P3Alpha(ItemToItem):
    """Random walks of two steps: from the history's items to their users and on to items.

    The probability of each step is one over the number of choices, raised to the power ``alpha``.

    Source: Cooper et al., Random walks in recommender systems (WWW companion, 2014).
    """

    name = "p3alpha"

    alpha: float = 1.0
    """Exponent of the step probabilities."""
    neighbours: int = 50
    """Number of items with a weight for an item: those from which most walks end at it."""

    def __post_init__(self) -> None:
        check_setting("alpha", self.alpha, above=0.0)
        check_setting("neighbours", self.neighbours, least=1)

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        x = interaction_matrix(train.histories, len(train.catalogue)).astype(np.float64)
        to_users, to_items = _step(sp.csr_array(x.T), self.alpha), _step(x, self.alpha)
        walks = without_diagonal(sp.csr_array(to_users @ to_items))
        self.item_weights = sp.csr_array(strongest(sp.csr_array(walks.T), self.neighbours).T)


def _cosine(x: sp.csr_array[Any], shrinkage: float) -> sp.csr_array[Any]:
    """Return the cosine of all column pairs, with ``shrinkage`` added to the product of norms."""
    products = sp.csr_array(x.T @ x)
    norms = np.sqrt(products.diagonal())
    row, column = products.tocoo().coords
    products.data /= norms[row] * norms[column] + shrinkage
    return products


def bm25(documents: sp.csr_array[Any], k1: float, b: float) -> sp.csr_array[Any]:
    """Return the BM25 weight of each word in each document.

    Args:
        documents: word counts, shape [documents, words].
        k1: saturation of repeated words.
        b: length normalisation, from 0 (none) to 1 (full).

    Returns:
        Shape [documents, words].

    Source: Robertson and Zaragoza, The probabilistic relevance framework (2009).
    """
    lengths = np.asarray(documents.sum(axis=1)).ravel()
    average = max(lengths.mean(), np.finfo(float).tiny)
    holding = np.bincount(documents.indices, minlength=documents.shape[1])
    rarity = np.log1p((documents.shape[0] - holding + 0.5) / (holding + 0.5))
    count, row = documents.data, np.repeat(np.arange(len(lengths)), np.diff(documents.indptr))
    saturated = count * (k1 + 1) / (count + k1 * (1 - b + b * lengths[row] / average))
    parts = (saturated * rarity[documents.indices], documents.indices, documents.indptr)
    return sp.csr_array(parts, shape=documents.shape)


def _step(x: sp.csr_array[Any], alpha: float) -> sp.csr_array[Any]:
    """Return the probabilities of one uniform step from each row, raised to the power ``alpha``."""
    choices = np.diff(x.indptr)
    data = np.repeat(np.maximum(choices, 1.0) ** -alpha, choices)
    return sp.csr_array((data, x.indices, x.indptr), shape=x.shape)
