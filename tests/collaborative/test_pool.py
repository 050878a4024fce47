"""The pool: weights by maximum likelihood, the choice of experts, and what a run keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import pytest
from scipy.special import logsumexp

from conftest import make_dataset
from genrec.arrays import Arrays, Floats
from genrec.collaborative.expert import Expert
from genrec.collaborative.fusion import Examples, Weights, choose, fit_weights, pool_nll
from genrec.collaborative.pool import PooledPrior
from genrec.collaborative.registry import choose_prior, load_prior, save_prior
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout, hold_out_last, leave_last_out
from genrec.errors import ConfigError, DataError, RunError


def made(weights: Floats, items: int = 12, seed: int = 0) -> Examples:
    """Targets drawn from a pool with known weights, shape [users, terms]."""
    users, random = len(weights), np.random.default_rng(seed)
    scores = random.normal(size=(weights.shape[1], users, items)).astype(np.float32)
    logits = np.einsum("ut,tui->ui", weights, scores)
    odds = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    target = np.array([random.choice(items, p=row) for row in odds])
    lengths = random.integers(1, 100, users)
    return Examples(scores, target, np.ones((users, items), bool), lengths, np.arange(users))


def test_the_weights_of_the_making_are_found() -> None:
    data = made(np.tile([0.5, 2.0], (4000, 1)))
    found = fit_weights(data)
    np.testing.assert_allclose(found.base, [0.5, 2.0], atol=0.15)
    np.testing.assert_allclose(found.gate, 0.0, atol=0.15)


def test_a_weight_may_depend_on_the_length() -> None:
    lengths = made(np.ones((4000, 1))).lengths  # the same draw of lengths needs the same seed
    x = np.log(lengths)
    x = (x - x.mean()) / x.std()
    data = replace(made(np.stack([1 + 0.5 * x], axis=1)), lengths=lengths)
    found = fit_weights(data)
    np.testing.assert_allclose(found.base, 1.0, atol=0.1)
    np.testing.assert_allclose(found.gate, 0.5, atol=0.1)
    shortest, longest = found.of(np.array([1, 10**6]))[:, 0]
    assert shortest < 1 < longest < 3  # clipped to the lengths that were seen


def test_the_likelihood_by_hand() -> None:
    scores = np.array([[[0.0, 1.0, 2.0]]], np.float32)
    unseen = np.array([[True, False, True]])
    data = Examples(scores, np.array([2]), unseen, np.array([3]), np.array([0]))
    found = pool_nll(data, Weights.first(1))
    assert found[0] == pytest.approx(np.log(1 + np.exp(-2)))


class Fixed(Expert):
    """An expert with given scores."""

    def __init__(self, name: str, terms: tuple[str, ...]) -> None:
        self.given, self.terms = name, terms

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.given

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        return self

    def scores(self, histories: Histories) -> list[Floats]:
        raise NotImplementedError

    def extended(self, like: Sequence[int | None], catalogue: Catalogue) -> Self:
        return self

    def arrays(self) -> Arrays:
        return {}

    def restore(self, arrays: Arrays) -> Self:
        return self


def test_an_expert_that_knows_nothing_is_left_out() -> None:
    data = made(np.tile([1.0, 1.5, 0.0, 0.0], (3000, 1)))
    experts = [Fixed("first", ("a",)), Fixed("good", ("b",)), Fixed("noise", ("c", "d"))]
    kept, gains = choose(experts, data)
    assert kept == [0, 1]
    assert gains["good"] > 0.1 > 0.001 > gains["noise"]


def split_of(data: Dataset) -> tuple[Dataset, Holdout]:
    split = leave_last_out(data)
    return split.train, split.valid


def test_the_pool_is_the_product_of_its_experts() -> None:
    train, valid = split_of(make_dataset())
    prior = PooledPrior(["transitions", "text"]).fit(train, valid)
    assert [expert.name for expert in prior.experts] == ["transitions", "text"]
    histories = valid.histories.select([0, 1])
    terms = np.stack([each for e in prior.experts for each in e.scores(histories)])
    logits = np.einsum("ut,tui->ui", prior.weights.of(histories.lengths), terms)
    odds = np.exp(logits)
    odds[histories.seen(30)] *= prior.repeat_rate
    expected = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(prior.probabilities(histories), expected, rtol=1e-9)


def test_training_rows_are_those_of_everybody_else() -> None:
    train, valid = split_of(make_dataset())
    prior = PooledPrior(["ease", "slit", "text", "popularity"]).fit(train, valid)
    rows = [row.tolist() for row in train.histories]
    others = PooledPrior(["ease", "slit", "text", "popularity"])
    others.fit(replace(train, histories=Histories.from_lists(rows[:3] + rows[4:])), valid)
    others.weights, others.repeat_rate = prior.weights, prior.repeat_rate
    found = prior.training_probabilities(Histories.from_lists([rows[3]]), 1, len(rows[3]))
    prefixes = Histories.from_lists([rows[3][:t] for t in range(1, len(rows[3]))])
    np.testing.assert_allclose(found, others.probabilities(prefixes), atol=1e-4)


def test_the_weights_follow_validation_and_stay_in_a_refit() -> None:
    data = make_dataset()
    train, valid = split_of(data)
    prior = PooledPrior().fit(train, valid)
    before = prior.weights
    whole = PooledPrior().fit(train, valid).refit(data)
    np.testing.assert_array_equal(whole.weights.base, before.base)
    assert whole.item_counts.sum() == len(data.histories.items)
    assert prior.item_counts.sum() == len(train.histories.items)


def test_a_refit_needs_what_the_experts_used() -> None:
    train, valid = split_of(make_dataset())
    prior = PooledPrior(["transitions", "text"]).fit(train, valid)
    bare = replace(train.catalogue, metadata=pl.DataFrame())
    with pytest.raises(DataError, match=r"text had titles, metadata and would have titles"):
        prior.refit(replace(train, catalogue=bare))
    assert [len(expert.terms) for expert in prior.experts] == [1, 2]


def test_without_validation_some_users_are_held_out_only_for_the_weights() -> None:
    data = make_dataset()
    prior = PooledPrior(["transitions", "popularity"]).fit(data)
    counts = np.bincount(data.histories.items, minlength=30)
    np.testing.assert_array_equal(prior.item_counts, counts)
    assert not np.array_equal(prior.weights.base, [1, 0])
    train, holdout = hold_out_last(data)
    assert len(train.histories.items) == len(data.histories.items) - len(holdout)


def test_without_any_target_the_first_term_speaks_alone() -> None:
    data = replace(make_dataset(), histories=Histories.from_lists([[0], [1]]))
    prior = PooledPrior(["transitions", "popularity"]).fit(data)
    np.testing.assert_array_equal(prior.weights.base, [1, 0])


@pytest.mark.parametrize("names", [None, ["transitions", "ease", "slit", "text", "popularity"]])
def test_a_pool_comes_back_from_its_file(names: Any, tmp_path: Path) -> None:
    train, valid = split_of(make_dataset())
    prior = PooledPrior(names).fit(train, valid)
    save_prior(prior, tmp_path / "prior")
    loaded = load_prior(tmp_path / "prior")
    assert isinstance(loaded, PooledPrior)
    assert loaded.choice() == prior.choice()
    histories = valid.histories.select([0, 1, 2])
    np.testing.assert_allclose(
        loaded.probabilities(histories), prior.probabilities(histories), rtol=1e-5
    )


def test_the_pool_of_an_older_version_is_refused(tmp_path: Path) -> None:
    train, valid = split_of(make_dataset())
    prior = PooledPrior(["transitions"]).fit(train, valid)
    arrays = {"kind": np.array("pooled"), **prior.arrays()}
    del arrays["names"]
    np.savez(tmp_path / "prior.npz", **arrays)
    with pytest.raises(RunError, match=r"older version.*[Tt]rain the run again"):
        load_prior(tmp_path / "prior.npz")


def test_experts_that_cannot_use_the_data_are_refused() -> None:
    train, valid = split_of(make_dataset())  # its timestamps are positions
    with pytest.raises(ConfigError, match=r"experts=recency can say nothing.*such as transitions"):
        PooledPrior(["recency"]).fit(train, valid)


def test_auto_is_the_pool_up_to_a_limit() -> None:
    assert choose_prior("auto", 30) == "pooled"
    assert choose_prior("auto", 10**6) == "transitions"
    assert choose_prior("none", 30) == "none"
    with pytest.raises(ConfigError, match=r"Unknown prior 'svd'\. Use one of auto, none, popul"):
        choose_prior("svd", 30)
    with pytest.raises(ConfigError, match=r"SASRec is no prior of its own.*experts=.*sasrec"):
        choose_prior("sasrec", 30)
