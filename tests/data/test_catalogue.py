from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.data.catalogue import Catalogue
from genrec.data.display_titles import clean_title, disambiguate
from genrec.data.prepare import build_catalogue
from genrec.errors import DataError, UnknownItemError

TRICKY = st.text(st.sampled_from("Aa ()2&amp;;\t\u00e9e\u0301\u200b\x00ß"), max_size=8) | st.text()


def catalogue(*titles: str | None, **metadata: Sequence[object]) -> Catalogue:
    return report_of(*titles, **metadata)[0]


def report_of(
    *titles: str | None, **metadata: Sequence[object]
) -> tuple[Catalogue, dict[str, object]]:
    ids = [f"i{index}" for index in range(len(titles))]
    schema = {"item_id": pl.String, "title": pl.String}
    items = pl.DataFrame(
        {"item_id": ids, "title": list(titles), **metadata}, schema_overrides=schema
    )
    return build_catalogue(items, ids)


# Cleaning


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("Tom &amp;amp; Jerry", "Tom & Jerry"),
        ("Caf\u0065\u0301", "Caf\u00e9"),
        ("  Toy\u00a0\t Story\r\n", "Toy Story"),
        ("Toy\u200b Sto\x00ry\ufeff", "Toy Story"),
        ("a \u202ereversed", "a reversed"),
        ("&#0;", "\ufffd"),
        ("Al\u200cef", "Al\u200cef"),
        (" \u200b ", ""),
        ("<b>Red</b> &amp; Blue<br>Mug", "Red & Blue Mug"),
        ('<span class="a">H<sub>2</sub>O</span><BR/> <h1>a</h1>', "H2O a"),
        ("&lt;i&gt;Up&lt;/i&gt;", "Up"),
        (
            "I <3 you, 5 < 6 > 3, <unknown> and <brave>",
            "I <3 you, 5 < 6 > 3, <unknown> and <brave>",
        ),
    ],
)
def test_clean_title(raw: str, clean: str) -> None:
    assert clean_title(raw) == clean


@given(TRICKY)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    clean = clean_title(text)
    assert clean_title(clean) == clean
    assert clean == " ".join(clean.split())


# Unique titles


def test_a_distinguishing_year_comes_before_brand_and_number() -> None:
    titles = catalogue("Emma", "Emma", "Heat", year=["1996", "2020", "1995"], brand=["A", "B", "C"])
    assert titles.titles == ["Emma (1996)", "Emma (2020)", "Heat"]


def test_a_column_that_does_not_distinguish_is_passed_over() -> None:
    clue = catalogue(
        "Clue", "Clue", year=["1996", "1996"], category=["Toys > Games", "Toys > Cars"]
    )
    assert clue.titles == ["Clue [Games]", "Clue [Cars]"]


def test_what_metadata_leave_equal_gets_a_number() -> None:
    clue, report = report_of("Clue", "Clue", "Clue", "Clue", brand=["A", "B", "B", None])
    assert clue.titles == ["Clue [A]", "Clue [B]", "Clue [B] (2)", "Clue"]
    assert report["disambiguated_by"] == {"brand": 2, "number": 1}
    assert report["duplicate_titles"] == 4 - 1


def test_numbers_follow_item_order_and_skip_titles_in_use() -> None:
    assert catalogue("A", "A", "A (2)", "A").titles == ["A", "A (3)", "A (2)", "A (4)"]
    assert catalogue("A", "A", "A (1999)", year=["1999", "2000", "1999"]).titles == [
        "A (1999) (2)",
        "A (2000)",
        "A (1999)",
    ]


def test_titles_that_differ_in_case_alone_stay() -> None:
    assert catalogue("Heat", "HEAT").titles == ["Heat", "HEAT"]


def test_missing_titles_are_named_after_category_and_id() -> None:
    category = ["Toys > Games | Gifts", None, ""]
    built, report = report_of(None, " ", "&nbsp;", category=category)
    assert built.titles == ["Untitled Games i0", "Untitled item i1", "Untitled item i2"]
    assert report["untitled"] == 3


