"""Exports of many programs: each is read rightly, or a note or an error says what is odd."""

from __future__ import annotations

import bz2
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from genrec.cli.app import main
from genrec.data.dataset import Dataset
from genrec.data.formats import read_table
from genrec.data.frames import polars_frame
from genrec.data.interactions import Interactions, read_interactions
from genrec.data.split_files import read_split
from genrec.errors import DataError, RunError
from genrec.files import replace_folder

ITEMS = "item_id,title\n1,Heat\n2,Alien\n3,Emma\n"
HEAD = "user,item,timestamp\n"
TWO = f"{HEAD}u,1,1700000000\nu,2,1700000001\n"
BIG = 2**130  # more than Polars can hold as a number


def read(
    folder: Path,
    log: str | bytes,
    items: str | bytes | None = ITEMS,
    name: str = "log.csv",
    items_name: str = "things.csv",
    **how: Any,
) -> Interactions:
    for path, text in ((folder / name, log), (folder / items_name, items)):
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
    there = None if items is None else folder / items_name
    return read_interactions(folder / name, items=there, **how)


def notes(data: Interactions) -> str:
    return " ".join(data.source["notes"])  # type: ignore[call-overload, no-any-return]


def titles(data: Interactions) -> dict[str, str | None]:
    assert data.items is not None
    return dict(data.items.select("item_id", "title").rows())


# Values that a library would change


@pytest.mark.parametrize("first", [np.int64(4), np.float64(4.0), np.int32(4)])
def test_numbers_of_numpy_do_not_change_the_other_values_of_a_column(first: object) -> None:
    column = pd.Series([first, 4.5, None], dtype=object)
    assert polars_frame(column.to_frame("a"), "x")["a"].to_list() == [4.0, 4.5, None]
    column = pd.Series([first, "a"], dtype=object)
    assert polars_frame(column.to_frame("a"), "x")["a"].to_list()[1] == "a"


def test_numbers_of_any_length_can_be_ids(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": pd.Series([5, BIG, None], dtype=object)})
    assert polars_frame(frame, "x")["a"].to_list() == ["5", str(BIG), None]
    rows = [f'{{"user": {user}, "item": 1, "time": 1}}' for user in (5, BIG)]
    for name, text in (("a.json", f"[{', '.join(rows)}]"), ("b.jsonl", "\n".join(rows))):
        (tmp_path / name).write_text(text)
        assert read_table(tmp_path / name).rows["user"].to_list() == ["5", str(BIG)]


def test_an_index_with_a_name_is_a_column() -> None:
    frame = pd.DataFrame({"user_id": ["u", "v"], "item": [1, 2]})
    assert polars_frame(frame.set_index("user_id"), "x").columns == ["user_id", "item"]
    assert polars_frame(frame.set_index("user_id", drop=False), "x").width == 2
    assert polars_frame(frame, "x").width == 2


def test_errors_of_frames_are_one_message() -> None:
    with pytest.raises(DataError, match="two columns have the name '0'"):
        polars_frame(pd.DataFrame([[1, 2]], columns=[0, "0"]), "x")
    with pytest.raises(DataError, match="x: the lazy frame cannot be read"):
        polars_frame(pl.scan_csv("/nonexistent.csv"), "x")


def test_a_key_that_occurs_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the key 'u' occurs twice, so"):
        read(tmp_path, '{"u": ["1"], "u": ["2"], "v": ["3"]}', name="log.json")


@pytest.mark.parametrize("word", ["inf", "-Infinity", "1e999"])
def test_ratings_are_finite(tmp_path: Path, word: str) -> None:
    log = f"user,item,timestamp,rating\nu,1,1700000000,{word}\nu,2,1700000001,4\n"
    with pytest.raises(DataError, match="1 values of column 'rating' are not numbers"):
        read(tmp_path, log, rating="rating")
    assert "is no rating" in notes(read(tmp_path, log))


def test_seven_thousand_is_not_seven(tmp_path: Path) -> None:
    items = "item_id;title\n1.000;Heat\n1;Emma\n"
    data = read(tmp_path, "user;item;timestamp\nu;1.000;17\nu;1;18\n", items)
    assert titles(data) == {"1.000": "Heat", "1": "Emma"}


# Lines


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("user\titem\ttimestamp\trating\nu\t1\t17\t5\nu\t2\t18\n", "line 3;"),
        ("user,item,timestamp,note\nu,1,17\nu,2,18\nu,3,18\n", "line 2 and 2 more lines"),
        ('user,item,timestamp,note\nu,1,17,"a, b"\nu,2,18\n', "line 3;"),
        ('user,item,timestamp,note\nu,1,17,"a\nb"\nu,2,18\n', "line 4;"),
        ("user::item::timestamp::rating\nu::1::17::5\nu::2::18\n", "line 3;"),
    ],
)
def test_lines_that_are_too_short_are_told(tmp_path: Path, log: str, says: str) -> None:
    told = notes(read(tmp_path, log))
    assert f"fewer fields than the table has columns in {says}" in told.replace("; ", ";")


