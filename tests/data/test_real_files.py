"""What the files of real people look like: kinds of faults, each with several inputs."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genrec.data.dataset import Dataset
from genrec.data.delimited import read_delimited
from genrec.data.interactions import Interactions, read_interactions
from genrec.errors import DataError, GenRecError

NOW = 1_700_000_000


def read(
    folder: Path, log: str, items: str = "", suffix: str = "csv", **columns: Any
) -> Interactions:
    path = folder / f"log.{suffix}"
    path.write_text(log, encoding="utf-8")
    table = folder / f"table.{suffix}" if items else None
    if table:
        table.write_text(items, encoding="utf-8")
    return read_interactions(path, items=table, **columns)


def notes(data: Interactions) -> str:
    return " ".join(data.source["notes"])  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("separator", "text", "fields"),
    [
        # A quote that nothing closes, or that closes in another row, is a character.
        ("\t", 'a\tb\n1\t"Two\n2\tThree\n3\tFive"\n4\tSix\n', ['"Two', "Three", 'Five"', "Six"]),
        (",", 'a,b\n1,"Two\n2,Three\n', ['"Two', "Three"]),
        ("|", 'a|b\n1|Two"\n2|"\n3|x\n', ['Two"', '"', "x"]),
        # So is a quote inside of a field, or one that encloses only a part of it.
        (",", 'a,b\n1,7" single\n2,12" single\n', ['7" single', '12" single']),
        ("\t", 'a\tb\n1\t"Weird Al" Yankovic\n2\tx\n', ['"Weird Al" Yankovic', "x"]),
        (";", 'a;b\n1;the "best" of\n2;x "y"\n', ['the "best" of', 'x "y"']),
        # Quotes that enclose a field are not part of it.
        (",", 'a,b\n1,"Two, or ""Three"""\n2,"x"\r\n', ['Two, or "Three"', "x"]),
        ("\t", 'a\tb\n1\t"Two\tThree"\n2\t"Four"\n', ["Two\tThree", "Four"]),
        (",", 'a,b\n1,"Two\nand, so on"\n2,"x\n\ny"\n3,z\n', ["Two\nand, so on", "x\n\ny", "z"]),
        # Lines that could be rows are joined only in a file whose fields span lines elsewhere.
        (",", 'a,b\n1,"x\ny"\n2,"Hello\nWorld, the end"\n', ["x\ny", "Hello\nWorld, the end"]),
    ],
)
def test_quotes_enclose_fields_or_are_characters(
    separator: str, text: str, fields: list[str]
) -> None:
    frame, _ = read_delimited(text.encode(), separator, "log")
    assert frame["b"].to_list() == fields


@given(st.lists(st.text('ab" ', max_size=6), min_size=1, max_size=8))
def test_tab_separated_rows_equal_lines(titles: list[str]) -> None:
    text = "id\ttitle\n" + "".join(f"{row}\t{title}\n" for row, title in enumerate(titles))
    frame, _ = read_delimited(text.encode(), "\t", "log")
    assert frame["id"].to_list() == list(range(len(titles)))


TEXTS = ["", " 7", "07", "+7", "7.0", "7.50", "1e3", "12345678901234567", "x", "NaN"]
VALUES = ["7", "0", "-3", *TEXTS]


@given(st.lists(st.tuples(st.sampled_from(VALUES), st.sampled_from(["1", "7"])), min_size=1))
def test_pieces_of_a_file_give_the_text_of_every_value(rows: list[tuple[str, str]]) -> None:
    text = "a,b\n" + "".join(f"{first},{second}\n" for first, second in rows)
    with pytest.MonkeyPatch.context() as patch:
        whole, _ = read_delimited(text.encode(), ",", "log")
        patch.setattr("genrec.data.delimited.PIECE", 10)
        frame, _ = read_delimited(text.encode(), ",", "log")
    assert frame["b"].to_list() == [int(second) for _, second in rows]
    for table in (whole, frame):
        texts = table["a"].cast(pl.String).fill_null("").to_list()
        assert texts == [first for first, _ in rows]


@pytest.mark.parametrize("size", [1, 3, 4, 6, 8, 12])
def test_a_long_line_is_named_wherever_a_piece_begins(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec.data.delimited.PIECE", size)
    for line in (2, 3, 4):
        rows = ["1,2", "3,4", "5,6"]
        rows[line - 2] += ",7"
        with pytest.raises(DataError, match=f"line {line} has 3 fields"):
            read_delimited("\n".join(["a,b", *rows, ""]).encode(), ",", "log")
    short, _ = read_delimited(b"a,b\n1,2\n\n3\n5,6\n", ",", "log")
    assert short.drop_nulls("a")["a"].cast(pl.String).to_list() == ["1", "3", "5"]


def test_read_quotes_are_noted_with_their_line(tmp_path: Path) -> None:
    log = 'user\titem\ttime\ttitle\nu\t1\t1\tx\nu\t2\t2\t"Two\nu\t3\t3\ty\n'
    data = read(tmp_path, log, suffix="tsv")
    assert data.log.height == 3
    assert "log.tsv: quotes that do not enclose a field were read as characters (line 3)" in notes(
        data
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,time\nu,1,1\nu,a,b,3\n", "line 3 has 4 fields, but there are 3 columns"),
        ('user,item,time\nu,"1,1\nu,2,3,4,5\n', "line 3 has 5 fields"),
        ('user,item,user\nu,"1" x,1\n', "two columns have the same name"),
    ],
)
def test_rows_that_cannot_be_read_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("log", "items"),
    [
        ("user,item,time\n1.0,123.0,5\n1,7,6\n", "item,title\n123,Alpha\n7.00,Beta\n"),
        ("user,item,time\n1,123,5\n1.0,7.0,6\n", "item,title\n123.0,Alpha\n7.0,Beta\n"),
        ("user,item,time\n1.00,123.00,5\n1.0,7,6\n", "item,title\n123,Alpha\n7,Beta\n"),
    ],
)
def test_numbers_as_ids_are_the_same_id_in_every_form(tmp_path: Path, log: str, items: str) -> None:
    data = Dataset.from_interactions(read(tmp_path, log, items), name="log")
    assert data.histories.user_ids == ["1"]
    assert sorted(data.catalogue.item_ids) == ["123", "7"]
    assert sorted(data.catalogue.titles) == ["Alpha", "Beta"]


