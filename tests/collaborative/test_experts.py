"""Each expert: what it scores, that it forgets a user exactly, new items, and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import make_dataset
from genrec.baselines.registry import load_baseline, make_baseline, save_baseline
from genrec.collaborative import head, recency, slit, text
from genrec.collaborative.experts import AUTO, EXPERTS, fits, make_experts
from genrec.collaborative.pool import PooledPrior
from genrec.collaborative.recency import RecencyExpert
from genrec.collaborative.sasrec import SASRec
from genrec.collaborative.slit import SLITExpert
from genrec.collaborative.text import TextExpert
from genrec.collaborative.transitions import TransitionExpert
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.errors import ConfigError
from genrec.files import read_arrays, write_arrays


def timed(rows: list[list[int]], times: list[list[float]]) -> Histories:
    found = Histories.from_lists(rows)
    return replace(found, timestamps=np.array([t for row in times for t in row], np.float64))


def with_histories(rows: list[list[int]]) -> Dataset:
    return replace(make_dataset(), histories=Histories.from_lists(rows))


def with_times(seed: int = 0) -> Dataset:
    """The small data set with real times: users come one after another."""
    data = make_dataset()
    lengths = data.histories.lengths
    times = np.cumsum(np.random.default_rng(seed).random(lengths.sum()))
    return replace(data, histories=replace(data.histories, timestamps=times))


def of_titles(titles: list[str], genres: list[str] | None = None) -> Dataset:
    metadata = pl.DataFrame() if genres is None else pl.DataFrame({"genres": genres})
    ids = [f"i{number}" for number in range(len(titles))]
    return Dataset("films", Catalogue(ids, titles, metadata), Histories.from_lists([[0, 1]]))


@pytest.mark.parametrize("name", [name for name in AUTO if name not in ("transitions", "recency")])
def test_an_expert_forgets_a_user_as_if_it_had_never_seen_them(name: str) -> None:
    """``transitions`` is tested with the priors; ``recency`` is causal, see below."""
    rows = [row.tolist() for row in make_dataset().histories]
    history = [*rows[3], *rows[3][:2]]  # with repeats
    everybody = EXPERTS[name]().fit(with_histories([*rows[:3], history, *rows[4:]]))
    others = EXPERTS[name]().fit(with_histories(rows[:3] + rows[4:]))
    found = everybody.training_scores(Histories.from_lists([history]), 2, len(history))
    expected = others.scores(Histories.from_lists([history[:t] for t in range(2, len(history))]))
    assert len(found) == len(everybody.terms)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, np.broadcast_to(theirs, mine.shape), atol=1e-4)


def test_slit_forgets_a_user_whose_old_positions_were_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slit, "POSITIONS", 3)
    rows = [row.tolist() for row in make_dataset().histories]
    long = max(range(len(rows)), key=lambda row: len(rows[row]))
    history = rows[long]
    everybody = SLITExpert().fit(with_histories(rows))
    others = SLITExpert().fit(with_histories(rows[:long] + rows[long + 1 :]))
    (found,) = everybody.training_scores(Histories.from_lists([history]), 1, len(history))
    prefixes = [history[:t] for t in range(1, len(history))]
    (expected,) = others.scores(Histories.from_lists(prefixes))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["ease", "slit"])
def test_the_head_of_a_large_catalogue_forgets_a_user_too(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "MAX_DENSE_ITEMS", 12)
    monkeypatch.setattr(head, "item_counts", lambda histories, n_items: 99 - np.arange(n_items))
    rows = [row.tolist() for row in make_dataset().histories]
    history = [*rows[3], *rows[3][:2]]
    without = rows[:3] + rows[4:]
    everybody: Any = EXPERTS[name]().fit(with_histories([*without, history]))
    others: Any = EXPERTS[name]().fit(with_histories(without))
    assert others.head.items.tolist() == list(range(12))
    assert 0 < sum(item < 12 for item in history) < len(history)
    found = everybody.training_scores(Histories.from_lists([history]), 1, len(history))
    expected = others.scores(Histories.from_lists([history[:t] for t in range(1, len(history))]))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
    nothing = everybody.training_scores(Histories.from_lists([[29, 28, 29]]), 1, 3)
    assert np.ptp(np.stack(nothing)) < 1e-6


@pytest.mark.parametrize(("most", "least", "size"), [(12, 1, 12), (29, 999, 1)])
@pytest.mark.parametrize("name", ["ease", "slit"])
def test_the_head_holds_the_most_frequent_items_and_fits_only_them(
    name: str, most: int, least: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_dataset()
    monkeypatch.setattr(head, "MAX_DENSE_ITEMS", most)
    monkeypatch.setattr(head, "LEAST", least)
    expert: Any = EXPERTS[name]().fit(data)
    counts = np.bincount(data.histories.items, minlength=30)
    outside = np.setdiff1d(np.arange(30), expert.head.items)
    assert counts[expert.head.items].min() >= counts[outside].max()
    assert len(expert.head.items) == size
    weights = expert.weights.toarray()
    assert weights[np.ix_(expert.head.items, expert.head.items)].any() == (size > 1)
    assert not weights[outside].any()
    assert not weights[:, outside].any()


def test_slit_solves_its_least_squares_problem() -> None:
    """B minimises |T - S B|² + ridge |B|², so the gradient S'(S B - T) + ridge B is zero."""
    rows = [[0, 1, 2], [1, 2, 0, 3]]
    inputs, targets = [], []
    for row in rows:
        for t in range(1, len(row)):
            given = np.zeros(4)
            for age, item in enumerate(row[:t][::-1]):
                given[item] += np.exp(-age / slit.DECAY_STEPS)
            inputs.append(given)
            targets.append(np.eye(4)[row[t]])
    s, t = np.array(inputs), np.array(targets)
    catalogue = make_dataset().catalogue
    few = Catalogue(catalogue.item_ids[:4], catalogue.titles[:4], pl.DataFrame())
    b = SLITExpert().fit(Dataset("d", few, Histories.from_lists(rows))).weights.toarray()
    np.testing.assert_allclose(s.T @ (s @ b - t) + slit.RIDGE * b, 0, atol=1e-4)


