from __future__ import annotations

import builtins
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_dataset
from genrec.baselines import (
    BASELINES,
    EASE,
    SLIM,
    ItemKNN,
    ItemKNNBM25,
    P3Alpha,
    Popularity,
    RecentPopularity,
    TitleSearch,
    Transitions,
    Trend,
    load_baseline,
    make_baseline,
    save_baseline,
)
from genrec.baselines.slim import elastic_net
from genrec.collaborative.base import Scoring
from genrec.collaborative.matrix import interaction_matrix, strongest
from genrec.collaborative.sasrec import SASRec
from genrec.collaborative.sasrec_network import _cut_at_random
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import before_test, hold_out_last, leave_last_out
from genrec.errors import ConfigError, GenRecError, RunError

ROWS = [[0, 1, 2], [1, 2], [2, 3, 0], [3, 1], [4, 2]]  # of five users
USERS = [{user for user, row in enumerate(ROWS) if item in row} for item in range(5)]


def dataset(rows: list[list[int]], titles: list[str]) -> Dataset:
    ids = [str(item) for item in range(len(titles))]
    return Dataset("small", Catalogue(ids, titles, pl.DataFrame()), Histories.from_lists(rows))


@pytest.fixture
def five() -> Dataset:
    return dataset(ROWS, ["Red Moon", "Blue Moon", "Blue Sun", "Green River", "of the"])


def item_to_item(model: Scoring) -> np.ndarray[Any, Any]:
    return np.asarray(model.scores(Histories.from_lists([[item] for item in range(5)])))


def test_recent_popularity_halves_with_each_half_life() -> None:
    """Item 0 at times 0 and 50, item 1 at 75, item 2 at 100: ages 1, .5, .25 and 0 of the span."""
    histories = Histories.from_lists([[0, 0], [1, 2]])
    clock = Histories(
        histories.items, histories.offsets, ["a", "b"], np.array([0.0, 50.0, 75.0, 100.0])
    )
    train = Dataset("t", Catalogue(["a", "b", "c"], ["a", "b", "c"], pl.DataFrame()), clock)
    scores = RecentPopularity(half_life=0.25).fit(train).scores(clock.select([0]))
    np.testing.assert_allclose(scores, [[1 / 16 + 1 / 4, 1 / 2, 1.0]])


def test_recent_popularity_without_a_clock_ages_within_each_history(five: Dataset) -> None:
    """Positions count 0, 1, 2: the ages of a history of three are 1, .5 and 0, of two 1 and 0."""
    scores = RecentPopularity(half_life=0.5).fit(five).scores(five.histories.select([0]))
    expected = [1 / 4 + 1, 1 / 2 + 1 / 4 + 1, 1 + 1 + 1 / 4 + 1, 1 / 2 + 1 / 4, 1 / 4]
    np.testing.assert_allclose(scores, [expected])


def fashion(users: int = 400, items: int = 40) -> Dataset:
    """Everybody has three of the newest items at one time and one more much later."""
    rng = np.random.default_rng(0)
    rows, times = [], []
    for _ in range(users):
        first, back = np.sort(rng.random(2))
        when = np.append(first + np.arange(3) / 1000, back)
        rows.append(
            [max(0, int(t * items) - age) for t, age in zip(when, (0, 1, 2, 0), strict=True)]
        )
        times += when.tolist()
    plain = Histories.from_lists(rows)
    data = dataset([[0]], [f"Title {item}" for item in range(items)])
    log = Histories(plain.items, plain.offsets, plain.user_ids, np.array(times))
    return Dataset("fashion", data.catalogue, log)


@pytest.mark.slow
def test_forward_recommends_what_rises() -> None:
    """A user who was here early is told the news, not what went with their old items."""
    data = fashion()
    early = Histories.from_lists([[5, 4, 3]])
    assert Trend().fit(data).recommend_batch(early, 3).items.min() >= 35
    assert Transitions().fit(data).recommend_batch(early, 3).items.max() < 35


def test_trend_without_a_clock_is_transitions(five: Dataset) -> None:
    histories = five.histories
    np.testing.assert_allclose(
        Trend().fit(five).scores(histories), Transitions().fit(five).scores(histories)
    )


