"""Collation: windows become batches of positions with the decisions to train."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from genrec.arrays import Floats, Items
from genrec.collaborative.prior import Prior, SparsePrior
from genrec.data.histories import Histories
from genrec.language_model.decisions import Targets, locate_targets
from genrec.language_model.layouts import Layout, Sequences, Supervised
from genrec.language_model.prior_mass import SparseSums, cumulative_mass
from genrec.processes import one_blas_thread
from genrec.training.kept_masses import KeptMasses, Place
from genrec.training.windows import Window

DENSE_ITEMS = 100_000
"""Largest catalogue whose prior is dense in training; sparse priors are faster only beyond it."""


class Collator:
    """Turns windows into batches of positions with the decisions to train."""

    def __init__(
        self,
        layout: Layout,
        histories: Histories,
        prior: Prior | None,
        *,
        loss: str = "catalogue",
        seed: int = 0,
    ) -> None:
        """Set up the collation.

        Args:
            layout: the positions of titles and nodes.
            histories: the training histories.
            prior: the prior, if any.
            loss: one of the values of ``Config.loss``.
            seed: seed of the drawn prompt variants.
        """
        self.layout, self.prompts, self.histories, self.prior = (
            layout,
            layout.prompts,
            histories,
            prior,
        )
        self.loss, self.seed = loss, seed
        self._kept = None if prior is None else KeptMasses.of(layout.trie, histories)

    def __call__(self, windows: list[Window]) -> dict[str, Any]:
        parts = [self._part(window) for window in windows]
        sequences = self.layout.sequences(parts)
        items = np.concatenate([part.items[-part.targets :] for part in parts])
        found: dict[str, Any] = {"sequences": sequences, "targets": None, "titles": len(items)}
        if self.loss != "catalogue":
            return found | {"labels": self._token_labels(sequences, parts)}
        places = [
            (window.row, window.stop - part.targets, window.stop)
            for window, part in zip(windows, parts, strict=True)
        ]
        found["targets"] = self._targets(items, places)
        return found | {"labels": torch.from_numpy(items.astype(np.int64))}

    def _part(self, window: Window) -> Supervised:
        """Return a window's items, as many of the latest as fit."""
        history = self.histories[window.row]
        items = self.prompts.fitting(history[window.start : window.stop])
        ratings = self.histories.ratings_of(window.row)
        said = None if ratings is None else ratings[window.stop - len(items) : window.stop]
        levels = self.prompts.levels(said, len(items))
        if self.prompts.every_position:
            targets = min(len(items), window.stop - window.first)
            return Supervised(items, targets, levels=levels)
        # The seed is the window's, so that a resumed run draws the same as an uninterrupted one.
        draw = np.random.default_rng((self.seed, window.row, window.stop))
        variant = int(draw.integers(len(self.prompts.prefixes)))
        return Supervised(items, 1, variant, levels)

    def _token_labels(self, sequences: Sequences, parts: list[Supervised]) -> torch.Tensor:
        """Return the next token at each position, -100 where none is learned."""
        labels = torch.full_like(sequences.ids, -100)
        for row, (part, length) in enumerate(zip(parts, sequences.lengths, strict=True)):
            targets = self.prompts.titles.lengths[part.items[-part.targets :]].sum()
            first = 0 if self.loss == "all-tokens" else length - targets - 1
            labels[row, first : length - 1] = sequences.ids[row, first + 1 : length]
        return labels

    def _targets(self, items: Items, places: list[Place]) -> Targets:
        """Return the decisions of target items, with the prior's masses."""
        trie, kept = self.layout.trie, self._kept
        if self.prior is None:
            return locate_targets(trie, items, None)
        if kept is None:
            return locate_targets(trie, items, self._sums(self.prior, places))
        if new := [place for place in places if place not in kept]:
            wanted = np.concatenate([self.histories[row][first:stop] for row, first, stop in new])
            found = locate_targets(trie, wanted, self._sums(self.prior, new))
            assert found.prior is not None
            kept.add(new, found.prior)
        return replace(locate_targets(trie, items, None), prior=kept.masses(places))

    def _sums(self, prior: Prior, targets: list[Place]) -> Floats | SparseSums:
        """Return the prior's cumulative mass at each target."""
        places = [(self.histories.select([row]), first, stop) for row, first, stop in targets]
        if len(self.layout.trie) > DENSE_ITEMS and isinstance(prior, SparsePrior):
            return SparseSums.of(
                self.layout.trie, [prior.training_shares(*place) for place in places]
            )
        with one_blas_thread():
            q = [prior.training_probabilities(*place) for place in places]
        return cumulative_mass(self.layout.trie, np.concatenate(q))
