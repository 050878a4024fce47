from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Self

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from rich.console import Console

from genrec.baselines.registry import make_baseline
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.prepare import build_catalogue
from genrec.data.splits import Holdout
from genrec.errors import ConfigError, DataError
from genrec.evaluation.evaluate import evaluate
from genrec.evaluation.results import Evaluation, compare_paired, comparison_table, decimals, short
from genrec.metrics import bootstrap_interval
from genrec.recommender import Recommender, TopK, top_k

ITEMS = 6
LISTS = [[0, 1], [1, 2], [2], [0, 3]]


def catalogue(size: int = ITEMS) -> Catalogue:
    ids = [str(index) for index in range(size)]
    items = pl.DataFrame({"item_id": ids, "title": [f"Title {index}" for index in ids]})
    return build_catalogue(items, ids)[0]


def holdout(targets: list[int], lists: list[list[int]] | None = None) -> Holdout:
    histories = Histories.from_lists(LISTS if lists is None else lists)
    return Holdout("test", histories, np.array(targets, np.int32), catalogue())


class Fixed:
    """Recommends by the same score for everybody and remembers how it was asked."""

    def __init__(self, scores: list[float], name: str = "fixed") -> None:
        self.name = name
        self.scores = np.array(scores, float)
        self.asked: list[tuple[int, int, bool]] = []

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        return self

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        self.asked.append((len(histories), k, exclude_seen))
        scores = np.tile(self.scores, (len(histories), 1))
        return top_k(scores, k, histories if exclude_seen else None)


class Broken(Fixed):
    """Returns the lists it was given, whatever was asked."""

    def __init__(self, items: list[list[int]]) -> None:
        super().__init__([])
        self.items = np.array(items, np.int32)

    def recommend_batch(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> TopK:
        return TopK(self.items, np.zeros(self.items.shape))


FALLING = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]  # the order is 0, 1, 2, 3, 4, 5


def brute_force(scores: NDArray[np.float64], k: int, seen: list[list[int]]) -> list[list[int]]:
    lists = []
    for row, known in zip(scores, seen, strict=True):
        ranked = sorted((-score, item) for item, score in enumerate(row) if item not in known)
        best = [item for key, item in ranked if key != math.inf][:k]
        lists.append(best + [-1] * (k - len(best)))
    return lists


tied_scores = arrays(
    st.sampled_from([np.float32, np.float64]),
    st.tuples(st.integers(1, 4), st.integers(1, 9)),
    elements=st.sampled_from([-math.inf, -1.5, -0.0, 0.0, 1.0, 2.0, math.inf]),
)


@given(tied_scores, st.integers(1, 12), st.data())
def test_top_k_equals_sorting_everything(
    scores: NDArray[np.float64], k: int, data: st.DataObject
) -> None:
    rows, size = scores.shape
    known = st.lists(st.integers(0, size - 1), max_size=size, unique=True)
    seen = data.draw(st.lists(known, min_size=rows, max_size=rows))
    top = top_k(scores, k, Histories.from_lists(seen))
    assert top.items.tolist() == brute_force(scores, k, seen)
    assert top.items.dtype == np.int32
    assert top.scores.dtype == np.float64
    assert ((top.items < 0) == (top.scores == -np.inf)).all()
    picked = np.take_along_axis(scores, np.maximum(top.items, 0), axis=1)
    assert (top.scores[top.items >= 0] == picked[top.items >= 0]).all()


@given(arrays(np.float64, (3, 40), elements=st.floats(-5, 5)), st.integers(1, 40))
def test_top_k_of_untied_scores(scores: NDArray[np.float64], k: int) -> None:
    assert top_k(scores, k).items.tolist() == brute_force(scores, k, [[]] * 3)


def test_top_k_breaks_ties_by_ascending_index_also_at_the_cut() -> None:
    scores = np.array([[1.0, 2.0, 1.0, 2.0, 1.0]])
    assert top_k(scores, 3).items.tolist() == [[1, 3, 0]]


def test_top_k_leaves_its_input_alone() -> None:
    scores = np.array([[1.0, 2.0]])
    top_k(scores, 1, Histories.from_lists([[1]]))
    assert scores.tolist() == [[1.0, 2.0]]


def test_top_k_of_no_rows_and_no_items() -> None:
    assert top_k(np.empty((0, 4)), 3).items.shape == (0, 3)
    assert top_k(np.empty((2, 0)), 3).items.tolist() == [[-1, -1, -1]] * 2


def test_top_k_refuses_what_it_cannot_order() -> None:
    with pytest.raises(ConfigError, match="k must be at least 1"):
        top_k(np.zeros((1, 3)), 0)
    with pytest.raises(DataError, match="NaN"):
        top_k(np.array([[0.0, math.nan]]), 1)
    with pytest.raises(DataError, match="as many histories"):
        top_k(np.zeros((1, 3)), 1, Histories.from_lists([[0], [1]]))


def test_the_protocol_is_checkable_at_run_time() -> None:
    assert isinstance(Fixed(FALLING), Recommender)
    assert not isinstance(object(), Recommender)