def test_empty_fields_at_the_end_are_no_short_lines(tmp_path: Path) -> None:
    log = "user,item,timestamp,rating\nu,1,1700000000,\nu,2,1700000001,5\n"
    assert notes(read(tmp_path, log)) == ""


def test_separators_at_the_end_of_lines_do_no_harm(tmp_path: Path) -> None:
    data = read(tmp_path, f"{HEAD}u,1,1700000000,\nu,2,1700000001,,\n")
    assert data.log["item_id"].to_list() == ["1", "2"]
    with pytest.raises(DataError, match="line 3 has 4 fields, but there are 3 columns"):
        read(tmp_path, f"{HEAD}u,1,1700000000,\nu,2,1700000001,x\n")


def test_a_line_of_an_atomic_file_that_is_too_long_is_named(tmp_path: Path) -> None:
    log = "user_id:token\titem_id:token\ttimestamp:float\nu\t1\t17\nu\t2\t18\t9\n"
    with pytest.raises(DataError, match="line 3 has 4 fields, but there are 3 columns"):
        read(tmp_path, log, name="x.inter")


def test_an_atomic_file_may_have_class_and_genre(tmp_path: Path) -> None:
    items = "item_id:token\ttitle:token_seq\tclass:token_seq\tgenre:token_seq\n1\tHeat\ta\tb\n"
    data = read(tmp_path, f"{HEAD}u,1,17\n", items, items_name="x.item")
    assert data.items is not None
    assert data.items.row(0) == ("1", "Heat", "a", "b")


# Headers


@pytest.mark.parametrize(
    ("log", "items"), [("1,1,5,17\n1,2,5,18\n", ITEMS), (TWO, "1,Heat,Heat\n")]
)
def test_a_first_row_with_equal_values_is_no_header(tmp_path: Path, log: str, items: str) -> None:
    with pytest.raises(DataError, match="line 1 looks like data, so name the columns"):
        read(tmp_path, log, items)


