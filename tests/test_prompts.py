from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from genrec.errors import BackboneError
from genrec.prompts import INSTRUCTIONS, LIST_PREFIX, build_prompts, prompt_titles

TITLES = ["Red Moon (1995)", "Blue Sun (1990)", "Blue Sun (1999)", "Night, Storm", "(500) Days"]


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone: str) -> Any:
    return AutoTokenizer.from_pretrained(tiny_backbone)


def items(*indices: int) -> np.ndarray:
    return np.array(indices, np.int32)


def test_list_prompt_reads_as_text(tokenizer: Any) -> None:
    prompts = build_prompts(tokenizer, TITLES, template="list", max_tokens=300)
    assert tokenizer.decode(prompts.encode(items(0, 3))) == (
        f"{LIST_PREFIX}Red Moon (1995)\nNight, Storm\n"
    )
    assert prompts.every_position


def test_instruction_prompt_puts_the_response_after_the_history(tokenizer: Any) -> None:
    prompts = build_prompts(tokenizer, TITLES, template="instruction", max_tokens=400)
    text = tokenizer.decode(prompts.encode(items(3), variant=2))
    assert INSTRUCTIONS[2] in text
    assert text.endswith("Night, Storm\n\n### Response:\n")
    assert len(prompts.prefixes) == len(INSTRUCTIONS) == 10


def test_titles_are_closed_by_a_token_they_do_not_contain(tokenizer: Any) -> None:
    prompts = build_prompts(tokenizer, TITLES, template="list", max_tokens=300)
    for title, text in zip(prompts.titles, TITLES, strict=True):
        assert title[-1] == prompts.end
        assert prompts.end not in title[:-1]
        assert tokenizer.decode(title.tolist()) == text + "\n"


def test_too_long_a_history_loses_its_oldest_items(tokenizer: Any) -> None:
    prompts = build_prompts(tokenizer, TITLES, template="list", max_tokens=70)
    history = items(0, 1, 2, 3, 0, 4)
    tokens = prompts.encode(history)
    assert len(tokens) <= 70
    assert tokens[-len(prompts.titles[4]) :] == prompts.titles[4].tolist()
    kept = prompts.fitting(history)
    assert kept.tolist() == history[len(history) - len(kept) :].tolist()
    assert len(kept) < len(history)
    assert len(prompts.encode(history, reserve=10)) <= 60


def test_no_room_for_a_title_is_said(tokenizer: Any) -> None:
    with pytest.raises(BackboneError, match="max_tokens=20"):
        build_prompts(tokenizer, ["Night " * 30], template="list", max_tokens=20)


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


def test_a_title_that_is_only_a_year_keeps_it(tokenizer: Any) -> None:
    assert prompt_titles(["(1984)"], tokenizer, form="short", limit=9) == ["(1984)"]
