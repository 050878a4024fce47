"""The text expert: likeness of titles and of metadata, by TF-IDF.

An item's score is the cosine likeness of its text with the texts of the history, where older items
count less. Nothing is fitted to interactions. So nothing can leak from them, and a new item is
scored like any other from its first day.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any, Self, cast

import numpy as np
import polars as pl
import scipy.sparse as sp

from genrec.arrays import Arrays, Floats, Floats32, Items
from genrec.collaborative.expert import Expert, decayed_weights, log_votes
from genrec.collaborative.matrix import (
    CSR_PARTS,
    decayed_matrix,
    dense_product,
    matrix_arrays,
    merged_weights,
    training_ages,
)
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout

DECAY = 0.6
"""Factor of an item's weight per step back in the history."""
MAX_AGE = 30
"""Number of last items that count; the weights of older ones are below 1e-6."""
FLOOR = 0.05
"""Likeness that every item has; see :func:`.log_votes`."""
KEPT_ITEMS = 4096
"""Largest catalogue whose cosines are kept in memory while a model is trained, at most 64 MiB."""
WORD = r"(?u)\w+"
"""Pattern of a word in a title."""
PHRASE = r"(?u)[^\s|>,;/][^|>,;/]*"
"""Pattern of an entry in metadata such as ``"Comedy|Drama"`` or ``"Toys > Board Games"``."""
KINDS = {"titles": WORD, "metadata": PHRASE}
"""The expert's terms, with the pattern of what counts as a word."""


class TextVectors:
    """TF-IDF vectors of one kind of text.

    Attributes:
        vectors: one row per item, of length 1 or 0, shape [items, words].
    """

    vectors: sp.csr_array[Any]

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def fit(self, texts: Sequence[str]) -> Self:
        """Learn words and their weights from texts, one per item."""
        vectorizer = self._vectorizer()
        try:
            self._set(vectorizer.fit_transform(texts))
        except ValueError:  # scikit-learn's way to say that no text holds a word
            self.words, self.idf = [], np.empty(0)
            self._set(sp.csr_array((len(texts), 0)))
            return self
        self.words = vectorizer.get_feature_names_out().tolist()
        self.idf = vectorizer.idf_
        return self

    def extended(self, texts: Sequence[str]) -> TextVectors:
        """Return a copy with further texts; words that are not known yet are ignored."""
        longer = copy(self)
        longer._set(sp.vstack([self.vectors, self.queries(texts)]))
        return longer

    def queries(self, texts: Sequence[str]) -> sp.csr_array[Any]:
        """Return the vectors of other texts, shape [texts, words]; unknown words are ignored."""
        if not self.words:
            return sp.csr_array((len(texts), 0))
        return sp.csr_array(self._fitted.transform(texts))

    @cached_property
    def _fitted(self) -> Any:
        """The vectorizer with the known words, made once, because every wish needs it."""
        vectorizer = self._vectorizer(self.words)
        vectorizer.idf_ = self.idf
        return vectorizer

    def likeness(self, weights: sp.csr_array[Any]) -> Floats:
        """Return the weighted sum of cosines with each item, shape [rows, items].

        Args:
            weights: weight of each history item, shape [rows, items].
        """
        queries = sp.csr_array(weights @ self.vectors)
        return dense_product(queries, self._transposed)

    def cosines(self, items: Items) -> Floats32:
        """Return the cosine of some items with each item, shape [len(items), all items]."""
        if self.vectors.shape[0] <= KEPT_ITEMS:
            return self._all_cosines[items]
        found = self.vectors[items] @ self._transposed
        return cast(Floats32, found.astype(np.float32).toarray())

    @cached_property
    def _all_cosines(self) -> Floats32:
        found = self.vectors @ self._transposed
        return cast(Floats32, found.astype(np.float32).toarray())

    def arrays(self, prefix: str) -> Arrays:
        """Return the state as arrays whose names begin with a prefix."""
        words = np.frombuffer(json.dumps(self.words).encode(), np.uint8)
        return {
            **matrix_arrays(self.vectors, f"{prefix}."),
            f"{prefix}.words": words,
            f"{prefix}.idf": self.idf,
        }

    def restore(self, arrays: Arrays, prefix: str) -> Self:
        """Load the arrays that :meth:`arrays` returned."""
        self.words = json.loads(arrays[f"{prefix}.words"].tobytes())
        self.idf = arrays[f"{prefix}.idf"]
        data, indices, starts = (arrays[f"{prefix}.{part}"] for part in CSR_PARTS)
        self._set(sp.csr_array((data, indices, starts), shape=(len(starts) - 1, len(self.words))))
        return self

    def _set(self, vectors: Any) -> None:
        self.vectors = sp.csr_array(vectors)
        self._transposed = sp.csr_array(self.vectors.T)
        self.__dict__.pop("_all_cosines", None)

    def _vectorizer(self, vocabulary: Sequence[str] | None = None) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer  # takes a second to import

        return TfidfVectorizer(
            sublinear_tf=True, token_pattern=self._pattern, vocabulary=vocabulary
        )


