"""Several experts as one distribution, by a log-linear pool: ``log q = weights . scores``."""

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
from genrec.collaborative.matrix import MAX_DENSE_ITEMS
from genrec.collaborative.transitions import POSITIONS_PER_USER, TransitionPrior
from genrec.data.histories import Histories
from genrec.errors import ConfigError

POSITIONS, PER_USER, CELLS = 3000, 4, 2**24
"""Training positions for the fit, in all and of each user; positions x items at most."""


RIDGE = 1e-4
"""Pull towards the first expert alone; it only matters where the data say nothing."""


FLOOR = -60.0
"""Lowest log-odds beside the likeliest item: none is impossible."""


def pooled(weights: Floats, experts: Sequence[Floats], seen: Mask, repeat_rate: float) -> Floats:
    """The pool's distribution, in which items that a row has ``seen`` keep the share of repeats.

    Args:
        experts: scores, each of shape [rows or 1, items].
        seen: shape [rows, items].
    """
    logits = np.zeros(seen.shape)
    for weight, scores in zip(weights, experts, strict=True):
        logits += weight * scores
    logits -= logits.max(axis=1, keepdims=True)
    return discount_repeats(np.exp(np.maximum(logits, FLOOR)), seen, repeat_rate)


def fit_weights(
    histories: Histories, n_items: int, experts: Callable[[Items, int, int], list[Floats]]
) -> Floats:
    """Weights that fit late positions of users drawn at random.

    Args:
        experts: scores at positions ``start:stop`` of a training history, from experts that have
            not seen its user, each of shape [positions or 1, items].
    """
    scores: list[Floats32] = []
    targets: list[int] = []
    unseen: list[Mask] = []
    room = min(POSITIONS, CELLS // n_items)
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
        drawn = random.permutation(new)[:PER_USER]
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
    """Maximum-likelihood weights, a concave problem.

    Args:
        scores: each expert's score of each item, shape [experts, positions, items].
        target: the item chosen at each position, shape [positions].
        open_: items that could have been chosen, shape [positions, items].
    """
    positions = np.arange(len(target))
    chosen = scores[:, positions, target]
    flat = scores.reshape(len(scores), -1)  # one product with a vector each way
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
        return float(value + RIDGE * away @ away), slope + 2 * RIDGE * away

    return np.asarray(minimize(loss, first, jac=True, method="L-BFGS-B").x, np.float64)


EASE_DECAYS = (1.0, 0.9)
"""What a step back in the history takes from an item's say in EASE."""


class PooledPrior:
    """Transitions' votes, EASE's and popularity, pooled log-linearly with fitted weights.

    Transitions know order and time, EASE which items go together and which exclude each other;
    EASE hears the whole history twice, evenly and with its end louder. Popularity, which all of
    them contain, gets a weight of its own, mostly below zero.
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
        assert self.inverse is not None, "a loaded prior cannot be trained with"
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
        item_weights = {
            f"says_{part}": getattr(self.item_weights, part)
            for part in ("data", "indices", "indptr")
        }
        return {**self.transitions.arrays(), **item_weights, "weights": self.weights}

    def restore(self, arrays: Arrays) -> Self:
        self.transitions = TransitionPrior().restore(arrays)
        size = len(self.transitions.counts)
        parts = tuple(arrays[f"says_{part}"] for part in ("data", "indices", "indptr"))
        self.item_weights = sp.csr_array(parts, shape=(size, size))
        self.weights, self.inverse = arrays["weights"], None
        return self


def _decayed(histories: Histories, decay: float, matrix: sp.csr_array[Any]) -> Floats:
    """What the items of each history say, an item at age a with weight ``decay ** a``."""
    lengths = histories.lengths
    row = np.repeat(np.arange(len(histories)), lengths)
    age = np.repeat(histories.offsets[1:], lengths) - 1 - np.arange(len(histories.items))
    shape = (len(histories), matrix.shape[0])
    weights = sp.csr_array((decay**age, (row, histories.items)), shape=shape)
    return cast(Floats, (weights @ matrix).toarray())


class Pooled(PriorRecommender):
    """Transitions, EASE and popularity in a log-linear pool; GenRec's default prior by itself."""

    name = "pooled"

    def __init__(self) -> None:
        self._prior = PooledPrior()
