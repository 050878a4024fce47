"""P5's settings, prompt wordings and item numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from genrec.arrays import Ints
from genrec.data.histories import Histories
from genrec.errors import ConfigError, DataError

Indexing = Literal["sequential", "shuffled"]
"""How items are numbered; see :func:`number_items`."""


WITH_USER = (
    "what will {user} buy after {items}",
    "{user} bought in this order {items}",
    "next item of {user} who chose {items}",
    "continue for {user} the list {items}",
)
"""Prompt wordings that name the user; see :data:`WITHOUT_USER` for their form."""


WITHOUT_USER = (
    "what will be bought after {items}",
    "somebody bought in this order {items}",
    "next item for a user who chose {items}",
    "continue the list {items}",
)
"""Prompt wordings without the user.

The list of items comes last. Word positions count from the end, so the last item is always word 1.
"""


USER = "user_"
"""Prefix of a user's number in the prompt."""


FIRST = 1001
"""Number of the first item; 1001 gives the numbers of small catalogues equal length."""


@dataclass(frozen=True)
class P5Settings:
    """P5's architecture and training; the defaults suit one CPU core."""

    backbone: str | None = None
    """Hub id or folder of a pretrained T5, e.g. "t5-small"; ``None`` trains a T5 from scratch."""
    d_model: int = 64
    """Width from scratch; heads have 32 dimensions, feed-forward layers four times the width."""
    layers: int = 2
    """Layers of the encoder and of the decoder, from scratch."""
    dropout: float = 0.0
    history: int = 20
    """Number of most recent items in a prompt."""
    last: int | None = None
    """Most targets per user and epoch, counted from the end; ``None`` uses all."""
    batch: int = 64
    learning_rate: float = 2e-3
    epochs: int = 20
    minutes: float | None = None
    """Training time budget in minutes; training ends when this or ``epochs`` is reached."""
    copying: float = 0.5
    """Share of the budget in which a T5 from scratch also learns to copy, as a pretrained one can.

    The batches then contain random lists whose last item is the answer. Their share falls from the
    whole batch to none.
    """
    evaluations: int = 20
    """Number of evaluation steps over a whole budget; they begin when copying has ended.

    The weights with the best NDCG@10 on the validation users are kept.
    """
    eval_users: int = 500
    """Most validation users per evaluation step."""
    patience: int = 6
    """Evaluation steps without a higher NDCG@10 after which training stops."""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.copying < 1:
            raise ConfigError(f"P5: copying must be at least 0 and below 1, got {self.copying}.")
        sizes = (self.d_model // 32, self.layers, self.history, self.batch, self.epochs)
        if min(*sizes, self.evaluations, self.eval_users, self.patience) < 1 or self.d_model % 32:
            raise ConfigError(
                "P5: layers, history, batch, epochs, evaluations, eval_users and patience must be "
                "at least 1, and d_model must be a positive multiple of 32."
            )
        if self.last is not None and self.last < 1:
            raise ConfigError(f"P5: last must be at least 1 or None, got {self.last}.")
        if self.minutes is not None and self.minutes <= 0:
            raise ConfigError(f"P5: minutes must be above 0 or None, got {self.minutes}.")


def number_items(histories: Histories, n_items: int, indexing: Indexing, seed: int) -> Ints:
    """Assign each item a number, counted from 0.

    Args:
        histories: the histories that are walked through.
        n_items: size of the catalogue.
        indexing: "sequential" numbers items by first appearance in a walk through the rows; items
            that do not appear follow in random order. "shuffled" is a random permutation.
        seed: random seed.

    Returns:
        Number of each item, shape [items].

    Raises:
        DataError: the histories hold items outside the catalogue.
    """
    if len(histories.items) and histories.items.max() >= n_items:
        raise DataError(
            f"P5's order holds items outside the catalogue of {n_items} items. Pass histories of "
            "the same data set."
        )
    random = np.random.default_rng(seed)
    if indexing == "shuffled":
        return random.permutation(n_items)
    items, first = np.unique(histories.items, return_index=True)
    absent = np.setdiff1d(np.arange(n_items), items)
    walk = np.concatenate([items[np.argsort(first)], random.permutation(absent)])
    return np.argsort(walk)


def draw_wording(random: np.random.Generator) -> str:
    """Draw a prompt wording at random, with the user in half of the cases."""
    wordings = WITH_USER if random.random() < 0.5 else WITHOUT_USER
    return wordings[random.integers(len(wordings))]
