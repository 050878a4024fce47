from __future__ import annotations

import numpy as np
import polars as pl

from conftest import make_titles
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout
from genrec.evaluation.slices import head, slices


def make_catalogue(count: int) -> Catalogue:
    return Catalogue(
        [f"i{n}" for n in range(count)], make_titles(count), pl.DataFrame({"x": [0] * count})
    )


def test_users_are_told_apart_by_target_and_history() -> None:
    catalogue = make_catalogue(5)
    # Item 0 three times, item 1 twice, items 2 and 3 once, item 4 never.
    train = Dataset("d", catalogue, Histories.from_lists([[0, 1], [0, 1, 2], [0, 3]]))
    histories = Histories.from_lists([[0, 1], [0, 1, 2], [0, 3], [0]])
    holdout = Holdout("test", histories, np.array([4, 0, 1, 3], np.int32), catalogue)
    found = {(each.group, each.name): each.rows.tolist() for each in slices(holdout, train)}
    assert found["target", "cold"] == [True, False, False, False]
    assert found["target", "head"] == [False, True, False, False]  # a fifth of five items: item 0
    assert found["target", "long tail"] == [False, False, True, True]
    assert found["history", "1"] == [False, False, False, True]
    for group in ("target", "history"):
        parts = [rows for (name, _), rows in found.items() if name == group]
        assert np.sum(parts, axis=0).tolist() == [1, 1, 1, 1]


def test_buckets_of_popularity_leave_cold_targets_out() -> None:
    catalogue = make_catalogue(3)
    train = Dataset("d", catalogue, Histories.from_lists([[0, 1], [0]]))
    histories = Histories.from_lists([[0], [0], [1]])
    holdout = Holdout("test", histories, np.array([2, 1, 0], np.int32), catalogue)
    parts = [each for each in slices(holdout, train) if each.group == "target's popularity"]
    assert [(each.name, each.rows.tolist()) for each in parts] == [
        ("1", [False, True, False]),
        ("2", [False, False, True]),
    ]


def test_items_that_nobody_had_are_not_popular() -> None:
    assert head(np.array([0, 0, 0, 0, 0])).tolist() == [False] * 5
    assert head(np.array([1, 3, 2, 0, 0])).tolist() == [False, True, False, False, False]
