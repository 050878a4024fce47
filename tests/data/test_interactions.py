from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from genrec.data.interactions import Interactions, read_interactions
from genrec.errors import DataError

DAY = 24 * 60 * 60
ROWS = [("u1", "a", 30.0, 0), ("u2", "b", 10.0, 1), ("u1", "b", 20.0, 2)]
CSV = "user_id,item_id,timestamp\nu1,a,30\nu2,b,10\nu1,b,20\n"


def write(path: Path, content: str | bytes) -> Path:
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def rows(data: Interactions) -> list[tuple[object, ...]]:
    return data.log.select("user_id", "item_id", "timestamp", "row").rows()


def item_rows(data: Interactions) -> list[tuple[object, ...]]:
    assert data.items is not None
    return data.items.rows()


def json_lines(*records: Mapping[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", CSV),
        ("log.csv.gz", CSV),
        ("log.csv", CSV.replace("\n", "\r\n")),
        ("log.csv", "\ufeff" + CSV),
        ("log.csv", CSV.replace(",", ";")),
        ("log.tsv", CSV.replace(",", "\t")),
        ("log.txt", CSV.replace(",", "\t")),
        ("log.csv", CSV.replace("user_id,item_id,timestamp", "userId,movieId,Time")),
        (
            "log.inter",
            "user_id:token\titem_id:token\ttimestamp:float\nu1\ta\t30\nu2\tb\t10\nu1\tb\t20",
        ),
        ("u.data", "u1\ta\t5\t30\nu2\tb\t4\t10\nu1\tb\t3\t20\n"),
        ("ratings.dat", "u1::a::5::30\nu2::b::4::10\r\nu1::b::3::20\n"),
        ("log.jsonl", json_lines(*({"uid": u, "iid": i, "time": t} for u, i, t, _ in ROWS))),
        ("log.jsonl.gz", json_lines(*({"uid": u, "iid": i, "time": t} for u, i, t, _ in ROWS))),
    ],
)
def test_every_text_format_gives_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    assert rows(read_interactions(write(tmp_path / name, content))) == ROWS


def test_parquet_ids_become_text_and_whole_floats_lose_their_point(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1.0, 2.0], "item": [7, 8], "time": [1, 2], "stars": [4, None]})
    frame.write_parquet(tmp_path / "log.parquet")
    data = read_interactions(tmp_path / "log.parquet")
    assert rows(data) == [("1", "7", 1.0, 0), ("2", "8", 2.0, 1)]
    assert data.log["rating"].to_list() == [4.0, None]
    types = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64, "row": pl.UInt32}
    assert data.log.schema == types | {"rating": pl.Float64}