@pytest.mark.parametrize(
    "ids",
    [
        pl.Series(["1.00", "2.00"]).cast(pl.Decimal(10, 2)),
        pl.Series([1.0, 2.0]),
        pl.Series([1, 2], dtype=pl.UInt8),
    ],
)
def test_number_columns_of_parquet_give_the_same_ids(tmp_path: Path, ids: pl.Series) -> None:
    frame = pl.DataFrame({"user": ids, "item": ids, "time": [1, 2]})
    frame.write_parquet(tmp_path / "log.parquet")
    assert read_interactions(tmp_path / "log.parquet").log["user_id"].to_list() == ["1", "2"]


def test_ids_with_decimals_stay_as_they_are(tmp_path: Path) -> None:
    data = read(tmp_path, "user,item,time\nu,1.0,1\nu,1.5,2\n")
    assert data.log["item_id"].to_list() == ["1.0", "1.5"]


@pytest.mark.parametrize("word", ["\\N", "NaN", "nan", "", "  ", "<NA>"])
def test_null_words_are_null_everywhere(tmp_path: Path, word: str) -> None:
    log = f"user,item,time,rating\nu,1,1,5\n{word},1,2,5\nu,{word},3,5\nu,2,4,{word}\n"
    data = read(
        tmp_path, log, f"item,title,genre\n1,{word},Drama\n1,Alpha,{word}\n2,{word},{word}\n"
    )
    assert data.log["user_id"].to_list() == ["u", "u"]
    assert data.log["rating"].to_list() == [5.0, None]
    assert data.source["dropped"] == {"null_user": 1, "null_item": 1, "duplicate": 0}
    assert "dropped rows: 1 without a user id, 1 without an item id" in notes(data)
    assert data.items is not None
    assert data.items.rows() == [("1", "Alpha", "Drama"), ("2", None, None)]


def test_a_bare_nan_of_json_is_no_title(tmp_path: Path) -> None:
    log = '{"user": "u", "item": 1, "time": 1, "title": NaN}\n'
    log += '{"user": "u", "item": 2, "time": 2, "title": "Two"}\n'
    data = read(tmp_path, log, suffix="jsonl")
    assert data.items is not None
    assert data.items.sort("item_id")["title"].to_list() == [None, "Two"]


@pytest.mark.parametrize("word", ["None", "null", "N/A"])
def test_words_that_may_be_ids_are_kept_and_noted(tmp_path: Path, word: str) -> None:
    data = read(tmp_path, f"user,item,time\n{word},1,1\n{word},2,2\nu,1,3\n")
    assert data.log.height == 3
    assert f"the user id '{word}' was kept (rows: 2)" in notes(data)


@pytest.mark.parametrize(
    ("times", "unit", "seconds"),
    [
        ((f"{NOW}", f"{NOW + 1}000"), "mixed", (NOW, NOW + 1)),
        ((f"{NOW}000", f"{NOW + 1}000", f"{NOW + 2}"), "mixed", (NOW, NOW + 1, NOW + 2)),
        ((f"{NOW}", f"{NOW + 1}000000", f"{NOW + 2}000"), "mixed", (NOW, NOW + 1, NOW + 2)),
        ((f"{NOW}000", f"{NOW + 1}000"), "milliseconds", (NOW, NOW + 1)),
    ],
)
def test_each_time_is_read_in_its_own_unit(
    tmp_path: Path, times: tuple[str, ...], unit: str, seconds: tuple[int, ...]
) -> None:
    log = "user,item,time\n" + "".join(f"u,{n},{time}\n" for n, time in enumerate(times))
    data = read(tmp_path, log)
    assert data.source["timestamp_unit"] == unit
    assert data.log["timestamp"].to_list() == list(seconds)
    assert ("each was converted from its own unit" in notes(data)) is (unit == "mixed")


def test_units_that_are_unclear_are_noted(tmp_path: Path) -> None:
    log = f"user,item,time\nu,1,0\nu,2,{NOW}000\nu,3,{NOW + 1}000\n"
    data = read(tmp_path, log)
    assert data.source["timestamp_unit"] == "milliseconds"
    assert "seems to hold milliseconds (rows: 2) and seconds (rows: 1)" in notes(data)


@pytest.mark.parametrize(
    "text",
    [
        "A1,B2,5.0,1700000000\nA1,B3,4.0,1700000001\n",
        "1\t2\t5\t1700000000\n1\t3\t5\t1700000001\n",
        "u;i;2020-01-01;4\nv;i;2020-01-02;5\n",
    ],
)
def test_a_missing_header_is_recognised(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="line 1 looks like data: name the columns with --columns"):
        read(tmp_path, text)


def test_a_message_does_not_list_thousands_of_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="and 4980 more; name it with --user") as caught:
        read(tmp_path, ",".join(f"c{n}" for n in range(5000)) + "\n" + "," * 4999 + "\n")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2024-01-01 10:00:00.5+02", (2024, 1, 1, 8, 0, 0, 500_000)),
        ("20240101T100000", (2024, 1, 1, 10)),
        ("20240131", (2024, 1, 31)),
        ("2024/01/05 10:00:00", (2024, 1, 5, 10)),
        ("Fri Nov 10 15:34:22 -0800 2017", (2017, 11, 10, 23, 34, 22)),
        ("Fri, 10 Nov 2017 15:34:22 +0000", (2017, 11, 10, 15, 34, 22)),
        ("12 Oct 2009, 13:01", (2009, 10, 12, 13, 1)),
        ("Jan 5, 2014", (2014, 1, 5)),
        ("01.02.2023 10:15", (2023, 2, 1, 10, 15)),
    ],
)
def test_times_that_can_be_read_in_one_way_are_read(
    tmp_path: Path, text: str, time: tuple[int, ...]
) -> None:
    data = read(tmp_path, f"session_id;track_id;event_time\nu;1;{text}\n")
    moment = datetime.datetime(*time, tzinfo=datetime.UTC)  # type: ignore[arg-type, misc]
    assert data.log["timestamp"].to_list() == [moment.timestamp()]


