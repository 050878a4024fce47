"""A log-linear pool: several experts combined into one distribution.

The pool's logits are a weighted sum of the experts' scores, ``log q = weights . scores + const``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, ClassVar, Self, cast

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize

from genrec.arrays import Arrays, Floats, Floats32, Ints, Items, Mask
from genrec.collaborative.base import PriorRecommender
from genrec.collaborative.counts import (
    discount_repeats,
    extended_matrix,
    seen_before,
    smoothed_popularity,
)
from genrec.collaborative.ease import gram_inverse, leave_user_out, top_weights
from genrec.collaborative.matrix import MAX_DENSE_ITEMS, matrix_arrays, restored_matrix
from genrec.collaborative.transitions import POSITIONS_PER_USER, TransitionPrior
from genrec.data.histories import Histories
from genrec.errors import ConfigError

POOL_POSITIONS, POSITIONS_OF_USER, POOL_CELLS = 3000, 4, 2**24
"""Training positions for fitting the weights, in total and per user, and the most table cells.

``POOL_CELLS`` bounds positions x items.
"""


POOL_RIDGE = 1e-4
"""L2 penalty that pulls the weights towards the first expert alone.

It only matters where the data do not determine the weights.
"""


FLOOR = -60.0
"""Lowest logit relative to the likeliest item, so that no item is impossible."""


def pooled(weights: Floats, experts: Sequence[Floats], seen: Mask, repeat_rate: float) -> Floats:
    """Return the pool's distribution, with items of the history scaled by the repeat rate.

    Args:
        weights: one weight per expert.
        experts: scores, each of shape [rows or 1, items].
        seen: items that each row's history holds, shape [rows, items].
        repeat_rate: factor for these items.

    Returns:
        Shape [rows, items]; rows sum to 1.
    """
    logits = np.zeros(seen.shape)
    for weight, scores in zip(weights, experts, strict=True):
        logits += weight * scores
    logits -= logits.max(axis=1, keepdims=True)
    return discount_repeats(np.exp(np.maximum(logits, FLOOR)), seen, repeat_rate)


def fit_weights(
    histories: Histories, n_items: int, experts: Callable[[Items, int, int], list[Floats]]
) -> Floats:
    """Fit the pool's weights on late positions of randomly drawn users.

    Args:
        histories: the training histories.
        n_items: size of the catalogue.
        experts: function of (history, start, stop) that returns the experts' scores at positions
            ``start:stop`` of a training history, each of shape [positions or 1, items]. The
            experts must not have counted that history's user.

    Returns:
        One weight per expert. Without any usable position the first expert gets weight 1 and all
        others 0.
    """
    scores: list[Floats32] = []
    targets: list[int] = []
    unseen: list[Mask] = []
    room = min(POOL_POSITIONS, POOL_CELLS // n_items)
    random = np.random.default_rng(0)
    for user in random.permutation(len(histories)):
        history = histories[int(user)]
        start, stop = max(1, len(history) - POSITIONS_PER_USER), len(history)
        if len(targets) >= room:
            break
        if start >= stop:
            continue
        seen = seen_before(history, start, stop, n_items)
        new = np.flatnonzero(~seen[np.arange(stop - start), history[start:]])
        drawn = random.permutation(new)[:POSITIONS_OF_USER]
        if not len(drawn):
            continue
        rows = [np.broadcast_to(each, seen.shape)[drawn] for each in experts(history, start, stop)]
        scores.append(np.array(rows, np.float32))
        targets += history[start + drawn].tolist()
        unseen.append(~seen[drawn])
    if not targets:
        count = len(experts(np.zeros(2, np.int32), 1, 2))
        return np.array([1.0] + [0.0] * (count - 1))
    return fit_pool(np.concatenate(scores, axis=1), np.array(targets), np.concatenate(unseen))


def fit_pool(scores: Floats32, target: Ints, open_: Mask) -> Floats:
    """Fit the weights by maximum likelihood; the problem is concave.

    Args:
        scores: each expert's score of each item, shape [experts, positions, items].
        target: the item chosen at each position, shape [positions].
        open_: items that could have been chosen, shape [positions, items].

    Returns:
        One weight per expert.
    """
    positions = np.arange(len(target))
    chosen = scores[:, positions, target]
    flat = scores.reshape(len(scores), -1)  # loss and gradient each take one matrix-vector product
    first = np.eye(len(scores))[0]

    def loss(weights: Floats) -> tuple[float, Floats]:
        logits = (weights.astype(np.float32) @ flat).reshape(scores.shape[1:])
        logits[~open_] = -np.inf
        top = logits.max(axis=1, keepdims=True)
        odds = np.exp(logits - top)
        total = odds.sum(axis=1, keepdims=True)
        value = np.mean(top[:, 0] + np.log(total[:, 0]) - weights @ chosen)
        slope = flat @ (odds / total).ravel() / len(target) - chosen.mean(axis=1)
        away = weights - first
        return float(value + POOL_RIDGE * away @ away), slope + 2 * POOL_RIDGE * away

    return np.asarray(minimize(loss, first, jac=True, method="L-BFGS-B").x, np.float64)


EASE_DECAYS = (1.0, 0.9)
"""Decay of an item's weight per step back in the history; one EASE expert for each."""


