from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from conftest import make_dataset
from genrec.collaborative.cooccurrence import (
    FIXED_WEIGHTS,
    MAX_AGE,
    SHRINKAGE,
    CooccurrencePrior,
    count_by_gap,
    weighted_transitions,
)
from genrec.collaborative.counts import smoothed_popularity
from genrec.collaborative.popularity import PopularityPrior
from genrec.collaborative.prior import Prior
from genrec.collaborative.registry import fit_prior, load_prior, save_prior
from genrec.collaborative.transitions import TransitionPrior, _user_votes, fit_transition_weights
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.errors import RunError
from genrec.files import write_arrays

KINDS = ("popularity", "cooccurrence", "transitions", "pooled")


def dataset_of(histories: Histories, n_items: int) -> Dataset:
    catalogue = make_dataset().catalogue
    few = Catalogue(catalogue.item_ids[:n_items], catalogue.titles[:n_items], pl.DataFrame())
    return Dataset("tiny", few, histories)


def fitted(kind: str, histories: Histories, n_items: int) -> Prior:
    prior = fit_prior(kind, dataset_of(histories, n_items))
    assert prior is not None
    return prior


def test_votes_by_hand() -> None:
    # 0 → 1 → 2 once; counts are 1 each, so a row is divided by 1 + 5.
    prior = CooccurrencePrior().fit(Histories.from_lists([[0, 1, 2]]), 3)
    votes = prior.votes(Histories.from_lists([[0], [0, 1], []])).toarray()
    np.testing.assert_allclose(votes[0], [0, 1 / 6, 0.8 / 6])  # gap 1, then gap 2 decays by .8
    np.testing.assert_allclose(votes[1], [0, 0.8 * 1 / 6, 0.8 * 0.8 / 6 + 1 / 6])  # 0 is one older
    np.testing.assert_allclose(votes[2], 0)


def test_popularity_by_hand() -> None:
    prior = PopularityPrior().fit(Histories.from_lists([[0, 0, 1]]), 3)
    q = prior.probabilities(Histories.from_lists([[], [2]]))
    np.testing.assert_allclose(q, [[3 / 6, 2 / 6, 1 / 6]] * 2)  # counts 2, 1, 0 plus one each


