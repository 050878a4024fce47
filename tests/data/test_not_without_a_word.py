"""Files that could be read wrongly: each is read rightly, or a note says what was decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from genrec.data.dataset import Dataset
from genrec.data.display_titles import clean_title
from genrec.data.interactions import Interactions, read_interactions
from genrec.data.overview import overview
from genrec.errors import DataError

ITEMS = "item_id,title\n1,A\n2,B\n3,C\n"
SECONDS = 1_700_000_000


def read(folder: Path, log: str, items: str = ITEMS, suffix: str = "csv", **how: Any) -> Any:
    (folder / f"log.{suffix}").write_text(log, encoding="utf-8")
    (folder / "things.csv").write_text(items, encoding="utf-8")
    return read_interactions(folder / f"log.{suffix}", items=folder / "things.csv", **how)


def notes(data: Interactions) -> str:
    return " ".join(data.source["notes"])  # type: ignore[call-overload, no-any-return]


def of_times(folder: Path, *times: object, **how: Any) -> Interactions:
    rows = "".join(f'u,{1 + number % 3},"{each}"\n' for number, each in enumerate(times))
    return read(folder, f"user_id,item_id,timestamp\n{rows}", **how)  # type: ignore[no-any-return]


def test_tables_are_joined_on_the_column_that_both_have(tmp_path: Path) -> None:
    log = "user_id,product_id,timestamp\nu,1,1\nu,2,2\nu,3,3\n"
    data = read(tmp_path, log, "item_id,product_id,title\n1,3,C\n2,1,A\n3,2,B\n")
    assert dict(data.items.select("item_id", "title").rows()) == {"1": "A", "2": "B", "3": "C"}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("user_id,item_id,time,datetime", "'time' was taken as the timestamp, but it might be 'da"),
        ("uid,item_id,timestamp,customer_id", "'uid' was taken as the user_id, but it might be 'c"),
    ],
)
def test_rival_columns_are_named(tmp_path: Path, header: str, says: str) -> None:
    rows = "u,1,30,2024-01-01\nu,2,20,2024-01-02\n"
    assert says in notes(read(tmp_path, f"{header}\n{rows}"))
    named = {"timestamp": header.split(",")[2], "user": header.split(",")[0]}
    assert "was taken" not in notes(read(tmp_path, f"{header}\n{rows}", **named))


@pytest.mark.parametrize("clock", ["time", "hour", "Time of day", "clock"])
def test_a_date_and_a_time_of_day_are_not_torn_apart(tmp_path: Path, clock: str) -> None:
    log = f"user_id,item_id,date,{clock}\nu,1,2024-01-31,18\nu,2,2024-01-31,9\n"
    with pytest.raises(DataError, match=r"may both be a part of the time.*--timestamp COLUMN"):
        read(tmp_path, log)
    assert read(tmp_path, log, timestamp="date").rows.height == 2


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (("1.71E+12", "1.70E+12"), "2 times that a spreadsheet has rounded, such as '1.71E+12'"),
        (("1.71e+12", "1.7E+12", SECONDS), "rounded, such as"),
        ((311223, 10124, 20124), "numbers from 10124 to 311223, too small for seconds"),
        (("31122023101500", "11012024101500"), "reaches the year"),
        ((2_023_123_110, 2_023_123_109), "reaches the year 2034"),
        ((SECONDS, SECONDS + 1, 0), "1 times before March 1973"),
        (("2024-01-01", "2024-01-02", "1900-01-01"), "1 times before March 1973"),
        (("2024-01-31",) * 3, "one time for all events of 1 of 1 users"),
    ],
)
def test_odd_times_are_noted(tmp_path: Path, times: tuple[Any, ...], says: str) -> None:
    assert says in notes(of_times(tmp_path, *times))


@pytest.mark.parametrize(
    "times",
    [
        (1, 2, 3),
        (SECONDS, SECONDS + 1),
        ("2024-01-01", "2024-01-02"),
        (SECONDS * 1000, SECONDS * 1000 + 5),
    ],
)
def test_usual_times_need_no_note(tmp_path: Path, times: tuple[Any, ...]) -> None:
    assert notes(of_times(tmp_path, *times)) == ""


def test_the_order_of_many_rows_needs_no_note(tmp_path: Path) -> None:
    log = "user_id,item_id\n" + "u,1\nu,2\n" * 6000
    assert notes(read(tmp_path, log, timestamp="row")) == ""


def test_hours_without_minutes_can_be_read(tmp_path: Path) -> None:
    data = of_times(tmp_path, 2024013109, 2024013118, timestamp_format="%Y%m%d%H")
    assert np.diff(data.rows["timestamp"]).tolist() == [9 * 3600]


@pytest.mark.parametrize("times", [(SECONDS, 9_999_999_999_999), ("1e300", "1e300")])
def test_times_beyond_the_calendar_can_be_looked_at(tmp_path: Path, times: Any) -> None:
    found = overview(of_times(tmp_path, SECONDS, SECONDS + 1, *times))
    assert found["interactions"] >= 3


def test_rows_of_an_item_complete_each_other(tmp_path: Path) -> None:
    items = "item_id,title,genre\n1,A,Drama\n1,A,Comedy\n2,B,\n2,B,War\n3,C,\n"
    data = read(tmp_path, "user_id,item_id,timestamp\nu,1,1\nu,2,2\n", items)
    assert data.items["genre"].to_list() == ["Drama", "War", None]
    assert "rows that repeat an item id, of which the first value counts: 2" in notes(data)


@pytest.mark.parametrize("ids", [("1E+12", "2E+12"), ("1.23e+12", "2E+10"), ("1,23E+12", "3E+11")])
def test_rounded_ids_are_noted(tmp_path: Path, ids: tuple[str, str]) -> None:
    log = "user_id,item_id,timestamp\n" + "".join(f'"{each}",1,1\n' for each in ids)
    assert "were rounded by a spreadsheet" in notes(read(tmp_path, log))


@pytest.mark.parametrize(("kind", "first"), [("float32", 2**24), ("float64", 2**53)])
def test_ids_that_a_float_cannot_tell_apart_are_refused(kind: str, first: int) -> None:
    for top, fits in ((first - 1, True), (first, False)):
        frame = {"user_id": np.array([1, top], kind), "item_id": ["1", "2"], "timestamp": [1, 2]}
        table, items = (
            pl.DataFrame(frame),
            pl.DataFrame({"item_id": ["1", "2"], "title": ["A", "B"]}),
        )
        if fits:
            assert Dataset.from_frames(table, items).histories.user_ids == ["1", str(top)]
        else:
            with pytest.raises(DataError, match="ids as floating-point numbers"):
                Dataset.from_frames(table, items)


@pytest.mark.parametrize("mark", [",", ";", "|"])
def test_blanks_after_separators_do_not_undo_quotes(tmp_path: Path, mark: str) -> None:
    rows = f'1{mark} "A"\n2{mark} "B{mark} ""C"" or D"\n3{mark} E\n'
    data = read(tmp_path, "user_id,item_id,timestamp\nu,1,1\n", f"item_id{mark} title\n{rows}")
    assert data.items["title"].str.strip_chars().to_list() == ["A", f'B{mark} "C" or D', "E"]


def test_hidden_characters_do_not_make_another_user(tmp_path: Path) -> None:
    log = "user_id,item_id,timestamp\nu1,1,1\nu1\u200b,2,2\n\ufeffu1,3,3\n"
    assert read(tmp_path, log).user_ids.to_list() == ["u1"]


def test_titles_that_may_be_missing_are_noted(tmp_path: Path) -> None:
    items = "item_id,title\n1,NULL\n2,NULL\n3,None\n"
    said = notes(read(tmp_path, "user_id,item_id,timestamp\nu,1,1\n", items))
    assert "the title 'NULL' was kept (items: 2)" in said
    assert "the title 'None' was kept (items: 1)" in said


def test_whole_numbers_as_titles_keep_their_form() -> None:
    log = pl.DataFrame({"user_id": ["u"] * 3, "item_id": [1, 2, 3], "timestamp": [1, 2, 3]})
    items = pl.DataFrame({"item_id": [1, 2, 3], "title": [300.0, 1984.0, None]})
    assert Dataset.from_frames(log, items).catalogue.titles[:2] == ["300", "1984"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [("macro&micro", "macro&micro"), ("AT&amp;T &copycat", "AT&T &copycat"), ("&#65;&lt;", "A<")],
)
def test_only_whole_entities_are_replaced(text: str, clean: str) -> None:
    assert clean_title(text) == clean


def test_columns_of_json_are_joined_by_their_row_keys(tmp_path: Path) -> None:
    log = '{"user_id":{"0":"u","1":"v"},"item_id":{"1":"2","0":"1"},"timestamp":{"0":5,"1":6}}'
    data = read(tmp_path, log, suffix="json")
    assert data.log.select("user_id", "item_id").rows() == [("u", "1"), ("v", "2")]


def test_kinds_that_no_event_has_are_named(tmp_path: Path) -> None:
    log = "user_id,item_id,timestamp,event\nu,1,1,view\nu,2,2,purchase\n"
    data = read(tmp_path, log, positive=["purchse", "view"])
    assert "no event has the kind purchse" in notes(data)


def test_titles_of_the_log_are_not_ignored_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("user_id,item_id,timestamp,title\nu,1,1,Own\n")
    (tmp_path / "movies.csv").write_text("item_id,title\n1,Other\n")
    data = read_interactions(tmp_path / "ratings.csv")
    assert "titles come from movies.csv, not from its own column 'title'" in notes(data)


@pytest.mark.parametrize("mark", ["^", "~", "\x01", " "])
def test_rarer_separators_are_recognised(tmp_path: Path, mark: str) -> None:
    rows = [("user_id", "item_id", "timestamp"), ("u", "1", "1"), ("u", "2", "2")]
    data = read(tmp_path, "".join(mark.join(row) + "\n" for row in rows))
    assert data.rows.height == 2


def test_a_table_of_one_column_is_told_which_separators_are_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one column only: separate the fields by a comma"):
        read(tmp_path, "user/item/timestamp\nu/1/1\n")


def test_comments_above_the_header_are_left_out(tmp_path: Path) -> None:
    data = read(
        tmp_path, "# exported by a shop, 2024, all users, twice\n#\nuser,item,time\nu,1,1\n"
    )
    assert data.log["user_id"].to_list() == ["u"]
    assert "left out 2 lines, which begin with #, as a comment" in notes(data)


def test_a_header_may_begin_with_a_hash_and_so_may_ids(tmp_path: Path) -> None:
    assert read(tmp_path, "# user_id,item_id,timestamp\nu,1,1\nu,2,2\n").rows.height == 2
    names = ["user", "item", "timestamp"]
    data = read(tmp_path, "#u,1,1\n#v,2,2\n", columns=names)
    assert data.log["user_id"].to_list() == ["#u", "#v"]


def test_quotes_behind_backslashes_stand_inside_of_a_field(tmp_path: Path) -> None:
    items = 'item_id,title\n1,"The \\"Best\\", ever"\n2,"C:\\dir"\n3,12\\" single\n'
    data = read(tmp_path, "user,item,time\nu,1,1\nu,2,2\n", items)
    titles = dict(data.items.select("item_id", "title").rows())
    assert titles["1"] == 'The "Best", ever'
    assert (titles["2"], titles["3"]) == ("C:\\dir", '12\\" single')
    assert "was read as a quote inside of a quoted field" in notes(data)


def test_columns_of_a_frame_may_have_numbers_as_names() -> None:
    frame = pd.DataFrame([["u", "a", 1, "A"], ["u", "b", 2, "B"]])
    with pytest.raises(DataError, match="in Python user="):
        Dataset.from_frames(frame)
    numbers: dict[str, Any] = {"user": 0, "item": 1, "timestamp": 2, "title": 3}
    assert Dataset.from_frames(frame, **numbers).catalogue.titles == ["A", "B"]


def test_several_kinds_of_events_are_named(tmp_path: Path) -> None:
    log = "user,item,time,event\nu,1,1,view\nu,2,2,View\nu,3,3,purchase\nv,1,4,remove_from_cart\n"
    (tmp_path / "log.csv").write_text(log)
    told = notes(read_interactions(tmp_path / "log.csv"))
    assert "left out 1 events of the kinds remove_from_cart" in told
    assert "'event' count alike: view (2), purchase (1); choose with --positive KINDS" in told
    assert "alike" not in notes(read_interactions(tmp_path / "log.csv", positive=["view"]))


def test_returned_goods_are_named(tmp_path: Path) -> None:
    log = "user,item,time,Quantity\nu,1,1,2\nu,2,2,-1\nv,1,3,0\nv,2,3,\n"
    (tmp_path / "log.csv").write_text(log)
    told = notes(read_interactions(tmp_path / "log.csv"))
    assert "column 'Quantity' is below 1 in 2 rows" in told
    (tmp_path / "log.csv").write_text(log.replace("-1", "1").replace("3,0", "3,4"))
    assert "Quantity" not in notes(read_interactions(tmp_path / "log.csv"))


@pytest.mark.parametrize(
    ("items", "lists"),
    [
        (["a;b", "b;c", "a;c"], True),
        (["N1 N2", "N2 N1 N3", "N3 N1"], True),
        (["12,13", "13,14", "12,14"], True),
        (["The Man", "The Moon", "Man of The Moon", "The Man of The Moon"], False),
        (["Man, The", "Moon, The", "Sun, The"], False),
        (["a;b", "b", "c", "d"], False),
    ],
)
def test_cells_with_several_items_are_named(tmp_path: Path, items: list[str], lists: bool) -> None:
    log = "".join(f'u,"{item}",{time}\n' for time, item in enumerate(items))
    (tmp_path / "log.csv").write_text(f"user,item,time\n{log}")
    found = notes(read_interactions(tmp_path / "log.csv"))
    assert ("look like lists of items" in found) is lists


def test_a_column_of_lists_has_a_remedy(tmp_path: Path) -> None:
    log = pl.DataFrame({"user": ["u"], "item": [["a", "b"]], "time": [1]})
    log.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match="cannot be the item_id; give each element a row"):
        read_interactions(tmp_path / "log.parquet")


def test_titles_that_are_addresses_are_named(tmp_path: Path) -> None:
    log = "user_id,item_id,timestamp\nu,1,1\nu,2,2\n"
    items = "item_id,title\n1,https://x.org/1.jpg\n2,http://x.org/2\n3,C\n"
    assert "most titles are web addresses" in notes(read(tmp_path, log, items))
    few = items.replace("http://x.org/2", "About http://x.org/2")
    assert "addresses" not in notes(read(tmp_path, log, few))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"SQLite format 3\0x", "an SQLite database; export the table as CSV"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"<!DOCTYPE html><p>Log in</p>", "a web page; download the file again"),
    ],
)
def test_other_files_are_known(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_interactions(tmp_path / "log.csv")


@pytest.mark.parametrize("mark", [",", "."])
def test_parts_of_seconds_are_no_nanoseconds(tmp_path: Path, mark: str) -> None:
    times = [f"31/01/2024 10:00:00{mark}{part}" for part in ("5", "250000", "125")]
    data = of_times(tmp_path, *times, timestamp_format=f"%d/%m/%Y %H:%M:%S{mark}%f")
    assert [each % 1 for each in data.rows["timestamp"]] == [0.5, 0.25, 0.125]
    with pytest.raises(DataError, match="give %3f"):
        of_times(tmp_path, *times, timestamp_format="%d/%m/%Y %H:%M:%S%f")


def test_a_second_title_column_is_named(tmp_path: Path) -> None:
    log, items = (
        "user_id,item_id,timestamp\nu,1,1\nu,2,2\n",
        "item_id,name,title\n1,A,Mr\n2,B,Mrs\n",
    )
    told = notes(read(tmp_path, log, items))
    assert "column 'title' was taken as the title, but it might be 'name'" in told
    assert "might be" not in notes(read(tmp_path, log, items, title="name"))


def test_rows_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    log = "user,item,time,event\nu,1,1,hide\nu,2,2,hide\nu,3,3,like\nu,1,oops,like\n"
    with pytest.raises(DataError, match="'oops' in data row 4"):
        read(tmp_path, log)


def test_blank_rows_are_no_lost_rows(tmp_path: Path) -> None:
    log = "user,item,time\nu,1,1\n\nu,2,2\n,3,3\n,,\n"
    assert "dropped rows: 1 without a user id" in notes(read(tmp_path, log))


def test_a_byte_order_mark_wins(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,é,1\n", encoding="utf-8-sig")
    data = read_interactions(tmp_path / "log.csv", encoding="cp1252")
    assert data.item_ids.to_list() == ["é"]
    assert "byte order mark of utf-8, so it was not read as cp1252" in notes(data)
    assert "mark" not in notes(read_interactions(tmp_path / "log.csv", encoding="utf_8"))


def test_single_zero_bytes_are_found_anywhere(tmp_path: Path) -> None:
    rows = "".join(f"u{n},1,{n}\n" for n in range(900))
    (tmp_path / "log.csv").write_text(f"user,item,time\n{rows}u1\0,2,9\n")
    with pytest.raises(DataError, match="the first in line 902; remove them"):
        read_interactions(tmp_path / "log.csv")


def test_blanks_before_quotes_and_empty_fields(tmp_path: Path) -> None:
    rows = '"u", "1", "1", "A, ""x"""\n"u", "2", "2", ""\n"", "3", "3", "C"\n'
    (tmp_path / "log.csv").write_text('"user", "item", "time", "title"\n' + rows)
    data = read_interactions(tmp_path / "log.csv")
    assert data.items is not None
    assert dict(data.items.select("item_id", "title").rows()) == {
        "1": 'A, "x"',
        "2": None,
        "3": "C",
    }
    assert data.log["item_id"].to_list() == ["1", "2"]


def test_blanks_before_quotes_beside_inches(tmp_path: Path) -> None:
    rows = '"u", "1", 5" disc, "1"\n"u", "2", 7" disc, "2"\n"u", "3", "a, ""b"", c", "3"\n'
    (tmp_path / "log.csv").write_text('"user", "item", "title", "time"\n' + rows)
    data = read_interactions(tmp_path / "log.csv")
    assert data.items is not None
    titles = [title.strip() for title in data.items.sort("item_id")["title"]]
    assert titles == ['5" disc', '7" disc', 'a, "b", c']


def test_line_ends_with_two_returns(tmp_path: Path) -> None:
    text = '"user","item","time","title"\r\r\n"u","1","1","A, x"\r\r\n'
    (tmp_path / "log.csv").write_bytes(text.encode())
    data = read_interactions(tmp_path / "log.csv")
    assert data.items is not None
    assert data.items["title"].to_list() == ["A, x"]