class PooledPrior:
    """Log-linear pool of transitions, EASE and popularity, with fitted weights.

    Transitions capture order and time. EASE captures which items occur together and which exclude
    each other. It enters twice: once with equal weights for the whole history, and once with more
    weight on its end. All of these experts contain popularity, so popularity itself gets a weight
    of its own, which is mostly negative.
    """

    kind: ClassVar[str] = "pooled"
    weights: Floats
    inverse: Floats32 | None

    @property
    def item_counts(self) -> Floats:
        return self.transitions.counts

    def fit(self, histories: Histories, n_items: int) -> Self:
        if n_items > MAX_DENSE_ITEMS:
            raise ConfigError(
                f"prior=pooled inverts an items x items matrix: {n_items} items are too many (at "
                f"most {MAX_DENSE_ITEMS}); set prior=transitions."
            )
        self.transitions = TransitionPrior().fit(histories, n_items)
        self.inverse = gram_inverse(histories, n_items)
        self.item_weights = top_weights(self.inverse)
        self.weights = fit_weights(histories, n_items, self._training_experts)
        return self

    def probabilities(self, histories: Histories) -> Floats:
        experts = [np.log(self.transitions.all_votes(histories))]
        experts += [_decayed(histories, decay, self.item_weights) for decay in EASE_DECAYS]
        experts.append(np.log(smoothed_popularity(self.transitions.counts))[None])
        seen = histories.seen(len(self.transitions.counts))
        return pooled(self.weights, experts, seen, self.transitions.repeat_rate)

    def training_probabilities(self, history: Items, start: int, stop: int) -> Floats:
        seen = seen_before(history, start, stop, len(self.transitions.counts))
        experts = self._training_experts(history, start, stop)
        return pooled(self.weights, experts, seen, self.transitions.repeat_rate)

    def _training_experts(self, history: Items, start: int, stop: int) -> list[Floats]:
        assert self.inverse is not None, "a loaded or extended prior has no training distribution"
        age = np.arange(start, stop)[:, None] - 1 - np.arange(len(history))
        ease = leave_user_out(self.inverse, history)
        experts = [np.log(self.transitions.training_votes(history, start, stop))]
        for decay in EASE_DECAYS:
            experts.append(ease(np.where(age >= 0, decay ** age.clip(0), 0.0)))
        others = self.transitions.counts - np.bincount(
            history, minlength=len(self.transitions.counts)
        )
        return [*experts, np.log(smoothed_popularity(others))[None]]

    def extended(self, like: Sequence[int | None]) -> Self:
        longer = copy(self)
        longer.transitions = self.transitions.extended(like)
        longer.item_weights, longer.inverse = extended_matrix(self.item_weights, like), None
        return longer

    def arrays(self) -> Arrays:
        item_weights = matrix_arrays(self.item_weights, prefix="says_")
        return {**self.transitions.arrays(), **item_weights, "weights": self.weights}

    def restore(self, arrays: Arrays) -> Self:
        self.transitions = TransitionPrior().restore(arrays)
        size = len(self.transitions.counts)
        self.item_weights = restored_matrix(arrays, size, prefix="says_")
        self.weights, self.inverse = arrays["weights"], None
        return self


def _decayed(histories: Histories, decay: float, matrix: sp.csr_array[Any]) -> Floats:
    """Return EASE scores in which an item at age a has weight ``decay ** a``."""
    lengths = histories.lengths
    row = np.repeat(np.arange(len(histories)), lengths)
    age = np.repeat(histories.offsets[1:], lengths) - 1 - np.arange(len(histories.items))
    shape = (len(histories), matrix.shape[0])
    weights = sp.csr_array((decay**age, (row, histories.items)), shape=shape)
    return cast(Floats, (weights @ matrix).toarray())


class Pooled(PriorRecommender):
    """GenRec's default prior as a recommender: a pool of transitions, EASE and popularity."""

    name = "pooled"

    def __init__(self) -> None:
        self._prior = PooledPrior()