def test_the_report_counts_items_on_one_side_only() -> None:
    items = pl.DataFrame({"item_id": ["a", "x", "y"], "title": ["A&amp;B", "X", "Y"]})
    built, report = build_catalogue(items, ["b", "a"])
    assert built.item_ids == ["b", "a"]
    assert built.titles == ["Untitled item b", "A&B"]
    assert report == {
        "items": 2,
        "untitled": 1,
        "not_in_item_table": 1,
        "items_without_interactions": 2,
        "changed_by_cleaning": 1,
        "duplicate_titles": 0,
        "disambiguated_by": {},
    }


@given(st.lists(st.tuples(st.none() | TRICKY, st.sampled_from([None, "", "1", "2"]))))
def test_titles_are_unique_and_clean_whatever_comes_in(
    rows: list[tuple[str | None, str | None]],
) -> None:
    years = pl.Series([year for _, year in rows], dtype=pl.String)
    built = catalogue(*(title for title, _ in rows), year=years.to_list())
    assert len(set(built.titles)) == len(built) == len(rows)
    assert all(title and title == clean_title(title) for title in built.titles)
    assert [built.index_of(title) for title in built.titles] == list(range(len(rows)))


def test_no_titles_at_all_is_an_error_that_names_the_flags() -> None:
    with pytest.raises(DataError, match=r"--items FILE.*--title COLUMN"):
        build_catalogue(None, ["a"])


# Looking up


def test_titles_and_ids_are_told_apart() -> None:
    films = Catalogue(["7", "8", "9"], ["Heat (1995)", "7", "8"], pl.DataFrame())
    assert films.index_of("7", by="title") == 1
    assert films.index_of("7", by="id") == 0
    with pytest.raises(UnknownItemError, match=r"title of item '8' and the id of 'Heat.*by='id'"):
        films.index_of("7")
    with pytest.raises(UnknownItemError, match="the id 'Heat' is not in the catalogue"):
        films.index_of("Heat", by="id")
    assert films.mask(block=["7"], by="id").tolist() == [False, True, True]
    same = Catalogue(["Heat", "21"], ["Heat", "Twenty-one"], pl.DataFrame())
    assert same.index_of("Heat") == 0  # title and id of one item


def test_index_of_tries_the_exact_title_case_and_year_in_this_order() -> None:
    films = Catalogue(["7", "8", "9"], ["Heat (1995)", "7", "8"], pl.DataFrame())
    assert films.index_of("9") == 2
    assert films.index_of(" heat (1995)") == 0
    assert films.index_of("HEAT") == 0


def test_an_unknown_title_is_answered_with_close_ones() -> None:
    films = catalogue("Toy Story (1995)", "Matrix, The (1999)", "Heat (1995)")
    with pytest.raises(UnknownItemError, match=r"'Toy Stroy' .* 3 items; .*'Toy Story \(1995\)'"):
        films.index_of("Toy Stroy")
    with pytest.raises(UnknownItemError, match=r"'matrix' .*'Matrix, The \(1999\)'"):
        films.index_of("matrix")
    for nonsense in ("", "qqqqqqqq"):
        with pytest.raises(UnknownItemError, match="close titles: none"):
            films.index_of(nonsense)


def test_an_ambiguous_title_is_answered_with_all_its_items() -> None:
    films = catalogue("Sabrina (1954)", "Sabrina (1995)", "HEAT", "Heat")
    with pytest.raises(UnknownItemError, match=r"names 2 items: 'Sabrina \(1954\)' \(id i0\), "):
        films.index_of("Sabrina")
    with pytest.raises(UnknownItemError, match="names 2 items: 'HEAT'"):
        films.index_of("heat")


# Saving


@pytest.mark.parametrize("metadata", [{}, {"year": [1995, None], "tags": [["a", "b"], []]}])
def test_save_and_load(tmp_path: Path, metadata: dict[str, list[object]]) -> None:
    saved = catalogue("Heat", "Émile, 'ou' \"x\"", **metadata)
    saved.save(tmp_path / "items.parquet")
    loaded = Catalogue.load(tmp_path / "items.parquet")
    assert (loaded.item_ids, loaded.titles) == (saved.item_ids, saved.titles)
    assert loaded.metadata.equals(saved.metadata)
    assert [path.name for path in tmp_path.iterdir()] == ["items.parquet"]


