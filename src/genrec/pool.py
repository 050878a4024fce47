"""How much each of several experts weighs in a log-linear pool: ``log q = weights . scores``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

Floats = npt.NDArray[np.float64]

RIDGE = 1e-4
"""Pull towards the first expert alone; it only matters where the data say nothing."""


def fit_pool(
    scores: npt.NDArray[np.float32], target: npt.NDArray[np.int64], open_: npt.NDArray[np.bool_]
) -> Floats:
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
