from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec import metrics
from genrec.errors import ConfigError, DataError

RANKS = np.array([1, 3, 10, 11, 0])


def test_hit_rate_counts_targets_within_k() -> None:
    assert metrics.hit_rate(RANKS, 10).tolist() == [1, 1, 1, 0, 0]
    assert metrics.hit_rate(RANKS, 2).tolist() == [1, 0, 0, 0, 0]


def test_ndcg_discounts_by_log2_of_rank_plus_one() -> None:
    expected = [1 / math.log2(2), 1 / math.log2(4), 1 / math.log2(11), 0, 0]
    assert metrics.ndcg(RANKS, 10) == pytest.approx(expected)
    assert metrics.ndcg(np.array([3]), 5).item() == 0.5  # 1 / log2(3 + 1)


def test_mrr_is_the_inverse_rank() -> None:
    assert metrics.mrr(RANKS, 10) == pytest.approx([1, 1 / 3, 1 / 10, 0, 0])


@given(st.lists(st.integers(0, 20), max_size=30), st.integers(1, 20))
def test_per_user_order_of_the_metrics(ranks: list[int], k: int) -> None:
    array = np.array(ranks, np.int32)
    hits, gains, inverse = (of(array, k) for of in (metrics.hit_rate, metrics.ndcg, metrics.mrr))
    assert hits.dtype == gains.dtype == inverse.dtype == np.float64
    assert (inverse <= gains).all()
    assert (gains <= hits).all()
    assert hits.sum() == sum(1 <= rank <= k for rank in ranks)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="k must be at least 1"):
        metrics.hit_rate(RANKS, 0)


def test_target_ranks_are_one_based_and_zero_when_missed() -> None:
    items = np.array([[7, 3, 5], [3, 7, -1], [-1, -1, -1]], np.int32)
    assert metrics.target_ranks(items, np.array([5, 9, 0])).tolist() == [3, 0, 0]


def test_target_ranks_takes_the_first_of_duplicates() -> None:
    assert metrics.target_ranks(np.array([[4, 2, 2]]), np.array([2])).tolist() == [2]


def test_target_ranks_of_nobody_and_of_empty_lists() -> None:
    assert metrics.target_ranks(np.empty((0, 3), int), np.empty(0, int)).tolist() == []
    assert metrics.target_ranks(np.empty((2, 0), int), np.zeros(2, int)).tolist() == [0, 0]


def test_target_ranks_refuses_misaligned_users() -> None:
    with pytest.raises(DataError, match="differ in their users"):
        metrics.target_ranks(np.zeros((2, 3), int), np.zeros(3, int))


def test_coverage_counts_distinct_items_once_and_padding_never() -> None:
    items = np.array([[0, 1, 8], [1, -1, 9]])  # 8 and 9 are no items, as an evaluation counts
    assert metrics.coverage(items, 8) == 2 / 8
    with pytest.raises(DataError):
        metrics.coverage(items, 0)


def test_interval_of_a_rate_agrees_with_the_normal_approximation() -> None:
    share, users = 0.2, 10_000
    values = np.repeat([1.0, 0.0], [int(share * users), int((1 - share) * users)])
    low, high = metrics.bootstrap_interval(values, seed=0, resamples=4000)
    half = 1.96 * math.sqrt(share * (1 - share) / users)
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.1 * half)


def test_interval_agrees_with_drawing_users_one_by_one() -> None:
    rng = np.random.default_rng(1)
    values = rng.exponential(size=200)  # all distinct and skewed
    means = values[rng.integers(0, 200, size=(20_000, 200))].mean(axis=1)
    expected = np.quantile(means, [0.05, 0.95])
    found = metrics.bootstrap_interval(values, seed=2, resamples=20_000, level=0.9)
    assert found == pytest.approx(expected, abs=0.03 * values.std())


