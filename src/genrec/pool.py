"""Several experts as one distribution, by a log-linear pool: ``log q = weights . scores``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize

from genrec.arrays import Floats, Floats32, Ints, Items, Mask
from genrec.histories import Histories
from genrec.kernel import POSITIONS_PER_USER, discount_repeats, seen_before

POSITIONS, PER_USER, CELLS = 3000, 4, 2**24
"""Training positions for the fit, in all and of each user; positions x items at most."""
RIDGE = 1e-4
"""Pull towards the first expert alone; it only matters where the data say nothing."""
FLOOR = -60.0
"""Lowest log-odds beside the likeliest item: none is impossible."""


def pooled(weights: Floats, experts: Sequence[Floats], seen: Mask, repeat_share: float) -> Floats:
    """The pool's distribution, in which items that a row has ``seen`` keep the share of repeats.

    Args:
        experts: scores, each of shape [rows or 1, items].
        seen: shape [rows, items].
    """
    logits = np.zeros(seen.shape)
    for weight, scores in zip(weights, experts, strict=True):
        logits += weight * scores
    logits -= logits.max(axis=1, keepdims=True)
    return discount_repeats(np.exp(np.maximum(logits, FLOOR)), seen, repeat_share)


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
