from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.interactions import Interactions
from genrec.data.log_rows import coded_ids
from genrec.data.provenance import Provenance
from genrec.data.splits import (
    Holdout,
    Split,
    before_test,
    global_time,
    leave_last_out,
    one_step_earlier,
    split_by_name,
)
from genrec.errors import ConfigError, DataError
from genrec.evaluation.leakage import check_split

Row = tuple[str, str, float]
LOGS = st.lists(
    st.tuples(st.sampled_from("uvwxy"), st.sampled_from("abcdef"), st.integers(0, 9).map(float)),
    min_size=1,
)


def interactions(rows: Sequence[Row], ratings: list[float | None] | None = None) -> Interactions:
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log = log.with_row_index("row").with_columns(pl.col("timestamp").cast(pl.Float64))
    if ratings is not None:
        log = log.with_columns(pl.Series("rating", ratings, dtype=pl.Float64))
    ids = log["item_id"].unique().sort()
    items = pl.DataFrame({"item_id": ids, "title": "Film " + ids})
    users, user_ids = coded_ids(log["user_id"], Path("log.csv"))
    items_of_log, item_ids = coded_ids(log["item_id"], Path("log.csv"))
    table = log.drop("user_id", "item_id").with_columns(user=users, item=items_of_log)
    return Interactions(table, user_ids, item_ids, items, {"log": "log.csv"})


def dataset(rows: Sequence[Row], **options: Any) -> Dataset:
    return Dataset.from_interactions(interactions(rows), name="tiny", **options)


def lists(data: Dataset) -> dict[str, str]:
    """Each user's items, one letter each."""
    ids = data.catalogue.item_ids
    rows = zip(data.histories.user_ids, data.histories, strict=True)
    return {user: "".join(ids[item] for item in row) for user, row in rows}


def asked(split: Split, name: str) -> dict[str, tuple[str, str]]:
    """Each user's known items and target, one letter each."""
    holdout = {"valid": split.valid, "test": split.test}[name]
    known = lists(Dataset("", holdout.catalogue, holdout.histories))
    targets = [holdout.catalogue.item_ids[item] for item in holdout.targets]
    return {user: (known[user], target) for user, target in zip(known, targets, strict=True)}


def log_of(**users: str) -> list[Row]:
    """A log in which user u has items "abc" at times 10, 20, 30."""
    return [(user, item, 10.0 * n) for user, row in users.items() for n, item in enumerate(row, 1)]


# Histories


def test_flat_arrays_of_lists() -> None:
    histories = Histories.from_lists([[5, 6], [], [7]])
    assert histories.items.tolist() == [5, 6, 7]
    assert histories.offsets.tolist() == [0, 2, 2, 3]
    assert histories.timestamps.tolist() == [0, 1, 0]
    assert histories.user_ids == ["0", "1", "2"]
    assert (histories.items.dtype.name, histories.offsets.dtype.name) == ("int32", "int64")
    assert [row.tolist() for row in histories] == [[5, 6], [], [7]]
    assert histories[-1].tolist() == [7]
    assert len(Histories.from_lists([])) == 0


@given(st.lists(st.lists(st.integers(0, 9))), st.integers(0, 4), st.data())
def test_select_head_and_tail_are_slices_of_lists(
    rows: list[list[int]], length: int, data: st.DataObject
) -> None:
    histories = Histories.from_lists(rows)
    places = data.draw(st.lists(st.integers(0, len(rows) - 1)) if rows else st.just([]))
    selected = histories.select(places)
    assert [row.tolist() for row in selected] == [rows[place] for place in places]
    assert selected.user_ids == [str(place) for place in places]
    tail = histories.tail(length)
    assert [row.tolist() for row in tail] == [row[max(len(row) - length, 0) :] for row in rows]
    head = histories.head(places, np.minimum(histories.lengths[places], length))
    assert [row.tolist() for row in head] == [rows[place][:length] for place in places]


# Preparing


