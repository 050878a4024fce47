"""Histories become windows, windows become padded batches with the decisions to train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from genrec.arrays import Floats, Ints, Items
from genrec.errors import DataError
from genrec.histories import Histories
from genrec.likelihood import cumulative_mass, locate_targets
from genrec.priors import Prior, SparsePrior
from genrec.prompts import Prompts
from genrec.shares import SparseSums
from genrec.titles import TitleTokens
from genrec.trie import Trie

DENSE_ITEMS = 100_000
"""Larger catalogues have sparse priors in training; smaller ones are faster as whole rows."""
POOL = 64
"""Microbatches that are drawn together and filled by length."""


@dataclass(frozen=True)
class Window:
    """Items ``start:stop`` of one training history; those from ``first`` on are targets."""

    row: int
    start: int
    first: int
    stop: int


class Windows(TorchDataset[Window]):
    """What one epoch sees.

    With a template that has nothing between history and target, a history is cut into windows of
    ``length`` targets, counted from its end, each with the one item before them.
    Otherwise each target has a window of its own. ``last`` keeps only that many windows of each
    history, the latest: what users do early differs from what they will do next.
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
            raise DataError("Nothing to train on: no user has two items before the held-out ones.")

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Window:
        return self.windows[index]

    def title_tokens(self, titles: TitleTokens) -> Ints:
        """Tokens of the titles in each window, shape [windows]."""
        ends = np.append(0, np.cumsum(titles.lengths[self.histories.items]))
        rows, starts, stops = np.array([(w.row, w.start, w.stop) for w in self.windows]).T
        first = self.histories.offsets[rows]
        return cast(Ints, ends[first + stops] - ends[first + starts])


def _cut(row: int, items: int, length: int) -> list[Window]:
    # One item before the first target, so that every target has a history; only a history's very
    # first item has none, as new users do.
    firsts = [(max(0, stop - length), stop) for stop in range(items, 0, -length)]
    return [Window(row, max(0, first - 1), first, stop) for first, stop in firsts]


def _cut_one_target(row: int, items: int, length: int) -> list[Window]:
    return [Window(row, max(0, stop - 1 - length), stop - 1, stop) for stop in range(items, 1, -1)]


class Collator:
    """Turns windows into padded token batches with the decisions to train."""

    def __init__(
        self,
        trie: Trie,
        prompts: Prompts,
        histories: Histories,
        prior: Prior | None,
        *,
        loss: str = "catalogue",
        seed: int = 0,
    ) -> None:
        """Collate for one of ``Config.loss``."""
        self.trie, self.prompts, self.histories, self.prior = trie, prompts, histories, prior
        self.loss, self.seed = loss, seed

    def __call__(self, windows: list[Window]) -> dict[str, Any]:
        sequences, rows, starts, items, places = [], [], [], [], []
        for number, window in enumerate(windows):
            history = self.histories[window.row]
            tokens, window_starts = self._tokens(window)
            count = len(window_starts)  # the oldest targets may not fit into the context
            sequences.append(tokens)
            rows += [number] * count
            starts += window_starts
            items.append(history[window.stop - count : window.stop])
            places.append((history, window.stop - count, window.stop))
        input_ids = _pad(sequences, 0)
        if self.loss != "catalogue":
            labels = _pad([sequence[1:] for sequence in sequences], -100, input_ids.shape[1])
            if self.loss == "full-vocabulary":
                firsts = dict(zip(reversed(rows), reversed(starts), strict=True))
                for row, start in firsts.items():
                    labels[row, : start - 1] = -100
            return {"input_ids": input_ids, "targets": None, "labels": labels, "titles": len(rows)}
        target_items = np.concatenate(items)
        targets = locate_targets(
            self.trie, target_items, np.array(rows), np.array(starts), self._sums(places)
        )
        labels = torch.from_numpy(target_items.astype(np.int64))
        return {"input_ids": input_ids, "targets": targets, "labels": labels, "titles": len(rows)}

    def _sums(self, places: list[tuple[Items, int, int]]) -> Floats | SparseSums | None:
        """The prior's cumulative mass at each position of the windows."""
        prior = self.prior
        if prior is None:
            return None
        if len(self.trie) > DENSE_ITEMS and isinstance(prior, SparsePrior):
            return SparseSums.of(self.trie, [prior.training_shares(*place) for place in places])
        q = [prior.training_probabilities(*place) for place in places]
        return cumulative_mass(self.trie, np.concatenate(q))

    def _tokens(self, window: Window) -> tuple[list[int], list[int]]:
        """A window's tokens and where each of its target titles starts."""
        titles, history = self.prompts.titles, self.histories[window.row]
        if self.prompts.every_position:
            tokens = self.prompts.encode(history[window.start : window.stop])
            lengths = [len(titles[item]) for item in history[window.first : window.stop]]
            starts = (len(tokens) - np.cumsum(lengths[::-1])[::-1]).tolist()
            return tokens, [start for start in starts if start >= len(self.prompts.prefixes[0])]
        target = titles[history[window.first]]
        # By place, not by turn: a resumed run then draws what an uninterrupted one draws.
        draw = np.random.default_rng((self.seed, window.row, window.stop))
        variant = int(draw.integers(len(self.prompts.prefixes)))
        before = history[window.start : window.first]
        tokens = self.prompts.encode(before, variant=variant, reserve=len(target))
        return [*tokens, *map(int, target)], [len(tokens)]


class ByLength(Sampler[int]):
    """Windows in random order, those of a microbatch of about the same length: little padding.

    An epoch is drawn in pools of :data:`POOL` microbatches; a pool is sorted by length, cut and its
    microbatches shuffled, so that an optimiser step still sees all lengths. The order depends on
    seed and epoch alone: a resumed run and each of several processes draw the same. The last step
    is filled with the epoch's first windows, so that every step is of the same size.
    """

    def __init__(self, lengths: Ints, microbatch: int, step: int, seed: int) -> None:
        """Sample windows of these lengths; ``step`` is how many of them an optimiser step takes."""
        self.lengths, self.microbatch, self.seed = lengths, microbatch, seed
        self.size = -(-len(lengths) // step) * step
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        drawn = np.resize(random.permutation(len(self.lengths)), self.size)
        pool = POOL * self.microbatch
        for start in range(0, self.size, pool):
            part = drawn[start : start + pool]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            microbatches = part.reshape(-1, self.microbatch)
            yield from random.permutation(microbatches).ravel().tolist()


def _pad(sequences: list[list[int]], value: int, length: int | None = None) -> torch.Tensor:
    length = length or max(map(len, sequences))
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in sequences])
