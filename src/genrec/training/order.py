"""The order of an epoch's windows: random, where it pays with similar lengths in a microbatch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from genrec.arrays import Ints
from genrec.language_model.layouts import Layout
from genrec.training.windows import Windows

POOLED_MICROBATCHES = 64
"""Number of microbatches in a pool, which is sorted by length as a whole."""


class ByLength(Sampler[int]):
    """Draws windows in random order, with similar lengths in a microbatch to reduce padding.

    An epoch is divided into pools of :data:`POOLED_MICROBATCHES` microbatches. Each pool is sorted
    by length and cut into microbatches, which are then shuffled, so that an optimiser step still
    contains all lengths. The order depends only on seed and epoch, so a resumed run and all
    processes draw the same one. The last step is filled up with the epoch's first windows, so that
    all steps have the same size.
    """

    def __init__(self, lengths: Ints, microbatch: int, step: int, seed: int) -> None:
        """Set up the sampler.

        Args:
            lengths: length of each window, shape [windows].
            microbatch: windows per microbatch.
            step: windows per optimiser step.
            seed: random seed.
        """
        self.lengths, self.microbatch, self.seed = lengths, microbatch, seed
        self.size = -(-len(lengths) // step) * step
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        drawn = np.resize(random.permutation(len(self.lengths)), self.size)
        pool = POOLED_MICROBATCHES * self.microbatch
        for start in range(0, self.size, pool):
            part = drawn[start : start + pool]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            microbatches = part.reshape(-1, self.microbatch)
            yield from random.permutation(microbatches).ravel().tolist()


def training_order(
    windows: Windows, layout: Layout, microbatch: int, step: int, seed: int
) -> ByLength:
    """Return the order of the windows, sorted by length only where short rows would be padded.

    Args:
        windows: the windows of one epoch.
        layout: the positions that the windows become.
        microbatch: windows per microbatch.
        step: windows per optimiser step.
        seed: random seed.
    """
    if layout.pads:
        return ByLength(windows.title_tokens(layout.prompts.titles), microbatch, step, seed)
    # With single windows in place of microbatches, any number of processes has the same steps.
    return ByLength(np.zeros(len(windows), np.int64), 1, step, seed)