@pytest.mark.parametrize("text", ["1/2/2023", "2/9/23", "01-02-2023", "01-02-23"])
def test_times_that_can_be_read_in_two_ways_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        DataError,
        match=r"1 values of column 'time' are not clear times, .* --timestamp-format '%d",
    ):
        read(tmp_path, f"user;item;time\nu;1;{text}\n")


def test_dates_as_numbers_are_not_seconds(tmp_path: Path) -> None:
    log = {"user": ["u", "u"], "item": ["a", "b"], "time": [20240131, 20240201]}
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    first, second = read_interactions(tmp_path / "log.parquet").log["timestamp"]
    assert second - first == 24 * 60 * 60
    log["time"] = [20249131, 20249132]  # no dates: plain numbers
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    assert read_interactions(tmp_path / "log.parquet").source["timestamp_unit"] == "as given"


@pytest.mark.parametrize(
    ("times", "days"),
    [
        (["2023-11-14", "1700000000"], [(2023, 11, 14), (2023, 11, 14, 22, 13, 20)]),
        (["1700000000", "20231115"], [(2023, 11, 14, 22, 13, 20), (2023, 11, 15)]),
        (["2023-11-14", "20231115"], [(2023, 11, 14), (2023, 11, 15)]),
        (["202401311015", "202402011015"], [(2024, 1, 31, 10, 15), (2024, 2, 1, 10, 15)]),
        (["20240131101500", "20240201101501"], [(2024, 1, 31, 10, 15), (2024, 2, 1, 10, 15, 1)]),
        (["638423424000000000", "638423424010000000"], [(2024, 2, 1), (2024, 2, 1, 0, 0, 1)]),
        ([" 1700000000", "1700000001 "], [(2023, 11, 14, 22, 13, 20), (2023, 11, 14, 22, 13, 21)]),
    ],
)
def test_numbers_and_dates_in_one_column(
    tmp_path: Path, times: list[str], days: list[tuple[int, ...]]
) -> None:
    text = "".join(f"u;{n};{time}\n" for n, time in enumerate(times))
    data = read(tmp_path, f"user;item;time\n{text}")
    moments = [datetime.datetime(*day, tzinfo=datetime.UTC).timestamp() for day in days]  # type: ignore[arg-type, misc]
    assert data.log["timestamp"].to_list() == moments


@pytest.mark.parametrize(
    ("times", "first"),
    [
        (["2023-11-14", "45300"], "'45300' in data row 2"),
        (["14/11/2023", "45300"], "'45300' in data row 2"),
        (["2023-11-14", "2023"], "'2023' in data row 2"),
        (["20240131", "20240230", "20240101"], "'20240230' in data row 2"),
        (["20240131", "0", "20240101"], "'0' in data row 2"),
        (["31012024", "01022024"], "'31012024' in data row 1"),
        (["01312024", "02012024"], "'01312024' in data row 1"),
    ],
)
def test_numbers_that_are_no_times_beside_dates_are_named(
    tmp_path: Path, times: list[str], first: str
) -> None:
    text = "".join(f"u;{n};{time}\n" for n, time in enumerate(times))
    with pytest.raises(DataError, match=first):
        read(tmp_path, f"user;item;time\n{text}")


KINDS = "user,item,time,event\nu,1,1,view\nu,2,2,Dislike\nu,3,3,hide\nu,4,4,purchase\n"


@pytest.mark.parametrize(
    ("positive", "items", "note"),
    [
        (None, ["1", "4"], "left out 2 events of the kinds dislike, hide"),
        (["purchase"], ["4"], "left out 3 events of the kinds others than purchase"),
        (["view", "dislike"], ["1", "2"], "left out 2 events"),
    ],
)
def test_dislikes_are_no_history(
    tmp_path: Path, positive: list[str] | None, items: list[str], note: str
) -> None:
    (tmp_path / "log.csv").write_text(KINDS)
    data = read_interactions(tmp_path / "log.csv", positive=positive)
    assert data.log["item_id"].to_list() == items
    assert note in notes(data)