def test_itemknn_is_the_cosine_of_two_items_users(five: Dataset) -> None:
    found = item_to_item(ItemKNN(neighbours=5, shrinkage=3.0).fit(five))
    for a, b in permutations(range(5), 2):
        norms = (len(USERS[a]) * len(USERS[b])) ** 0.5
        assert found[a, b] == pytest.approx(len(USERS[a] & USERS[b]) / (norms + 3.0))
    assert not np.diag(found).any()


def test_itemknn_keeps_the_nearest_of_each_item(five: Dataset) -> None:
    """Cosines of item 0 are 1/√6 with item 1, 2/√8 with 2 and 1/2 with 3: two are kept."""
    found = item_to_item(ItemKNN(neighbours=2).fit(five))
    np.testing.assert_allclose(found[0], [0, 0, 2 / 8**0.5, 1 / 2, 0])


def test_bm25_makes_users_of_many_items_say_less(five: Dataset) -> None:
    """With k1 = 1 and b = 1 a user of n items, 2.4 on average, counts 2 / (1 + n / 2.4)."""
    found = item_to_item(ItemKNNBM25(neighbours=5, k1=1.0, b=1.0).fit(five))
    says = [2 / (1 + len(row) / 2.4) for row in ROWS]
    together = says[0] ** 2 + says[1] ** 2  # users of items 1 and 2
    norms = [sum(says[user] ** 2 for user in USERS[item]) ** 0.5 for item in (1, 2)]
    assert found[1, 2] == pytest.approx(together / (norms[0] * norms[1]))
    alike = item_to_item(ItemKNNBM25(neighbours=5, k1=0.0).fit(five))
    np.testing.assert_allclose(alike, item_to_item(ItemKNN(neighbours=5).fit(five)))


@pytest.mark.parametrize("alpha", [1.0, 0.5, 2.0])
def test_p3alpha_adds_up_all_walks(five: Dataset, alpha: float) -> None:
    found = item_to_item(P3Alpha(alpha=alpha, neighbours=5).fit(five))
    for a, b in permutations(range(5), 2):
        walks = [(1 / len(USERS[a]) / len(ROWS[user])) ** alpha for user in USERS[a] & USERS[b]]
        assert found[a, b] == pytest.approx(sum(walks))
    assert not np.diag(found).any()


def test_p3alpha_keeps_those_that_say_most_for_an_item(five: Dataset) -> None:
    whole = item_to_item(P3Alpha(neighbours=5).fit(five))
    cut = item_to_item(P3Alpha(neighbours=1).fit(five))
    assert np.count_nonzero(cut[:, 2]) == 1
    assert cut[:, 2].max() == whole[:, 2].max()


def test_ease_is_exact_beyond_the_priors_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.collaborative.matrix.NEIGHBOURS", 3)
    train = make_dataset()
    x = interaction_matrix(train.histories, 30).toarray().astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + 20.0 * np.eye(30))
    says = -inverse / np.diag(inverse)
    np.fill_diagonal(says, 0.0)
    np.testing.assert_allclose(
        EASE(ridge=20.0).fit(train).scores(train.histories), x @ says, atol=1e-5
    )


def test_slim_meets_the_conditions_of_its_minimum() -> None:
    """Where a weight is above zero its slope is zero, elsewhere no slope leads down."""
    train, l1, l2 = make_dataset(users=80), 0.7, 3.0
    x = interaction_matrix(train.histories, 30)
    gram = (x.T @ x).toarray().astype(np.float64)
    model = SLIM(l1=l1, l2=l2, tolerance=1e-6, sweeps=1000).fit(train)
    weights = model.item_weights.toarray().astype(np.float64)
    slope = gram @ weights - gram + l2 * weights + l1
    off = ~np.eye(30, dtype=bool)
    assert (weights >= 0).all()
    assert not np.diag(weights).any()
    np.testing.assert_allclose(slope[weights > 0], 0.0, atol=1e-3)
    assert slope[off].min() > -1e-3
    assert 0 < np.count_nonzero(weights) < 30 * 29 / 2


def test_slim_stops_after_its_sweeps(five: Dataset) -> None:
    x = interaction_matrix(five.histories, 5)
    gram = x.T @ x
    once, twice = (elastic_net(gram, 0.1, 1.0, 1e-6, sweeps).toarray() for sweeps in (1, 2))
    assert not np.allclose(once, twice)