def test_evaluate_by_hand() -> None:
    # Lists after the seen items: [2,3,4], [0,3,4], [0,1,3], [1,2,4]; targets at 1, 2, none, 3.
    result = evaluate(Fixed(FALLING), holdout([2, 3, 5, 4]), k=(1, 3))
    assert result.ranks.tolist() == [1, 2, 0, 3]
    assert list(result.metrics) == ["HR@1", "NDCG@1", "MRR@1", "HR@3", "NDCG@3", "MRR@3"]
    assert result.metrics == pytest.approx(
        {
            "HR@1": 1 / 4,
            "NDCG@1": 1 / 4,
            "MRR@1": 1 / 4,
            "HR@3": 3 / 4,
            "NDCG@3": (1 + 1 / math.log2(3) + 0 + 1 / math.log2(4)) / 4,
            "MRR@3": (1 + 1 / 2 + 0 + 1 / 3) / 4,
        }
    )
    assert result.coverage == {"coverage@1": 3 / 6, "coverage@3": 5 / 6}
    assert set(result.counts.values()) == {0}
    assert (result.name, result.split, result.users, result.k) == ("fixed", "test", 4, (1, 3))
    assert result.seconds >= 0


def test_metrics_are_named_as_metrics_json_wants_them() -> None:
    entry = evaluate(Fixed(FALLING), holdout([2, 3, 5, 4])).to_json()
    names = {"HR@5", "HR@10", "NDCG@5", "NDCG@10", "MRR@5", "MRR@10"}
    assert names | {"users", "seconds", "intervals"} <= set(entry)
    assert set(entry["intervals"]) == names
    low, high = entry["intervals"]["HR@5"]
    assert 0 <= low <= entry["HR@5"] <= high <= 1
    assert json.loads(json.dumps(entry)) == entry


def test_batches_change_nothing_and_report_progress() -> None:
    steps: list[tuple[int, int]] = []
    one = Fixed(FALLING)
    task = holdout([2, 3, 5, 4])
    many = evaluate(one, task, k=[3], batch_rows=3, progress=lambda *at: steps.append(at))
    assert steps == [(3, 4), (4, 4)]
    assert one.asked == [(3, 3, True), (1, 3, True)]
    assert many.ranks.tolist() == evaluate(Fixed(FALLING), task, k=[3]).ranks.tolist()


def test_seen_items_can_be_allowed() -> None:
    result = evaluate(Fixed(FALLING), holdout([2, 3, 5, 4]), k=[3], exclude_seen=False)
    assert result.ranks.tolist() == [3, 0, 0, 0]  # everybody gets 0, 1, 2
    assert result.counts["seen"] == 2 + 2 + 1 + 1
    assert "allowed in the list" in " ".join(result.protocol)


def test_a_target_that_stands_in_the_history_is_counted() -> None:
    result = evaluate(Fixed(FALLING), holdout([0, 3, 5, 4]), k=[3])
    assert result.counts["repeated_targets"] == 1
    assert result.ranks[0] == 0


def test_faulty_lists_are_counted_not_hidden() -> None:
    lists = [[2, 2, 9], [1, -1, -1], [-7, 0, 0], [4, 5, 1]]
    result = evaluate(Broken(lists), holdout([2, 3, 5, 4]), k=[3])
    assert result.counts == {
        "invalid": 2,  # 9 and -7
        "duplicates": 2,  # the second 2 and the second 0
        "seen": 1,  # 1 for the second user
        "unfilled": 2,
        "repeated_targets": 0,
    }


def test_lists_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"fixed.recommend_batch returned \(1, 3\)"):
        evaluate(Broken([[0, 1, 2]]), holdout([2, 3, 5, 4]), k=[3])


def test_bad_settings_are_refused() -> None:
    for cuts in ((), (0, 5)):
        with pytest.raises(ConfigError, match="cut-offs"):
            evaluate(Fixed(FALLING), holdout([2, 3, 5, 4]), k=cuts)
    with pytest.raises(ConfigError):
        evaluate(Fixed(FALLING), holdout([2, 3, 5, 4]), bootstrap=-1)
    with pytest.raises(DataError, match="test holdout has no users"):
        evaluate(Fixed(FALLING), holdout([], []))


def test_intervals_repeat_with_their_seed_and_can_be_left_out() -> None:
    task = holdout([2, 3, 5, 4])
    assert evaluate(Fixed(FALLING), task).intervals == evaluate(Fixed(FALLING), task).intervals
    plain = evaluate(Fixed(FALLING), task, bootstrap=0)
    assert plain.intervals == {}
    assert "[" not in plain.table()


def test_values_give_any_metric_up_to_the_longest_list() -> None:
    result = evaluate(Fixed(FALLING), holdout([2, 3, 5, 4]), k=[3])
    assert result.values("HR@2").tolist() == [1, 1, 0, 0]
    with pytest.raises(ConfigError, match="lists of 4"):
        result.values("HR@4")
    for unknown in ("recall@3", "HR", "HR@x", "@3"):
        with pytest.raises(ConfigError, match="Unknown metric"):
            result.values(unknown)


