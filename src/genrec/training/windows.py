"""Windows: the parts of the training histories that one epoch trains on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from genrec.arrays import Ints, rows_and_places
from genrec.config import Config
from genrec.data.histories import Histories
from genrec.errors import DataError
from genrec.language_model.prompts import Prompts
from genrec.language_model.titles import TitleTokens


@dataclass(frozen=True)
class Window:
    """Items ``start:stop`` of one training history; those from ``first`` on are targets.

    Attributes:
        row: row of the history.
        start: first item of the window.
        first: first target.
        stop: end of the window, exclusive.
    """

    row: int
    start: int
    first: int
    stop: int


class Windows(TorchDataset[Window]):
    """The windows of one epoch.

    If the template has no text between history and target, a history is cut into windows of
    ``length`` targets, counted from its end, each with the one item before them. Otherwise each
    target has a window of its own.

    Args:
        histories: the training histories.
        length: targets per window, or most history items before the target.
        every_position: whether every item of a window can be a target.
        last: keep only this many of each history's windows, the latest ones, because a user's early
            choices differ from later ones; all if ``None``.

    Raises:
        DataError: there is no window, because no history is long enough.
    """

    def __init__(
        self,
        histories: Histories,
        length: int,
        *,
        every_position: bool,
        last: int | None = None,
    ) -> None:
        cut = _cut if every_position else _cut_one_target
        self.histories = histories
        self._table = cut(histories.lengths, length, last)
        if not len(self._table):
            raise DataError(
                "Nothing to train on: no user has two items before the held-out ones. Use data "
                "with longer histories."
            )

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Window:
        return Window(*self._table[index].tolist())

    @property
    def targets(self) -> int:
        """Number of targets of all windows."""
        _, _, first, stop = self._table.T
        return int((stop - first).sum())

    def title_tokens(self, titles: TitleTokens) -> Ints:
        """Return the number of title tokens in each window, shape [windows]."""
        ends = np.append(0, np.cumsum(titles.lengths[self.histories.items]))
        rows, starts, _, stops = self._table.T
        before = self.histories.offsets[rows]
        return cast(Ints, ends[before + stops] - ends[before + starts])


def _cut(lengths: Ints, length: int, last: int | None) -> Ints:
    """Return the windows of histories: a row of :class:`Window` fields each, [windows, 4]."""
    row, number = _numbered(-(-lengths // length), last)
    stop = lengths[row] - length * number
    first = np.maximum(0, stop - length)
    # The item before the first target gives every target a history. Only the first item of a
    # history has none, which trains for new users.
    return np.stack([row, np.maximum(0, first - 1), first, stop], axis=1)


def _cut_one_target(lengths: Ints, length: int, last: int | None) -> Ints:
    row, number = _numbered(np.maximum(lengths - 1, 0), last)
    stop = lengths[row] - number
    return np.stack([row, np.maximum(0, stop - 1 - length), stop - 1, stop], axis=1)


def _numbered(counts: Ints, most: int | None) -> tuple[Ints, Ints]:
    """Return the row of each of its windows, and their numbers from the end of the history."""
    counts = counts if most is None else np.minimum(counts, most)
    return rows_and_places(counts)


def training_windows(histories: Histories, prompts: Prompts, config: Config) -> Windows:
    """Return the windows that a configuration trains on."""
    length = config.window if prompts.every_position else config.history_length
    last = config.windows_per_user
    return Windows(histories, length, every_position=prompts.every_position, last=last)