def test_positive_kinds_need_a_column_and_events(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(KINDS)
    with pytest.raises(DataError, match="the kinds are dislike, hide, purchase, view"):
        read_interactions(tmp_path / "log.csv", positive=["like"])
    (tmp_path / "log.csv").write_text("user,item,time\nu,1,1\n")
    with pytest.raises(DataError, match=r"no kind column .* --kind COLUMN"):
        read_interactions(tmp_path / "log.csv", positive=["like"])


VALUES = [
    *(None, True, 1, 1.5, float("nan"), float("inf"), "a", "", "\\N", b"ab", b"\xff"),
    *(Decimal("1.00"), datetime.datetime(2020, 1, 1), datetime.date(2020, 1, 1)),
    *(datetime.time(1, 2), datetime.timedelta(days=1)),
    *([1, 2], ["a", None], [["a"]], [], {"A": 1}, [{"A": "x"}]),
]
ROLES = ("user_id", "item_id", "timestamp", "title", "rating", "review", "kind")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_column_of_any_type_is_read_or_named(tmp_path: Path, role: str, value: object) -> None:
    columns: dict[str, list[object]] = {
        "user_id": ["u", "u"],
        "item_id": ["a", "b"],
        "timestamp": [1, 2],
        "title": ["A", "B"],
    }
    path = tmp_path / "log.parquet"
    pl.DataFrame(columns | {role: [value, value]}, strict=False).write_parquet(path)
    try:
        Dataset.from_interactions(read_interactions(path), name="log").save(tmp_path / "data")
    except GenRecError as error:
        assert "log" in str(error)  # noqa: PT017


def test_bytes_are_text_or_uuids(tmp_path: Path) -> None:
    ids = [uuid.UUID(int=1), uuid.UUID(bytes=b"\xff" * 16)]
    log = {"user": [b"u", b"v"], "item": [each.bytes for each in ids], "time": [1, 2]}
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    data = read_interactions(tmp_path / "log.parquet")
    assert data.log["user_id"].to_list() == ["u", "v"]
    assert data.log["item_id"].to_list() == [str(each) for each in ids]


def test_a_guessed_column_without_plain_values_is_left_out(tmp_path: Path) -> None:
    log = {"user": ["u"], "item": ["a"], "time": [1], "score": [[1, 2]]}
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    data = read_interactions(tmp_path / "log.parquet")
    assert "column 'score' is no rating, because it holds List(Int64)" in notes(data)
    with pytest.raises(DataError, match="'score' holds List"):
        read_interactions(tmp_path / "log.parquet", rating="score")


@pytest.mark.parametrize(
    ("texts", "days"),
    [
        (
            ["1/5/2024 3:04:05 PM", "1/25/2024 3:04:05 AM"],
            [(2024, 1, 5, 15, 4, 5), (2024, 1, 25, 3, 4, 5)],
        ),
        (["13/2/2023", "1/3/2023"], [(2023, 2, 13), (2023, 3, 1)]),
        (["2/29/24", "3/1/24"], [(2024, 2, 29), (2024, 3, 1)]),
        (["31-01-2023 10:15", "01-02-2023 11:00"], [(2023, 1, 31, 10, 15), (2023, 2, 1, 11)]),
        (["13/2/99", "1/3/98"], [(1999, 2, 13), (1998, 3, 1)]),
    ],
)
def test_the_whole_column_decides_whether_the_day_comes_first(
    tmp_path: Path, texts: list[str], days: list[tuple[int, ...]]
) -> None:
    rows = "".join(f"u;{n};{text}\n" for n, text in enumerate(texts))
    data = read(tmp_path, f"user;item;time\n{rows}")
    moments = [datetime.datetime(*day, tzinfo=datetime.UTC).timestamp() for day in days]  # type: ignore[arg-type, misc]
    assert data.log["timestamp"].to_list() == moments
    assert "first, which" in notes(data)


@pytest.mark.parametrize("text", ["25/12/23", "13/2/2023\nu;2;2/13/2023"])
def test_dates_whose_order_stays_open_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="the day or the month may come first"):
        read(tmp_path, f"user;item;time\nu;1;{text}\n")


@pytest.mark.parametrize(
    ("text", "form", "day"),
    [
        ("1/2/2023", "%d/%m/%Y", (2023, 2, 1)),
        ("1/2/2023", "%m/%d/%Y", (2023, 1, 2)),
        ("2023|05|01 07:08", "%Y|%m|%d %H:%M", (2023, 5, 1, 7, 8)),
    ],
)
def test_a_format_of_times_can_be_given(
    tmp_path: Path, text: str, form: str, day: tuple[int, ...]
) -> None:
    data = read(tmp_path, f"user;item;time\nu;1;{text}\n", timestamp_format=form)
    moment = datetime.datetime(*day, tzinfo=datetime.UTC)  # type: ignore[arg-type, misc]
    assert data.log["timestamp"].to_list() == [moment.timestamp()]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("%Y", "not times of the format '%Y'"),
        ("%H", "not times of the format '%H'"),
        ("%I", "the timestamp format '%I' cannot be used"),
        ("%d/%m/%Y %H:%M %Z", "write offsets such as"),
        ("%d/%m", "not times of the format"),
    ],
)
def test_a_wrong_format_of_times_is_named(tmp_path: Path, form: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, "user;item;time\nu;1;1/2/2023\n", timestamp_format=form)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("A1,B2,5.0,1700000000\nA1,B3,4.0,1700000001\n", "user,item,rating,timestamp"),
        ("5\tB2\tA1\t1700000000\n4\tB3\tA1\t1700000001\n", "rating,item,user,time"),
        ('A1::B2::1700000000::"x\nA1::B3::1700000001::y\n', "user,item,time,title"),
    ],
)
def test_columns_of_a_file_without_a_header_can_be_named(
    tmp_path: Path, text: str, columns: str
) -> None:
    data = read(tmp_path, text, columns=columns.split(","))
    assert data.log.select("user_id", "item_id", "timestamp").rows() == [
        ("A1", "B2", 1700000000.0),
        ("A1", "B3", 1700000001.0),
    ]
    with pytest.raises(
        DataError, match=r"line 1 has \d fields, but there are 2 columns|no timestamp"
    ):
        read(tmp_path, text, columns=["user", "item"])


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("ratings_Books.csv", "u,i,5.0,1700000000"),
        ("loc-gowalla_totalCheckins.txt", "u\t2023-11-14T22:13:20Z\t30.2\t-97.7\ti"),
        ("yoochoose-clicks.dat", "u,2023-11-14T22:13:20.000Z,i,0"),
        ("UserBehavior.csv", "u,i,7,pv,1700000000"),
        (
            "userid-timestamp-artid-artname-traid-traname.tsv",
            "u\t2023-11-14T22:13:20Z\ta\tAbba\ti\tSOS",
        ),
    ],
)
def test_public_files_without_a_header_are_known(tmp_path: Path, name: str, row: str) -> None:
    (tmp_path / name).write_text(f"{row}\n", encoding="utf-8")
    data = read_interactions(tmp_path / name)
    assert data.log.select("user_id", "item_id", "timestamp").rows() == [("u", "i", NOW)]
    assert "the file has no header" in notes(data)


JSON_ROWS = [("u", "1", 5.0), ("v", "2", 6.0)]