def test_advice_does_not_go_round_in_circles(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name it with --user COLUMN"):
        read(tmp_path, "who,item_id,timestamp,2019\nu,1,17,3\n")
    row = '{"user": "u", "item": 1, "time": 4}'
    with pytest.raises(DataError, match="the columns of this file have names"):
        read(tmp_path, f"{row}\n{row}\n", name="log.jsonl", columns=["user", "item", "time"])


def test_a_header_that_was_read_as_a_row_is_told(tmp_path: Path) -> None:
    items = "sku,produktname\n1,Heat\n2,Alien\n"
    data = read(tmp_path, TWO, items, item_columns=["item", "title"])
    assert "line 1 was read as a row, but 'sku' may be the name of a column" in notes(data)


def test_columns_show_which_separator_is_meant(tmp_path: Path) -> None:
    items = "1;Me, Myself & Irene\n2;Heat\n"
    data = read(tmp_path, TWO, items, item_columns=["item", "title"])
    assert titles(data) == {"1": "Me, Myself & Irene", "2": "Heat"}


# Files


def test_the_encoding_counts_for_files_of_movielens(tmp_path: Path) -> None:
    log, items = "1::1::5::1700000000\n", "1::Брат::Drama\n"
    data = read(
        tmp_path, log, items.encode("cp1251"), "ratings.dat", "movies.dat", encoding="cp1251"
    )
    assert titles(data) == {"1": "Брат"}
    items = "1::Heat – 2::Action\n"
    data = read(tmp_path, log, items.encode("cp1252"), "ratings.dat", "movies.dat")
    assert titles(data) == {"1": "Heat – 2"}


@pytest.mark.parametrize("name", ["ratings.dat", "u.data"])
def test_a_file_called_like_one_of_movielens_may_have_a_header(tmp_path: Path, name: str) -> None:
    log = "user\titem\ttimestamp\nu\t1\t1700000000\n"
    assert read(tmp_path, log, name=name).log["user_id"].to_list() == ["u"]


def test_compressed_files(tmp_path: Path) -> None:
    for name, text in (
        ("a.csv.bz2", bz2.compress(TWO.encode())),
        ("b.csv.xz", lzma.compress(TWO.encode())),
    ):
        assert read(tmp_path, text, name=name).log.height == 2
    with pytest.raises(DataError, match="compressed with zstd; unpack it"):
        read(tmp_path, b"\x28\xb5\x2f\xfdxx")


def test_japanese_in_escapes_is_decoded(tmp_path: Path) -> None:
    items = "item_id,title\n1,テスト\n".encode("iso-2022-jp")
    assert titles(read(tmp_path, TWO, items))["1"] == "テスト"


def test_parts_of_hadoop_and_spark(tmp_path: Path) -> None:
    folder = tmp_path / "log" / "kind=a%2Fb"
    folder.mkdir(parents=True)
    (folder / "part-00000").write_text(TWO)
    hidden = tmp_path / "log" / "kind=__HIVE_DEFAULT_PARTITION__"
    hidden.mkdir()
    (hidden / "part-00001").write_text(TWO)
    assert read_table(tmp_path / "log").rows["kind"].unique().sort().to_list() == [None, "a/b"]
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "part-0.json").write_text('{"user": "u", "item": 1, "time": 1, "rating": 5}\n')
    (rows / "part-1.json").write_text('{"user": "u", "item": 2, "time": 2}\n')
    assert read_table(rows).rows["rating"].to_list() == [5, None]


# Columns


def test_the_name_of_a_user_is_no_title(tmp_path: Path) -> None:
    log = "user_id,name,item_id,timestamp\nu,Ann,1,17\nu,Ann,2,18\nv,Bob,3,18\n"
    data = read(tmp_path, log, None)
    assert data.items is None
    assert "'name' is no item title, because all items of a user have the same" in notes(data)
    items = titles(read(tmp_path, log.replace("u,Ann,2", "u,Eve,2"), None))
    assert items == {"1": "Ann", "2": "Eve", "3": "Bob"}


@pytest.mark.parametrize(
    ("log", "items"),
    [
        (
            "item_id,product_id,user,timestamp\n3,1,u,17\n1,2,u,18\n",
            "product_id,title\n1,Heat\n2,Emma",
        ),
        ("asin,parent_asin,user,timestamp\n1,9,u,17\n2,8,u,18\n", "asin,title\n1,Heat\n2,Emma"),
        (
            "asin,parent_asin,user,timestamp\n1,9,u,17\n2,8,u,18\n",
            "item_id,asin,title\n4,1,Heat\n5,2,Emma",
        ),
    ],
)
def test_the_item_id_that_both_tables_have_comes_first(
    tmp_path: Path, log: str, items: str
) -> None:
    data = read(tmp_path, log, items)
    assert data.item_ids.to_list() == ["1", "2"]
    assert titles(data) == {"1": "Heat", "2": "Emma"}


