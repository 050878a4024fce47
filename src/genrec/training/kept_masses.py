"""What the prior says of each training target, kept from one epoch to the next.

The prior does not change in training, and its part of the work can be larger than the language
model's. Only the masses at a target's decisions are kept, a few hundred numbers.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from genrec.arrays import Floats32, Ints
from genrec.data.histories import Histories
from genrec.language_model.trie import Trie

KEPT_BYTES = 3 * 2**30
"""Most bytes that are kept; larger training data are computed anew in each epoch."""

Place = tuple[int, int, int]
"""Row of a history, and its first and last target, the last one exclusive."""


class KeptMasses:
    """Log masses of the prior at the decisions of the items of some histories.

    The table is shared with processes that are forked later, such as those that collate batches,
    and takes memory only where it was written.

    Args:
        ends: end of each item's masses in the table, shape [interactions + 1].
        offsets: start of each history among the interactions, shape [rows + 1].
    """

    def __init__(self, ends: Ints, offsets: Ints) -> None:
        self._ends, self._offsets = ends, offsets
        self._masses = np.frombuffer(mmap.mmap(-1, 4 * max(1, int(ends[-1]))), np.float32)
        self._known = np.frombuffer(mmap.mmap(-1, len(ends)), np.bool_)

    @classmethod
    def of(cls, trie: Trie, histories: Histories) -> Self | None:
        """Make an empty table; ``None`` if it would exceed :data:`KEPT_BYTES`."""
        item, child = trie.paths(trie.items)
        fanout = np.diff(trie.child_offsets)[trie.child_parent[child]]
        sizes = np.zeros(len(trie.leaf_of), np.int64)
        sizes[trie.items] = np.bincount(item, fanout, len(trie.items)).astype(np.int64)
        ends = np.append(0, np.cumsum(sizes[histories.items]))
        return cls(ends, histories.offsets) if 4 * ends[-1] <= KEPT_BYTES else None

    def __contains__(self, place: Place) -> bool:
        return bool(self._known[self._items(place)].all())

    def add(self, places: Sequence[Place], masses: Floats32) -> None:
        """Keep the masses of the targets of some places, in their order."""
        start = 0
        for place in places:
            there = self._slice(place)
            size = there.stop - there.start
            self._masses[there] = masses[start : start + size]
            self._known[self._items(place)] = True
            start += size

    def masses(self, places: Sequence[Place]) -> Floats32:
        """Return the masses of the targets of some places, which must all be kept."""
        return np.concatenate([self._masses[self._slice(place)] for place in places])

    def _items(self, place: Place) -> slice:
        row, first, stop = place
        return slice(int(self._offsets[row]) + first, int(self._offsets[row]) + stop)

    def _slice(self, place: Place) -> slice:
        items = self._items(place)
        return slice(int(self._ends[items.start]), int(self._ends[items.stop]))

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that is not forked begins with an empty table of its own.
        return type(self), (self._ends, self._offsets)