@pytest.mark.parametrize(
    "text",
    [
        '[{"user": "u", "item": 1, "time": 5}, {"user": "v", "item": 2, "time": 6}]',
        '[\n {"user": "u",\n "item": 1, "time": 5},\n {"user": "v", "item": 2, "time": 6}]\n',
        '{"rows": [{"user": "u", "item": 1, "time": 5}, {"user": "v", "item": 2, "time": 6}]}',
        '{"n": 2, "a": [{"user": "u", "item": 1, "time": 5}, {"user": "v", "item": 2, "time": 6}]}',
        '{"user": "u", "item": 1, "time": 5},\n{"user": "v", "item": 2, "time": 6},\n',
        '{"user": {"0": "u", "1": "v"}, "item": {"0": 1, "1": 2}, "time": {"0": 5, "1": 6}}',
        '{"user": ["u", "v"], "item": [1, 2], "time": [5, 6]}',
        '\ufeff{"user": "u", "item": 1, "time": 5}\r\n{"user": "v", "item": 2, "time": 6}\r\n',
        '{"user": "u", "item": 1, "time": 5}\n\n{"user": "v", "item": 2, "time": 6}',
    ],
)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_json_in_every_usual_form(tmp_path: Path, text: str, suffix: str) -> None:
    log = read(tmp_path, text, suffix=suffix).log
    assert log.select("user_id", "item_id", "timestamp").rows() == JSON_ROWS


@pytest.mark.parametrize("many", [1, 2, 3])
def test_histories_by_user_and_items_by_id(tmp_path: Path, many: int) -> None:
    users = ", ".join(f'"{user}": [3, 1, 2]' for user in range(many))
    (tmp_path / "Games.inter.json").write_text(f"{{{users}}}")
    items = ", ".join(f'"{item}": {{"title": "T{item}", "brand": "B"}}' for item in (1, 2, 3))
    (tmp_path / "Games.item.json").write_text(f"{{{items}}}")
    data = read_interactions(tmp_path)
    assert data.log["item_id"].to_list() == ["3", "1", "2"] * many
    assert data.log["timestamp"].to_list() == [0, 1, 2] * many
    assert data.items is not None
    assert data.items.sort("item_id").rows() == [(n, f"T{n}", "B") for n in "123"]


@pytest.mark.parametrize(
    "text", ["[1, 2]", '{"u": [[1, 5]]}', '{"user": [1], "item": [1, 2]}', "5"]
)
def test_other_json_is_named_in_a_short_message(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"log\.json") as caught:
        read(tmp_path, text, suffix="json")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", ["recommended", "8/10", "A+"])
def test_ratings_that_are_no_numbers(tmp_path: Path, value: str) -> None:
    log = f"user,item,time,stars\nu,1,1,5\nu,2,2,{value}\n"
    data = read(tmp_path, log)
    assert "rating" not in data.log.columns
    assert f"column 'stars' is no rating, because 1 values are no numbers, the first {value!r}" in (
        notes(data)
    )
    assert "rating" not in notes(read(tmp_path, log, rating="none"))
    with pytest.raises(DataError, match=r"'stars' are not numbers.*--rating"):
        read(tmp_path, log, rating="stars")


@pytest.mark.parametrize(("text", "value"), [("4,5", 4.5), ("3", 3.0), (" 2,25 ", 2.25)])
def test_ratings_with_a_decimal_comma(tmp_path: Path, text: str, value: float) -> None:
    data = read(tmp_path, f"user;item;time;rating\nu;1;1;{text}\nu;2;2;1,5\n")
    assert data.log["rating"].to_list() == [value, 1.5]


@pytest.mark.parametrize(
    ("names", "log", "items"),
    [
        ({"item_table_id": "sku"}, "item_id", "sku"),
        ({"item": "sku"}, "item_id", "sku"),
        ({"item": "code"}, "code", "item_id"),
        ({"item": "code", "item_table_id": "sku"}, "code", "sku"),
    ],
)
def test_the_item_table_may_name_its_ids_otherwise(
    tmp_path: Path, names: dict[str, str], log: str, items: str
) -> None:
    data = read(tmp_path, f"user,{log},time\nu,1,1\n", f"{items},title\n1,One\n", **names)
    assert data.log["item_id"].to_list() == ["1"]
    assert data.items is not None
    assert data.items.rows() == [("1", "One")]


def test_a_wrong_column_of_the_item_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"table.csv: no column 'x' among sku, title"):
        read(tmp_path, "user,item,time\nu,1,1\n", "sku,title\n1,One\n", item_table_id="x")
    with pytest.raises(DataError, match=r"log.csv: no column 'x' among user, item, time"):
        read(tmp_path, "user,item,time\nu,1,1\n", "sku,title\n1,One\n", item="x")
    with pytest.raises(DataError, match="needs an item table"):
        read(tmp_path, "user,item,time\nu,1,1\n", item_table_id="x")


PARTS = pl.DataFrame({"user": ["u", "v", "u"], "item": [1, 2, 3], "time": [1, 2, 3]})


