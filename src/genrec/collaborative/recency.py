"""The recency expert: what was popular shortly before a point in time.

Each interaction counts less the older it is. The counts are kept on a grid of points in time and
hold only what happened before each point, so that no position of a history knows its own future.
Two of the terms look at the time of the history's last item. The other two look at the present, the
end of the log. A split by global time needs the present, leave-last-out the history's own time; the
pool's weights decide between them on validation users.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Self, cast

import numpy as np

from genrec.arrays import Arrays, Floats, Floats32, Ints, Mask, rows_and_places
from genrec.collaborative.counts import extended_source
from genrec.collaborative.expert import Expert
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories, common_clock
from genrec.data.splits import Holdout

THEN = (0.002, 0.02)
"""Half-lives of counts at the time of the last item, as shares of the log's time span."""
NOW = (0.02, 0.1)
"""Half-lives of counts at the end of the log."""
STEPS = 1000
"""Number of intervals of the grid."""
FLOOR = 0.3
"""Added to each count."""
MAX_ITEMS = 100_000
"""Largest catalogue, for which the counts take 1.2 GB."""


class RecencyExpert(Expert):
    """Popularity with exponentially decaying counts; it has no terms without real timestamps."""

    name = "recency"
    max_items = MAX_ITEMS

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        histories, size = train.histories, len(train.catalogue)
        known = common_clock(histories)
        self._items = histories.items if known else histories.items[:0]
        self._times = histories.timestamps if known else histories.timestamps[:0]
        return self._set(np.arange(size), size)

    def scores(self, histories: Histories) -> list[Floats]:
        known = _have_times(histories)
        last = np.full(len(histories), np.nan)  # the present
        last[known] = histories.timestamps[histories.offsets[1:][known] - 1]
        step = self._step(last)
        return [self._at(h, step) for h in THEN] + [self._at(h, np.array([STEPS])) for h in NOW]

    def training_scores(self, history: Histories, start: int, stop: int) -> list[Floats]:
        # In training the present is the time of a position's last item, and for the first position
        # that of its own item. Counts hold earlier times only.
        times = np.append(history.timestamps[:1], history.timestamps)
        # The end of the log would count everything that shares its last moment, targets included.
        step = np.minimum(self._step(times[start:stop]), STEPS - 1)
        return [self._at(half_life, step) for half_life in (*THEN, *NOW)]

    def _step(self, times: Floats) -> Ints:
        """Return the last point of the grid that is not after each time.

        A time outside of the log, or none (NaN), means the present.
        """
        first, last = self._times.min(), self._times.max()
        inside = (times >= first) & (times <= last)
        share = (np.where(inside, times, last) - first) / max(last - first, np.finfo(float).tiny)
        return cast(Ints, np.floor(share * STEPS).astype(np.int64))

    def _at(self, half_life: float, step: Ints) -> Floats:
        table, (rows, place) = self._tables[half_life], np.unique(step, return_inverse=True)
        return cast(Floats, np.log(table[rows][:, self._source] + FLOOR)[place])

    def _set(self, source: Ints, size: int) -> Self:
        self._source, self._size = source, size
        self.terms = ()
        self._tables: dict[float, Floats32] = {}
        if len(self._times):
            self.terms = tuple(
                f"recency {when} {100 * half_life:g} %"
                for when, half_lives in (("then", THEN), ("now", NOW))
                for half_life in half_lives
            )
            self._tables = {h: self._counts(h) for h in sorted({*THEN, *NOW})}
        return self

    def _counts(self, half_life: float) -> Floats32:
        """Return the decayed count of each item before each point of the grid.

        Returns:
            Shape [STEPS + 1, items + 1]. The last column holds the mean, for new items.
        """
        first, last = self._times.min(), self._times.max()
        share = (self._times - first) / max(last - first, np.finfo(float).tiny) * STEPS
        # An interaction counts from the next point on, and the last point counts all.
        point = np.minimum(np.floor(share).astype(np.int64) + 1, STEPS)
        weight = 0.5 ** ((point - share) / (STEPS * half_life))
        table = np.zeros((STEPS + 1, self._size + 1), np.float32)
        np.add.at(table, (point, self._items), weight)
        fade = np.float32(0.5 ** (1 / (STEPS * half_life)))
        for row in range(1, STEPS + 1):
            table[row] += fade * table[row - 1]
        table[:, -1] = table[:, :-1].mean(axis=1)
        return table

    def extended(self, like: Sequence[int | None], catalogue: Catalogue) -> Self:
        longer = copy(self)
        longer._source = extended_source(self._source, like)
        return longer

    def arrays(self) -> Arrays:
        size = np.array(self._size)
        return {"items": self._items, "times": self._times, "source": self._source, "size": size}

    def restore(self, arrays: Arrays) -> Self:
        self._items, self._times = arrays["items"], arrays["times"]
        return self._set(arrays["source"], int(arrays["size"]))


def _have_times(histories: Histories) -> Mask:
    """Return which rows have times: not those that count 0, 1, 2 …, as lists of titles do."""
    row, place = rows_and_places(histories.lengths)
    differs = np.bincount(row, histories.timestamps != place, minlength=len(histories))
    return differs > 0
