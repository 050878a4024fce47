"""Title search: a baseline that knows only the titles and no interactions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import scipy.sparse as sp

from genrec.arrays import Arrays, Floats32
from genrec.collaborative.base import Scores, Scoring, check_setting
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.errors import GenRecError


@dataclass(eq=False)
class TitleSearch(Scoring):
    """BM25 over the catalogue's titles; the query is the titles of the last items."""

    name = "title-search"

    last: int = 1
    """Number of most recent items whose titles form the query."""
    k1: float = 1.2
    """Saturation of repeated words in BM25."""
    b: float = 0.75
    """Length normalisation of BM25, from 0 (none) to 1 (full)."""

    def __post_init__(self) -> None:
        check_setting("last", self.last, least=1)
        check_setting("k1", self.k1)
        check_setting("b", self.b)

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        self._index(train.catalogue.titles)

    def scores(self, histories: Histories) -> Scores:
        last = histories.tail(self.last)
        queries, column = np.unique(last.items, return_inverse=True)
        found = np.array([self._search(item) for item in queries.tolist()])
        found = found.reshape(len(queries), len(self._titles))
        parts = (np.ones(len(column)), column, last.offsets)
        return cast(Scores, sp.csr_array(parts, shape=(len(last), len(queries))) @ found)

    def arrays(self) -> Arrays:
        return {"titles": np.frombuffer(json.dumps(self._titles).encode(), np.uint8)}

    def restore(self, arrays: Arrays) -> Self:
        return self._index(json.loads(arrays["titles"].tobytes()))

    def _index(self, titles: Sequence[str]) -> Self:
        bm25s = _bm25s()
        self._titles = list(titles)
        self._words = bm25s.tokenize(
            self._titles, stopwords="en", return_ids=False, show_progress=False
        )
        self._searcher = bm25s.BM25(k1=self.k1, b=self.b)
        if any(self._words):
            self._searcher.index(self._words, show_progress=False)
        return self

    def _search(self, item: int) -> Floats32:
        """Return each title's BM25 score for one item's title as the query, shape [items]."""
        if not self._words[item]:
            return np.zeros(len(self._titles), np.float32)
        return cast(Floats32, self._searcher.get_scores(self._words[item]))


def _bm25s() -> Any:
    try:
        import bm25s
    except ImportError:
        raise GenRecError(
            'title-search needs the package bm25s. Install it with: pip install "genrec[compare]".'
        ) from None
    return bm25s