@pytest.mark.parametrize("suffix", ["parquet", "csv", "json", "snappy.parquet"])
def test_a_folder_of_parts_is_one_log(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    for number, rows in enumerate((PARTS[:2], PARTS[2:])):
        path = folder / f"part-0000{number}-c000.{suffix}"
        kind = suffix.rpartition(".")[2]
        write = {"csv": rows.write_csv, "json": rows.write_ndjson, "parquet": rows.write_parquet}
        write[kind](path)  # type: ignore[operator]
    assert read_interactions(folder).log["item_id"].to_list() == ["1", "2", "3"]


def test_parts_in_subfolders_keep_the_value_of_the_folder(tmp_path: Path) -> None:
    for day in ("2024-01-01", "2024-01-02"):
        folder = tmp_path / "log" / f"date={day}"
        folder.mkdir(parents=True)
        PARTS.select("user", "item").write_parquet(folder / "part-0.parquet")
    assert read_interactions(tmp_path / "log").log.height == 6


@pytest.mark.parametrize(
    "text",
    [
        "user_id:token item_id:token timestamp:float\nu 1 5\nv 2 6\n",
        "user_id:token  item_id:token   timestamp:float\nu   1 5 \n v 2   6\n",
        "user_id:token,item_id:token,timestamp:float\nu,1,5\nv,2,6\n",
        "user_id:token\titem_id:token\ttimestamp:float\nu\t1\t5\nv\t2\t6\n",
    ],
)
def test_atomic_files_with_any_separator(tmp_path: Path, text: str) -> None:
    log = read(tmp_path, text, suffix="inter").log
    assert log.select("user_id", "item_id", "timestamp").rows() == JSON_ROWS


@pytest.mark.parametrize("line", ["sep=;\n", '"sep=;"\r\n', "sep=;;\n"])
def test_a_first_line_with_the_separator_is_no_header(tmp_path: Path, line: str) -> None:
    log = read(tmp_path, f"{line}user;item;time\nu;1;5\nv;2;6\n").log
    assert log.select("user_id", "item_id", "timestamp").rows() == JSON_ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_every_unicode_encoding_is_recognised(tmp_path: Path, encoding: str, suffix: str) -> None:
    path = tmp_path / f"log.{suffix}"
    mark = "\t" if suffix == "tsv" else ","
    text = f"user{mark}item{mark}time\nu{mark}café 千{mark}5\n"
    if suffix == "jsonl":
        text = '{"user": "u", "item": "café 千", "time": 5}\n'
    path.write_bytes(text.encode(encoding))
    assert read_interactions(path).log["item_id"].to_list() == ["café 千"]


@pytest.mark.parametrize("word", ["Café", "naïve “quotes” – dash", "Übermut’s", "5 €"])
def test_western_text_of_windows_is_read_and_noted(tmp_path: Path, word: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(f"user,item,time,title\nu,1,5,{word}\n".encode("cp1252"))
    data = read_interactions(path)
    assert data.items is not None
    assert data.items["title"].to_list() == [word]
    assert "not UTF-8 at line 2" in notes(data)
    assert "read as Windows-1252, for example " in notes(data)
    other = read_interactions(path, encoding="latin-1")
    assert not notes(other)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Солярис", "cp1251"), ("千と千尋の神隠し", "shift_jis"), ("大話西遊", "big5")],
)
def test_other_encodings_are_refused_or_named(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(f"user,item,time,title\nu,1,5,{text}\n".encode(encoding))
    with pytest.raises(DataError, match=r"not UTF-8 at line 2.*--encoding NAME"):
        read_interactions(path)
    data = read_interactions(path, encoding=encoding)
    assert data.items is not None
    assert data.items["title"].to_list() == [text]


def test_a_few_wrong_bytes_in_a_file_of_utf8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("user,item,time\nu,é,1\n".encode() + b"u,\xe9,2\n")
    with pytest.raises(DataError, match=r"not UTF-8 at line 3.*correct that line"):
        read_interactions(path)
    with pytest.raises(DataError, match="unknown encoding 'klingon'"):
        read_interactions(path, encoding="klingon")


def test_a_merged_table_keeps_what_describes_the_items(tmp_path: Path) -> None:
    log = "user,item,time,title,year,brand,device\nu,1,1,Emma,1996,,phone\n"
    log += "v,1,2,Emma,1996,Miramax,tablet\nu,2,3,Emma,2020,Focus,phone\n"
    data = read(tmp_path, log)
    assert data.items is not None
    assert data.items.rows() == [("1", "Emma", 1996, "Miramax"), ("2", "Emma", 2020, "Focus")]
    assert "kept as metadata of the items: year, brand" in notes(data)
    catalogue = Dataset.from_interactions(data, name="log").catalogue
    assert catalogue.titles == ["Emma (1996)", "Emma (2020)"]


def test_a_missing_time_column_suggests_what_orders_the_log(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="or give --timestamp position if that column orders"):
        read(tmp_path, "user,item,position\nu,1,1\n")
    with pytest.raises(DataError, match="or give --timestamp row if the rows are in order of time"):
        read(tmp_path, "user,item\nu,1\n")
    data = read(tmp_path, "user,item\nu,2\nu,1\n", timestamp="row")
    assert data.log["timestamp"].to_list() == [0, 1]


def test_items_without_interactions_are_kept_on_request(tmp_path: Path) -> None:
    log = read(tmp_path, "user,item,time\nu,1,1\nu,2,2\n", "item,title\n2,B\n1,A\n9,Z\n")
    assert Dataset.from_interactions(log, name="x").catalogue.titles == ["A", "B"]
    data = Dataset.from_interactions(log, name="x", all_items=True)
    assert data.catalogue.titles == ["A", "B", "Z"]
    assert data.histories.items.tolist() == [0, 1]


def test_items_are_numbered_at_random_on_request(tmp_path: Path) -> None:
    rows = "".join(f"u,{n},{n}\n" for n in range(50))
    titles = "".join(f"{n},T{n}\n" for n in range(50))
    log = read(tmp_path, f"user,item,time\n{rows}", f"item,title\n{titles}")
    data = Dataset.from_interactions(log, name="x", renumber=True, seed=1)
    items = data.histories.items.tolist()
    assert sorted(items) == list(range(50))
    assert items != list(range(50))
    assert [data.catalogue.titles[item] for item in items] == [f"T{n}" for n in range(50)]
    assert data.provenance.preparation["item_order"] == "random"


EXAMPLES = int(os.environ.get("GENREC_EXAMPLES", "500"))
"""Generated files; `make nightly` tries more."""
PIECES = [
    *'ab1,;\t|"\n\r\\ .-:{}[]é\x00\ufeff',
    *("::", "sep=;\n", "[1]", '{"u": [1]}', "1/2/2023", "13/2/23", "4,5"),
    *("NaN", "null", "user_id", "item_id", "timestamp", "title", "rating", "1.0", "2020-01-01"),
    *("user_id,item_id,timestamp,title\n", '{"user_id": 1, "item_id": 2, "timestamp": 3}\n'),
]


@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=40),
    tail=st.sampled_from([b"", b"\xff"]),
    suffix=st.sampled_from(["csv", "tsv", "jsonl", "json", "parquet", "inter", "dat", "csv.gz"]),
)
def test_garbage_is_read_or_named(
    tmp_path: Path, pieces: list[str], tail: bytes, suffix: str
) -> None:
    path = tmp_path / f"log.{suffix}"
    path.write_bytes("".join(pieces).encode() + tail)
    try:
        Dataset.from_interactions(read_interactions(path), name="log").save(tmp_path / "data")
    except GenRecError as error:
        assert "log" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1990", "2000", ""], pl.Int64),
        (["1990.0", "2000", ""], pl.Int64),
        (["9.99", "-5", "0"], pl.Float64),
        (["01234", "20000", "3"], pl.String),
        (["1990", "unknown", ""], pl.String),
        (["", "", ""], pl.String),
    ],
)
def test_numbers_among_metadata_can_be_compared(
    tmp_path: Path, values: list[str], kind: pl.DataType
) -> None:
    rows = "".join(f"{n},T{n},{value}\n" for n, value in enumerate(values))
    data = read(tmp_path, "user,item,time\nu,0,1\n", f"item,title,extra\n{rows}")
    assert data.items is not None
    assert data.items.schema["extra"] == kind


