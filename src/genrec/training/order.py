"""The order of an epoch's windows: at random, those of a microbatch of like length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from genrec.arrays import Ints

POOL = 64
"""Microbatches that are drawn together and filled by length."""


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