def test_loading_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.parquet: not a readable catalogue"):
        Catalogue.load(tmp_path / "gone.parquet")
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet: not a readable catalogue.*genrec prepare"):
        Catalogue.load(tmp_path / "x.parquet")


def test_subset_keeps_the_given_order() -> None:
    part = catalogue("A", "B", "C", year=["1", "2", "3"]).subset([2, 0])
    assert (part.item_ids, part.titles) == (["i2", "i0"], ["C", "A"])
    assert part.metadata["year"].to_list() == ["3", "1"]
    assert catalogue("A", "B").subset([1]).titles == ["B"]


def test_a_catalogue_refuses_duplicates_and_uneven_columns() -> None:
    with pytest.raises(DataError, match="title 'A' occurs twice"):
        Catalogue(["1", "2"], ["A", "A"], pl.DataFrame())
    with pytest.raises(DataError, match="item id '1' occurs twice"):
        Catalogue(["1", "1"], ["A", "B"], pl.DataFrame())
    with pytest.raises(DataError, match="one title"):
        Catalogue(["1"], ["A", "B"], pl.DataFrame())


def films() -> Catalogue:
    metadata = pl.DataFrame({"genres": ["Comedy|Drama", "Drama", None], "year": [1995, 1990, 2001]})
    return Catalogue(["a", "b", "c"], ["Emma", "Big", "Up"], metadata)


def test_masks_name_items_or_ask_a_condition() -> None:
    catalogue = films()
    assert catalogue.mask().tolist() == [True, True, True]
    assert catalogue.mask(allow=["Emma", "c"]).tolist() == [True, False, True]
    assert catalogue.mask(allow=["Emma", "c"], block=["up"]).tolist() == [True, False, False]
    assert catalogue.mask(allow=[]).tolist() == [False, False, False]
    comedies = catalogue.mask(where="genres LIKE '%Comedy%'")
    assert comedies.tolist() == [True, False, False]  # unknown genres do not meet it
    assert catalogue.mask(where="year > 1990 AND title <> 'Up'").tolist() == [True, False, False]
    assert catalogue.mask(where=pl.col("year") < 2000, block=["b"]).tolist() == [True, False, False]


@pytest.mark.parametrize("where", ["genre = 'Drama'", "year >", "year + 1", "sum(year) > 3", ""])
def test_a_condition_that_is_none_is_explained(where: str) -> None:
    with pytest.raises(
        DataError, match=r"columns are item_id \(String\), title .*year \(Int64\)|no condition"
    ):
        films().mask(where=where)


def test_a_text_compared_with_a_number_is_explained() -> None:
    with pytest.raises(DataError, match=r"compared with a text, as in year > '1995'"):
        films().mask(where="title > 1995")