COLUMNS = st.sampled_from(
    ["user_id", "item_id", "timestamp", "title", "rating", "review", "kind", "year", "x", "1", ""]
)
CELLS = st.sampled_from(
    [
        *VALUES,
        "1/2/2023",
        "13/2/2023",
        "2020-01-01",
        "4,5",
        "7.0",
        "é",
        '"',
        10**30,
        {"A": b"x"},
        [b"\xff"],
    ]
)


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    names=st.lists(COLUMNS, min_size=3, max_size=6, unique=True),
    cells=st.lists(CELLS, min_size=18, max_size=18),
    rows=st.integers(1, 3),
    whole=st.booleans(),
    suffix=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
)
def test_odd_tables_are_read_or_named(
    tmp_path: Path, names: list[str], cells: list[object], rows: int, whole: bool, suffix: str
) -> None:
    if whole:  # a log that has all it needs, but for one odd column
        names = [*[name for name in names if name not in ROLES[:4]][:2], *ROLES[:4]]
    columns: dict[str, list[object]] = {}
    for place, name in enumerate(names):
        good = whole and place >= len(names) - 4
        column = [f"{n}" for n in range(rows)] if good else cells[3 * place : 3 * place + rows]
        columns[name] = list(column)
    path = tmp_path / f"log.{suffix}"
    try:
        write_table(pl.DataFrame(columns, strict=False), path)
    except (pl.exceptions.PolarsError, OverflowError, TypeError):
        return  # Polars cannot hold or write such a column
    try:
        Dataset.from_interactions(read_interactions(path), name="log").save(tmp_path / "data")
    except GenRecError as error:
        assert "log" in str(error)  # noqa: PT017


def write_table(frame: pl.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".jsonl":
        lines = (json.dumps(row, default=str) for row in frame.to_dicts())
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        texts = [pl.Series(each.name, map(str, each.to_list()), pl.String) for each in frame]
        pl.DataFrame(texts).write_csv(path, separator="\t" if path.suffix == ".tsv" else ",")


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("1/2/2023 10:00", ["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"]),
        ("01-02-23", ["%d-%m-%y", "%m-%d-%y", "%y-%m-%d"]),
        ("2/9/23 3:04 PM", ["%d/%m/%y %I:%M %p", "%m/%d/%y %I:%M %p", "%y/%m/%d %I:%M %p"]),
    ],
)
def test_the_formats_that_a_message_offers_work(
    tmp_path: Path, text: str, forms: list[str]
) -> None:
    log = f"user;item;time\nu;1;{text}\n"
    with pytest.raises(DataError) as caught:
        read(tmp_path, log)
    for form in forms:
        assert repr(form) in str(caught.value)
        assert read(tmp_path, log, timestamp_format=form).log.height == 1


def test_zones_follow_dates_with_the_day_first(tmp_path: Path) -> None:
    data = read(tmp_path, "user;item;time\nu;1;13/02/2023 10:00:00 +0100\n")
    moment = datetime.datetime(2023, 2, 13, 9, tzinfo=datetime.UTC)
    assert data.log["timestamp"].to_list() == [moment.timestamp()]


def test_ids_that_differ_by_leading_zeros_are_noted(tmp_path: Path) -> None:
    log = "user,item,time\nu,1,1\nu,2,2\nu,30,3\n"
    data = read(tmp_path, log, "item,title\n001,A\n002,B\n30,C\n")
    assert "table.csv: 2 items of the log are missing, e.g. '1', '2'; they would be" in notes(data)


@pytest.mark.parametrize("ids", [[2.0**53 + 2, 1.0], [1e20, 2.0], [-(2.0**60), 3.0]])
def test_ids_that_floats_cannot_hold_are_refused(tmp_path: Path, ids: list[float]) -> None:
    frame = pl.DataFrame({"user": ids, "item": ["a", "b"], "time": [1, 2]})
    frame.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"ids as floating-point numbers from 2\^53 on"):
        read_interactions(tmp_path / "log.parquet")


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["1", "5", "2024-03-01", "NaN"])])
def test_categories_are_texts(tmp_path: Path, kind: pl.DataType) -> None:
    columns = {"user": ["1", "NaN"], "item": ["1", "5"], "time": ["2024-03-01", "2024-03-01"]}
    columns |= {"rating": ["5", "1"], "title": ["1", "5"]}
    frame = pl.DataFrame(columns).with_columns(pl.all().cast(kind))
    frame.write_parquet(tmp_path / "log.parquet")
    data = read_interactions(tmp_path / "log.parquet")
    assert data.log.select("user_id", "item_id", "rating").rows() == [("1", "1", 5.0)]


