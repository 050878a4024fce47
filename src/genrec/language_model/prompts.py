"""The only place where a history becomes tokens, for training, evaluation and serving.

A prompt is ``prefix + closed titles of the history + suffix``; one closed title follows it.
A closed title is its tokens plus the end token (a line break), so titles may contain commas. In a
numbered list, a number stands before each title. If prompts say ratings, one stands after each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

import numpy as np

from genrec.arrays import Floats32, Ints, Items
from genrec.config import Config
from genrec.errors import BackboneError
from genrec.language_model.titles import TitleTokens, tokenize_titles

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


SEPARATORS = {"newline": "\n", "semicolon": ";", "bar": " |"}
"""Texts of the end token, by the values of ``Config.separator``."""
DISLIKED, LIKED = "(disliked)", "(liked)"
"""What a prompt says of a rating if only two are told apart."""
HISTORY = "\0"
"""Stands for the history while a chat template is rendered."""


@dataclass(frozen=True)
class Ratings:
    """What a prompt says of ratings.

    Attributes:
        values: the ratings that are told apart, ascending.
        tokens: what is said of an unknown rating, and then of each value.
    """

    values: tuple[float, ...]
    tokens: TitleTokens

    def levels(self, ratings: Floats32 | None, count: int) -> Ints:
        """Return the index in ``tokens`` of each rating: the nearest value, 0 for an unknown one.

        Args:
            ratings: the ratings, NaN where unknown, shape [count]; ``None`` if all are.
            count: number of ratings.
        """
        if ratings is None:
            return np.zeros(count, np.int64)
        apart = np.abs(np.asarray(ratings, np.float64)[:, None] - np.array(self.values))
        return np.where(np.isnan(ratings), 0, 1 + np.nan_to_num(apart).argmin(axis=1))


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
        newest_first: whether the latest item comes first.
        numbers: what stands before the first title, the second one, …; ``None`` for no numbers.
        ratings: what stands after a title; ``None`` for nothing.
    """

    titles: TitleTokens
    prefixes: list[list[int]]
    suffix: list[int]
    end: int
    max_tokens: int
    newest_first: bool = False
    numbers: TitleTokens | None = None
    ratings: Ratings | None = None

    @cached_property
    def by_title(self) -> dict[tuple[int, ...], int]:
        """Item index by closed title tokens."""
        return {tuple(title.tolist()): item for item, title in enumerate(self.titles)}

    @property
    def every_position(self) -> bool:
        """Whether every title of a sequence can be a target: nothing but titles follows it."""
        return not (self.suffix or self.newest_first)

    @cached_property
    def item_tokens(self) -> Ints:
        """Most tokens that each item adds to a prompt, with its number and its rating."""
        parts = (self.numbers, self.ratings and self.ratings.tokens)
        return self.titles.lengths + sum(int(each.lengths.max()) for each in parts if each)

    def fitting(self, history: Items, reserve: int = 0) -> Items:
        """Return the most recent items whose prompt has at most ``max_tokens - reserve`` tokens."""
        room = self.max_tokens - reserve - max(map(len, self.prefixes)) - len(self.suffix)
        used = np.cumsum(self.item_tokens[history[::-1]])
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

    def levels(self, ratings: Floats32 | None, count: int) -> Ints | None:
        """Return the level of each rating (see :class:`Ratings`); ``None`` if none is said."""
        return None if self.ratings is None else self.ratings.levels(ratings, count)

    def encode(
        self, history: Items, levels: Ints | None = None, *, variant: int = 0, reserve: int = 0
    ) -> list[int]:
        """Return the tokens of the prompt for a history.

        Args:
            history: item indices, oldest first; the oldest are dropped if the prompt is too long.
            levels: level of each item's rating (see :meth:`levels`); unknown if ``None``.
            variant: index of the prefix.
            reserve: number of tokens to keep free.
        """
        kept = self.fitting(history, reserve)
        said = None if levels is None else levels[len(history) - len(kept) :]
        parts = self._parts(kept, said)
        return [*self.prefixes[variant], *self.number(0), *chain.from_iterable(parts), *self.suffix]

    def _parts(self, items: Items, levels: Ints | None) -> list[list[int]]:
        """Return the tokens of each title in the order of the prompt, with what follows it."""
        order = range(len(items))
        return [
            self.titles[items[index]].tolist()
            + self.after(place, 0 if levels is None else int(levels[index]))
            for place, index in enumerate(reversed(order) if self.newest_first else order)
        ]

    def number(self, place: int) -> list[int]:
        """Return what stands before the title in a place, counted from 0."""
        return [] if self.numbers is None else self.numbers[place].tolist()

    def after(self, place: int, level: int) -> list[int]:
        """Return what stands between the title in a place and the next one.

        Args:
            place: the place, counted from 0.
            level: the level of the title's rating.
        """
        rating = [] if self.ratings is None else self.ratings.tokens[level].tolist()
        return [*rating, *self.number(place + 1)]

    def spans(self, items: Items, levels: Ints | None) -> list[tuple[int, int]]:
        """Return the first position of each item in a prompt, and its end, exclusive.

        Args:
            items: the items in the prompt, oldest first.
            levels: level of each item's rating.
        """
        sizes = [len(part) for part in self._parts(items, levels)]
        start = len(self.prefixes[0]) + len(self.number(0))
        ends = (start + np.cumsum([0, *sizes])).tolist()
        found = [
            (first, last - len(self.number(place + 1)))
            for place, (first, last) in enumerate(pairwise(ends))
        ]
        return found[::-1] if self.newest_first else found