def test_titles_can_be_the_ids_of_a_log(tmp_path: Path) -> None:
    data = read(tmp_path, "user,title,timestamp\nu,Heat,17\n", None, item="title")
    assert titles(data) == {"Heat": "Heat"}


def test_rows_without_an_id_are_told(tmp_path: Path) -> None:
    told = notes(read(tmp_path, TWO, f"{ITEMS},Ghost\n"))
    assert "rows without an item id, which were left out: 1" in told


def test_digits_of_other_scripts_are_texts(tmp_path: Path) -> None:
    data = read(tmp_path, f"{HEAD}u,1２,1700000000\nu,13,1700000001\n", None)
    assert set(data.item_ids) == {"1２", "13"}
    with pytest.raises(DataError, match="2 values of column 'timestamp' are not"):
        read(tmp_path, f"{HEAD}u,1,١٣/٢/٢٠٢٣\nu,2,١٣/٢/٢٠٢٣\n")


# Times


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ("133500000000000000 133500000010000000", "filetime"),
        ("13350000000000000 13350000001000000", "webkit"),
    ],
)
def test_clocks_that_began_in_1601(tmp_path: Path, times: str, unit: str) -> None:
    first, second = times.split()
    data = read(tmp_path, f"{HEAD}u,1,{first}\nu,2,{second}\n")
    assert data.source["timestamp_unit"] == unit
    # 11,644,473,600 s lie between 1601 and 1970.
    assert data.log["timestamp"].to_list() == [13_350_000_000 - 11_644_473_600 + n for n in (0, 1)]


def test_times_that_cannot_be_right_are_told(tmp_path: Path) -> None:
    told = notes(read(tmp_path, f"{HEAD}u,1,1402/11/12\nu,2,1402/11/13\n"))
    assert "begins in the year 1402" in told.replace("1403", "1402")
    rows = "".join(f"u,{1 + n % 3},{0 if n % 5 < 3 else 1_700_000_000 + n}\n" for n in range(20))
    assert "times before March 1973" in notes(read(tmp_path, HEAD + rows))
    times = pl.Series("timestamp", [1_700_000_001, 1_700_000_060], pl.Float32)
    pl.DataFrame({"user": ["u", "u"], "item": [1, 2]}).with_columns(times).write_parquet(
        tmp_path / "log.parquet"
    )
    told = notes(read_interactions(tmp_path / "log.parquet"))
    assert "holds times as Float32 numbers, which are too short" in told


# Preparation and output


def test_a_minimum_without_ratings_is_one_message(tmp_path: Path) -> None:
    data = read(tmp_path, "user,item,timestamp,rating\nu,1,17,\n", rating="rating")
    with pytest.raises(DataError, match="no rating is 4 or more"):
        Dataset.from_interactions(data, name="x", min_rating=4)


def test_unrated_rows_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = "user,item,timestamp,rating\nu,1,1700000000,5\nu,2,1700000001,\n"
    read(tmp_path, log)
    paths = [str(tmp_path / name) for name in ("log.csv", "things.csv", "out")]
    with pytest.raises(SystemExit, match="0"):
        main(["prepare", paths[0], "--items", paths[1], "--out", paths[2], "--min-rating", "4"])
    assert "1 interactions without a rating were left out" in capsys.readouterr().out


def test_a_data_set_replaces_nothing_but_a_data_set(tmp_path: Path) -> None:
    data = Dataset.from_interactions(read(tmp_path, TWO), name="x")
    data.save(tmp_path / "out")
    data.save(tmp_path / "out")
    (tmp_path / "out" / "run").mkdir()
    with pytest.raises(DataError, match="holds more than a data set"):
        data.save(tmp_path / "out")
    assert (tmp_path / "out" / "run").is_dir()


def test_a_link_stays_a_link_and_the_current_folder_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    replace_folder(tmp_path / "link", lambda new: new.mkdir())
    assert (tmp_path / "link").is_symlink()
    monkeypatch.chdir(tmp_path / "there")
    with pytest.raises(RunError, match="is the current folder, which cannot be replaced"):
        replace_folder(Path(), lambda new: new.mkdir())