def test_a_date_and_a_time_of_day_are_not_taken_apart(tmp_path: Path) -> None:
    log = "user,item,date,time\nu,1,20240131,930\nu,2,20240130,1015\n"
    with pytest.raises(DataError, match="'date' and 'time' may both be a part of the time"):
        read(tmp_path, log)
    assert read(tmp_path, log, timestamp="date").log.height == 2


def test_nested_metadata_of_a_merged_log_are_kept(tmp_path: Path) -> None:
    rows = [
        {"user": "u", "item": n, "time": n, "title": f"T{n}", "genres": [{"name": f"G{n}"}]}
        for n in range(2)
    ]
    data = read(tmp_path, "\n".join(map(json.dumps, rows)), suffix="jsonl")
    assert data.items is not None
    assert data.items.sort("item_id")["genres"].to_list() == ['[{"name":"G0"}]', '[{"name":"G1"}]']


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["user,item,time\nA1,B2,5\n", "A2,B2,7\nA2,B3,8\n"], "part-1.csv: the columns differ"),
        (["user,item,time\nA1,B2,5\n", "User,Item,Time\nA2,B3,8\n"], "the columns differ"),
    ],
)
def test_parts_need_the_same_header(tmp_path: Path, parts: list[str], message: str) -> None:
    for number, text in enumerate(parts):
        (tmp_path / f"part-{number}.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_interactions(tmp_path)


def test_parts_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1, 0):
        folder = tmp_path / "kind=view" / f"item=00{number}"
        folder.mkdir(parents=True)
        (folder / f"part-{number}.csv").write_text("user\nu\n")
    left = tmp_path / "_temporary" / "part-3.csv"
    left.parent.mkdir()
    left.write_text("user\nu\n")
    data = read_interactions(tmp_path, timestamp="row")
    assert data.log["item_id"].to_list() == ["000", "001", "002", "0010"]


def test_contents_decide_more_than_names(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(gzip.compress(b"user,item,time\nu,1,1\n"))
    assert read_interactions(path).log.height == 1
    path.write_bytes(b"user,item,time\ru,1,1\rv,2,2\r")
    assert read_interactions(path).log.height == 2
    path.write_bytes(b"PK\x03\x04rest")
    with pytest.raises(DataError, match="a zip archive or an Excel workbook; export it as CSV"):
        read_interactions(path)
    path.write_bytes(
        "user,item,time,title\nu,1,1,千と千尋の神隠し千と千尋の神隠し\n".encode("utf-16-le")
    )
    assert read_interactions(path, encoding="utf-16-le").items is not None


def test_a_file_of_utf8_stays_utf8(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,Ä1,1\nu,2,2\n", encoding="utf-8")
    (tmp_path / "items.csv").write_bytes("item,title\nÄ1,Alpha\n2,Łódź\n".encode("cp1250"))
    data = read_interactions(tmp_path / "log.csv", items=tmp_path / "items.csv", encoding="cp1250")
    assert data.items is not None
    assert data.items.rows() == [("Ä1", "Alpha"), ("2", "Łódź")]
    assert data.log["item_id"].to_list() == ["Ä1", "2"]
    assert "log.csv: the text is UTF-8, so it was not read as cp1250" in notes(data)


def test_the_note_on_an_encoding_shows_doubtful_words(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("user,item,time,title\nu,1,1,Rákóczi\nu,2,2,Tűz és Őrült\n".encode("cp1250"))
    assert "for example 'Tûz', 'Õrült', 'Rákóczi'" in notes(read_interactions(path))


def test_an_item_table_without_a_header(tmp_path: Path) -> None:
    log = "user,item,time\nu,1,1\n"
    with pytest.raises(DataError, match="--item-columns item,title"):
        read(tmp_path, log, "1,Alpha\n2,Beta\n")
    data = read(tmp_path, log, "1,Alpha\n2,Beta\n", item_columns=["item", "title"])
    assert data.items is not None
    assert data.items.rows() == [("1", "Alpha"), ("2", "Beta")]
    with pytest.raises(DataError, match="line 1 is a header already; leave out --columns"):
        read(tmp_path, log, columns=["user", "item", "time"])
    with pytest.raises(DataError, match="two columns have the same name"):
        read(tmp_path, "user,item,user,time\nu,1,v,2\n")


def test_long_names_of_columns_are_cut(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, ",".join("x" * 900 + str(n) for n in range(30)) + "\n" + "," * 29 + "\n")
    assert len(str(caught.value)) < 1200


def test_several_titles_of_an_item_are_noted(tmp_path: Path) -> None:
    log = "user,item,time,title\nu,1,1,Alien\nv,1,2,Aliens\nu,2,3,Emma\nu,3,4,Fargo\n"
    data = read(tmp_path, log)
    assert "items with several titles, of which the first was kept: 1" in notes(data)


def test_rows_that_a_quote_joins_are_noted(tmp_path: Path) -> None:
    log = 'user,item,time,title\nu,1,1,"A\nB"\nu,2,2,"Two\nu,3,3,Three\nu,4,4,Five"\nu,5,5,x\n'
    assert "each of which could be a row, were read as one field (line 4)" in notes(
        read(tmp_path, log)
    )


def test_names_of_users_are_no_titles(tmp_path: Path) -> None:
    log = "user,item,time,name\nu,1,1,Ann\nv,1,2,Bob\nu,2,3,Ann\nv,2,4,Bob\n"
    data = read(tmp_path, log)
    assert data.items is None
    assert "column 'name' is no item title, because most items have several values" in notes(data)
    assert read(tmp_path, log, title="name").items is not None


def test_ids_that_a_spreadsheet_rounded_are_noted(tmp_path: Path) -> None:
    data = read(tmp_path, "user,item,time\nu,1.23457E+11,1\nu,1,2\n")
    assert "item ids such as '1.23457E+11' (rows: 1) were rounded by a spreadsheet" in notes(data)
