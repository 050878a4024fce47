"""The one place where a history becomes tokens, for training, evaluation and serving alike.

A prompt is ``prefix + closed titles of the history + suffix``; what follows it is one closed title.
A closed title is its tokens and the end token (a line break), so titles may hold commas.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from genrec.errors import BackboneError

LIST_PREFIX = "Titles that one person chose, in this order:\n"
INSTRUCTIONS = (
    "Name the title this user will choose next, given the titles chosen so far.",
    "Here is what a user has picked, oldest first. Which title comes next?",
    "Continue the user's history with the most likely next title.",
    "Recommend one title to a user with the history below.",
    "Read the list of titles in order and predict the one that follows.",
    "Considering the user's past choices, which title should be suggested now?",
    "Predict the user's next choice from this sequence of titles.",
    "The titles below were chosen one after another. Give the next one.",
    "What will this user want after the following titles?",
    "From the user's earlier choices, generate the title that fits next.",
)
_YEAR = re.compile(r"\s*\((?:1[89]|20)\d\d\)$")


@dataclass(frozen=True)
class Prompts:
    """Token form of a catalogue's titles and of the template around them.

    Attributes:
        titles: closed title tokens of each item.
        prefixes: token forms of the text before the history; training draws one, inference
            uses the first.
        suffix: tokens between the history and the title to come.
        end: the end-of-title token.
    """

    titles: list[npt.NDArray[np.int32]]
    prefixes: list[list[int]]
    suffix: list[int]
    end: int
    max_tokens: int

    @cached_property
    def by_title(self) -> dict[tuple[int, ...], int]:
        """Item of each closed title."""
        return {tuple(title.tolist()): item for item, title in enumerate(self.titles)}

    @property
    def every_position(self) -> bool:
        """Whether each title of a sequence can be a target (no suffix stands in between)."""
        return not self.suffix

    def fitting(self, history: npt.NDArray[np.int32], reserve: int = 0) -> npt.NDArray[np.int32]:
        """The most recent items whose prompt has at most ``max_tokens - reserve`` tokens."""
        room = self.max_tokens - reserve - max(map(len, self.prefixes)) - len(self.suffix)
        used = np.cumsum([len(self.titles[item]) for item in history[::-1]])
        return history[len(history) - int((used <= room).sum()) :]

    def encode(
        self, history: npt.NDArray[np.int32], *, variant: int = 0, reserve: int = 0
    ) -> list[int]:
        """Tokens of the prompt for item indices, oldest first; the oldest go if it is too long."""
        kept = self.fitting(history, reserve)
        titles = [int(token) for item in kept for token in self.titles[item]]
        return [*self.prefixes[variant], *titles, *self.suffix]


def build_prompts(
    tokenizer: Any, titles: Sequence[str], *, template: str, max_tokens: int
) -> Prompts:
    """Tokenise a catalogue once.

    Args:
        tokenizer: a transformers tokenizer.
        titles: unique prompt titles in item order (see :func:`prompt_titles`).
        template: ``"list"`` or ``"instruction"``.
        max_tokens: most tokens in a prompt.
    """
    end = _end_token(tokenizer)
    encoded = tokenizer(list(titles), add_special_tokens=False)["input_ids"]
    closed = [np.array([*tokens, end], np.int32) for tokens in encoded]
    longest = max(map(len, closed))
    texts, after = _template(template)
    prefixes = [tokenizer.encode(text) for text in texts]  # with the begin token where one is used
    suffix = tokenizer.encode(after, add_special_tokens=False) if after else []
    if max(map(len, prefixes)) + len(suffix) + longest > max_tokens:
        raise BackboneError(
            f"max_tokens={max_tokens} leaves no room for the template and the longest title "
            f"({longest} tokens): raise max_tokens, or set titles=short and a lower title_tokens."
        )
    return Prompts(closed, prefixes, suffix, end, max_tokens)


def prompt_titles(titles: Sequence[str], tokenizer: Any, *, form: str, limit: int) -> list[str]:
    """Titles as the model reads and writes them: unique, and short if ``form`` is ``"short"``.

    A short title loses its year unless it needs it to be unique (half of a MovieLens title's
    tokens are the digits of its year), then its tail beyond ``limit`` tokens.
    """
    if form == "display":
        return list(titles)
    short = _unless_ambiguous([_YEAR.sub("", title) or title for title in titles], titles)
    encoded = tokenizer(short, add_special_tokens=False)["input_ids"]
    cut = [
        tokenizer.decode(tokens[:limit]).rstrip("\ufffd").strip() if len(tokens) > limit else title
        for tokens, title in zip(encoded, short, strict=True)
    ]
    return _unless_ambiguous(cut, short, titles)


def _unless_ambiguous(preferred: list[str], *fallbacks: Sequence[str]) -> list[str]:
    """Each preferred form, or the next longer form where it is not unique."""
    current, forms = preferred, [preferred, *fallbacks]
    level = [0] * len(preferred)
    while True:
        counts = Counter(current)
        clashes = [
            i for i, text in enumerate(current) if counts[text] > 1 and level[i] < len(forms) - 1
        ]
        if not clashes:
            return current
        for i in clashes:
            level[i] += 1
        current = [forms[step][i] for i, step in enumerate(level)]


def _template(name: str) -> tuple[list[str], str]:
    if name == "list":
        return [LIST_PREFIX], ""
    texts = [f"### Instruction:\n{text}\n\n### Input:\n" for text in INSTRUCTIONS]
    return texts, "\n### Response:\n"


def _end_token(tokenizer: Any) -> int:
    """The line break; titles hold no line break, so it closes every title unmistakably."""
    tokens = tokenizer.encode("\n", add_special_tokens=False)
    if tokens:
        return int(tokens[-1])
    if tokenizer.eos_token_id is None:
        raise BackboneError("The tokenizer has neither a line break nor an end-of-text token.")
    return int(tokenizer.eos_token_id)
