"""SLIT: a linear model of the next item, in closed form.

Every position of every history is one row of a regression. Its input holds the earlier items, each
with a weight that decays with its distance. Its output is the item chosen next. With the inputs S
and the outputs T of all positions, the weights are ``B = P C`` for ``P = inverse(S'S + ridge)`` and
``C = S'T``. Source: the item transition model of SLIST (arXiv 2103.16104), with single targets as
in TALE (WSDM 2025).

Leaving out a user changes S'S by as many ranks as the user has positions. By the Woodbury identity,
this amounts to other weights of the user's own items. No large matrix has to be inverted again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Self, cast

import numpy as np
import scipy.sparse as sp
from scipy import linalg

from genrec.arrays import Arrays, Floating, Floats, Floats32, rows_and_places
from genrec.collaborative.counts import extended_matrix
from genrec.collaborative.expert import Expert, decayed_weights, log_votes
from genrec.collaborative.head import Head
from genrec.collaborative.matrix import (
    decayed_matrix,
    dense_product,
    matrix_arrays,
    merged_weights,
    restored_matrix,
    strongest_in_columns,
    training_ages,
)
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.processes import ProgressLines

DECAY_STEPS = 10.0
"""Number of steps back at which an item's weight has fallen to 1/e."""
DECAY = math.exp(-1 / DECAY_STEPS)
"""Factor of an item's weight per step back in the history."""
MAX_AGE = 60
"""Number of earlier items that a position sees."""
POSITIONS = 256
"""Most positions that a user contributes, the last ones; they bound the cost of leaving one out."""
RIDGE = 100.0
"""Added to the diagonal of S'S."""
BLOCK = 200_000
"""Interactions whose regression rows are held in memory at once, about half a gigabyte."""
DENSE = 0.02
"""Share of entries of C above which a product of dense matrices is faster than a sparse one."""
FLOOR = 0.002
"""Score that every item has; see :func:`.log_votes`."""


class SLITExpert(Expert):
    """SLIT as a part of the pool."""

    name = "slit"
    terms = ("slit",)
    head: Head
    inverse: Floats32 | None
    """P over the items of the head, shape [size, size]; ``None`` once loaded."""
    dense: Floats32 | None
    """B over the items of the head, shape [size, size]; ``None`` once loaded."""
    weights: sp.csr_array[Any]
    """B with the strongest entries of each column, for inference, shape [items, items]."""

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        self.head = Head.of(train.histories, len(train.catalogue))
        size = len(self.head.items)
        gram, counts = (np.zeros((size, size), np.float32) for _ in range(2))
        histories, done = train.histories.tail(POSITIONS + 1), 0
        report = ProgressLines("interactions counted for the expert slit")
        for block in _blocks(histories):
            inputs, targets = _positions(block, self.head)
            for total, product in ((gram, inputs.T @ inputs), (counts, targets.T @ inputs)):
                part = product.tocoo()
                total[part.coords] += part.data
            done += len(block.items)
            report(done, len(histories.items))
        gram[np.diag_indices(size)] += RIDGE
        self.inverse = cast(Floats32, linalg.inv(gram, overwrite_a=True, assume_a="pos"))
        self.dense = dense = _product(self.inverse, counts.T)
        strongest = strongest_in_columns(size, lambda columns: dense[:, columns].copy())
        self.weights = self.head.widened(strongest)
        return self

    def scores(self, histories: Histories) -> list[Floats]:
        given = decayed_matrix(histories.tail(MAX_AGE), self.weights.shape[0], DECAY)
        return [log_votes(dense_product(given, self.weights), FLOOR)]

    def training_scores(self, history: Histories, start: int, stop: int) -> Sequence[Floating]:
        assert self.inverse is not None, "a loaded or extended expert has no training scores"
        assert self.dense is not None
        # All items outside of the head are the number -1 here, and `known` leaves it out.
        items, place = np.unique(self.head.place[history.items], return_inverse=True)
        known = items >= 0
        items, length = items[known], len(place)
        first = max(0, length - POSITIONS - 1)
        latest = place[first:]
        weights = _position_weights(length - first, 1, length - first)
        own = merged_weights(weights, latest, len(known))[:, known]
        asked = merged_weights(_position_weights(length, start, stop), place)[:, known]
        block = self.inverse[np.ix_(items, items)].astype(np.float64)
        projected = own @ block @ own.T
        kept = np.linalg.solve(np.eye(len(own)) - projected, (asked @ block @ own.T).T).T
        moved = asked + kept @ own
        scores = moved.astype(np.float32) @ self.dense[items]
        # The user's own targets left C as well: subtract what they would add.
        added = merged_weights(moved @ block @ own.T, latest[1:], len(known))
        scores[:, items] -= added[:, known]
        return [self.head.spread(log_votes(scores, FLOOR), math.log(FLOOR))]

    def extended(self, like: Sequence[int | None], catalogue: Catalogue) -> Self:
        longer = copy(self)
        longer.weights = extended_matrix(self.weights, like)
        longer.inverse = longer.dense = None
        return longer

    def arrays(self) -> Arrays:
        return matrix_arrays(self.weights)

    def restore(self, arrays: Arrays) -> Self:
        self.weights = restored_matrix(arrays, len(arrays["indptr"]) - 1)
        self.inverse = self.dense = None
        return self


def _product(inverse: Floats32, counts: Floats32) -> Floats32:
    """Return the product of two square matrices, the second of which may be mostly zeros."""
    if np.count_nonzero(counts) > DENSE * counts.size:
        return cast(Floats32, inverse @ counts)
    return cast(Floats32, np.ascontiguousarray((sp.csr_array(counts.T) @ inverse.T).T))


def _blocks(histories: Histories) -> Iterator[Histories]:
    """Yield the users in groups of about :data:`BLOCK` interactions, to bound the memory."""
    group = histories.offsets[:-1] // BLOCK
    for number in np.unique(group):
        yield histories.select(np.flatnonzero(group == number))


def _positions(histories: Histories, head: Head) -> tuple[sp.csr_array[Any], sp.csr_array[Any]]:
    """Return the regression's inputs and outputs, both of shape [interactions, items of the head].

    The row of a history's first item is empty in both, and items outside of the head are left out.
    """
    items, size = head.place[histories.items], len(histories.items)
    _, place = rows_and_places(histories.lengths)
    rows, columns, values = [], [], []
    for age in range(MAX_AGE):
        target = np.flatnonzero(place > age)
        target = target[items[target - age - 1] >= 0]
        rows.append(target)
        columns.append(items[target - age - 1])
        values.append(np.full(len(target), DECAY**age, np.float32))
    where = np.concatenate(rows), np.concatenate(columns)
    shape = (size, len(head.items))
    inputs = sp.csr_array((np.concatenate(values), where), shape=shape)
    later = np.flatnonzero((place > 0) & (items >= 0))
    ones = np.ones(len(later), np.float32)
    return inputs, sp.csr_array((ones, (later, items[later])), shape=shape)


def _position_weights(length: int, start: int, stop: int) -> Floats:
    """Return the weight of each history item at each position, shape [stop - start, length]."""
    ages = training_ages(length, start, stop)
    return np.where(ages < MAX_AGE, decayed_weights(ages, DECAY), 0.0)
