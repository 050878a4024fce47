from __future__ import annotations

import numpy as np
import pytest

from conftest import make_dataset
from genrec.collaborative import ease
from genrec.collaborative.matrix import interaction_matrix
from genrec.collaborative.pool import PooledPrior, fit_pool
from genrec.collaborative.registry import choose_prior
from genrec.data.histories import Histories
from genrec.errors import ConfigError


def test_ease_solves_its_least_squares_problem() -> None:
    """B has a zero diagonal and minimises |X - XB|² + ridge |B|²: the gradient off it is zero."""
    histories = make_dataset().histories
    says = ease.top_weights(ease.gram_inverse(histories, 30)).toarray()
    x = interaction_matrix(histories, 30).toarray().astype(np.float64)
    gradient = x.T @ (x @ says - x) + ease.EASE_RIDGE * says
    np.fill_diagonal(gradient, 0.0)
    np.testing.assert_allclose(np.diag(says), 0.0)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-3)


def test_without_a_user_is_a_fit_on_the_others() -> None:
    rows = list(make_dataset().histories)
    history = np.append(rows[3], rows[3][0])  # with a repeat
    whole = ease.gram_inverse(Histories.from_lists([*rows[:3], history, *rows[4:]]), 30)
    others = ease.top_weights(ease.gram_inverse(Histories.from_lists(rows[:3] + rows[4:]), 30))
    weights = np.random.default_rng(0).random((2, len(history)))
    expected = weights @ others.toarray()[history]
    np.testing.assert_allclose(ease.leave_user_out(whole, history)(weights), expected, atol=1e-5)


def test_a_pool_finds_the_weights_of_its_making() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(2, 4000, 12)).astype(np.float32)
    logits = 0.5 * scores[0] + 2.0 * scores[1]
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.array([random.choice(12, p=row) for row in odds])
    weights = fit_pool(scores, target, np.ones((4000, 12), bool))
    np.testing.assert_allclose(weights, [0.5, 2.0], atol=0.15)


def test_too_many_items_for_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_prior("auto", 30) == "pooled"
    assert choose_prior("auto", 10**6) == "transitions"
    assert choose_prior("none", 30) == "none"
    with pytest.raises(ConfigError, match=r"Unknown prior 'svd'\. Use one of auto, none, popul"):
        choose_prior("svd", 30)
    monkeypatch.setattr("genrec.collaborative.pool.MAX_DENSE_ITEMS", 20)
    with pytest.raises(ConfigError, match=r"30 items are too many.*prior=transitions"):
        PooledPrior().fit(make_dataset().histories, 30)
