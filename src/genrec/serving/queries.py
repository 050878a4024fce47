"""Queries to the engine and their answers, in terms of item indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.arrays import Mask
from genrec.data.histories import Histories
from genrec.recommender import Influence, Recommendation


@dataclass(frozen=True)
class Query:
    """A request for recommendations.

    Attributes:
        history: item indices, oldest first.
        k: number of recommendations.
        exclude_seen: whether items of the history are left out.
        allow: indices of the only candidates, or ``None`` for all items.
        block: indices of items that are not recommended.
        candidates: mask of the items that pass the filters, bool [items] (see
            :func:`genrec.serving.filters.filter_mask`), or ``None``.
        explain: whether reasons are wanted.
        words: what the user asks for, or ``None``.
        ratings: the user's rating of each history item, ``None`` where unknown; ``None`` if there
            are none.
    """

    history: tuple[int, ...]
    k: int
    exclude_seen: bool = True
    allow: tuple[int, ...] | None = None
    block: tuple[int, ...] = ()
    candidates: Mask | None = None
    explain: bool = False
    words: str | None = None
    ratings: tuple[float | None, ...] | None = None

    @property
    def rated(self) -> tuple[float | None, ...]:
        """The rating of each history item, ``None`` where unknown."""
        return self.ratings or (None,) * len(self.history)


@dataclass(frozen=True)
class Answer:
    """The answer to a query.

    Attributes:
        items: recommendations, best first.
        because: for each of the first recommendations, the influence of the history items; ``None``
            if the query does not ask for reasons.
        words_effects: for each of these, the effect of the words in nats; ``None`` without words.
    """

    items: list[Recommendation]
    because: list[list[Influence]] | None
    words_effects: list[float] | None = None


def histories_of(queries: Sequence[Query]) -> Histories:
    """Return the histories of some queries, with their ratings and words, one row per query."""
    words = [query.words for query in queries]
    return Histories.from_lists(
        [query.history for query in queries],
        [query.rated for query in queries],
        words if any(words) else None,
    )


def allowed_items(query: Query, size: int) -> Mask:
    """Return the mask of the items that a query allows.

    Args:
        query: the query. Its mask of candidates may be shorter than the catalogue, if items were
            added since; these are left out.
        size: number of items in the catalogue.

    Returns:
        The mask, bool [items].
    """
    candidates = np.ones(size, dtype=bool)
    if query.allow is not None:
        candidates[:] = False
        candidates[list(query.allow)] = True
    if query.candidates is not None:
        candidates[: len(query.candidates)] &= query.candidates
        candidates[len(query.candidates) :] = False
    candidates[list(query.block)] = False
    if query.exclude_seen:
        candidates[list(query.history)] = False
    return candidates