def test_title_search_finds_titles_that_share_words(five: Dataset) -> None:
    model = TitleSearch().fit(five)
    scores = model.scores(Histories.from_lists([[0, 1], [1, 0], [3], [4], []]))
    assert scores[0][0] > scores[0][3] == 0  # Blue Moon: Red Moon shares a word
    assert scores[0][2] == scores[0][0]  # and Blue Sun another one, as rare
    assert scores[1][2] == 0 < scores[1][1]  # Red Moon last
    assert not scores[2][[0, 1, 2, 4]].any()
    assert not scores[3:].any()  # a title of stop words, and no title


def test_title_search_over_several_titles_adds_them_up(five: Dataset) -> None:
    rows = Histories.from_lists([[3, 0, 1], [0], [1]])
    several = TitleSearch(last=2).fit(five).scores(rows)
    np.testing.assert_allclose(several[0], several[1] + several[2])


def test_a_missing_extra_says_what_to_install(
    five: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = builtins.__import__

    def without_bm25s(name: str, *args: Any) -> Any:
        if name == "bm25s":
            raise ImportError(name)
        return load(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_bm25s)
    with pytest.raises(GenRecError, match=r'pip install "genrec\[compare\]"'):
        TitleSearch().fit(five)


def test_sasrec_learns_the_walk_and_the_seed_decides() -> None:
    train = make_dataset(users=150)
    fit = [SASRec(seed=seed, width=32, most_epochs=15).fit(train) for seed in (1, 1, 2)]
    asked = Histories.from_lists([[4, 6, 8]])
    assert set(fit[0].recommend_batch(asked, 4).items[0].tolist()) & {9, 10, 11}
    scores = [model.scores(asked) for model in fit]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])


def test_sasrec_with_a_sampled_softmax_learns_the_walk() -> None:
    model = SASRec(full_softmax=10, negatives=12, most_epochs=15).fit(make_dataset(users=150))
    top = model.recommend_batch(Histories.from_lists([[4, 6, 8]]), 4)
    assert set(top.items[0].tolist()) & {9, 10, 11}


def test_sasrec_without_validation_keeps_last_items_out() -> None:
    train = make_dataset()
    kept, held = hold_out_last(train, seed=0)
    assert len(held) == 4  # a tenth of 40 users
    assert len(train.histories.items) - len(kept.histories.items) == 4
    for user, history, target in zip(
        held.histories.user_ids, held.histories, held.targets, strict=True
    ):
        assert [*history, target] == train.histories[int(user)].tolist()


def test_sasrec_fits_histories_of_one_item() -> None:
    model = SASRec(most_epochs=2).fit(dataset([[0], [1]], ["a", "b"]))
    assert model.recommend_batch(Histories.from_lists([[0]]), 2).items.tolist() == [[1, -1]]


@pytest.mark.parametrize(("length", "expected"), [(19, 0.5), (20, 0.3)])
def test_the_dropout_of_sasrec_depends_on_the_length_of_histories(
    length: int, expected: float
) -> None:
    histories = Histories.from_lists([list(range(length))] * 3)
    assert SASRec()._unfitted(30, histories).config.dropout == expected
    assert SASRec(dropout=0.1)._unfitted(30, histories).config.dropout == 0.1


def test_sequences_without_a_target_have_no_share_of_a_sasrec_step() -> None:
    scorer = SASRec()._unfitted(4)
    lengths = np.array([1, 3, 1, 2, 5, 1])
    parts = scorer._parts(np.arange(6), lengths)
    assert sum(share for _, share in parts) == pytest.approx(1)
    for rows, share in parts:
        assert share == pytest.approx((lengths[rows] - 1).sum() / 7)
        assert (lengths[rows] > 1).all()
    assert scorer._parts(np.array([0, 2]), lengths) == []


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(2, 12))
def test_random_cuts_make_every_item_new_once(lengths: list[int], most: int) -> None:
    histories = Histories.from_lists([list(range(length)) for length in lengths])
    starts, sizes = _cut_at_random(histories, most)
    assert (sizes <= most).all()
    row = np.searchsorted(histories.offsets[1:], starts, side="right")
    new = [
        place
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
        for place in range(start + 1, start + size)
    ]
    firsts = {int(start) for start in histories.offsets[:-1]}
    assert sorted(new) == [place for place in range(len(histories.items)) if place not in firsts]
    inside = starts + sizes <= histories.offsets[1:][np.minimum(row, len(lengths) - 1)]
    assert inside[sizes > 0].all()


