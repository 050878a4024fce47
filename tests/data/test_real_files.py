"""What the files of real people look like: kinds of faults, each with several inputs."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from pathlib import Path

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
    folder: Path, log: str, items: str = "", suffix: str = "csv", **columns: str
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
    assert frame["id"].to_list() == [str(row) for row in range(len(titles))]


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
        ("user,item,time\nu,1,1\nu,a,b,3\n", "line 3 has 4 fields, but the header has 3"),
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
    assert data.items.rows() == [("1", "Alpha", None), ("2", None, None)]


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
    with pytest.raises(DataError, match="line 1 looks like data: add a line such as user_id"):
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
    with pytest.raises(DataError, match="1 values of column 'time' are not numbers or ISO 8601"):
        read(tmp_path, f"user;item;time\nu;1;{text}\n")


def test_dates_as_numbers_are_not_seconds(tmp_path: Path) -> None:
    log = {"user": ["u", "u"], "item": ["a", "b"], "time": [20240131, 20240201]}
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    first, second = read_interactions(tmp_path / "log.parquet").log["timestamp"]
    assert second - first == 24 * 60 * 60
    log["time"] = [20240131, 20240132]  # no date: plain numbers
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    assert read_interactions(tmp_path / "log.parquet").source["timestamp_unit"] == "as given"


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
    assert "column 'score' is no rating; it holds List(Int64)" in notes(data)
    with pytest.raises(DataError, match="'score' holds List"):
        read_interactions(tmp_path / "log.parquet", rating="score")


PIECES = [
    *'ab1,;\t|"\n\r\\ .-:{}[]é\x00\ufeff',
    *("NaN", "null", "user_id", "item_id", "timestamp", "title", "rating", "1.0", "2020-01-01"),
    *("user_id,item_id,timestamp,title\n", '{"user_id": 1, "item_id": 2, "timestamp": 3}\n'),
]


@settings(
    max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
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