def test_data_are_shown_in_one_line(tmp_path: Path) -> None:
    data = Dataset.from_interactions(read(tmp_path, TWO), name="x")
    assert repr(data) == "Dataset('x', 1 users, 2 items, 2 interactions)"
    assert repr(data.catalogue) == "Catalogue(2 items)"
    assert repr(data.histories) == "Histories(1 rows, 2 items)"


# Splits of one's own


def parts(folder: Path, head: str, **rows: str) -> Path:
    folder.mkdir()
    for part, text in rows.items():
        (folder / f"{part}.csv").write_text(head + text)
    return folder


def test_parts_have_the_columns_of_the_log(tmp_path: Path) -> None:
    rows = "u,1,13/2/2023\nu,2,14/2/2023\nu,3,1/3/2023\n"
    data = Dataset.from_interactions(
        read(
            tmp_path,
            "who,sku,when\n" + rows,
            user="who",
            item="sku",
            timestamp="when",
            timestamp_format="%d/%m/%Y",
        ),
        name="x",
    )
    train, valid, test = rows.splitlines(keepends=True)
    folder = parts(tmp_path / "own", "who,sku,when\n", train=train, valid=valid, test=test)
    split = read_split(data, folder)
    assert split.test.targets.tolist() == [2]
    assert split.test.times is not None
    assert split.test.times.tolist() == [1_677_628_800.0]  # the first of March


def test_parts_may_have_other_times_than_the_log(tmp_path: Path) -> None:
    log = f"{HEAD}u,1,13/2/2023\nu,2,14/2/2023\nu,3,1/3/2023\n"
    data = Dataset.from_interactions(read(tmp_path, log, timestamp_format="%d/%m/%Y"), name="x")
    rows = [f"u,{number},{1_700_000_000 + number}\n" for number in (1, 2, 3)]
    folder = parts(tmp_path / "own", HEAD, train=rows[0], valid=rows[1], test=rows[2])
    assert read_split(data, folder).test.times.tolist() == [1_700_000_003.0]  # type: ignore[union-attr]


def test_a_column_that_both_tables_have_must_tell_the_items_apart(tmp_path: Path) -> None:
    log = "user,item_id,book_id,timestamp\nu,1,7,17\nu,2,7,18\n"
    data = read(tmp_path, log, "item,book_id,title\n1,7,Heat\n2,7,Alien\n3,8,Emma\n")
    assert titles(data) == {"1": "Heat", "2": "Alien", "3": "Emma"}
    assert data.item_ids.to_list() == ["1", "2"]
    assert "'item_id' was taken as the item_id, but it might be 'book_id'" in notes(data)


def test_a_key_that_occurs_twice_in_what_is_not_used_does_no_harm(tmp_path: Path) -> None:
    row = '{"user": "u", "item": 1, "time": 4, "more": {"x": 1, "x": 2}}'
    assert read(tmp_path, f"[{row}]", name="log.json").log.height == 1


def test_parts_that_write_ids_in_another_way_are_told(tmp_path: Path) -> None:
    rows = "01,1,17\n01,2,18\n01,3,19\n02,1,17\n02,2,18\n02,3,19\n"
    data = Dataset.from_interactions(read(tmp_path, HEAD + rows), name="x")
    train, valid = "01,1,17\n02,1,17\n", "01,2,18\n02,2,18\n"
    folder = parts(tmp_path / "a", HEAD, train=train, valid=valid, test="1,3,19\n2,3,19\n")
    with pytest.raises(DataError, match="no user of test has a row in train"):
        read_split(data, folder)
    folder = parts(tmp_path / "b", HEAD, train=train, valid=valid, test="01,3,19\n2,3,19\n")
    told = " ".join(read_split(data, folder).info.facts["notes"])  # type: ignore[arg-type]
    assert "users of test without a row in train, who get no target: 1, e.g. '2'" in told
