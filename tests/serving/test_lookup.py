from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_titles
from genrec.serving.lookup import WORD, Lookup, fold

FILMS = [
    *("Matrix, The (1999)", "The Matrix Reloaded", "Terminator, The (1984)", "Amélie (2001)"),
    *("Star Wars (1977)", "Star Trek: First Contact", "Lone Star", "A Star Is Born"),
    *("Toy Story", "Toy Story 2", "Naïve Café", "12 Angry Men"),
    *(
        "Fargo (1996)",
        "Bitter Sugar (Azucar Amargo)",
        "千と千尋の神隠し",
        "もののけ姫",
        "ฉลาดเกมส์โกง",
    ),
]


@pytest.fixture(scope="module")
def films() -> Lookup:
    return Lookup([f"id{n}" for n in range(len(FILMS))], FILMS)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("matrix", "Matrix, The (1999)"),
        ("the matrix r", "The Matrix Reloaded"),
        ("AMELIE", "Amélie (2001)"),
        ("naive cafe", "Naïve Café"),
        ("termintor", "Terminator, The (1984)"),
        ("star", "A Star Is Born"),
        ("toy story", "Toy Story"),
        ("12 an", "12 Angry Men"),
        ("id8", "Toy Story"),
        ("trek star", "Star Trek: First Contact"),
        ("star warz", "Star Wars (1977)"),
        ("神隠し", "千と千尋の神隠し"),
        ("千尋", "千と千尋の神隠し"),
        ("のけ", "もののけ姫"),
        ("เกมส์", "ฉลาดเกมส์โกง"),
    ],
)
def test_finds_what_is_meant(films: Lookup, query: str, first: str) -> None:
    assert FILMS[films.find(query)[0]] == first


def test_titles_that_begin_with_it_come_first(films: Lookup) -> None:
    assert [FILMS[item] for item in films.find("star")][:4] == [
        "A Star Is Born",  # an article is no beginning, and it is the shortest
        "Star Wars (1977)",
        "Star Trek: First Contact",
        "Lone Star",
    ]


def test_an_exact_match_brings_no_similar_words(films: Lookup) -> None:
    assert [FILMS[item] for item in films.find("fargo")] == ["Fargo (1996)"]


def test_nonsense_finds_nothing(films: Lookup) -> None:
    for query in ("", "   ", "!?", "zzzzqqq"):
        assert films.find(query) == []


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=string.ascii_lowercase[:8] + " ", max_size=8), st.integers(1, 12))
def test_prefixes_equal_brute_force(query: str, limit: int) -> None:
    titles = make_titles(150, seed=1)
    lookup = Lookup([f"#{n}" for n in range(len(titles))], titles)
    words = WORD.findall(fold(query))
    own = [WORD.findall(fold(title)) for title in titles]
    expected = {
        item
        for item, held in enumerate(own)
        if words and all(any(each.startswith(word) for each in held) for word in words)
    }
    found = lookup.find(query, limit)
    assert len(found) == len(set(found)) <= limit
    assert len(expected & set(found)) == min(limit, len(expected))
    assert set(found[: len(expected)]) <= expected or len(found) < len(expected)


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=40))
def test_any_text_may_come(films_query: str) -> None:
    lookup = Lookup([f"id{n}" for n in range(len(FILMS))], FILMS)
    found = lookup.find(films_query, 5)
    assert len(found) == len(set(found)) <= 5
    assert all(0 <= item < len(FILMS) for item in np.array(found, int))