def test_empty_history_gets_popularity() -> None:
    histories = Histories.from_lists([[0, 1, 2], [0, 2]])
    empty = Histories.from_lists([[]])
    expected = fitted("popularity", histories, 4).probabilities(empty)
    np.testing.assert_allclose(fitted("cooccurrence", histories, 4).probabilities(empty), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_distribution_over_all_items(kind: str) -> None:
    data = make_dataset()
    q = fitted(kind, data.histories, 30).probabilities(data.histories)
    assert q.shape == (40, 30)
    assert (q > 0).all()
    np.testing.assert_allclose(q.sum(axis=1), 1)


@pytest.mark.parametrize("kind", KINDS[:-1])  # test_experts.py does it for the pool's parts
def test_training_leaves_the_user_out(kind: str) -> None:
    """Subtracting a user's counts equals fitting on everybody else."""
    data = make_dataset(users=12)
    rows = list(data.histories)
    prior = fitted(kind, data.histories, 30)
    others = fitted(kind, Histories.from_lists(rows[:3] + rows[4:]), 30)
    # A dozen numbers of the whole log, which say nothing about one user, stay as they are.
    if isinstance(prior, CooccurrencePrior) and isinstance(others, CooccurrencePrior):
        take_settings(others, prior, Histories.from_lists(rows[:3] + rows[4:]))
    history = rows[3]
    expected = others.probabilities(Histories.from_lists([history[:t] for t in range(2, 5)]))
    found = prior.training_probabilities(Histories.from_lists([history.tolist()]), 2, 5)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def take_settings(
    prior: CooccurrencePrior, source: CooccurrencePrior, histories: Histories
) -> None:
    prior.repeat_rate, prior.weights = source.repeat_rate, source.weights
    prior.transitions = weighted_transitions(count_by_gap(histories, 30), source.weights)


def test_the_target_does_not_leak_through_the_users_own_counts() -> None:
    """Only this user ever saw items 3 and 4: the prior must not know that 4 follows 3."""
    prior = CooccurrencePrior().fit(Histories.from_lists([[3, 4], [0, 1], [0, 1], [1, 2]]), 5)
    leaked = prior.probabilities(Histories.from_lists([[3]]))[0, 4]
    honest = prior.training_probabilities(Histories.from_lists([[3, 4]]), 1, 2)[0, 4]
    assert honest < leaked
    assert honest < 0.2


def test_seen_items_keep_the_share_of_repeats() -> None:
    prior = CooccurrencePrior().fit(Histories.from_lists([[0, 1, 0, 1]]), 3)
    assert prior.repeat_rate == pytest.approx((2 + 1) / (4 + 2))
    never = CooccurrencePrior().fit(Histories.from_lists([[0, 1, 2]] * 30), 3)
    q = never.probabilities(Histories.from_lists([[0, 1]]))
    assert q[0, 0] < 0.01


def test_kernel_finds_what_the_log_does() -> None:
    """Everybody alternates: the next item is the one after the next of the last but one."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        a, b = rng.choice(40, 2, replace=False)
        rows.append([item for n in range(4) for item in ((a + n) % 40, 40 + (b + n) % 40)])
    histories = Histories.from_lists(rows)
    kernel = TransitionPrior().fit(histories, 80).weights
    forward = kernel.gap[0][:, None] * kernel.recency[0]
    assert forward[1, 1] > 5 * forward[0, 0]  # gap 2 from the item before the last, not gap 1
    learned = TransitionPrior().fit(histories, 80).probabilities(Histories.from_lists([[0, 50, 1]]))
    fixed = CooccurrencePrior().fit(histories, 80).probabilities(Histories.from_lists([[0, 50, 1]]))
    assert learned[0, 51] > fixed[0, 51]


def test_what_the_kernel_is_fitted_on_by_brute_force() -> None:
    """Votes for the target and for all unseen items, from counts without the user's own."""
    data = make_dataset(users=12)
    rows = [*(row.tolist() for row in data.histories), [5, 9, 5, 2, 9, 7, 1]]
    n_items, history = 30, np.array(rows[-1], np.int32)
    counted = [count_by_gap(Histories.from_lists(part), n_items) for part in (rows, rows[:-1])]
    everybody, others = ([*c, *(sp.csr_array(each.T) for each in c)] for c in counted)
    counts = np.bincount(np.concatenate(rows), minlength=n_items).astype(float)
    own = np.bincount(history, minlength=n_items)
    sums = [np.asarray(each.sum(axis=1)) for each in everybody]
    target, total = _user_votes(history, everybody, sums, counts)
    new = [t for t in range(1, len(history)) if history[t] not in history[:t]]
    for row, t in enumerate(new):
        unseen = np.setdiff1d(np.arange(n_items), history[:t])
        for number, matrix in enumerate(others):
            for age, voter in enumerate(history[:t][::-1]):
                says = matrix.toarray()[voter] / ((counts - own)[voter] + SHRINKAGE)
                column = number * MAX_AGE + age
                assert target[row, column] == pytest.approx(says[history[t]])
                assert total[row, column] == pytest.approx(says[unseen].sum())
        assert target[row, -1] == pytest.approx(smoothed_popularity(counts - own)[history[t]])
        assert total[row, -1] == pytest.approx(smoothed_popularity(counts - own)[unseen].sum())


def test_kernel_of_a_log_without_pairs_is_the_fixed_one() -> None:
    histories = Histories.from_lists([[0], [1]])
    assert (
        fit_transition_weights(histories, count_by_gap(histories, 2), np.ones(2)) is FIXED_WEIGHTS
    )


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load(kind: str, tmp_path: Path) -> None:
    data = make_dataset()
    prior = fitted(kind, data.histories, 30)
    save_prior(prior, tmp_path / "prior")
    shipped = tmp_path / "prior.npz"
    write_arrays(shipped, {"kind": np.array(kind), **prior.arrays()})
    for loaded in (load_prior(tmp_path / "prior"), load_prior(shipped)):
        assert loaded.kind == kind
        np.testing.assert_array_equal(
            loaded.probabilities(data.histories), prior.probabilities(data.histories)
        )


def test_a_saved_prior_is_mapped_and_not_read(tmp_path: Path) -> None:
    save_prior(fitted("transitions", make_dataset().histories, 30), tmp_path / "prior")
    loaded = load_prior(tmp_path / "prior")
    assert isinstance(loaded, TransitionPrior)
    for matrix in loaded.transitions:
        assert not matrix.data.flags.writeable  # a copy in memory could be written to
        assert not matrix.indices.flags.writeable


def test_damaged_prior_is_named(tmp_path: Path) -> None:
    (tmp_path / "prior.npz").write_bytes(b"PK not a zip")
    with pytest.raises(RunError, match=r"prior\.npz"):
        load_prior(tmp_path / "prior.npz")


def test_none_is_no_prior() -> None:
    assert fit_prior("none", make_dataset()) is None


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_new_items_are_twins_or_average(kind: str) -> None:
    data = make_dataset()
    prior = fitted(kind, data.histories, 30)
    catalogue = data.catalogue.extended(["A New Twin", "New"], ["n1", "n2"])
    longer = prior.extended([4, None], catalogue)
    histories = Histories.from_lists([[3, 7], [4], []])
    q, old = longer.probabilities(histories), prior.probabilities(histories)
    assert q.shape == (3, 32)
    np.testing.assert_allclose(q.sum(axis=1), 1)
    np.testing.assert_allclose(q[[0, 2], 30], q[[0, 2], 4])  # as probable as its twin
    # the rest keeps its proportions, but for popularity, which is a share of all interactions
    np.testing.assert_allclose(q[:, 1:4] / q[:, :1], old[:, 1:4] / old[:, :1], rtol=0.01)
    assert (q[:, 31] > 0).all()
    after_twin = longer.probabilities(Histories.from_lists([[30]]))[0]  # and leads where it leads
    after_item = longer.probabilities(Histories.from_lists([[4]]))[0]
    others = np.delete(np.arange(30), 4)
    ratio = after_twin[others] / after_item[others]
    np.testing.assert_allclose(ratio, ratio[0])
    assert prior.probabilities(histories).shape == (3, 30)