class TextExpert(Expert):
    """Likeness of titles, and of metadata if the item table has text columns."""

    name = "text"
    parts: dict[str, TextVectors]

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        texts = item_texts(train.catalogue)
        self.parts = {kind: TextVectors(KINDS[kind]).fit(text) for kind, text in texts.items()}
        self.terms = tuple(self.parts)
        return self

    def scores(self, histories: Histories) -> list[Floats]:
        weights = decayed_matrix(histories.tail(MAX_AGE), self._size, DECAY)
        return [log_votes(part.likeness(weights), FLOOR) for part in self.parts.values()]

    def training_scores(self, history: Histories, start: int, stop: int) -> list[Floats32]:
        first = max(0, start - MAX_AGE)
        ages = training_ages(stop - first, start - first, stop - first)
        weights = np.where(ages < MAX_AGE, decayed_weights(ages, DECAY), 0.0)
        # Positions share most items, so each item is compared with the catalogue only once.
        items, place = np.unique(history.items[first:stop], return_inverse=True)
        merged = merged_weights(weights, place).astype(np.float32)
        parts = self.parts.values()
        return [log_votes(merged @ part.cosines(items), FLOOR) for part in parts]

    @property
    def _size(self) -> int:
        return int(self.parts["titles"].vectors.shape[0])

    def extended(self, like: Sequence[int | None], catalogue: Catalogue) -> Self:
        longer, texts = copy(self), item_texts(catalogue)
        new = len(catalogue) - len(like)
        empty = [""] * len(like)
        longer.parts = {
            kind: part.extended(texts[kind][new:] if kind in texts else empty)
            for kind, part in self.parts.items()
        }
        return longer

    def arrays(self) -> Arrays:
        return {
            name: value
            for kind, part in self.parts.items()
            for name, value in part.arrays(kind).items()
        }

    def restore(self, arrays: Arrays) -> Self:
        self.parts = {
            kind: TextVectors(pattern).restore(arrays, kind)
            for kind, pattern in KINDS.items()
            if f"{kind}.words" in arrays
        }
        self.terms = tuple(self.parts)
        return self


def item_texts(catalogue: Catalogue) -> dict[str, list[str]]:
    """Return the texts of the items: titles, and metadata if a text column has any.

    Columns that repeat the title under another name are left out.
    """
    texts = {"titles": catalogue.titles}
    columns = [
        _joined(catalogue.metadata[name])
        for name in catalogue.metadata.columns
        if "title" not in name.lower() and _is_text(catalogue.metadata[name].dtype)
    ]
    if columns:
        texts["metadata"] = ["|".join(row) for row in zip(*columns, strict=True)]
    return texts


def _is_text(dtype: pl.DataType) -> bool:
    return dtype == pl.String or dtype == pl.List(pl.String)


def _joined(column: pl.Series) -> list[str]:
    if column.dtype == pl.List(pl.String):
        column = column.list.join("|")
    return column.fill_null("").to_list()