def test_equal_entries_are_kept_from_the_left() -> None:
    matrix = interaction_matrix(Histories.from_lists([[3, 1, 2], [0]]), 4)
    assert strongest(matrix, 2).toarray().tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EASE(ridge=0.0), "ridge must be above 0, got 0.0"),
        (lambda: ItemKNN(neighbours=0), "neighbours must be at least 1, got 0"),
        (lambda: ItemKNN(shrinkage=-1.0), "shrinkage must be at least 0"),
        (lambda: P3Alpha(alpha=float("nan")), "alpha must be above 0, got nan"),
        (lambda: SLIM(l1=-1.0), "l1 must be at least 0"),
        (lambda: RecentPopularity(half_life=0.0), "half_life must be above 0"),
        (lambda: TitleSearch(last=0), "last must be at least 1"),
        (lambda: SASRec(width=65), "width must be a multiple of heads=2, got 65"),
        (lambda: make_baseline("itemkn"), "Unknown baseline 'itemkn'. Did you mean 'itemknn'?"),
        (lambda: make_baseline("?"), "Unknown baseline '\\?'. Use one of popularity, "),
    ],
)
def test_a_bad_setting_is_named(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("model", [EASE(), SLIM()])
def test_too_many_items_for_a_dense_matrix(
    model: Scoring, five: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec.collaborative.matrix.MAX_DENSE_ITEMS", 4)
    with pytest.raises(ConfigError, match=f"{model.name} needs .* 5 items are too many"):
        model.fit(five)


def test_names_are_those_of_the_registry() -> None:
    assert [make_baseline(name, seed=3).name for name in BASELINES] == list(BASELINES)


def test_popularity_needs_no_torch() -> None:
    code = "import sys; from genrec.baselines import make_baseline as m; m('popularity'); "
    code += "sys.exit('torch' in sys.modules or 'bm25s' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_settings_come_back_from_the_file(five: Dataset, tmp_path: Path) -> None:
    model = P3Alpha(alpha=1.5, neighbours=2).fit(five)
    save_baseline(model, tmp_path / "p3.npz")
    loaded = load_baseline(tmp_path / "p3.npz")
    assert isinstance(loaded, P3Alpha)
    assert loaded.arguments() == {"alpha": 1.5, "neighbours": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["p3.npz"]


def test_a_damaged_file_is_named(five: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "popularity.npz"
    save_baseline(Popularity().fit(five), path)
    whole = path.read_bytes()
    for damage in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(damage)
        with pytest.raises(RunError, match=r"popularity.npz holds no readable baseline .* again"):
            load_baseline(path)
    with pytest.raises(RunError, match="no readable baseline"):
        load_baseline(tmp_path / "nothing.npz")
    np.savez(path, head=np.array('{"kind": "magic", "settings": {}}'))
    with pytest.raises(RunError, match="Unknown baseline 'magic'"):
        load_baseline(path)


def test_only_baselines_are_saved(five: Dataset, tmp_path: Path) -> None:
    class Other(Popularity):
        name = "other"

    with pytest.raises(ConfigError, match="other is not a baseline"):
        save_baseline(Other().fit(five), tmp_path / "other.npz")


def test_sasrec_learns_again_from_more_for_as_long_as_was_best() -> None:
    split = leave_last_out(make_dataset(users=60))
    model = SASRec(most_epochs=4, width=16).fit(split.train, split.valid)
    kept = model._sasrec.epochs
    again = model.refit(before_test(split))
    assert again._sasrec.epochs == kept
    plain = SASRec(most_epochs=kept, width=16)
    known = before_test(split).histories
    plain._sasrec = plain._unfitted(30, known)
    plain._sasrec.epochs = kept
    plain._sasrec.fit(known, 30)
    histories = split.test.histories
    np.testing.assert_allclose(again.scores(histories), plain.scores(histories))