def build_prompts(tokenizer: Any, titles: TitleTokens, config: Config) -> Prompts:
    """Combine a catalogue and a template.

    Args:
        tokenizer: a transformers tokenizer.
        titles: the catalogue's title tokens, closed by :func:`end_token`.
        config: the settings; ``ratings`` must be resolved.

    Raises:
        BackboneError: the template and the longest title exceed ``max_tokens``, or the backbone has
            no chat format and the template needs one.
    """
    end = end_token(tokenizer, config.separator)
    texts, after = _template(config.template, tokenizer)
    # Texts are encoded with the tokenizer's begin token, if any; a chat format has its own.
    special = config.template != "chat"
    prefixes = [tokenizer.encode(text, add_special_tokens=special) or [end] for text in texts]
    suffix = tokenizer.encode(after, add_special_tokens=False) if after else []
    prompts = Prompts(
        titles,
        prefixes,
        suffix,
        end,
        config.max_tokens,
        config.history_order == "newest-first",
        _numbers(tokenizer, config) if config.template == "numbered" else None,
        _ratings(tokenizer, config.ratings, end) if isinstance(config.ratings, tuple) else None,
    )
    longest = int(prompts.item_tokens.max(initial=0))
    if max(map(len, prefixes)) + len(suffix) + longest > config.max_tokens:
        raise BackboneError(
            f"max_tokens={config.max_tokens} leaves no room for the template and the longest title "
            f"({longest} tokens). Raise max_tokens, or set titles=short and a lower title_tokens."
        )
    return prompts


def _template(name: str, tokenizer: Any) -> tuple[list[str], str]:
    """Return the texts before the history, one per variant, and the text after it."""
    if name == "chat":
        return _chat(tokenizer)
    if name in ("list", "plain", "numbered"):
        return ["" if name == "plain" else LIST_PREFIX], ""
    texts = [f"### Instruction:\n{text}\n\n### Input:\n" for text in INSTRUCTIONS]
    return texts[: 1 if name == "one-instruction" else None], "\n### Response:\n"


def _chat(tokenizer: Any) -> tuple[list[str], str]:
    """Return the texts around the history in the backbone's chat format."""
    if not getattr(tokenizer, "chat_template", None):
        raise BackboneError(
            "The backbone has no chat format. Set template=list, or choose a backbone with one."
        )
    message = {"role": "user", "content": f"{INSTRUCTIONS[0]}\n{HISTORY}"}
    text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    before, found, after = text.partition(HISTORY)
    if not found:
        raise BackboneError("The backbone's chat format changes the message; set template=list.")
    return [before], after


def _numbers(tokenizer: Any, config: Config) -> TitleTokens:
    """Return the tokens of the numbers of a list as long as a prompt or a window can be."""
    count = max(config.history_length, config.window) + 2
    texts = [f"{number}. " for number in range(1, count + 1)]
    return TitleTokens.from_lists(tokenizer(texts, add_special_tokens=False)["input_ids"])


def _ratings(tokenizer: Any, values: tuple[float, ...], end: int) -> Ratings:
    ordered = tuple(sorted(values))
    texts = [f"(rated {value:g})" for value in ordered]
    if len(ordered) == 2:
        texts = [DISLIKED, LIKED]
    return Ratings(ordered, tokenize_titles(tokenizer, ["(not rated)", *texts], end))


def end_token(tokenizer: Any, separator: str = "newline") -> int:
    """Return the token that closes titles: a line break, which no title contains, or another mark.

    Without a token for a line break it is the end-of-text token.

    Args:
        tokenizer: a transformers tokenizer.
        separator: a key of :data:`SEPARATORS`.

    Raises:
        BackboneError: the tokenizer has no such token.
    """
    tokens = tokenizer.encode(SEPARATORS[separator], add_special_tokens=False)
    if separator != "newline" and len(tokens) != 1:
        raise BackboneError(
            f"The tokenizer has no token for separator={separator}. Set separator=newline."
        )
    if tokens:
        return int(tokens[-1])
    if tokenizer.eos_token_id is None:
        raise BackboneError(
            "The tokenizer has neither a line-break nor an end-of-text token, so titles cannot be "
            "closed. Choose another backbone."
        )
    return int(tokenizer.eos_token_id)
