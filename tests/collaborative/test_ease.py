from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_dataset
from genrec.collaborative import ease
from genrec.collaborative.matrix import FEW_ROWS, dense_product, interaction_matrix
from genrec.data.histories import Histories


def test_ease_solves_its_least_squares_problem() -> None:
    """B has a zero diagonal and minimises |X - XB|² + ridge |B|²: the gradient off it is zero."""
    given_matrix = interaction_matrix(make_dataset().histories, 30)
    says = ease.top_weights(ease.gram_inverse(given_matrix)).toarray()
    x = given_matrix.toarray().astype(np.float64)
    gradient = x.T @ (x @ says - x) + ease.EASE_RIDGE * says
    np.fill_diagonal(gradient, 0.0)
    np.testing.assert_allclose(np.diag(says), 0.0)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-3)


def test_without_a_user_is_a_fit_on_the_others() -> None:
    rows = list(make_dataset().histories)
    history = np.append(rows[3], rows[3][0])  # with a repeat
    everybody, without = [*rows[:3], history, *rows[4:]], rows[:3] + rows[4:]
    whole, left = (
        ease.gram_inverse(interaction_matrix(Histories.from_lists(each), 30))
        for each in (everybody, without)
    )
    others = ease.top_weights(left)
    weights = np.random.default_rng(0).random((2, len(history)))
    expected = weights @ others.toarray()[history]
    np.testing.assert_allclose(ease.leave_user_out(whole, history)(weights), expected, atol=1e-5)


@given(st.integers(1, FEW_ROWS + 3), st.integers(0, 10**6))
def test_a_dense_product_is_the_sparse_one_to_the_last_digit(rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    given_rows = sp.csr_array(random.random((rows, 9)) * (random.random((rows, 9)) < 0.5))
    weights = sp.csr_array((random.random((9, 6)) < 0.8) * random.random((9, 6)), dtype=np.float32)
    expected = (given_rows @ weights).toarray()
    np.testing.assert_array_equal(dense_product(given_rows, weights), expected)
