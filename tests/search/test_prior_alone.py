"""Where the language model adds nothing, its search over the trie is the oracle."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from conftest import make_dataset
from genrec import GenRec, leave_last_out
from genrec.data.histories import Histories
from genrec.data.splits import Split
from genrec.errors import DataError
from genrec.model import ranker as ranking
from genrec.model.fusing import _weighted
from genrec.search.frontier import SearchOptions


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(make_dataset(users=60))


@pytest.fixture(scope="module", params=["pooled", "popularity", "transitions"])
def model(request: pytest.FixtureRequest, tiny_backbone: str, split: Split) -> GenRec:
    model = GenRec(tiny_backbone, prior=request.param, epochs=0, dtype="float32")
    return model.fit(split.train, split.valid, progress=False)


def both(model: GenRec, monkeypatch: pytest.MonkeyPatch, ask: object) -> tuple[object, object]:
    """What is asked of the model, by its prior alone and by the search over the trie."""
    alone = ask(model)  # type: ignore[operator]
    with monkeypatch.context() as patch:
        patch.setattr(ranking, "adds_nothing", lambda likelihood: False)
        return alone, ask(model)  # type: ignore[operator]


@pytest.mark.parametrize("weight", [1.0, 0.7])
@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("words", [None, "red moon"])
def test_lists_and_likelihoods_are_those_of_the_trie(
    model: GenRec,
    split: Split,
    monkeypatch: pytest.MonkeyPatch,
    weight: float,
    removed: bool,
    words: str | None,
) -> None:
    assert model.ranker.likelihood.lm_weight == 0
    ranker, rows = _weighted(model.ranker, weight, 0.0), split.test.histories
    rows = replace(rows, words=[words] * len(rows))
    if removed:
        ranker = ranker.without_items([3, 4, 5])
    mask = np.random.default_rng(0).random(len(ranker.catalogue)) < 0.7
    for candidates in (None, mask):

        def lists(model: GenRec, candidates: object = candidates) -> object:
            return ranker.recommend_batch(rows, 8, candidates=candidates)  # type: ignore[arg-type]

        alone, wanted = both(model, monkeypatch, lists)
        # Rounding decides on the order of equal items in the trie.
        near = np.isclose(alone.scores, wanted.scores, atol=1e-4)  # type: ignore[attr-defined]
        assert near.all()
        allowed = np.ones(len(mask), bool) if candidates is None else mask
        assert allowed[alone.items].all()  # type: ignore[attr-defined]
    kept = np.flatnonzero(~np.isin(split.test.targets, [3, 4, 5]))
    found = ranker.log_likelihood(rows.select(kept), split.test.targets[kept])
    alone, wanted = both(
        model,
        monkeypatch,
        lambda _: ranker.log_likelihood(rows.select(kept), split.test.targets[kept]),
    )
    np.testing.assert_allclose(alone, wanted, atol=1e-4)  # type: ignore[call-overload]
    np.testing.assert_array_equal(alone, found)  # type: ignore[arg-type]


def test_removed_targets_have_no_likelihood(model: GenRec) -> None:
    ranker = model.ranker.without_items([3])
    with pytest.raises(DataError, match="was removed from the catalogue"):
        ranker.log_likelihood(Histories.from_lists([[1]]), np.array([3], np.int32))


def test_no_position_is_run_but_for_a_beam(model: GenRec, split: Split) -> None:
    found = model.ranker.search(split.test.histories, 5)
    assert (found.rounds, found.tokens) == (0, 0)
    assert model.ranker.search(split.test.histories, 5, options=SearchOptions(beam=4)).tokens > 0


def test_sessions_reasons_and_saved_runs_work(
    model: GenRec, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save_pretrained(tmp_path)
    loaded = GenRec.from_pretrained(tmp_path)
    titles = loaded.catalogue.titles
    session = loaded.session(titles[:2])
    first = session.recommend(k=3)
    session.add(titles[5])
    second = session.recommend(k=3)
    assert [item.title for item in first] == [i.title for i in loaded.recommend(titles[:2], k=3)]
    history = [*titles[:2], titles[5]]
    assert [item.title for item in second] == [i.title for i in loaded.recommend(history, k=3)]
    reasons = session.explain(second[0].title)
    assert {reason.title for reason in reasons} == set(history)


def test_equal_items_come_in_the_order_of_the_catalogue(tiny_backbone: str) -> None:
    split = leave_last_out(make_dataset(users=60, items=400))
    model = GenRec(tiny_backbone, prior="popularity", epochs=0, dtype="float32")
    model.fit(split.train, split.valid, progress=False)
    counts = model.item_counts
    assert counts is not None
    assert len(np.unique(counts)) < len(counts)  # there are ties
    ranker = _weighted(model.ranker, 1.0, 0.0)
    found = ranker.recommend_batch(split.test.histories, 200, exclude_seen=False).items
    for row in found:
        assert all(a < b for a, b in pairwise(row) if counts[a] == counts[b])
