from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer

from genrec.language_model.titles import TitleTokens, prompt_titles, tokenize_titles

TITLES = ["Red Moon (1995)", "Blue Sun (1990)", "Blue Sun (1999)", "Night, Storm", "(500) Days"]


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone: str) -> Any:
    return AutoTokenizer.from_pretrained(tiny_backbone)


def test_short_titles_drop_the_year_unless_it_is_needed(tokenizer: Any) -> None:
    short = prompt_titles(TITLES, tokenizer, form="short", limit=50)
    assert short == ["Red Moon", "Blue Sun (1990)", "Blue Sun (1999)", "Night, Storm", "(500) Days"]
    assert prompt_titles(TITLES, tokenizer, form="display", limit=50) == TITLES


def test_short_titles_stay_unique_when_cut(tokenizer: Any) -> None:
    long = [f"{'Storm ' * 30}{name}" for name in ("Red", "Blue")] + [f"{'Night ' * 30}end"]
    short = prompt_titles(long, tokenizer, form="short", limit=8)
    assert short[:2] == long[:2]  # cutting would make them equal
    assert len(tokenizer.encode(short[2])) <= 8
    assert long[2].startswith(short[2])


def test_new_titles_leave_the_taken_ones_alone(tokenizer: Any) -> None:
    new = ["Red Moon (2020)", "Green River (2020)"]
    short = prompt_titles(new, tokenizer, form="short", limit=50, taken=["Red Moon"])
    assert short == ["Red Moon (2020)", "Green River"]


def test_tokens_are_flat_and_can_be_joined(tokenizer: Any) -> None:
    first, second = (TitleTokens.from_lists(rows) for rows in ([[1, 0], [2, 3, 0]], [[4, 0]]))
    joined = first + second
    assert [title.tolist() for title in joined] == [[1, 0], [2, 3, 0], [4, 0]]
    assert joined.lengths.tolist() == [2, 3, 2]
    assert len(tokenize_titles(tokenizer, [], 0)) == 0


def test_a_title_that_is_only_a_year_keeps_it(tokenizer: Any) -> None:
    assert prompt_titles(["(1984)"], tokenizer, form="short", limit=9) == ["(1984)"]


def test_long_titles_that_begin_alike_stay_short(tokenizer: Any) -> None:
    beginning = "the quick brown fox jumps over the lazy dog " * 30
    titles = [f"{beginning}{end}" for end in ("one", "two", "three", "two", "end", "end")]
    titles = [f"{title} {place}" if place > 3 else title for place, title in enumerate(titles)]
    titles[3] += "."
    short = prompt_titles(titles, tokenizer, form="short", limit=12)
    assert len(set(short)) == len(titles)
    assert all(len(tokenizer(title)["input_ids"]) <= 24 for title in short)
    more = prompt_titles(titles, tokenizer, form="short", limit=12, taken=short)
    assert not set(more) & set(short)
    assert len(set(more)) == len(titles)