def test_values_of_one_user_are_drawn_together() -> None:
    rng = np.random.default_rng(1)
    values, owner = rng.normal(size=300), np.arange(300)
    alone = metrics.bootstrap_interval(values, seed=0, resamples=4000)
    # Repeating each value says nothing new about the users, so the interval stays.
    repeated = metrics.bootstrap_interval(
        np.repeat(values, 9), seed=0, resamples=4000, owner=np.repeat(owner, 9)
    )
    assert repeated == pytest.approx(alone, abs=0.01)
    naive = metrics.bootstrap_interval(np.repeat(values, 9), seed=0, resamples=4000)
    assert naive[1] - naive[0] < 0.4 * (repeated[1] - repeated[0])
    found = metrics.paired_difference(values, values + 1, owner=owner // 3)
    assert found == pytest.approx((-1, -1, -1))


def test_the_mean_is_over_targets_however_many_a_user_has() -> None:
    # One user with 3 hits of 3, one with 0 of 1: the draws are both of one, or one of each.
    ends = metrics.bootstrap_interval(
        np.array([1.0, 1.0, 1.0, 0.0]), seed=0, owner=np.array([7, 7, 7, 2])
    )
    assert ends == (0.0, 1.0)


def test_interval_does_not_depend_on_how_resamples_are_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.arange(50.0)
    whole = metrics.bootstrap_interval(values, seed=3)
    monkeypatch.setattr(metrics, "_BLOCK", 7 * 50)
    assert metrics.bootstrap_interval(values, seed=3) == whole


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=40),
    st.integers(0, 2**32 - 1),
)
def test_interval_is_ordered_bounded_and_blind_to_order(values: list[float], seed: int) -> None:
    low, high = metrics.bootstrap_interval(np.array(values), seed, resamples=50)
    slack = 1e-9
    assert min(values) - slack <= low <= high <= max(values) + slack
    assert metrics.bootstrap_interval(np.array(values[::-1]), seed, resamples=50) == (low, high)


def test_interval_narrows_with_its_level() -> None:
    values = np.arange(100.0)
    wide = metrics.bootstrap_interval(values, 0, level=0.99)
    narrow = metrics.bootstrap_interval(values, 0, level=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_interval_of_nobody_or_with_bad_settings_is_refused() -> None:
    with pytest.raises(DataError, match="at least one user"):
        metrics.bootstrap_interval(np.empty(0), 0)
    for resamples, level in ((0, 0.95), (10, 0.0), (10, 1.0)):
        with pytest.raises(ConfigError):
            metrics.bootstrap_interval(np.ones(3), 0, resamples, level)


def test_paired_difference_cancels_what_users_share() -> None:
    rng = np.random.default_rng(4)
    users = rng.normal(size=500)
    result = metrics.paired_difference(users + 0.25, users)
    assert result == pytest.approx((0.25, 0.25, 0.25))
    low, high = metrics.bootstrap_interval(users, 0)
    assert high - low > 0.1  # each alone is far less certain


def test_paired_difference_changes_sign_with_its_sides() -> None:
    a, b = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0, 0.0])
    assert metrics.paired_difference(a, b).difference == (1 + 0 + 0 + 1) / 4
    assert metrics.paired_difference(b, a).difference == -2 / 4


def test_paired_difference_refuses_other_users() -> None:
    with pytest.raises(DataError, match="same users, got 3 and 2"):
        metrics.paired_difference(np.ones(3), np.ones(2))


def test_gini_of_lists_that_treat_all_items_alike_is_zero() -> None:
    assert metrics.gini(np.array([[0, 1], [2, 3]]), 4) == pytest.approx(0)
    # All four places go to one of four items: (n + 1 - 2 * 1) / n with a Lorenz curve 0, 0, 0, 1.
    assert metrics.gini(np.array([[2], [2], [2], [2]]), 4) == pytest.approx((4 + 1 - 2 * 1) / 4)
    # Counts 0, 1, 3: the Lorenz curve is 0, 1/4, 1.
    once_and_thrice = metrics.gini(np.array([[1, 2], [2, -1], [2, 3]]), 3)
    assert once_and_thrice == pytest.approx((3 + 1 - 2 * (0 + 1 / 4 + 1)) / 3)
    with pytest.raises(DataError, match="at least one"):
        metrics.gini(np.array([[-1]]), 3)


def test_novelty_is_the_mean_surprise_of_what_is_recommended() -> None:
    counts = np.array([5, 1, 0])  # shares 6/9, 2/9 and 1/9 with one more each
    found = metrics.novelty(np.array([[0, 2], [1, -1], [3, 7]]), counts)
    expected = -(math.log2(6 / 9) + math.log2(1 / 9) + math.log2(2 / 9)) / 3
    assert found == pytest.approx(expected)
