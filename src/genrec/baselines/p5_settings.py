"""P5's settings, wordings and item numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from genrec.arrays import Ints
from genrec.data.histories import Histories
from genrec.errors import ConfigError, DataError

Indexing = Literal["sequential", "shuffled"]


WITH_USER = (
    "what will {user} buy after {items}",
    "{user} bought in this order {items}",
    "next item of {user} who chose {items}",
    "continue for {user} the list {items}",
)


WITHOUT_USER = (
    "what will be bought after {items}",
    "somebody bought in this order {items}",
    "next item for a user who chose {items}",
    "continue the list {items}",
)
"""The list comes last: with words counted from the end, the last item is always word 1."""


USER = "user_"


FIRST = 1001
"""Number of the first item, so that small catalogues have numbers of one length."""


@dataclass(frozen=True)
class P5Settings:
    """What P5 is and how it is trained; the defaults suit one CPU core."""

    backbone: str | None = None
    """Hub id or folder of a pretrained T5, e.g. "t5-small"; a T5 from scratch if None."""
    d_model: int = 64
    """Width from scratch; heads have 32 dimensions, feed-forward layers four times the width."""
    layers: int = 2
    """Of encoder and of decoder, from scratch."""
    dropout: float = 0.0
    history: int = 20
    """Most recent items in a prompt."""
    last: int | None = None
    """Targets per user and epoch, counted from the end; all if None."""
    batch: int = 64
    learning_rate: float = 2e-3
    epochs: int = 20
    minutes: float | None = None
    """Of training, by the clock; the first of the two budgets to be reached ends it."""
    copying: float = 0.5
    """Share of the budget in which a T5 from scratch also learns to copy, as a pretrained one can:
    random lists, whose last item is the answer, fade from all of a batch to none of it."""
    evaluations: int = 20
    """How often a budget's length asks the validation users, from when copying has faded; the best
    look's weights are kept."""
    eval_users: int = 500
    patience: int = 6
    """Looks without a better NDCG@10 after which training ends."""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.copying < 1:
            raise ConfigError(f"P5: copying={self.copying} is no share; give 0 or more, below 1.")
        sizes = (self.d_model // 32, self.layers, self.history, self.batch, self.epochs)
        if min(*sizes, self.evaluations, self.eval_users, self.patience) < 1 or self.d_model % 32:
            raise ConfigError("P5: sizes count from 1 and d_model is a multiple of 32; mend them.")
        if self.last is not None and self.last < 1:
            raise ConfigError(f"P5: last={self.last} leaves nothing to train on; give 1 or more.")
        if self.minutes is not None and self.minutes <= 0:
            raise ConfigError(f"P5: minutes={self.minutes} is no budget; give more than 0.")


def number_items(histories: Histories, n_items: int, indexing: Indexing, seed: int) -> Ints:
    """A number from 0 for each item, shape [items].

    "sequential": by first appearance in a walk through the rows; items that do not appear follow at
    random. "shuffled": a random permutation.
    """
    if len(histories.items) and histories.items.max() >= n_items:
        raise DataError("P5's order holds items outside the catalogue; give the same data's.")
    random = np.random.default_rng(seed)
    if indexing == "shuffled":
        return random.permutation(n_items)
    items, first = np.unique(histories.items, return_index=True)
    absent = np.setdiff1d(np.arange(n_items), items)
    walk = np.concatenate([items[np.argsort(first)], random.permutation(absent)])
    return np.argsort(walk)


def draw_wording(random: np.random.Generator) -> str:
    wordings = WITH_USER if random.random() < 0.5 else WITHOUT_USER
    return wordings[random.integers(len(wordings))]