def test_order_is_time_then_row_in_the_log() -> None:
    data = dataset([("u", "c", 20), ("v", "a", 5), ("u", "b", 10), ("u", "a", 10)])
    assert lists(data) == {"u": "bac", "v": "a"}
    assert data.provenance.preparation["tie_rule"] == "(timestamp, row in the log)"
    assert data.provenance.preparation["tie_share"] == {
        "users_with_tied_last": 0,
        "interactions": 2 / 4,
    }
    assert data.provenance.preparation["counts"] == {
        "users": 2,
        "items": 3,
        "interactions": 4,
        "density": 4 / (2 * 3),
    }


def test_tie_share_counts_last_timestamps_within_a_user() -> None:
    data = dataset([("u", "a", 1), ("u", "b", 2), ("u", "c", 2), ("v", "a", 2), ("v", "b", 3)])
    assert data.provenance.preparation["tie_share"] == {
        "users_with_tied_last": 1 / 2,
        "interactions": 2 / 5,
    }


def test_ids_are_numbered_by_length_and_then_text_not_by_the_log() -> None:
    data = dataset([("10", "10", 1), ("9", "9", 2), ("9", "2", 3)])
    assert data.histories.user_ids == ["9", "10"]
    assert data.catalogue.item_ids == ["2", "9", "10"]
    assert data.catalogue.titles == ["Film 2", "Film 9", "Film 10"]


def test_ratings_follow_their_items_and_unknown_ones_are_nan() -> None:
    log = interactions([("u", "b", 2), ("u", "a", 1)], ratings=[None, 4.5])
    ratings = Dataset.from_interactions(log, name="rated").histories.ratings
    assert ratings is not None
    np.testing.assert_array_equal(ratings, np.array([4.5, np.nan], dtype=np.float32))
    assert dataset([("u", "a", 1)]).histories.ratings is None


def test_repeats_stay_and_are_counted() -> None:
    data = dataset(log_of(u="aba", v="b"))
    assert lists(data) == {"u": "aba", "v": "b"}
    assert data.provenance.preparation["repeat_share"] == pytest.approx(1 / 4)


def test_core_is_iterated_until_stable() -> None:
    # w goes for want of a second item, then c with it, then v, whose only other item was c.
    data = dataset(log_of(u="ab", t="ab", v="ac", w="c"), min_user=2, min_item=2)
    assert lists(data) == {"t": "ab", "u": "ab"}
    assert data.provenance.preparation["core"] == {"min_user": 2, "min_item": 2, "rounds": 3}
    assert data.provenance.preparation["dropped"] == {"not_drawn": 0, "not_in_core": 3}
    report = data.provenance.preparation["catalogue"]
    assert isinstance(report, dict)
    assert report["items_without_interactions"] == 1


@given(LOGS, st.integers(1, 3), st.integers(1, 3))
def test_core_holds_both_minima_and_is_the_largest_such_part(
    rows: list[Row], min_user: int, min_item: int
) -> None:
    kept = list(rows)
    while True:  # one user or item at a time, as slowly as can be
        counts = [(pos, [row[pos] for row in kept]) for pos in (0, 1)]
        least = dict(zip((0, 1), (min_user, min_item), strict=True))
        weak = [(pos, key) for pos, keys in counts for key in keys if keys.count(key) < least[pos]]
        if not weak:
            break
        kept = [row for row in kept if row[weak[0][0]] != weak[0][1]]
    if not kept:
        with pytest.raises(DataError, match="no user is left"):
            dataset(rows, min_user=min_user, min_item=min_item)
        return
    expected = {user: sorted(item for who, item, _ in kept if who == user) for user, _, _ in kept}
    data = dataset(rows, min_user=min_user, min_item=min_item)
    assert {user: sorted(row) for user, row in lists(data).items()} == expected


def test_shuffled_ties_permute_tied_rows_only_and_obey_the_seed() -> None:
    tied = [("u", item, 10.0) for item in "abcdefgh"]
    log = interactions([("u", "z", 5.0), *tied, ("u", "y", 20.0)])
    shuffled = [
        lists(Dataset.from_interactions(log, name="", ties="shuffled", seed=s))["u"]
        for s in (1, 1, 2)
    ]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert all(row[0] == "z" and row[-1] == "y" for row in shuffled)
    assert all(sorted(row[1:-1]) == list("abcdefgh") for row in shuffled)