def test_titles_that_share_words_are_alike() -> None:
    expert = TextExpert().fit(of_titles(["Red Moon", "Red Moon Rising", "Blue Stone"]))
    assert expert.terms == ("titles",)
    (scores,) = expert.scores(Histories.from_lists([[0], []]))
    assert scores[0, 0] > scores[0, 1] > scores[0, 2]
    np.testing.assert_allclose(scores[1], scores[1, 0])  # nobody knows anything about an empty one
    np.testing.assert_allclose(np.exp(scores[0, 0]), 1.0 + 0.05)  # cosine 1 plus the floor


def test_metadata_is_a_term_of_its_own() -> None:
    data = of_titles(["A", "B", "C"], ["Drama|Film Noir", "Film Noir", "Comedy"])
    expert = TextExpert().fit(data)
    assert expert.terms == ("titles", "metadata")
    _, genres = expert.scores(Histories.from_lists([[0]]))
    assert genres[0, 1] > genres[0, 2]


def test_a_column_that_repeats_the_title_is_no_metadata() -> None:
    data = of_titles(["A", "B"])
    metadata = pl.DataFrame({"title_raw": ["a", "b"], "year": [1990, 1991]})
    catalogue = replace(data.catalogue, metadata=metadata)
    assert TextExpert().fit(replace(data, catalogue=catalogue)).terms == ("titles",)


@pytest.mark.parametrize("titles", [["★", "☆"], ["", " "]])
def test_titles_without_words_are_scored_alike(titles: list[str]) -> None:
    expert = TextExpert().fit(of_titles(titles))
    (scores,) = expert.scores(Histories.from_lists([[0]]))
    np.testing.assert_allclose(scores, np.log(0.05))
    assert expert.extended([None], of_titles([*titles, "New"]).catalogue).scores(
        Histories.from_lists([[0]])
    )[0].shape == (1, 3)


@pytest.mark.parametrize("kept", [0, 30])
def test_text_scores_training_positions_like_any_history(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "KEPT_ITEMS", kept)
    data = with_times()
    expert = TextExpert().fit(data)
    history = np.random.default_rng(0).integers(0, 30, 50).astype(np.int32)  # with repeated items
    found = expert.training_scores(Histories.from_lists([history]), 28, 50)
    expected = expert.scores(Histories.from_lists([history[:stop] for stop in range(28, 50)]))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_new_title_is_scored_by_its_words() -> None:
    titles = ["Red Moon", "Blue Stone"]
    expert = TextExpert().fit(of_titles(titles))
    longer = expert.extended([None], of_titles([*titles, "Moon"]).catalogue)
    (scores,) = longer.scores(Histories.from_lists([[0], [2]]))
    assert scores.shape == (2, 3)
    assert scores[0, 2] > scores[0, 1]
    assert scores[1, 0] > scores[1, 1]


