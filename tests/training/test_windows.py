from __future__ import annotations

import pickle
from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_dataset
from genrec import GenRec
from genrec.training import batches, kept_masses
from genrec.training.batches import Collator
from genrec.training.order import ByLength, training_order
from genrec.training.windows import Window, Windows


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 5), st.integers(1, 4)
)
def test_an_epoch_holds_every_window_in_full_steps(
    lengths: list[int], microbatch: int, accumulated: int
) -> None:
    step = microbatch * accumulated
    order = ByLength(np.array(lengths), microbatch, step, seed=0)
    drawn = np.array(list(order))
    counts = np.bincount(drawn, minlength=len(lengths))
    assert len(drawn) == len(order) == -(-len(lengths) // step) * step
    assert counts.min() >= 1
    assert counts.sum() - len(lengths) < step  # what fills the last step


def test_microbatches_hold_windows_of_about_one_length() -> None:
    lengths = np.random.default_rng(0).integers(20, 200, 512)
    order = np.array(list(ByLength(lengths, 8, 16, seed=0))).reshape(-1, 8)
    longest = lengths[order].max(axis=1)
    padding = 1 - lengths.sum() / (8 * longest).sum()
    assert padding < 0.08
    assert np.corrcoef(longest, np.arange(len(longest)))[0, 1] ** 2 < 0.1  # in no order of length


def test_only_windows_that_are_padded_are_sorted(tiny_backbone: str) -> None:
    """Where titles are read once, steps depend neither on lengths nor on the microbatches."""
    data = make_dataset()
    windows = Windows(data.histories, 4, every_position=True)

    def orders(context_layers: int | None) -> list[list[int]]:
        settings = {"prior": "none", "dtype": "float32", "context_layers": context_layers}
        layout = GenRec(tiny_backbone, **settings).build(data).ranker.layout
        return [list(training_order(windows, layout, size, 8, seed=0)) for size in (2, 4)]

    tokens, titles = orders(None), orders(1)
    assert tokens[0] != tokens[1]
    assert titles[0] == titles[1] != tokens[1]
    assert sorted(titles[1]) == sorted(tokens[1])


def test_an_epoch_is_the_same_whoever_draws_it_and_the_next_another() -> None:
    lengths = np.arange(1, 41)
    first, again = (ByLength(lengths, 4, 8, seed=1) for _ in range(2))
    again.set_epoch(1)
    again.set_epoch(0)
    assert list(first) == list(again)
    again.set_epoch(1)
    assert list(first) != list(again)


def test_title_tokens_of_each_window(tiny_backbone: str) -> None:
    data = make_dataset(users=4)
    model = GenRec(backbone=tiny_backbone, prior="none", dtype="float32", context_layers=None)
    model.build(data)
    windows = Windows(data.histories, 3, every_position=True)
    batch = Collator(model.ranker.layout, data.histories, None)(list(windows))
    expected = (batch["sequences"].lengths - len(model.ranker.prompts.prefixes[0])).tolist()
    assert windows.title_tokens(model.ranker.prompts.titles).tolist() == expected


def test_labels_of_the_full_vocabulary_are_the_targets_tokens(tiny_backbone: str) -> None:
    data = make_dataset(users=4)
    model = GenRec(
        backbone=tiny_backbone, prior="none", dtype="float32", loss="full-vocabulary"
    ).build(data)
    collate = Collator(model.ranker.layout, data.histories, None, loss="full-vocabulary")
    batch = collate([Window(0, 0, 1, 4), Window(1, 0, 1, 3)])
    titles = model.ranker.prompts.titles
    for row, stop in ((0, 4), (1, 3)):
        wanted = batch["labels"][row][batch["labels"][row] != -100].tolist()
        targets = data.histories[row][1:stop]
        assert wanted == [int(token) for item in targets for token in titles[item]]
    assert batch["titles"] == 5


@pytest.mark.parametrize("prior", ["popularity", "cooccurrence", "transitions"])
def test_sparse_priors_say_what_dense_ones_say(
    prior: str, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_dataset(users=12)
    model = GenRec(backbone=tiny_backbone, prior=prior, dtype="float32").build(data)
    ranker = model.ranker.without_items([0, 1, 2])  # some titles are no leaves
    collate = Collator(ranker.layout, data.histories, ranker.prior)
    windows = [
        window
        for window in Windows(data.histories, 3, every_position=True)
        if (data.histories[window.row][window.first : window.stop] >= 3).all()
    ]
    dense = collate(windows)["targets"]
    monkeypatch.setattr(batches, "DENSE_ITEMS", 0)
    sparse = Collator(ranker.layout, data.histories, ranker.prior)(windows)["targets"]
    decision = dense.choices.decision
    np.testing.assert_allclose(shares(sparse.prior, decision), shares(dense.prior, decision), 1e-4)


def test_the_prior_is_asked_once_for_each_target(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_dataset(users=6)
    ranker = GenRec(backbone=tiny_backbone, prior="pooled", dtype="float32").build(data).ranker
    assert ranker.prior is not None
    asked, ask = [], ranker.prior.training_probabilities
    monkeypatch.setattr(
        ranker.prior, "training_probabilities", lambda *place: asked.append(place) or ask(*place)
    )
    collate = Collator(ranker.layout, data.histories, ranker.prior)
    windows = list(Windows(data.histories, 3, every_position=True))
    first = collate(windows[:4])["targets"].prior
    again = collate(windows[:1])["targets"].prior
    np.testing.assert_array_equal(again, first[: len(again)])
    monkeypatch.setattr(kept_masses, "KEPT_BYTES", 0)
    anew = Collator(ranker.layout, data.histories, ranker.prior)
    for mixed in (windows, windows[::-1], windows[2:5]):
        again = collate(mixed)["targets"].prior
        np.testing.assert_array_equal(again, anew(mixed)["targets"].prior)
    kept = len(asked) - len(windows) * 2 - 3
    assert kept == len(windows)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_kept_masses_are_shared_with_forked_processes_only(tiny_backbone: str) -> None:
    data = make_dataset(users=3)
    ranker = GenRec(backbone=tiny_backbone, prior="pooled", dtype="float32").build(data).ranker
    collate = Collator(ranker.layout, data.histories, ranker.prior)
    kept, window = collate._kept, Window(0, 0, 1, 3)
    assert kept is not None
    assert (0, 1, 3) not in kept
    worker = get_context("fork").Process(target=collate, args=([window],))
    worker.start()
    worker.join()
    assert (0, 1, 3) in kept
    assert (0, 1, 3) not in pickle.loads(pickle.dumps(kept))


def shares(logs: npt.NDArray[np.float32], decision: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Of each child in what its decision has; a factor of all children makes no difference."""
    mass = np.exp(logs.astype(np.float64))
    return mass / np.bincount(decision, mass)[decision]
