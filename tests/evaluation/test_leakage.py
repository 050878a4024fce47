from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_dataset, make_titles
from genrec import GenRec
from genrec.baselines import (
    EASE,
    SLIM,
    Cooccurrence,
    ItemKNN,
    P3Alpha,
    Pooled,
    Popularity,
    RecentPopularity,
    TitleSearch,
    Transitions,
    Trend,
)
from genrec.baselines.p5 import P5
from genrec.baselines.p5_settings import P5Settings
from genrec.collaborative.sasrec import SASRec
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories, offsets_of
from genrec.data.splits import Split, global_time, leave_last_out
from genrec.evaluation import leakage
from genrec.evaluation.leakage import (
    LeakageError,
    check_counts,
    check_fitted,
    check_numbers,
    check_split,
    refuse_leaks,
)


@pytest.fixture
def split() -> Split:
    return leave_last_out(make_dataset(users=200, items=60))


def in_log_order(split: Split) -> np.ndarray:
    """Numbers in the order in which whole sequences are walked through, as P5 does."""
    rows = zip(split.test.histories, split.test.targets.tolist(), strict=True)
    walk = dict.fromkeys(item for row, target in rows for item in [*row.tolist(), target])
    rest = [item for item in range(len(split.test.catalogue)) if item not in walk]
    numbers = np.empty(len(walk) + len(rest), np.int64)
    numbers[[*walk, *rest]] = np.arange(len(numbers))
    return numbers


def checks(split: Split) -> set[str]:
    return {each.check for each in check_split(split) if each.leak}


def with_training(split: Split, row: int, item: int, time: float) -> Split:
    """The split with one more interaction at the end of a training history."""
    histories = split.train.histories
    place = histories.offsets[row + 1]
    offsets = histories.offsets + (np.arange(len(histories.offsets)) > row)
    longer = Histories(
        np.insert(histories.items, place, item),
        offsets,
        histories.user_ids,
        np.insert(histories.timestamps, place, time),
    )
    return replace(split, train=Dataset("d", split.train.catalogue, longer, split.train.provenance))


def test_an_honest_split_has_no_leak(split: Split) -> None:
    assert checks(split) == set()
    refuse_leaks(check_split(split))


def test_a_target_in_training_is_found_and_named(split: Split) -> None:
    assert split.test.times is not None
    leaky = with_training(split, 3, int(split.test.targets[3]), float(split.test.times[3]))
    assert "held-out items in training" in checks(leaky)
    with pytest.raises(LeakageError, match="1 of 200 test targets are training interactions"):
        refuse_leaks(check_split(leaky))


def test_training_that_is_younger_than_the_target_is_found(split: Split) -> None:
    assert split.test.times is not None
    late = with_training(split, 3, 0, float(split.test.times[3]) + 1)
    assert checks(late) == {"training after the target"}


def test_a_time_split_must_not_train_beyond_its_cut() -> None:
    data = make_dataset(users=60)
    histories = data.histories  # a common clock: the interactions of all users in turn
    times = histories.timestamps * 1000 + np.repeat(np.arange(60), histories.lengths)
    timed = replace(data, histories=replace(histories, timestamps=times))
    split = global_time(timed)
    assert checks(split) == set()
    late = with_training(split, 0, 0, float(times.max()))
    assert "training after the target" in checks(late)


def test_a_duplicate_row_of_the_target_is_found(split: Split) -> None:
    test = split.test
    doubled = replace(test, targets=test.histories.items[test.histories.offsets[1:] - 1].copy())
    doubled = replace(doubled, times=test.histories.timestamps[test.histories.offsets[1:] - 1])
    # Every target repeats the last item of its history, which is the validation item.
    assert "duplicates" in checks(replace(split, test=doubled))


def test_the_same_user_twice_is_found() -> None:
    rows = [list(range(start, start + 6)) for start in range(10)] * 2
    catalogue = Catalogue(
        [f"i{n}" for n in range(15)], make_titles(15), pl.DataFrame({"x": [0] * 15})
    )
    split = leave_last_out(Dataset("twins", catalogue, Histories.from_lists(rows)))
    assert "duplicate users" in checks(split)


