from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest
import torch

from conftest import make_dataset
from genrec.collaborative.crossfit import CrossFittedPrior
from genrec.collaborative.sasrec import SASRecPrior, SASRecScorer
from genrec.data.histories import Histories


class Parrot:
    """Remembers every history it was fitted on, and says the item that came after a beginning."""

    epochs = 3

    def fit(
        self, histories: Histories, n_items: int, loss: Callable[[Self], float] | None = None
    ) -> Self:
        self.n_items = n_items
        self.after = {
            tuple(row[:t].tolist()): int(row[t]) for row in histories for t in range(1, len(row))
        }
        return self

    def scores(self, histories: Histories) -> npt.NDArray[np.float64]:
        table = np.zeros((len(histories), self.n_items))
        for row, history in enumerate(histories):
            if (item := self.after.get(tuple(history.tolist()))) is not None:
                table[row, item] = 9.0
        return table

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        return self


class ParrotPrior(CrossFittedPrior):
    kind = "parrot"
    scorer = Parrot


def test_nobody_speaks_for_a_user_it_was_fitted_on() -> None:
    """The parrot knows all training targets by heart; in training it must not say any."""
    rows = [[user, 20 + user, 10 + user % 10] for user in range(10)]  # no two begin alike
    prior = ParrotPrior().fit(Histories.from_lists(rows), 30)
    prior.weights = np.array([1.0, 0.0])
    for row in rows:
        whole = prior.probabilities(Histories.from_lists([row[:2]]))[0]
        assert whole.argmax() == row[2]
        honest = prior.training_probabilities(np.array(row, np.int32), 2, 3)[0]
        assert honest[row[2]] == honest.max() < 0.05  # as likely as any other


def test_a_parrot_that_is_no_use_gets_no_weight() -> None:
    prior = ParrotPrior().fit(make_dataset(users=60).histories, 30)
    assert abs(prior.weights[0]) < 0.5
    longer = prior.extended([4, None])
    assert longer.probabilities(Histories.from_lists([[30, 31]])).shape == (1, 32)


def test_sasrec_scores_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SASRecScorer, "epochs", 2)
    rows = [[3], [], [1, 2, 3, 4, 5, 6, 7, 8] * 9, [9, 8]]
    sasrec = SASRecScorer().fit(make_dataset().histories, 30)
    together = sasrec.scores(Histories.from_lists(rows))
    for row, scores in zip(rows, together, strict=True):
        np.testing.assert_allclose(sasrec.scores(Histories.from_lists([row]))[0], scores, atol=1e-5)
    assert sasrec.scores(Histories.from_lists([])).shape == (0, 30)


def test_fitting_sasrec_draws_from_nobodys_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SASRecScorer, "epochs", 1)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    SASRecScorer().fit(make_dataset(users=5).histories, 30)
    assert torch.rand(1) == expected


@pytest.mark.slow
def test_sasrec_learns_the_walk() -> None:
    """Users walk along the catalogue: the next items are the likeliest, and it stops in time."""
    prior = SASRecPrior().fit(make_dataset(users=60).histories, 30)
    q = prior.probabilities(Histories.from_lists([[4, 6, 8]]))[0]
    assert q[[9, 10, 11]].sum() > 0.6
    assert all(part.epochs <= SASRecScorer.epochs for part in prior.parts)
