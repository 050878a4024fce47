"""The only place where a history becomes tokens, for training, evaluation and serving.

A prompt is ``prefix + closed titles of the history + suffix``; one closed title follows it.
A closed title is its tokens plus the end token (a line break), so titles may contain commas.
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
"""Text before the history in the ``"list"`` template."""
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
"""Instructions of the ``"instruction"`` template; training draws one, inference uses the first."""


@dataclass(frozen=True)
class Prompts:
    """Tokens of a catalogue's titles and of the template around them.

    Attributes:
        titles: closed title tokens of each item.
        prefixes: tokens of the text before the history, one entry per variant; training draws one,
            inference uses the first.
        suffix: tokens between the history and the next title.
        end: the end-of-title token.
        max_tokens: most tokens in a prompt.
    """

    titles: TitleTokens
    prefixes: list[list[int]]
    suffix: list[int]
    end: int
    max_tokens: int

    @cached_property
    def by_title(self) -> dict[tuple[int, ...], int]:
        """Item index by closed title tokens."""
        return {tuple(title.tolist()): item for item, title in enumerate(self.titles)}

    @property
    def every_position(self) -> bool:
        """Whether every title of a sequence can be a target, which needs an empty suffix."""
        return not self.suffix

    def fitting(self, history: Items, reserve: int = 0) -> Items:
        """Return the most recent items whose prompt has at most ``max_tokens - reserve`` tokens."""
        room = self.max_tokens - reserve - max(map(len, self.prefixes)) - len(self.suffix)
        used = np.cumsum(self.titles.lengths[history[::-1]])
        return history[len(history) - int((used <= room).sum()) :]

    def recent(self, history: Items, length: int) -> Items:
        """Return the end of a history that a prompt contains: at most ``length`` items that fit.

        Once a history is longer, its oldest items are dropped in steps of a quarter of ``length``.
        Successive prompts of a growing history therefore mostly share a prefix, and its cached keys
        and values can be reused.
        """
        drop = len(history) - len(self.fitting(history[-length:]))
        step = max(1, length // 4)
        start = -(-drop // step) * step
        return history[start if start < len(history) else drop :]

    def encode(self, history: Items, *, variant: int = 0, reserve: int = 0) -> list[int]:
        """Return the tokens of the prompt for a history.

        Args:
            history: item indices, oldest first; the oldest are dropped if the prompt is too long.
            variant: index of the prefix.
            reserve: number of tokens to keep free.
        """
        kept = self.fitting(history, reserve)
        titles = [int(token) for item in kept for token in self.titles[item]]
        return [*self.prefixes[variant], *titles, *self.suffix]


def build_prompts(
    tokenizer: Any, titles: TitleTokens, *, template: str, max_tokens: int
) -> Prompts:
    """Combine a catalogue and a template.

    Args:
        tokenizer: a transformers tokenizer.
        titles: the catalogue's title tokens, closed by :func:`end_token`.
        template: ``"list"`` or ``"instruction"``.
        max_tokens: most tokens in a prompt.

    Raises:
        BackboneError: the template and the longest title exceed ``max_tokens``.
    """
    longest = int(titles.lengths.max(initial=0))
    texts, after = _template(template)
    prefixes = [
        tokenizer.encode(text) for text in texts
    ]  # with the tokenizer's begin token, if any
    suffix = tokenizer.encode(after, add_special_tokens=False) if after else []
    if max(map(len, prefixes)) + len(suffix) + longest > max_tokens:
        raise BackboneError(
            f"max_tokens={max_tokens} leaves no room for the template and the longest title "
            f"({longest} tokens). Raise max_tokens, or set titles=short and a lower title_tokens."
        )
    return Prompts(titles, prefixes, suffix, end_token(tokenizer), max_tokens)


def _template(name: str) -> tuple[list[str], str]:
    if name == "list":
        return [LIST_PREFIX], ""
    texts = [f"### Instruction:\n{text}\n\n### Input:\n" for text in INSTRUCTIONS]
    return texts, "\n### Response:\n"


def end_token(tokenizer: Any) -> int:
    """Return the token of a line break, which no title contains, or else the end-of-text token.

    Raises:
        BackboneError: the tokenizer has neither.
    """
    tokens = tokenizer.encode("\n", add_special_tokens=False)
    if tokens:
        return int(tokens[-1])
    if tokenizer.eos_token_id is None:
        raise BackboneError(
            "The tokenizer has neither a line-break nor an end-of-text token, so titles cannot be "
            "closed. Choose another backbone."
        )
    return int(tokenizer.eos_token_id)
