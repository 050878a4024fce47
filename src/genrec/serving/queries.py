"""What a request asks for and what it is answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.arrays import Mask
from genrec.recommender import Influence, Recommendation


@dataclass(frozen=True)
class Query:
    """What to recommend for: item indices, oldest first, and who may be recommended.

    allow: indices, or None for all. block: indices. filters: see :func:`filter_mask`.
    """

    history: tuple[int, ...]
    k: int
    exclude_seen: bool = True
    allow: tuple[int, ...] | None = None
    block: tuple[int, ...] = ()
    filters: Mask | None = None
    explain: bool = False


@dataclass(frozen=True)
class Answer:
    """Recommendations, best first, and for each what moved it, if that was asked for."""

    items: list[Recommendation]
    because: list[list[Influence]] | None


def allowed_items(query: Query, size: int) -> Mask:
    """Which items may be recommended, bool [items]; items that came later may, too."""
    allowed = np.ones(size, dtype=bool)
    if query.allow is not None:
        allowed[:] = False
        allowed[list(query.allow)] = True
    if query.filters is not None:
        allowed[: len(query.filters)] &= query.filters
        allowed[len(query.filters) :] = False
    allowed[list(query.block)] = False
    if query.exclude_seen:
        allowed[list(query.history)] = False
    return allowed
