"""The one place where a history becomes tokens, for training, evaluation and serving alike.

A prompt is ``prefix + closed titles of the history + suffix``; what follows it is one closed title.
A closed title is its tokens and the end token (a line break), so titles may hold commas.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from genrec.arrays import Items
from genrec.errors import BackboneError
from genrec.language_model.titles import TitleTokens

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

    titles: TitleTokens
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

    def fitting(self, history: Items, reserve: int = 0) -> Items:
        """The most recent items whose prompt has at most ``max_tokens - reserve`` tokens."""
        room = self.max_tokens - reserve - max(map(len, self.prefixes)) - len(self.suffix)
        used = np.cumsum(self.titles.lengths[history[::-1]])
        return history[len(history) - int((used <= room).sum()) :]

    def recent(self, history: Items, length: int) -> Items:
        """The end of a history that a prompt shows: at most ``length`` items that fit.

        Once a history is longer, its oldest items go several at a time: a quarter of ``length``.
        So the prompts of a growing history mostly start alike, and their keys and values can be
        used again.
        """
        drop = len(history) - len(self.fitting(history[-length:]))
        step = max(1, length // 4)
        start = -(-drop // step) * step
        return history[start if start < len(history) else drop :]

    def encode(self, history: Items, *, variant: int = 0, reserve: int = 0) -> list[int]:
        """Tokens of the prompt for item indices, oldest first; the oldest go if it is too long."""
        kept = self.fitting(history, reserve)
        titles = [int(token) for item in kept for token in self.titles[item]]
        return [*self.prefixes[variant], *titles, *self.suffix]


def build_prompts(
    tokenizer: Any, titles: TitleTokens, *, template: str, max_tokens: int
) -> Prompts:
    """Put a catalogue and a template together.

    Args:
        tokenizer: a transformers tokenizer.
        titles: the catalogue, closed by :func:`end_token`.
        template: ``"list"`` or ``"instruction"``.
        max_tokens: most tokens in a prompt.
    """
    longest = int(titles.lengths.max(initial=0))
    texts, after = _template(template)
    prefixes = [tokenizer.encode(text) for text in texts]  # with the begin token where one is used
    suffix = tokenizer.encode(after, add_special_tokens=False) if after else []
    if max(map(len, prefixes)) + len(suffix) + longest > max_tokens:
        raise BackboneError(
            f"max_tokens={max_tokens} leaves no room for the template and the longest title "
            f"({longest} tokens): raise max_tokens, or set titles=short and a lower title_tokens."
        )
    return Prompts(titles, prefixes, suffix, end_token(tokenizer), max_tokens)


def _template(name: str) -> tuple[list[str], str]:
    if name == "list":
        return [LIST_PREFIX], ""
    texts = [f"### Instruction:\n{text}\n\n### Input:\n" for text in INSTRUCTIONS]
    return texts, "\n### Response:\n"


def end_token(tokenizer: Any) -> int:
    """The line break; titles hold no line break, so it closes every title unmistakably."""
    tokens = tokenizer.encode("\n", add_special_tokens=False)
    if tokens:
        return int(tokens[-1])
    if tokenizer.eos_token_id is None:
        raise BackboneError("The tokenizer has neither a line break nor an end-of-text token.")
    return int(tokenizer.eos_token_id)
