"""Collation: windows become padded token batches with the decisions to train."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from genrec.arrays import Floats, Items
from genrec.collaborative.prior import Prior, SparsePrior
from genrec.data.histories import Histories
from genrec.language_model.decisions import locate_targets
from genrec.language_model.prior_mass import SparseSums, cumulative_mass
from genrec.language_model.prompts import Prompts
from genrec.language_model.trie import Trie
from genrec.training.windows import Window

DENSE_ITEMS = 100_000
"""Largest catalogue whose prior is dense in training; sparse priors are faster only beyond it."""


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
        """Set up the collation.

        Args:
            trie: the title trie.
            prompts: the catalogue's prompts.
            histories: the training histories.
            prior: the prior, if any.
            loss: one of the values of ``Config.loss``.
            seed: seed of the drawn prompt variants.
        """
        self.trie, self.prompts, self.histories, self.prior = trie, prompts, histories, prior
        self.loss, self.seed = loss, seed

    def __call__(self, windows: list[Window]) -> dict[str, Any]:
        sequences, rows, starts, items, places = [], [], [], [], []
        for number, window in enumerate(windows):
            history = self.histories[window.row]
            tokens, window_starts = self._tokens(window)
            count = len(window_starts)  # fewer than the window's if the oldest do not fit
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
        """Return the prior's cumulative mass at each position of the windows."""
        prior = self.prior
        if prior is None:
            return None
        if len(self.trie) > DENSE_ITEMS and isinstance(prior, SparsePrior):
            return SparseSums.of(self.trie, [prior.training_shares(*place) for place in places])
        q = [prior.training_probabilities(*place) for place in places]
        return cumulative_mass(self.trie, np.concatenate(q))

    def _tokens(self, window: Window) -> tuple[list[int], list[int]]:
        """Return a window's tokens and the start of each of its target titles."""
        titles, history = self.prompts.titles, self.histories[window.row]
        if self.prompts.every_position:
            tokens = self.prompts.encode(history[window.start : window.stop])
            lengths = [len(titles[item]) for item in history[window.first : window.stop]]
            starts = (len(tokens) - np.cumsum(lengths[::-1])[::-1]).tolist()
            return tokens, [start for start in starts if start >= len(self.prompts.prefixes[0])]
        target = titles[history[window.first]]
        # The seed is the window's, so that a resumed run draws the same as an uninterrupted one.
        draw = np.random.default_rng((self.seed, window.row, window.stop))
        variant = int(draw.integers(len(self.prompts.prefixes)))
        before = history[window.start : window.first]
        tokens = self.prompts.encode(before, variant=variant, reserve=len(target))
        return [*tokens, *map(int, target)], [len(tokens)]


def _pad(sequences: list[list[int]], value: int, length: int | None = None) -> torch.Tensor:
    length = length or max(map(len, sequences))
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in sequences])