def first_met(users: int, items: int) -> Split:
    """Long tail: many items are met for the first time as somebody's target."""
    rng = np.random.default_rng(0)
    rows = [rng.choice(items, size=5, replace=False).tolist() for _ in range(users)]
    names = [f"Title {n}" for n in range(items)]
    catalogue = Catalogue([f"i{n}" for n in range(items)], names, pl.DataFrame({"x": [0] * items}))
    return leave_last_out(Dataset("tail", catalogue, Histories.from_lists(rows)))


def test_numbers_in_the_order_of_the_log_are_found_and_shuffled_ones_are_not() -> None:
    split = first_met(users=300, items=1000)
    numbers = in_log_order(split)
    found = list(check_numbers(numbers, split, "the numbers"))
    assert [each.check for each in found] == ["id order"]
    assert found[0].leak
    shuffled = np.random.default_rng(1).permutation(numbers)
    assert not list(check_numbers(shuffled, split, "the numbers"))


def test_item_ids_in_the_order_of_the_log_are_found_in_the_catalogue() -> None:
    split = first_met(users=300, items=1000)
    numbers = in_log_order(split)
    train = split.train.histories
    moved = Split(
        Dataset("d", split.train.catalogue, replace(train, items=renumbered(train, numbers))),
        split.valid,
        replace(
            split.test,
            histories=replace(
                split.test.histories, items=renumbered(split.test.histories, numbers)
            ),
            targets=numbers[split.test.targets].astype(np.int32),
        ),
        split.info,
    )
    assert "id order" in {each.check for each in check_split(moved) if each.leak}


def renumbered(histories: Histories, numbers: np.ndarray) -> np.ndarray:
    return numbers[histories.items].astype(np.int32)


def test_counts_of_other_data_are_found(split: Split) -> None:
    counts = np.bincount(split.train.histories.items, minlength=60)
    assert check_counts("prior", counts, split.train) == []
    counts[split.test.targets] += 1
    (found,) = check_counts("prior", counts, split.train)
    assert found.leak
    assert "interactions more than" in found.text


COUNTED = (
    Popularity,
    RecentPopularity,
    Cooccurrence,
    Transitions,
    Pooled,
    Trend,
    EASE,
    SLIM,
    ItemKNN,
    P3Alpha,
    TitleSearch,
    lambda: SASRec(most_epochs=1, width=16),
    lambda: P5("shuffled", settings=P5Settings(epochs=1, copying=0.0)),
)


@pytest.mark.parametrize("make", COUNTED)
def test_every_model_that_was_fitted_on_other_data_is_found(make: Any) -> None:
    split = leave_last_out(make_dataset())
    fair = make().fit(split.train, split.valid)
    assert list(check_fitted(fair, [split.train])) == []
    cheat = make().fit(make_dataset(), split.valid)  # the answers are in it
    (finding,) = check_fitted(cheat, [split.train])
    assert (finding.check, finding.leak) == ("fitted on other data", True)


@pytest.mark.parametrize("prior", ["popularity", "cooccurrence", "transitions", "pooled"])
def test_so_is_a_model_with_such_a_prior(tiny_backbone: str, prior: str) -> None:
    split = leave_last_out(make_dataset())
    fair = GenRec(tiny_backbone, prior=prior, dtype="float32").build(split.train)
    assert list(check_fitted(fair, [split.train])) == []
    cheat = GenRec(tiny_backbone, prior=prior, dtype="float32").build(make_dataset())
    assert [each.leak for each in check_fitted(cheat, [split.train])] == [True]


def test_what_cannot_be_checked_is_reported(tiny_backbone: str) -> None:
    split = leave_last_out(make_dataset())
    alone = GenRec(tiny_backbone, prior="none", dtype="float32").build(split.train)
    (finding,) = check_fitted(alone, [split.train])
    assert (finding.check, finding.leak) == ("not checked", False)


EVENTS = st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 4), st.integers(0, 3)))


@given(EVENTS, EVENTS)
def test_contained_interactions_are_those_of_a_set(
    known: list[tuple[str, int, int]], wanted: list[tuple[str, int, int]]
) -> None:
    known = sorted(known, key=lambda event: (event[0], event[2]))
    users = sorted({user for user, _, _ in known})
    histories = Histories(
        np.array([item for _, item, _ in known], dtype=np.int32),
        offsets_of(np.array([sum(u == user for u, _, _ in known) for user in users], dtype=int)),
        users,
        np.array([time for _, _, time in known], dtype=np.float64),
    )
    asked = {(user, item, float(time)) for user, item, time in wanted}
    assert leakage._contained(asked, histories) == asked & set(known)
