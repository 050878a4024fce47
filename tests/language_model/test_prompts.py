from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from genrec.config import Config
from genrec.errors import BackboneError
from genrec.language_model.prompts import (
    INSTRUCTIONS,
    LIST_PREFIX,
    Prompts,
    build_prompts,
    end_token,
)
from genrec.language_model.titles import tokenize_titles

TITLES = ["Red Moon (1995)", "Blue Sun (1990)", "Blue Sun (1999)", "Night, Storm", "(500) Days"]


@pytest.fixture(scope="module")
def tokenizer(tiny_backbone: str) -> Any:
    return AutoTokenizer.from_pretrained(tiny_backbone)


def make(
    tokenizer: Any, titles: list[str], template: str, max_tokens: int, **settings: Any
) -> Prompts:
    config = Config.create(template=template, max_tokens=max_tokens, **settings)
    end = end_token(tokenizer, config.separator)
    return build_prompts(tokenizer, tokenize_titles(tokenizer, titles, end), config)


def items(*indices: int) -> np.ndarray:
    return np.array(indices, np.int32)


def test_list_prompt_reads_as_text(tokenizer: Any) -> None:
    prompts = make(tokenizer, TITLES, "list", 300)
    assert tokenizer.decode(prompts.encode(items(0, 3))) == (
        f"{LIST_PREFIX}Red Moon (1995)\nNight, Storm\n"
    )
    assert prompts.every_position


def test_instruction_prompt_puts_the_response_after_the_history(tokenizer: Any) -> None:
    prompts = make(tokenizer, TITLES, "instruction", 400)
    text = tokenizer.decode(prompts.encode(items(3), variant=2))
    assert INSTRUCTIONS[2] in text
    assert text.endswith("Night, Storm\n\n### Response:\n")
    assert len(prompts.prefixes) == len(INSTRUCTIONS) == 10


def test_titles_are_closed_by_a_token_they_do_not_contain(tokenizer: Any) -> None:
    prompts = make(tokenizer, TITLES, "list", 300)
    for title, text in zip(prompts.titles, TITLES, strict=True):
        assert title[-1] == prompts.end
        assert prompts.end not in title[:-1]
        assert tokenizer.decode(title.tolist()) == text + "\n"


def test_too_long_a_history_loses_its_oldest_items(tokenizer: Any) -> None:
    prompts = make(tokenizer, TITLES, "list", 70)
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
        make(tokenizer, ["Night " * 30], "list", 20)


def test_a_growing_history_keeps_the_start_of_its_prompt(tokenizer: Any) -> None:
    prompts = make(tokenizer, TITLES, "list", 400)
    history = np.arange(40, dtype=np.int32) % 5
    shown = [prompts.recent(history[:n], 8) for n in range(41)]
    assert shown[8].tolist() == history[:8].tolist()
    assert shown[9].tolist() == history[2:9].tolist()  # a quarter of 8 goes at once
    assert all(7 <= len(each) <= 8 for each in shown[8:])
    starts = [n - len(each) for n, each in enumerate(shown)]
    assert starts == sorted(starts)
    assert all(start % 2 == 0 for start in starts)


def test_titles_that_do_not_fit_go_in_steps_too(tokenizer: Any) -> None:
    prompts = make(tokenizer, TITLES, "list", 90)
    history = np.arange(40, dtype=np.int32) % 5
    for n in range(1, 41):
        shown = prompts.recent(history[:n], 20)
        assert len(shown) > 0
        assert len(prompts.encode(shown)) <= 90
        assert (n - len(shown)) % 5 == 0 or len(shown) < 5


INSTRUCTION = f"### Instruction:\n{INSTRUCTIONS[0]}\n\n### Input:\n"
FORMS: list[tuple[dict[str, Any], str]] = [
    ({"template": "plain"}, "\nRed Moon (1995)\nNight, Storm\n"),
    (
        {"template": "numbered", "context_layers": None},
        f"{LIST_PREFIX}1. Red Moon (1995)\n2. Night, Storm\n3. ",
    ),
    (
        {"template": "list", "history_order": "newest-first"},
        f"{LIST_PREFIX}Night, Storm\nRed Moon (1995)\n",
    ),
    (
        {"template": "list", "separator": "semicolon"},
        f"{LIST_PREFIX}Red Moon (1995);Night, Storm;",
    ),
    (
        {"template": "list", "ratings": (1.0, 2.5, 5.0)},
        f"{LIST_PREFIX}Red Moon (1995)\n(rated 2.5)\nNight, Storm\n(not rated)\n",
    ),
    (
        {"template": "list", "ratings": (5.0, 1.0), "history_order": "newest-first"},
        f"{LIST_PREFIX}Night, Storm\n(not rated)\nRed Moon (1995)\n(disliked)\n",
    ),
    (
        {"template": "one-instruction"},
        INSTRUCTION + "Red Moon (1995)\nNight, Storm\n\n### Response:\n",
    ),
]


@pytest.mark.parametrize(("settings", "text"), FORMS)
def test_every_form_reads_as_text(tokenizer: Any, settings: dict[str, Any], text: str) -> None:
    prompts = make(tokenizer, TITLES, max_tokens=400, **settings)
    levels = prompts.levels(np.array([2.2, np.nan], np.float32), 2)
    tokens = prompts.encode(items(0, 3), levels)
    assert tokenizer.decode(tokens) == text
    for item, (first, last) in zip((0, 3), prompts.spans(items(0, 3), levels), strict=True):
        assert tokenizer.decode(tokens[first:last]).removeprefix("1. ").removeprefix("2. ") in text
        assert prompts.titles[item].tolist()[0] in tokens[first:last]
    assert prompts.every_position == (
        settings["template"] != "one-instruction" and "history_order" not in settings
    )


def test_a_chat_format_is_the_backbones_own(tokenizer: Any, tiny_backbone: str) -> None:
    with pytest.raises(BackboneError, match="no chat format"):
        make(tokenizer, TITLES, "chat", 400)
    chatty = AutoTokenizer.from_pretrained(tiny_backbone)
    chatty.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<bot>"
    )
    prompts = make(chatty, TITLES, "chat", 400)
    assert chatty.decode(prompts.encode(items(3))) == (
        f"<user>{INSTRUCTIONS[0]}\nNight, Storm\n</user><bot>"
    )


def test_titles_with_the_separator_are_refused(tokenizer: Any) -> None:
    with pytest.raises(BackboneError, match=r"'Sun; Moon' contains .* Set separator=newline"):
        make(tokenizer, ["Sun; Moon"], "list", 300, separator="semicolon")


def test_ratings_go_to_the_nearest_value(tokenizer: Any) -> None:
    prompts = make(tokenizer, TITLES, "list", 300, ratings=(1, 3, 5))
    assert prompts.levels(np.array([0, 1.9, 2.1, 9, np.nan], np.float32), 5).tolist() == [
        *(1, 1, 2, 3, 0)
    ]
    assert prompts.levels(None, 2).tolist() == [0, 0]
    assert make(tokenizer, TITLES, "list", 300).levels(None, 2) is None