def test_leading_zeros_of_ids_survive(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", "user,item,time\n007,0042,1\n")
    assert rows(read_interactions(log)) == [("007", "0042", 1.0, 0)]


def test_columns_named_by_flags_win_over_aliases(tmp_path: Path) -> None:
    log = write(
        tmp_path / "log.csv", "user,item,time,who,what,position,mark,note\nx,x,9,u,i,1,5,hi\n"
    )
    data = read_interactions(
        log, user="who", item="what", timestamp="position", rating="mark", review="note"
    )
    assert data.log.rows() == [("u", "i", 1.0, 0, 5.0, "hi")]


# MovieLens, RecBole, Amazon


def test_movielens_100k_folder_is_latin_1_with_genre_flags(tmp_path: Path) -> None:
    flags = ["0"] * 19
    flags[5] = flags[8] = "1"
    film = "|".join(["1", "Misérables, Les (1995)", "01-Jan-1995", "", "http://x", *flags])
    write(tmp_path / "u.item", (film + "\n").encode("latin-1"))
    write(tmp_path / "u.data", "1\t1\t5\t881250949\n")
    data = read_interactions(tmp_path)
    assert data.items is not None
    wanted = ("1", "Misérables, Les (1995)", "Comedy|Drama")
    assert data.items.select("item_id", "title", "genres").row(0) == wanted
    assert data.source["layout"] == "movielens"


def test_movielens_1m_and_25m_folders(tmp_path: Path) -> None:
    for name, separator in (("ml-1m", "::"), ("ml-25m", ",")):
        (tmp_path / name).mkdir()
        suffix = "dat" if separator == "::" else "csv"
        header = {
            "ratings": "userId,movieId,rating,timestamp\n",
            "movies": "movieId,title,genres\n",
        }
        lines = {"ratings": ["1", "2", "5", "978300019"], "movies": ["2", "Heat: é (1995)", "A|B"]}
        for file, fields in lines.items():
            text = (header[file] if suffix == "csv" else "") + separator.join(fields) + "\n"
            encoding = "latin-1" if suffix == "dat" else "utf-8"
            write(tmp_path / name / f"{file}.{suffix}", text.encode(encoding))
        data = read_interactions(tmp_path / name)
        assert rows(data) == [("1", "2", 978300019.0, 0)]
        assert item_rows(data) == [("2", "Heat: é (1995)", "A|B")]


def test_recbole_folder_gives_movielens_titles_their_year(tmp_path: Path) -> None:
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    write(folder / "ml-100k.inter", header + "196\t1\t3\t881250949\n")
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    films = '1\tToy "Story"\t1995\tAnimation Comedy\n2\tunkonwn\tunkonwn\tunknown\n'
    write(folder / "ml-100k.item", header + films)
    data = read_interactions(folder)
    assert data.items is not None
    assert data.items.columns == ["item_id", "title", "year", "genres"]
    first, second = item_rows(data)
    assert first == ("1", 'Toy "Story" (1995)', "1995", "Animation|Comedy")
    assert second == ("2", "unkonwn", "unkonwn", "unknown")


def test_python_literals_are_read_as_json_or_named(tmp_path: Path) -> None:
    path, row = tmp_path / "log.jsonl", "{'user_id': 'a', 'item_id': 'b', 'timestamp': 1, 'x': %s}"
    path.write_text(row % "{1: (2, None)}")
    assert read_interactions(path).log["item_id"].to_list() == ["b"]
    for wrong in ("{1, 2}", "b'x'", "{(1, 2): 3}"):
        path.write_text(row % wrong)
        with pytest.raises(DataError, match="line 1 is not a JSON object"):
            read_interactions(path)
    path.write_text("{1: 1}")
    with pytest.raises(DataError, match="no user_id column among 1"):
        read_interactions(path)


def test_amazon_2014_reviews_and_python_literal_metadata(tmp_path: Path) -> None:
    review = {"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1_400_000_000}
    text = json_lines({**review, "reviewText": "good", "summary": "!"})
    log = write(tmp_path / "reviews_Toys_5.json.gz", text)
    table = (
        "{'asin': 'B1', 'title': \"Kids' Game\", 'categories': [['Toys', 'Games'], ['Gifts']]}\n"
    )
    items = write(tmp_path / "meta_Toys.json.gz", table)
    data = read_interactions(log, items=items)
    assert data.log.row(0) == ("A1", "B1", 1_400_000_000.0, 0, 5.0, "good")
    assert item_rows(data) == [("B1", "Kids' Game", "Toys > Games | Gifts")]


def test_amazon_2023_parent_asin_milliseconds_and_review_headlines(tmp_path: Path) -> None:
    review = {"rating": 4.0, "title": "Loved it", "text": "good", "asin": "B2", "parent_asin": "B1"}
    log = write(
        tmp_path / "Toys.jsonl",
        json_lines({**review, "user_id": "A1", "timestamp": 1_588_687_728_923}),
    )
    data = read_interactions(log)
    assert data.log.row(0) == ("A1", "B1", 1_588_687_728_923 / 1000, 0, 4.0, "good")
    assert data.source["timestamp_unit"] == "milliseconds"
    assert data.items is None  # "Loved it" is the headline of a review
    meta = {"parent_asin": "B1", "title": "Game", "categories": ["Toys", "Games"], "store": "Acme"}
    items = write(tmp_path / "meta_Toys.jsonl", json_lines({**meta, "details": {"Age": "3+"}}))
    wanted = ("B1", "Game", "Toys > Games", "Acme", '{"Age":"3+"}')
    assert item_rows(read_interactions(log, items=items)) == [wanted]


# Titles


def test_titles_of_the_log_serve_where_there_is_no_item_table(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", "user,item,time,name\nu,a,1,Alpha\nu,b,2,Beta\nv,a,3,Alfa\n")
    data = read_interactions(log)
    assert item_rows(data) == [("a", "Alpha"), ("b", "Beta")]
    table = data.source["item_table"]
    assert isinstance(table, dict)
    assert (table["duplicate_ids"], table["conflicting_titles"]) == (1, 1)


def test_the_first_of_several_rows_of_an_item_counts(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", CSV)
    items = write(tmp_path / "things.csv", "id,label,brand\na,One,X\n,Two,Y\na,One,Z\nb,,W\n")
    data = read_interactions(log, items=items, title="label")
    assert item_rows(data) == [("a", "One", "X"), ("b", None, "W")]
    wanted = {"rows_read": 4, "null_ids": 1, "duplicate_ids": 1, "conflicting_titles": 0}
    table = {"file": "things.csv", "title_column": "label", **wanted}
    assert data.source["item_table"] == table
    assert "things.csv: rows that repeat an item id, of which the first value counts: 1" in str(
        data.source["notes"]
    )


# Times


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", DAY),
        ("1970-01-02T00:00:01", DAY + 1),
        ("1970-01-02 00:00:01.5", DAY + 1.5),
        ("1970-01-02T00:01", DAY + 60),
        ("1970-01-02T00:00:00Z", DAY),
        ("1970-01-02T02:00:00+02:00", DAY),
        ('"01 2, 1970"', DAY),
    ],
)
def test_times_become_epoch_seconds(tmp_path: Path, text: str, seconds: float) -> None:
    log = write(tmp_path / "log.csv", f"user,item,time\nu,a,{text}\nu,b,1970-01-03\n")
    assert read_interactions(log).log["timestamp"].to_list() == [seconds, 2 * DAY]


@pytest.mark.parametrize("times", [[date(1970, 1, 2)], [datetime(1970, 1, 2, tzinfo=UTC)]])
def test_typed_times_become_epoch_seconds(tmp_path: Path, times: list[date]) -> None:
    frame = pl.DataFrame({"user": ["u"], "item": ["a"], "time": times})
    frame.write_parquet(tmp_path / "log.parquet")
    assert read_interactions(tmp_path / "log.parquet").log["timestamp"].to_list() == [DAY]


@pytest.mark.parametrize("factor", [1, 10**3, 10**6, 10**9])
def test_the_unit_of_epoch_times_is_told_by_their_size(tmp_path: Path, factor: int) -> None:
    log = write(tmp_path / "log.csv", f"user,item,time\nu,a,{1_588_687_728 * factor}\n")
    assert read_interactions(log).log["timestamp"].to_list() == [1_588_687_728]


# What is dropped, and what is refused


def test_dropped_rows_are_counted_and_the_others_keep_their_row_number(tmp_path: Path) -> None:
    text = "user,item,time\n,a,1\nu,,2\nu, ,3\nu,a,4\nu,a,4\nu,a,5\n"
    data = read_interactions(write(tmp_path / "log.csv", text))
    assert rows(data) == [("u", "a", 4.0, 3), ("u", "a", 5.0, 5)]
    assert data.source["dropped"] == {"null_user": 1, "null_item": 2, "duplicate": 1}
    assert data.source["rows_read"] == 6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", "", "log.csv: the file is empty"),
        ("log.csv", "\n", "log.csv: the file has no rows"),
        ("log.csv", "user,item,time\n", "log.csv: the file has no rows"),
        ("log.jsonl.gz", "", "log.jsonl.gz: the file has no rows"),
        (
            "log.csv",
            "user,item\nu,a\n",
            "no timestamp column among user, item; .*--timestamp COLUMN",
        ),
        ("log.csv", "who,item,time\nu,a,1\n", "no user_id column among who, .*--user COLUMN"),
        ("log.csv", "user,item,time\nu,a,1\nu,a,soon\n", "'time'.* first 'soon' in data row 2"),
        ("log.csv", "user,item,time\nu,a,1\nu,a,\n", "'time'.* first empty in data row 2"),
        ("log.csv", "user,item,time\nu,a,inf\n", "'time'.* first 'inf' in data row 1"),
        ("log.csv", "user,item,time\n,a,1\n", "no row has both a user and an item"),
        ("log.csv", b"user,item,time\nu,\xe9\xe8\xea,1\n", "not UTF-8 at line 2, byte offset 17"),
        ("log.jsonl", b'{"user": "\xe9\xe8\xea"}\n', "not UTF-8 at line 1, byte offset 10"),
        ("log.csv", "user,item,time\nu,a,1,2\n", "line 2 has 4 fields"),
        ("log.jsonl", '{"user": 1}\n[1, 2]\n', "line 2 is not a JSON object"),
        ("log.parquet", "nothing", "log.parquet: cannot be read"),
        ("log.xls", "nothing", "unknown file format"),
    ],
)
def test_bad_logs_are_refused(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_interactions(write(tmp_path / name, content))


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.csv.gz", "u.item.gz"])
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, name: str) -> None:
    log = write(tmp_path / name, json_lines(*({"user": n} for n in range(999))))
    log.write_bytes(log.read_bytes()[:-20])
    with pytest.raises(DataError, match=f"{name}: cannot be read"):
        read_interactions(log)


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", CSV)
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        read_interactions(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        read_interactions(log, items=tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"no column 'when' among user_id, .*--timestamp COLUMN"):
        read_interactions(log, timestamp="when")
    with pytest.raises(
        DataError, match=r"things\.csv: no title column among id, x; .*--title COLUMN"
    ):
        read_interactions(log, items=write(tmp_path / "things.csv", "id,x\na,1\n"))


def test_a_folder_must_hold_one_log(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found none"):
        read_interactions(tmp_path)
    write(tmp_path / "interactions.csv", CSV)
    write(tmp_path / "u.data", "1\t1\t1\t1\n")
    with pytest.raises(DataError, match=r"found u\.data, interactions\.csv"):
        read_interactions(tmp_path)