def test_drawing_users_obeys_the_seed_and_counts_the_others() -> None:
    rows = log_of(**{f"u{n}": "ab" for n in range(9)})
    draws = [dataset(rows, max_users=4, seed=seed) for seed in (0, 0, 1)]
    assert [len(data.histories) for data in draws] == [4, 4, 4]
    users = [data.histories.user_ids for data in draws]
    assert users[0] == users[1] != users[2]
    assert draws[0].provenance.preparation["dropped"] == {
        "not_drawn": 2 * (9 - 4),
        "not_in_core": 0,
    }
    assert len(dataset(rows, max_users=99).histories) == 9


def test_settings_out_of_range_are_refused() -> None:
    for options in ({"min_user": 0}, {"min_item": 0}, {"max_users": 0}):
        with pytest.raises(ConfigError, match="1 or more"):
            dataset(log_of(u="a"), **options)
    with pytest.raises(ConfigError, match="'log' or 'shuffled'"):
        Dataset.from_interactions(interactions(log_of(u="a")), name="", ties="file")  # type: ignore[arg-type]


# The data set folder


@pytest.mark.parametrize("ratings", [None, [5.0, None, 1.0]])
def test_save_and_load(tmp_path: Path, ratings: list[float | None] | None) -> None:
    data = Dataset.from_interactions(interactions(log_of(u="ab", v="a"), ratings), name="tiny")
    data.save(tmp_path / "new" / "tiny")
    loaded = Dataset.load(tmp_path / "new" / "tiny")
    assert (loaded.name, lists(loaded)) == ("tiny", lists(data))
    assert loaded.fingerprint == data.fingerprint == loaded.provenance.preparation["fingerprint"]
    assert loaded.provenance.preparation.items() >= data.provenance.preparation.items()
    assert loaded.histories.timestamps.tolist() == data.histories.timestamps.tolist()
    assert (loaded.histories.ratings is None) == (ratings is None)
    assert loaded.histories.items.flags.writeable
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["tiny"]


def test_the_fingerprint_sees_titles_ids_and_order() -> None:
    base = dataset(log_of(u="ab"))
    other_title = interactions(log_of(u="ab"))
    assert other_title.items is not None
    renamed = other_title.items.with_columns(title="Movie " + pl.col("item_id"))
    variants = [
        dataset(log_of(u="ba")),
        dataset(log_of(v="ab")),
        dataset(log_of(u="ac")),
        Dataset.from_interactions(replace(other_title, items=renamed), name="tiny"),
        Dataset.from_interactions(interactions(log_of(u="ab"), ratings=[1.0, 2.0]), name="tiny"),
    ]
    assert dataset(log_of(u="ab")).fingerprint == base.fingerprint
    assert len({data.fingerprint for data in [base, *variants]}) == 1 + len(variants)


