"""What every recommender has to do, GenRec and baselines alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alike import assert_same_lists
from conftest import make_dataset
from genrec import GenRec, Histories, Recommender, leave_last_out
from genrec.baselines import BASELINES, load_baseline, save_baseline
from genrec.collaborative.sasrec_network import SASRecScorer
from genrec.errors import ConfigError, NotFittedError, UnknownItemError
from genrec.recommender import TopK

Make = Callable[[str], Recommender]
RECOMMENDERS: dict[str, Make] = {
    **{name: lambda backbone, make=make: make(0) for name, make in BASELINES.items()},
    "genrec": lambda backbone: GenRec(backbone=backbone, dtype="float32", epochs=0.5, lora_rank=4),
    "genrec-no-prior": lambda backbone: GenRec(
        backbone=backbone, dtype="float32", epochs=0.5, lora_rank=4, prior="none"
    ),
}


SLOW = pytest.param("p5-shuffled", marks=pytest.mark.slow)
NAMES = [SLOW if name == "p5-shuffled" else name for name in RECOMMENDERS]


@pytest.fixture(scope="module", params=NAMES)
def fitted(request: pytest.FixtureRequest, tiny_backbone: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SASRecScorer, "epochs", 3)
        patch.setattr("genrec.collaborative.sasrec.SASRec.most_epochs", 3)
        return RECOMMENDERS[request.param](tiny_backbone).fit(leave_last_out(make_dataset()).train)


@pytest.fixture(scope="module")
def histories() -> Histories:
    return leave_last_out(make_dataset()).test.histories


def test_obeys_the_protocol(fitted: Recommender) -> None:
    assert isinstance(fitted, Recommender)
    assert fitted.name


def test_k_distinct_unseen_items_by_falling_score(
    fitted: Recommender, histories: Histories
) -> None:
    top = fitted.recommend_batch(histories, 6)
    assert top.items.shape == top.scores.shape == (len(histories), 6)
    for history, items, scores in zip(histories, top.items, top.scores, strict=True):
        assert len(set(items.tolist())) == 6
        assert not set(items.tolist()) & set(history.tolist())
        assert (np.diff(scores) <= 0).all()


def test_batch_equals_single(fitted: Recommender, histories: Histories) -> None:
    together = fitted.recommend_batch(histories, 5)
    for row in (0, 7):
        alone = fitted.recommend_batch(histories.select([row]), 5)
        same_row = TopK(together.items[row : row + 1], together.scores[row : row + 1])
        assert_same_lists(alone, same_row)


def test_k_beyond_the_catalogue_pads(fitted: Recommender, histories: Histories) -> None:
    top = fitted.recommend_batch(histories.select([0]), 50)
    known = top.items[0] >= 0
    assert known.sum() == 30 - len(set(histories[0].tolist()))
    assert (top.items[0][~known] == -1).all()
    assert np.isneginf(top.scores[0][~known]).all()


def test_seen_items_only_when_asked_for(fitted: Recommender, histories: Histories) -> None:
    top = fitted.recommend_batch(histories.select([0]), 30, exclude_seen=False)
    assert sorted(top.items[0].tolist()) == list(range(30))


def test_empty_history(fitted: Recommender) -> None:
    assert (fitted.recommend_batch(Histories.from_lists([[]]), 3).items >= 0).all()


def test_k_must_be_positive(fitted: Recommender, histories: Histories) -> None:
    with pytest.raises(ConfigError, match="k must be"):
        fitted.recommend_batch(histories, 0)


def test_a_baseline_comes_back_from_its_file(
    fitted: Recommender, histories: Histories, tmp_path: Path
) -> None:
    if fitted.name not in BASELINES:
        pytest.skip("saved with a run, or as a prior")
    save_baseline(fitted, tmp_path / "baseline.npz")
    loaded = load_baseline(tmp_path / "baseline.npz")
    assert loaded.name == fitted.name
    before, after = (each.recommend_batch(histories, 6) for each in (fitted, loaded))
    assert_same_lists(after, before)


def test_titles_and_ids_are_answered_with_titles(fitted: Recommender, histories: Histories) -> None:
    catalogue = make_dataset().catalogue
    items = histories[0].tolist()
    expected = fitted.recommend_batch(histories.select([0]), 4).items[0].tolist()
    for by, names in (("title", catalogue.titles), ("id", catalogue.item_ids)):
        found = fitted.recommend([names[item] for item in items], k=4, by=by)
        assert [each.item_id for each in found] == [catalogue.item_ids[item] for item in expected]
        assert [each.rank for each in found] == [1, 2, 3, 4]
    with pytest.raises(UnknownItemError, match="No Such Film"):
        fitted.recommend(["No Such Film"])


@pytest.mark.parametrize("name", list(RECOMMENDERS))
def test_what_is_not_fitted_names_the_call_to_make(name: str, tiny_backbone: str) -> None:
    with pytest.raises(NotFittedError, match=r"[Cc]all fit"):
        RECOMMENDERS[name](tiny_backbone).recommend(["Red"])
    with pytest.raises(NotFittedError, match=r"[Cc]all fit"):
        RECOMMENDERS[name](tiny_backbone).recommend_batch(Histories.from_lists([[1]]), 3)