def test_paired_comparison_is_per_user() -> None:
    task = holdout([2, 3, 5, 4])
    a = evaluate(Fixed(FALLING), task, k=[3])  # ranks 1, 2, 0, 3
    b = evaluate(Fixed(FALLING[::-1]), task, k=[3])  # ranks 0, 3, 1, 2
    found = compare_paired(a, b, "MRR@3")
    each = [1 - 0, 1 / 2 - 1 / 3, 0 - 1, 1 / 3 - 1 / 2]
    assert found.difference == pytest.approx(sum(each) / 4)
    assert found.low <= found.difference <= found.high


def test_other_users_or_protocols_cannot_be_paired() -> None:
    a = evaluate(Fixed(FALLING), holdout([2, 3, 5, 4]), k=[3])
    others = (
        evaluate(Fixed(FALLING), holdout([2, 3, 5, 5]), k=[3]),
        evaluate(Fixed(FALLING), holdout([2, 3, 5, 4]), k=[3], exclude_seen=False),
        evaluate(Fixed(FALLING), holdout([2, 3, 5, 4], [[0, 1], [1, 2], [2], [3, 0]]), k=[3]),
    )
    for b in others:
        with pytest.raises(DataError, match="different users or protocols"):
            compare_paired(a, b, "HR@3")


def test_several_targets_of_a_user_are_drawn_together() -> None:
    lists = [[0, 1], [0, 1, 2], [2], [0, 3]]
    histories = replace(Histories.from_lists(lists), user_ids=["u", "u", "v", "w"])
    task = Holdout("test", histories, np.array([2, 3, 5, 4], np.int32), catalogue())
    result = evaluate(Fixed(FALLING), task, k=[3])  # ranks 1, 1, 0, 3
    assert (result.users, result.targets, result.metrics["HR@3"]) == (3, 4, 0.75)
    assert result.to_json()["targets"] == 4
    assert "test split, 3 users, 4 targets;" in result.table()
    assert "4 held-out target items of 3 users" in result.protocol[0]
    owner = np.array([0, 0, 1, 2])
    ends = bootstrap_interval(result.values("HR@3"), seed=0, owner=owner)
    assert result.intervals["HR@3"] == ends
    other = evaluate(Fixed(FALLING[::-1]), task, k=[3])
    found = compare_paired(result, other, "MRR@3")
    each = result.values("MRR@3") - other.values("MRR@3")
    assert found == (each.mean(), *bootstrap_interval(each, seed=0, owner=owner))


def rendered(evaluations: list[Evaluation], width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(comparison_table(evaluations))
    return capture.get()


def test_table_shows_values_with_their_intervals() -> None:
    result = evaluate(Fixed(FALLING), holdout([2, 3, 5, 4]), k=[3])
    low, high = result.intervals["HR@3"]
    assert f".750 [{short(low)}, {short(high)}]" in result.table()
    assert "test split, 4 users; 95% intervals" in result.table()


@pytest.mark.parametrize("width", [80, 200])
def test_table_of_four_metrics_fits_80_columns_unharmed(width: int) -> None:
    task = holdout([2, 3, 5, 4])
    models = [evaluate(Fixed(FALLING, name), task) for name in ("popularity", "genrec-untrained")]
    text = rendered(models, width)
    low, high = models[0].intervals["NDCG@10"]
    assert f"[{short(low)}, {short(high)}]" in text  # never broken inside the bracket
    assert "genrec-untrained" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_table_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one evaluation"):
        comparison_table([])


def test_numbers_drop_their_leading_zero() -> None:
    texts = [short(value) for value in (0.2061, -0.0124, 1.0, -1.0, 0.9999, 0.0)]
    assert texts == [".206", "-.012", "1.000", "-1.000", "1.000", ".000"]


def test_small_metrics_get_a_fourth_decimal() -> None:
    hit = evaluate(Fixed(FALLING), holdout([2, 3, 5, 4]), k=[3])
    miss = evaluate(Fixed(FALLING), holdout([5, 5, 5, 5]), k=[3])
    assert decimals([hit, miss], ["HR@3"]) == 3
    assert decimals([miss], ["HR@3"]) == 4


def test_a_recommender_of_another_catalogue_is_refused() -> None:
    data = Dataset("one", catalogue(), Histories.from_lists(LISTS))
    other = replace(holdout([5, 5, 5, 5]), catalogue=catalogue(5))
    popular = make_baseline("popularity").fit(data)
    assert evaluate(popular, holdout([5, 5, 5, 5]), np.int64(2), bootstrap=0).k == (2,)  # type: ignore[arg-type]
    assert evaluate(popular, other, 2, bootstrap=0).k == (2,)  # it knows one item more
    mixed = Catalogue(list("543210"), catalogue().titles, catalogue().metadata)
    with pytest.raises(DataError, match="was fitted on another catalogue"):
        evaluate(popular, replace(other, catalogue=mixed), 2)
