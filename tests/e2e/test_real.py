"""The real backbone on the real data, in as little time as proves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import genrec
from alike import assert_same_recommendations
from genrec.data.dataset import Dataset
from genrec.data.splits import Split

pytestmark = pytest.mark.e2e
HISTORY = ["Toy Story (1995)", "GoldenEye (1995)"]


@pytest.fixture(scope="module")
def split() -> Split:
    return genrec.leave_last_out(genrec.load_dataset("ml-100k"))


def test_reference_points_on_ml_100k(split: Split) -> None:
    """Published reference points: leave-last-out, full ranking, ties by row of the log."""
    popularity = genrec.evaluate(genrec.baselines.Popularity().fit(split.train), split.test)
    cooccurrence = genrec.evaluate(genrec.baselines.Cooccurrence().fit(split.train), split.test)
    assert popularity.metrics["HR@10"] == pytest.approx(81 / 943)  # .0859
    assert 0.20 <= cooccurrence.metrics["HR@10"] <= 0.21
    assert popularity.users == cooccurrence.users == 943


def test_train_save_load_recommend(split: Split, tmp_path: Path) -> None:
    few = split.train.histories.select(np.arange(60))
    train = Dataset("few", split.train.catalogue, few, split.train.provenance)
    model = genrec.GenRec(dtype="float32", batch_size=2, microbatch_size=2, window=4)
    model.fit(train, minutes=0.05, progress=False)
    assert model.training is not None
    assert model.training.targets > 0
    model.save_pretrained(tmp_path)
    loaded = genrec.GenRec.from_pretrained(tmp_path)
    found = loaded.recommend(HISTORY, k=10)
    assert_same_recommendations(found, model.recommend(HISTORY, k=10))
    assert len({item.item_id for item in found}) == 10
    assert not {item.title for item in found} & set(HISTORY)


def test_search_equals_scoring_every_title(split: Split) -> None:
    model = genrec.GenRec(prior="none", dtype="float32", history_length=5).build(split.train)
    histories = split.test.histories.select([0])
    found = model.recommend_batch(histories, 10, exclude_seen=False)
    some = np.concatenate([found.items[0], np.arange(0, 1682, 60, dtype=np.int32)])
    rows = genrec.Histories.from_lists([histories[0]] * len(some))
    scores = model.log_likelihood(rows, some)
    np.testing.assert_allclose(scores[:10], found.scores[0], atol=1e-3)
    better = some[scores > found.scores[0, -1] + 1e-3]
    assert set(better.tolist()) <= set(found.items[0].tolist())


def test_the_committed_model_recommends_at_once() -> None:
    model = genrec.GenRec.from_pretrained(Path(__file__).parents[2] / "models" / "ml-100k")
    found = model.recommend(["Star Wars (1977)", "Empire Strikes Back, The (1980)"], k=5)
    assert "Return of the Jedi (1983)" in [item.title for item in found]
