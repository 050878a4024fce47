"""What a request asks for and what it is answered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.arrays import Mask
from genrec.recommender import Influence, Recommendation


@dataclass(frozen=True)
class Query:
    """What to recommend for: item indices, oldest first, and who may be recommended.

    allow: indices, or None for all. block: indices. candidates: see :func:`.filter_mask`.
    """

    history: tuple[int, ...]
    k: int
    exclude_seen: bool = True
    allow: tuple[int, ...] | None = None
    block: tuple[int, ...] = ()
    candidates: Mask | None = None
    explain: bool = False


@dataclass(frozen=True)
class Answer:
    """Recommendations, best first, and for each what moved it, if that was asked for."""

    items: list[Recommendation]
    because: list[list[Influence]] | None


def allowed_items(query: Query, size: int) -> Mask:
    """Which items may be recommended, bool [items]; items that came later may, too."""
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
