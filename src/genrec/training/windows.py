"""Windows: the parts of the training histories that one epoch trains on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from genrec.arrays import Ints
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
        DataError: no user has two items, so there is no window.
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
        self.windows = [
            window
            for row, items in enumerate(np.diff(histories.offsets).tolist())
            for window in cut(row, items, length)[:last]
        ]
        if not self.windows:
            raise DataError(
                "Nothing to train on: no user has two items before the held-out ones. Use data "
                "with longer histories."
            )

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Window:
        return self.windows[index]

    def title_tokens(self, titles: TitleTokens) -> Ints:
        """Return the number of title tokens in each window, shape [windows]."""
        ends = np.append(0, np.cumsum(titles.lengths[self.histories.items]))
        rows, starts, stops = np.array([(w.row, w.start, w.stop) for w in self.windows]).T
        first = self.histories.offsets[rows]
        return cast(Ints, ends[first + stops] - ends[first + starts])


def _cut(row: int, items: int, length: int) -> list[Window]:
    # The item before the first target gives every target a history. Only the first item of a
    # history has none, which trains for new users.
    firsts = [(max(0, stop - length), stop) for stop in range(items, 0, -length)]
    return [Window(row, max(0, first - 1), first, stop) for first, stop in firsts]


def _cut_one_target(row: int, items: int, length: int) -> list[Window]:
    return [Window(row, max(0, stop - 1 - length), stop - 1, stop) for stop in range(items, 1, -1)]


def training_windows(histories: Histories, prompts: Prompts, config: Config) -> Windows:
    """Return the windows that a configuration trains on."""
    length = config.window if prompts.every_position else config.history_length
    last = config.windows_per_user
    return Windows(histories, length, every_position=prompts.every_position, last=last)