def test_recency_counts_what_happened_before_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recency, "THEN", (0.1,))
    monkeypatch.setattr(recency, "NOW", (0.1,))
    # Item 0 at the times 0 and 500, item 1 at 900 and 1000; the grid has a step of 1.
    data = replace(with_histories([]), histories=timed([[0, 0], [1, 1]], [[0, 500], [900, 1000]]))
    expert = RecencyExpert().fit(data)
    then, now = expert.scores(timed([[5], [5]], [[500], [950]]))
    half = 100.0  # half-life: a tenth of the span
    counts = [0.5 ** (500 / half), 0.5 ** (950 / half) + 0.5 ** (450 / half), 0.5 ** (50 / half)]
    np.testing.assert_allclose(np.exp(then[0, 0]) - recency.FLOOR, counts[0], rtol=1e-3)
    np.testing.assert_allclose(np.exp(then[1, 0]) - recency.FLOOR, counts[1], rtol=1e-3)
    np.testing.assert_allclose(np.exp(then[1, 1]) - recency.FLOOR, counts[2], rtol=1e-3)
    assert np.exp(then[0, 1]) == pytest.approx(recency.FLOOR)  # 900 is the future of 500
    assert now.shape == (1, 30)
    assert np.exp(now[0, 1]) - recency.FLOOR == pytest.approx(1 + 0.5 ** (100 / half), rel=1e-3)


def test_recency_knows_no_future_in_training() -> None:
    """The scores at a position stay the same, whatever comes from its time on."""
    data = with_times()
    history = data.histories.select([5])
    time = history.timestamps[3]
    items = data.histories.items.copy()
    later = (data.histories.timestamps >= time).nonzero()[0]
    items[later] = np.roll(items[later], 1)
    other = RecencyExpert().fit(replace(data, histories=replace(data.histories, items=items)))
    expert = RecencyExpert().fit(data)
    for mine, theirs in zip(
        expert.training_scores(history, 3, 5),
        other.training_scores(history, 3, 5),
        strict=True,
    ):
        np.testing.assert_array_equal(mine[0], theirs[0])


@pytest.mark.parametrize("name", AUTO)
def test_the_first_position_of_a_history_knows_no_item(name: str) -> None:
    expert = EXPERTS[name]().fit(with_times())
    history = with_times().histories.select([2])
    for term in expert.training_scores(history, 0, 3):
        assert term.shape[1] == 30
        assert term.shape[0] in (1, 3)
        assert np.isfinite(term).all()


def test_recency_does_not_show_the_targets_of_the_logs_last_moment() -> None:
    """Neither to the first position of a history nor to one at the time of its target."""
    histories = timed([[0, 1], [2, 3, 4]], [[0, 995], [1000, 1000, 1000]])
    expert = RecencyExpert().fit(replace(with_histories([]), histories=histories))
    for term in expert.training_scores(histories.select([1]), 0, 3):
        np.testing.assert_allclose(np.exp(term[:, [2, 3, 4]]), recency.FLOOR, rtol=1e-6)
        assert (np.exp(term[:, 1]) > recency.FLOOR).all()


def test_recency_takes_a_list_of_titles_for_the_present_also_where_times_begin_at_0() -> None:
    data = with_times()
    histories = replace(data.histories, timestamps=data.histories.timestamps * 10)
    expert = RecencyExpert().fit(replace(data, histories=histories))
    titles = Histories.from_lists([[1, 2, 3]])
    late = replace(titles, timestamps=np.full(3, histories.timestamps.max()))
    for without, last in zip(expert.scores(titles), expert.scores(late), strict=True):
        np.testing.assert_array_equal(without, last)


def test_slit_counts_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SLITExpert().fit(make_dataset())
    monkeypatch.setattr(slit, "BLOCK", 7)
    parts = SLITExpert().fit(make_dataset())
    np.testing.assert_allclose(parts.weights.toarray(), whole.weights.toarray(), atol=1e-6)