def test_extended_takes_clean_new_titles_only() -> None:
    longer = films().extended([" Heat &amp; Dust "], ["d"])
    assert longer.titles == ["Emma", "Big", "Up", "Heat & Dust"]
    assert longer.metadata["year"].to_list() == [1995, 1990, 2001, None]
    dated = films().extended(["Heat"], ["d"], pl.DataFrame({"year": [1995]}))
    assert dated.metadata.row(3) == (None, 1995)
    for titles, ids, message in (
        (["Emma"], ["d"], "title 'Emma' is empty or taken"),
        (["Heat"], ["a"], "item id 'a' is empty or taken"),
        (["Heat", "Heat"], ["d", "e"], "title 'Heat' is empty or taken"),
        (["\u200b"], ["d"], "title '' is empty"),
        (["Heat"], ["d", "e"], "1 titles need as many item ids, got 2"),
    ):
        with pytest.raises(DataError, match=message):
            films().extended(titles, ids)
    with pytest.raises(DataError, match="do not fit"):
        films().extended(["Heat"], ["d"], pl.DataFrame({"year": ["soon"]}))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.indices("Alien (1979)"), r"give \['Alien \(1979\)'\]"),
        (lambda c: c.mask(block="Alien (1979)"), "a list of titles or ids is needed"),
        (lambda c: c.mask(allow="Alien (1979)"), "a list of titles or ids is needed"),
        (lambda c: c.extended("New", ["n"]), "a list of titles or ids is needed"),
        (lambda c: c.indices([1]), "1 is not a text"),
        (lambda c: c.index_of("a", by="name"), "by is 'name'; give one of either, title, id"),
    ],
)
def test_wrong_kinds_of_entries_are_named(call: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call(Catalogue(["a", "b"], ["Alien (1979)", "Heat (1995)"], pl.DataFrame()))


@pytest.mark.parametrize(
    ("metadata", "suffixes"),
    [
        # Lists with the same values in another order tell nothing apart.
        ({"categories": ["Food|Coffee & Tea", "Coffee & Tea|Food"]}, ["", "(2)"]),
        ({"categories": ["Food, Coffee & Tea", "Coffee & Tea, Food"]}, ["", "(2)"]),
        ({"categories": ["Food > Coffee & Tea", "Coffee & Tea > Food"]}, ["", "(2)"]),
        ({"categories": ["['Food', 'Coffee']", "['Coffee', 'Food']"]}, ["", "(2)"]),
        ({"genres": ["Comedy,Drama", "Drama,Comedy,War"]}, ["[Comedy, Drama]", "[War]"]),
        ({"brand": ["None", "N/A"], "year": [1996.0, 2020.0]}, ["(1996)", "(2020)"]),
        # One value that only one of them has is enough.
        ({"categories": ["Food|Coffee", "Food|Bar|Coffee"]}, ["[Coffee, Food]", "[Bar]"]),
        ({"genres": ["Drama", "Comedy|Drama"]}, ["[Drama]", "[Comedy]"]),
        ({"categories": ["A > X > B", "A > Y > B"]}, ["[X]", "[Y]"]),
        # A second column follows only where the first leaves items alike.
        (
            {"city": ["Tampa", "Reno", "Tampa"], "brand": ["x", "x", "x"], "year": [1, 1, 2]},
            ["(1) [Tampa]", "(1) [Reno]", "(2)"],
        ),
        (
            {"city": ["Tampa"] * 3, "address": ["1 A St", "2 B St", None]},
            ["[1 A St]", "[2 B St]", ""],
        ),
        ({"colour": ["red", "blue"]}, ["", "(2)"]),
    ],
)
def test_the_shortest_difference_tells_namesakes_apart(
    metadata: dict[str, list[object]], suffixes: list[str]
) -> None:
    titles, _ = disambiguate(["Starbucks"] * len(suffixes), pl.DataFrame(metadata))
    assert titles == [f"Starbucks {suffix}".strip() for suffix in suffixes]


def test_a_bare_title_names_its_candidates() -> None:
    titles = ["Starbucks [Tampa]", "Starbucks [Reno]", "Emma (1996)"]
    metadata = pl.DataFrame({"city": ["Tampa", "Reno", "Oslo"], "brand": ["S", "S", "M"]})
    catalogue = Catalogue(["1", "2", "3"], titles, metadata)
    with pytest.raises(UnknownItemError, match=r"names 2 items: 'Starbucks \[Tampa\]' \(id 1\)"):
        catalogue.index_of("starbucks")
    assert catalogue.index_of("Emma") == 2
    assert [catalogue.detail(item) for item in range(3)] == ["S · Tampa", "S · Reno", None]
    bare = Catalogue(["1", "2"], titles[:2], pl.DataFrame())
    assert bare.detail(1) == "id 2"
    twins = Catalogue(["1", "2"], titles[:2], pl.DataFrame({"brand": ["S", "S"]}))
    assert twins.detail(0) == "S · id 1"


def test_ids_of_new_items_are_texts_without_blanks_around_them() -> None:
    catalogue = Catalogue(["50"], ["Star Wars"], pl.DataFrame({"year": [1977]}))
    longer = catalogue.extended(["Alien"], [" 51 "], pl.DataFrame({"year": [1979]}))
    assert longer.index_of("51 ", by="id") == 1
    with pytest.raises(DataError, match="taken"):
        catalogue.extended(["Alien"], ["50 "])
    with pytest.raises(DataError, match="the item id 51 is not a text; give '51'"):
        catalogue.extended(["Alien"], [51])  # type: ignore[list-item]
    with pytest.raises(DataError, match="2 rows for 1 new items"):
        catalogue.extended(["Alien"], ["51"], pl.DataFrame({"year": [1, 2]}))
