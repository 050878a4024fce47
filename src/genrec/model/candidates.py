"""The items that a search may return."""

from __future__ import annotations

import numpy as np

from genrec.arrays import Mask
from genrec.data.histories import Histories
from genrec.errors import ConfigError, DataError
from genrec.search.frontier import SearchOptions


def candidate_mask(
    histories: Histories, size: int, exclude_seen: bool, candidates: Mask | None
) -> Mask | None:
    """Return the candidates of each history, bool [rows, items]; ``None`` if all items are.

    Args:
        histories: one row per user.
        size: number of items.
        exclude_seen: leave out the items of each history.
        candidates: mask of the items that may be recommended, bool [items] or [rows, items].

    Raises:
        DataError: ``candidates`` has another shape.
    """
    shapes = ((size,), (len(histories), size))
    if candidates is not None and candidates.shape not in shapes:
        raise DataError(
            f"candidates has shape {candidates.shape}, but the catalogue holds {size} items; "
            "make the mask with catalogue.mask(…)."
        )
    if candidates is not None:
        candidates = np.broadcast_to(candidates, (len(histories), size))
    if not exclude_seen:
        return candidates
    unseen = ~histories.seen(size)
    return unseen if candidates is None else unseen & candidates


def check_search(k: int, options: SearchOptions | None) -> None:
    """Refuse lists or beams without a place, with a ConfigError."""
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}.")
    if options is not None and options.beam is not None and options.beam < 1:
        raise ConfigError(f"width must be at least 1, got {options.beam}.")