def test_a_refit_of_sasrec_takes_the_epochs_that_early_stopping_found() -> None:
    data = make_dataset()
    expert: Any = EXPERTS["sasrec"]().fit(data)
    catalogue = data.catalogue.extended(["New"], ["n1"])
    loaded: Any = EXPERTS["sasrec"]().restore(expert.extended([None], catalogue).arrays())
    assert loaded._model._sasrec.epochs == expert._model._sasrec.epochs < SASRec.most_epochs
    again: Any = loaded.refit(replace(data, catalogue=catalogue))
    assert again._source.tolist() == list(range(31))
    assert loaded._source.tolist() == [*range(30), -1]


def test_sasrec_in_the_pool_depends_on_the_seed_and_keeps_it(tmp_path: Path) -> None:
    data, histories = make_dataset(), make_dataset().histories.select([0, 1])

    def pool(seed: int) -> Any:
        return make_baseline("pooled-sasrec", seed).fit(data)

    first, second = pool(1), pool(2)
    np.testing.assert_array_equal(pool(1).scores(histories), first.scores(histories))
    assert np.abs(first.scores(histories) - second.scores(histories)).max() > 1e-4
    save_baseline(second, tmp_path / "pool.npz")
    loaded: Any = load_baseline(tmp_path / "pool.npz")
    again = [model.refit(data).scores(histories) for model in (loaded, second)]
    np.testing.assert_allclose(*again, atol=1e-6)


def test_recency_has_no_terms_without_real_times() -> None:
    assert RecencyExpert().fit(make_dataset()).terms == ()


def test_recency_takes_a_history_without_times_for_the_present() -> None:
    expert = RecencyExpert().fit(with_times())
    here = Histories.from_lists([[1, 2]])
    elsewhen = replace(here, timestamps=here.timestamps - 1e6)
    late = replace(here, timestamps=np.full(2, with_times().histories.timestamps.max()))
    for without, last in zip(expert.scores(elsewhen), expert.scores(late), strict=True):
        np.testing.assert_array_equal(without, last)
    assert expert.scores(Histories.from_lists([[]]))[0].shape == (1, 30)


@pytest.mark.parametrize("name", list(EXPERTS))
def test_an_expert_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    data = with_times()
    expert = EXPERTS[name]().fit(data)
    catalogue = data.catalogue.extended(["A New Twin", "New"], ["n1", "n2"])
    for number, each in enumerate((expert, expert.extended([4, None], catalogue))):
        path = tmp_path / f"{number}.npz"
        write_arrays(path, each.arrays())
        loaded = EXPERTS[name]().restore(read_arrays(path)[0])
        assert loaded.terms == each.terms
        histories = data.histories.select([0, 1, 2])
        for before, after in zip(each.scores(histories), loaded.scores(histories), strict=True):
            np.testing.assert_allclose(after, before, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in EXPERTS if name != "text"])
def test_a_new_item_is_scored_like_its_twin(name: str) -> None:
    """The text expert reads the new title instead."""
    data = with_times()
    expert = EXPERTS[name]().fit(data)
    longer = expert.extended([4, None], data.catalogue.extended(["Twin", "New"], ["n1", "n2"]))
    rows = Histories.from_lists([[3, 7], []])
    for old, new in zip(expert.scores(rows), longer.scores(rows), strict=True):
        assert new.shape[1] == 32
        np.testing.assert_allclose(new[:, 30], new[:, 4], atol=1e-6)
        # The smoothed popularity in votes is a share of all interactions, so it moves a little.
        np.testing.assert_allclose(new[:, :30], old, atol=0.2)
        assert np.isfinite(new).all()


def test_names_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"Unknown expert 'svd'\. Use some of transitions"):
        make_experts(["svd"], 30)
    with pytest.raises(ConfigError, match=r"one or more different names"):
        make_experts(["text", "text"], 30)
    with pytest.raises(ConfigError, match=r"one or more different names"):
        make_experts([], 30)
    wrong = r"recency can handle at most 100,000 items.*Leave recency out"
    with pytest.raises(ConfigError, match=wrong):
        make_experts(["recency"], 100_001)
    assert fits(TransitionExpert(), 10**7)


def test_an_expert_of_ones_own_joins_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(TextExpert):
        name = "mine"

    monkeypatch.setitem(EXPERTS, "mine", Mine)
    pool = PooledPrior(["transitions", "mine"]).fit(make_dataset())
    assert [expert.name for expert in pool.experts] == ["transitions", "mine"]
