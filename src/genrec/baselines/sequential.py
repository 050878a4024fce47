"""SASRec as a recommender of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from genrec import metrics
from genrec.arrays import Arrays
from genrec.baselines.base import Scores, Scoring, check_setting
from genrec.errors import ConfigError
from genrec.histories import Dataset, Histories, Holdout
from genrec.recommender import top_k
from genrec.sasrec import Sasrec, SasrecConfig

LOOK = 10
"""Length of the lists whose NDCG says when to stop."""


@dataclass(eq=False)
class SasRec(Scoring):
    """SASRec (see :mod:`genrec.sasrec`), trained until NDCG@10 on held-out targets stops rising."""

    name = "sasrec"

    seed: int = 0
    width: int = 64
    heads: int = 2
    layers: int = 2
    dropout: float = 0.3
    length: int = 50
    """Most recent items that are read."""
    negatives: int = 1024
    """Items drawn for each step's softmax in a catalogue of more than :attr:`full_softmax`."""
    full_softmax: int = 4000
    """Items up to which the softmax is over all of them."""
    batch: int = 128
    """Sequences of a step."""
    rate: float = 1e-3
    """Learning rate."""
    weight_decay: float = 0.0
    most_epochs: int = 80
    patience: int = 10
    """Epochs without a better NDCG after which training ends."""
    look_users: int = 2000
    """Users at most whose NDCG is looked at after each epoch, drawn with the seed."""

    def __post_init__(self) -> None:
        for name in ("width", "heads", "layers", "length", "batch", "most_epochs", "patience"):
            check_setting(name, getattr(self, name), least=1)
        for name in ("negatives", "look_users"):
            check_setting(name, getattr(self, name), least=1)
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} must be a multiple of heads {self.heads}.")

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        """Train on the histories, and keep the epoch with the best NDCG@10 on ``valid``.

        Without ``valid`` the last items of a tenth of the users are kept out of training for that.
        """
        histories = train.histories
        if valid is None or not len(valid):
            histories, valid = _hold_out(train, self.seed)
        looked = valid.sample(self.look_users, self.seed) if len(valid) else None
        loss = None if looked is None else partial(_minus_ndcg, holdout=looked)
        self._sasrec = self._unfitted(len(train.catalogue))
        self._sasrec.epochs = self.most_epochs
        self._sasrec.fit(histories, len(train.catalogue), loss)
        return self

    def refit(self, train: Dataset) -> Self:
        """Train anew, on more data, for as many epochs as the last :meth:`fit` has kept."""
        epochs = self._sasrec.epochs
        self._sasrec = self._unfitted(len(train.catalogue))
        self._sasrec.epochs = epochs
        self._sasrec.fit(train.histories, len(train.catalogue))
        return self

    def scores(self, histories: Histories) -> Scores:
        return self._sasrec.scores(histories)

    def arrays(self) -> Arrays:
        return self._sasrec.arrays()

    def restore(self, arrays: Arrays) -> Self:
        self._sasrec = self._unfitted(len(arrays["items.weight"]) - 1).restore(arrays)
        return self

    def _unfitted(self, n_items: int) -> Sasrec:
        config = SasrecConfig(
            width=self.width,
            heads=self.heads,
            layers=self.layers,
            dropout=self.dropout,
            length=self.length,
            every_window=True,
            negatives=self.negatives if n_items > self.full_softmax else 0,
            batch=self.batch,
            rate=self.rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
            seed=self.seed,
        )
        return Sasrec(config)


def _hold_out(train: Dataset, seed: int) -> tuple[Histories, Holdout]:
    """The histories without the last items of a tenth of the users, and those items as targets."""
    histories = train.histories
    long = np.flatnonzero(histories.lengths > 1)
    asked = np.sort(np.random.default_rng(seed).permutation(long)[: -(-len(long) // 10)])
    lengths = histories.lengths
    lengths[asked] -= 1
    before = histories.head(np.arange(len(histories)), lengths)
    targets = histories.items[histories.offsets[asked] + lengths[asked]]
    return before, Holdout("held out", before.select(asked), targets, train.catalogue)


def _minus_ndcg(sasrec: Sasrec, holdout: Holdout) -> float:
    top = top_k(sasrec.scores(holdout.histories), LOOK, holdout.histories)
    return -float(metrics.ndcg(metrics.target_ranks(top.items, holdout.targets), LOOK).mean())