def test_saving_replaces_a_data_set_and_nothing_else(tmp_path: Path) -> None:
    data = dataset(log_of(u="ab"))
    (tmp_path / "empty").mkdir()
    data.save(tmp_path / "empty")
    dataset(log_of(u="ba")).save(tmp_path / "empty")
    assert lists(Dataset.load(tmp_path / "empty")) == {"u": "ba"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    for taken in ("mine", "file"):
        with pytest.raises(DataError, match=f"{taken}: exists and is not a data set folder"):
            data.save(tmp_path / taken)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_failed_save_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset(log_of(u="ab")).save(tmp_path / "tiny")
    catalogue, cannot_be_json = dataset(log_of(u="ab")).catalogue, Provenance({"x": {1}})
    broken = Dataset("x", catalogue, Histories.from_lists([[0]]), cannot_be_json)
    with pytest.raises(TypeError):
        broken.save(tmp_path / "tiny")
    assert lists(Dataset.load(tmp_path / "tiny")) == {"u": "ab"}
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    with pytest.raises(DataError, match=r"items\.parquet is missing.*genrec prepare"):
        Dataset.load(folder)
    data = dataset(log_of(u="abc"))
    for file, content, message in [
        ("dataset.json", "{", "damaged"),
        ("dataset.json", "[]", "damaged"),
        ("dataset.json", json.dumps({"format": 99}), "format 99"),
        ("users.parquet", "", "damaged"),
        ("histories/items.npy", "", "damaged"),
        ("items.parquet", "", "not a readable catalogue"),
    ]:
        data.save(folder)
        (folder / file).write_text(content)
        with pytest.raises(DataError, match=f"{message}.*genrec prepare"):
            Dataset.load(folder)
        (folder / "dataset.json").write_text("{}")
    data.save(folder)
    (folder / "histories" / "timestamps.npy").unlink()
    with pytest.raises(DataError, match=r"damaged.*timestamps.*genrec prepare"):
        Dataset.load(folder)
    data.save(folder)
    np.save(folder / "histories" / "items.npy", data.histories.items[::-1])
    with pytest.raises(DataError, match=r"do not match the fingerprint.*genrec prepare"):
        Dataset.load(folder)


def test_folders_of_the_first_format_are_read(tmp_path: Path) -> None:
    data = dataset(log_of(u="abc", v="cb"))
    data.save(tmp_path)
    shutil.rmtree(tmp_path / "histories")
    flat = {"item": data.histories.items, "timestamp": data.histories.timestamps}
    pl.DataFrame(flat).write_parquet(tmp_path / "histories.parquet")
    info = json.loads((tmp_path / "dataset.json").read_text()) | {"format": 1}
    (tmp_path / "dataset.json").write_text(json.dumps(info))
    assert lists(Dataset.load(tmp_path)) == lists(data)


def test_loaded_histories_are_mapped_from_their_files(tmp_path: Path) -> None:
    data = dataset(log_of(u="abc", v="cb"))
    data.save(tmp_path)
    loaded = Dataset.load(tmp_path)
    for array in (loaded.histories.items, loaded.histories.timestamps):
        assert type(array) is np.ndarray
        assert isinstance(array.base, np.memmap)
        array[0] += 1  # changes this process's copy only
    loaded = Dataset.load(tmp_path)
    loaded.save(tmp_path)  # over the files that are mapped
    assert lists(Dataset.load(tmp_path)) == lists(loaded) == lists(data)


# Splits


def test_leave_last_out() -> None:
    split = leave_last_out(dataset(log_of(u="abcd", v="cba", w="ab", x="a")))
    assert lists(split.train) == {"u": "ab", "v": "c", "w": "ab", "x": "a"}
    assert asked(split, "valid") == {"u": ("ab", "c"), "v": ("c", "b")}
    assert asked(split, "test") == {"u": ("abc", "d"), "v": ("cb", "a")}
    assert split.info.to_json() == {
        "split": "leave-last-out",
        "users_with_fewer_than_3_items": 2,
        "valid_users": 2,
        "test_users": 2,
    }
    assert len(split.train.catalogue) == 4  # d is in no training history, but can be recommended
    assert split.train.provenance.split == split.info


@given(LOGS)
def test_leave_last_out_partitions_the_log(rows: list[Row]) -> None:
    data = dataset(rows)
    if max(data.histories.lengths) < 3:
        with pytest.raises(DataError, match="leave-last-out valid set is empty"):
            leave_last_out(data)
        return
    split = leave_last_out(data)
    parts = {user: (row, "", "") for user, row in lists(split.train).items()}
    for user, (known, target) in asked(split, "test").items():
        valid_known, valid_target = asked(split, "valid")[user]
        assert (known, valid_known) == (valid_known + valid_target, parts[user][0])
        parts[user] = (parts[user][0], valid_target, target)
    assert {user: "".join(part) for user, part in parts.items()} == lists(data)


def test_global_time() -> None:
    rows: list[Row] = [("u", "a", 1), ("u", "b", 2), ("v", "c", 3), ("w", "d", 4), ("u", "e", 5)]
    rows += [("v", "f", 6), ("x", "a", 7), ("u", "b", 8), ("u", "c", 9), ("v", "d", 10)]
    split = global_time(dataset(rows), valid=0.3, test=0.3)
    # Quantiles .4 and .7 of 1..10 lie at places 3.6 and 6.3 from 0; the next higher times are 5, 8.
    assert split.info.to_json() == {
        "split": "global-time,valid=0.3,test=0.3",
        "cuts": [5.0, 8.0],
        "valid_users_without_history": 1,  # x
        "valid_later_items_not_asked": 0,
        "valid_users": 2,
        "test_users_without_history": 0,
        "test_later_items_not_asked": 1,  # u's c
        "test_users": 2,
    }
    assert lists(split.train) == {"u": "ab", "v": "c", "w": "d"}
    assert asked(split, "valid") == {"u": ("ab", "e"), "v": ("c", "f")}
    assert asked(split, "test") == {"u": ("abe", "b"), "v": ("cf", "d")}


@given(LOGS)
def test_global_time_never_looks_ahead(rows: list[Row]) -> None:
    data = dataset(rows)
    try:
        split = global_time(data, valid=0.3, test=0.3)
    except DataError:
        return
    cuts: Any = split.info.facts["cuts"]
    first, second = cuts
    assert (split.train.histories.timestamps < first).all()
    assert split.train.histories.items.size == sum(time < first for _, _, time in rows)
    assert (split.valid.histories.timestamps < first).all()
    assert (split.test.histories.timestamps < second).all()
    for name, cut, end in (("valid", first, second), ("test", second, float("inf"))):
        for user, (known, target) in asked(split, name).items():
            own = [(time, row, item) for row, (u, item, time) in enumerate(rows) if u == user]
            before = [item for time, _, item in sorted(own) if time < cut]
            after = [item for time, _, item in sorted(own) if cut <= time < end]
            assert (known, target) == ("".join(before), after[0])


def test_the_target_of_a_split_by_time_can_be_another_item() -> None:
    rows: list[Row] = [("u", item, time) for time, item in enumerate("abcdef")]
    rows += [("v", "a", 1), ("v", "b", 3), ("w", "c", 5)]
    shares = {"valid": 0.3, "test": 0.4}
    last = global_time(dataset(rows), **shares, target="last")
    assert last.info.facts["cuts"] == [2.0, 3.0]
    assert asked(last, "test") == {"u": ("abcde", "f"), "v": ("a", "b")}
    assert asked(last, "valid") == {"u": ("ab", "c")}
    # Nobody's items after the second cut are known before the test, those of its users neither.
    assert lists(before_test(last)) == {"u": "abc", "v": "a"}
    assert lists(before_test(global_time(dataset(rows), **shares))) == {"u": "abc", "v": "a"}
    drawn = global_time(dataset(rows), **shares, target="random")
    known, target = asked(drawn, "test")["u"]
    assert (known + target, target in "def") == ("abcdef"[: len(known) + 1], True)
    again = split_by_name(dataset(rows), "global-time, target=random,valid=0.3,test=0.4")
    assert asked(again, "test") == asked(drawn, "test")
    assert again.info.name == "global-time,valid=0.3,test=0.4,target=random" == drawn.info.name


def all_asked(holdout: Holdout) -> list[tuple[str, str, str]]:
    """Each row's user, known items and target, one letter each."""
    ids, histories = holdout.catalogue.item_ids, holdout.histories
    known = ["".join(ids[item] for item in row) for row in histories]
    targets = [ids[item] for item in holdout.targets]
    return list(zip(histories.user_ids, known, targets, strict=True))


def test_every_item_after_a_cut_can_be_a_target() -> None:
    rows: list[Row] = [("u", item, time) for time, item in enumerate("abcdef")]
    rows += [("v", "a", 1), ("v", "b", 3), ("w", "c", 5)]
    split = split_by_name(dataset(rows), "global-time,valid=0.3,test=0.4,target=successive")
    assert split.info.facts["cuts"] == [2.0, 3.0]
    assert all_asked(split.valid) == [("u", "ab", "c")]
    successive = [("u", "abc", "d"), ("u", "abcd", "e"), ("u", "abcde", "f"), ("v", "a", "b")]
    assert all_asked(split.test) == successive
    assert (split.info.facts["test_users"], split.info.facts["test_targets"]) == (2, 4)
    assert lists(before_test(split)) == {"u": "abc", "v": "a"}
    assert split.test.owners().tolist() == [0, 0, 0, 1]
    for seed in range(5):  # a user comes with all targets
        assert all_asked(split.test.sample(1, seed)) in (successive[:3], successive[3:])
        drawn = all_asked(split.test.sample_targets(2, seed))
        assert len(drawn) == 2
        assert set(drawn) < set(successive)
    assert not [each for each in check_split(split) if each.leak]


def test_leave_last_out_can_ask_for_several_items() -> None:
    data = dataset(log_of(u="abcdef", v="abc", w="fedc"))
    split = split_by_name(data, "leave-last-out,n=2")
    assert lists(split.train) == {"u": "abc", "v": "abc", "w": "f"}
    assert all_asked(split.valid) == [("u", "abc", "d"), ("w", "f", "e")]
    tests = [("u", "abcd", "e"), ("u", "abcde", "f"), ("w", "fe", "d"), ("w", "fed", "c")]
    assert all_asked(split.test) == tests
    assert split.info.name == "leave-last-out,n=2"
    assert split.info.facts["users_with_fewer_than_4_items"] == 1
    assert lists(before_test(split)) == {"u": "abcd", "v": "abc", "w": "fe"}
    assert not [each for each in check_split(split) if each.leak]
    assert all_asked(one_step_earlier(split).test) == all_asked(split.valid)


def test_a_split_by_time_can_end_earlier() -> None:
    letters = "abcdefghijklmnopqrst"
    rows: list[Row] = [("u", item, time) for time, item in enumerate(letters)]
    rows += [("v", item, time + 0.5) for time, item in enumerate(letters)]
    split = split_by_name(dataset(rows), "global-time,until=0.5,valid=0.25,test=0.25")
    assert split.info.facts["cuts"] == [5.0, 7.5]
    assert asked(split, "test") == {"u": ("abcdefgh", "i"), "v": ("abcdefg", "h")}
    assert split.info.facts["test_later_items_not_asked"] == 3  # k to t lie after the end
    earlier = one_step_earlier(split)  # keeps the shares, and uses the whole of its own log
    assert asked(earlier, "test") == asked(split, "valid")
    assert earlier.valid.times is not None
    assert earlier.train.histories.timestamps.max() < earlier.valid.times.min() == 3.5
    assert before_test(earlier).fingerprint == split.train.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("global-time,share=0.1", "'share=0.1' is no option of global-time; it has valid, test"),
        ("global-time,test=0.1,valid=0.2,test=0.2", "test is given twice; keep one of them"),
        ("global-time,target=", "'target=' is no option"),
        ("global-time,target=middle", "must be one of first, last, random, successive"),
        ("global-time,until=soon", "until must be a number, got 'soon'"),
        ("global-time,until=1.5", "at most 1"),
        ("leave-last-out,target=last", "no option of leave-last-out; it has n"),
        ("leave-last-out,n=1.5", "n must be a whole number, got '1.5'"),
        ("leave-last-out,n=0", "n=0 must be at least 1"),
    ],
)
def test_wrong_options_of_a_split_are_named(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_by_name(dataset([("u", item, time) for time, item in enumerate("abcd")]), name)


def test_global_time_refuses_positions_and_bad_shares() -> None:
    with pytest.raises(DataError, match=r"no common time.*leave_last_out"):
        global_time(dataset(log_of(u="abc", v="abc")))
    for valid, test in ((0, 0.1), (0.5, 0.5), (0.1, -0.1)):
        with pytest.raises(ConfigError, match="less than 1"):
            global_time(dataset(log_of(u="abc")), valid=valid, test=test)
    with pytest.raises(DataError, match="global-time valid set is empty"):
        global_time(dataset([("u", "a", 1), ("v", "b", 2), ("w", "c", 3)]))


def test_holdout_sample_is_sorted_and_seeded() -> None:
    holdout = leave_last_out(dataset(log_of(**{f"u{n}": "abc" for n in range(9)}))).test
    samples = [holdout.sample(4, seed) for seed in (0, 0, 1)]
    users = [sample.histories.user_ids for sample in samples]
    assert users[0] == users[1] == sorted(users[0]) != users[2]
    assert [len(sample) for sample in samples] == [4, 4, 4]
    assert len(holdout.sample(99, 0)) == 9
    with pytest.raises(ConfigError, match="1 or more"):
        holdout.sample(0, 0)


LOG = {
    "user_id": ["u", "u", "v", "v", "v"],
    "item_id": [1, 2, 1, 2, 3],
    "rating": [5.0, 3.0, None, 4.0, 1.0],
    "when": [10, 20, 5, 6, 7],
}
TITLES = {"item_id": [1, 2, 3], "title": ["Alpha", "Beta", None], "year": [1990, None, 1992]}


def assert_is_the_example(data: Dataset) -> None:
    assert lists(data) == {"u": "12", "v": "123"}
    assert data.catalogue.titles == ["Alpha", "Beta", "Untitled item 3"]
    assert data.catalogue.metadata["year"].to_list() == [1990, None, 1992]
    assert np.isnan(data.histories.ratings[2])


def test_data_frames_of_polars_become_a_data_set() -> None:
    log, items = pl.DataFrame(LOG), pl.DataFrame(TITLES)
    assert_is_the_example(Dataset.from_frames(log, items, timestamp="when"))
    assert_is_the_example(Dataset.from_frames(log.lazy(), items.lazy(), timestamp="when"))


def test_data_frames_of_pandas_become_the_same_data_set() -> None:
    """Whatever their types: numbers that miss, dates with a zone, strings, categories."""
    pd = pytest.importorskip("pandas")
    log, items = pd.DataFrame(LOG), pd.DataFrame(TITLES)
    assert_is_the_example(Dataset.from_frames(log, items, timestamp="when"))
    log["when"] = pd.to_datetime(log["when"], unit="s", utc=True).dt.tz_convert("Asia/Tokyo")
    log["user_id"] = log["user_id"].astype("category")
    items["year"] = items["year"].astype("Int64")
    items["title"] = items["title"].astype("string")
    data = Dataset.from_frames(log, items, timestamp="when", name="frames")
    assert_is_the_example(data)
    assert data.histories.timestamps.tolist() == [10, 20, 5, 6, 7]


def test_large_ids_of_pandas_survive_a_missing_one() -> None:
    pd = pytest.importorskip("pandas")
    ids = pd.array([2**60 + 1, 2**60 + 2, None], dtype="Int64")
    log = pd.DataFrame({"user_id": [1, 1, 1], "item_id": ids, "timestamp": [1, 2, 3]})
    items = pd.DataFrame({"item_id": ids[:2], "title": ["A", "B"]})
    data = Dataset.from_frames(log, items)
    assert data.catalogue.item_ids == [str(2**60 + 1), str(2**60 + 2)]


def test_wrong_frames_are_named() -> None:
    log, items = pl.DataFrame(LOG), pl.DataFrame(TITLES)
    with pytest.raises(DataError, match=r"interactions: no timestamp column among user_id"):
        Dataset.from_frames(log, items)
    with pytest.raises(DataError, match=r"items: a data frame .* is needed, got list"):
        Dataset.from_frames(log, [1, 2], timestamp="when")
    with pytest.raises(DataError, match="interactions: the frame has no rows"):
        Dataset.from_frames(log.clear(), items, timestamp="when")
    with pytest.raises(DataError, match="has no item titles"):
        Dataset.from_frames(log, timestamp="when")


def test_a_least_rating_leaves_the_others_out() -> None:
    log, items = pl.DataFrame(LOG), pl.DataFrame(TITLES)
    data = Dataset.from_frames(log, items, timestamp="when", min_rating=3)
    assert lists(data) == {"u": "12", "v": "2"}
    dropped = data.provenance.preparation["dropped"]
    assert (dropped["below_min_rating"], dropped["without_rating"]) == (1, 1)
    with pytest.raises(DataError, match=r"no rating is 6 or more .the highest is 5"):
        Dataset.from_frames(log, items, timestamp="when", min_rating=6)
    with pytest.raises(DataError, match="min_rating=3 needs ratings"):
        Dataset.from_frames(log.drop("rating"), items, timestamp="when", min_rating=3)
