"""SASRec, as a recommender and as an expert that joins the pool late."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self, cast

import numpy as np
from scipy.special import log_softmax

from genrec import metrics
from genrec.arrays import Arrays, Floats
from genrec.collaborative.base import Scores, Scoring, check_setting
from genrec.collaborative.counts import extended_source
from genrec.collaborative.expert import Expert
from genrec.collaborative.sasrec_network import SASRecConfig, SASRecScorer
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import Holdout, with_targets
from genrec.data.statistics import excludes_seen, repeat_share
from genrec.errors import ConfigError
from genrec.recommender import top_k

CUT_OFF = 10
"""Length of the lists whose NDCG decides on early stopping."""
SHORT = 20
"""Mean length of histories below which they are short."""
DROPOUT, SHORT_DROPOUT = 0.3, 0.5
"""Dropout rate, and that for short histories."""


@dataclass(eq=False)
class SASRec(Scoring):
    """SASRec with early stopping on the NDCG@10 of held-out targets."""

    name = "sasrec"

    seed: int = 0
    """Random seed."""
    width: int = 128
    """Dimension of embeddings and hidden states; a multiple of ``heads``."""
    heads: int = 2
    """Attention heads per layer."""
    layers: int = 2
    """Transformer layers."""
    dropout: float | Literal["auto"] = "auto"
    """Dropout rate; ``"auto"`` is .5 where users have fewer than 20 items on average, else .3."""
    length: int = 50
    """Number of most recent items that the model reads."""
    negatives: int = 1024
    """Items sampled for each step's softmax where the catalogue exceeds :attr:`full_softmax`."""
    full_softmax: int = 4000
    """Largest catalogue for which the softmax covers all items."""
    batch: int = 128
    """Sequences per step."""
    rate: float = 1e-3
    """Learning rate of AdamW."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    most_epochs: int = 80
    """Most training epochs."""
    patience: int = 10
    """Epochs without a higher NDCG after which training stops."""
    eval_users: int = 2000
    """Most users whose NDCG is measured after each epoch, sampled with the seed."""

    def __post_init__(self) -> None:
        for name in ("width", "heads", "layers", "length", "batch", "most_epochs", "patience"):
            check_setting(name, getattr(self, name), least=1)
        for name in ("negatives", "eval_users"):
            check_setting(name, getattr(self, name), least=1)
        check_setting("rate", self.rate, above=0)
        for name in ("weight_decay", "full_softmax"):
            check_setting(name, getattr(self, name))
        if self.dropout != "auto" and not 0 <= self.dropout < 1:  # NaN neither
            raise ConfigError(f"dropout must be at least 0 and below 1, got {self.dropout}.")
        if self.width % self.heads:
            raise ConfigError(f"width must be a multiple of heads={self.heads}, got {self.width}.")

    def _fit(self, train: Dataset, valid: Holdout | None) -> None:
        """Train on the histories and keep the epoch with the best NDCG@10 on ``valid``.

        Without ``valid``, the last items of a tenth of the users are held out of training for that.
        """
        train, valid = with_targets(train, valid, self.seed)
        holdout = valid.sample_targets(self.eval_users, self.seed) if len(valid) else None
        seen = excludes_seen(repeat_share(train.histories))
        loss = None if holdout is None else partial(_minus_ndcg, holdout=holdout, exclude=seen)
        self._sasrec = self._unfitted(len(train.catalogue), train.histories)
        self._sasrec.epochs = self.most_epochs
        self._sasrec.fit(train.histories, len(train.catalogue), loss)

    def refit(self, train: Dataset) -> Self:
        """Train again, on more data, for as many epochs as the last :meth:`fit` kept.

        Returns:
            The recommender itself.
        """
        self.learn_from(train)
        epochs = self._sasrec.epochs
        self._sasrec = self._unfitted(len(train.catalogue), train.histories)
        self._sasrec.epochs = epochs
        self._sasrec.fit(train.histories, len(train.catalogue))
        return self

    def scores(self, histories: Histories) -> Scores:
        return self._sasrec.scores(histories)

    def arrays(self) -> Arrays:
        return {**self._sasrec.arrays(), "epochs": np.array(self._sasrec.epochs)}

    def restore(self, arrays: Arrays) -> Self:
        weights = {name: value for name, value in arrays.items() if name != "epochs"}
        self._sasrec = self._unfitted(len(arrays["items.weight"]) - 1).restore(weights)
        if "epochs" in arrays:  # files from before the pool of experts lack it
            self._sasrec.epochs = int(arrays["epochs"])
        return self

    def _unfitted(self, n_items: int, train: Histories | None = None) -> SASRecScorer:
        dropout = self.dropout
        if dropout == "auto":
            short = train is not None and len(train.items) < SHORT * len(train)
            dropout = SHORT_DROPOUT if short else DROPOUT
        config = SASRecConfig(
            width=self.width,
            heads=self.heads,
            layers=self.layers,
            dropout=dropout,
            length=self.length,
            negatives=self.negatives if n_items > self.full_softmax else 0,
            batch=self.batch,
            rate=self.rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
            seed=self.seed,
        )
        return SASRecScorer(config)


def _minus_ndcg(sasrec: SASRecScorer, holdout: Holdout, exclude: bool) -> float:
    seen = holdout.histories if exclude else None
    top = top_k(sasrec.scores(holdout.histories), CUT_OFF, seen)
    return -float(metrics.ndcg(metrics.target_ranks(top.items, holdout.targets), CUT_OFF).mean())


class SASRecExpert(Expert):
    """SASRec as a part of the pool.

    It cannot forget one user, so it joins the pool after the language model is trained.
    """

    name = "sasrec"
    leaves_user_out = False
    terms = ("sasrec",)

    def __init__(self, fitted: SASRec | None = None) -> None:
        """Create the expert.

        Args:
            fitted: SASRec as it was fitted to the data that :meth:`fit` will be given, which then
                has nothing more to learn.
        """
        self._fitted = fitted
        self._model = SASRec()

    def fit(self, train: Dataset, valid: Holdout | None = None) -> Self:
        self._model = self._fitted or SASRec(seed=self.seed).fit(train, valid)
        self._source = np.arange(len(train.catalogue))
        return self

    def refit(self, train: Dataset) -> Self:
        fresh = copy(self)
        fresh._model = copy(self._model).refit(train)
        fresh._source = np.arange(len(train.catalogue))
        return fresh

    def scores(self, histories: Histories) -> list[Floats]:
        known = [self._source[history] for history in histories]
        rows = Histories.from_lists([items[items >= 0].tolist() for items in known])
        scores = log_softmax(np.asarray(self._model.scores(rows), np.float64), axis=1)
        # A new item that is like no other gets the mean score.
        with_mean = np.append(scores, scores.mean(axis=1, keepdims=True), axis=1)
        return [cast(Floats, with_mean[:, self._source])]

    def extended(self, like: Sequence[int | None], catalogue: Catalogue) -> Self:
        longer = copy(self)
        longer._source = extended_source(self._source, like)
        return longer

    def arrays(self) -> Arrays:
        own = {"source": self._source, "seed": np.array(self.seed)}
        return {**self._model.arrays(), **own}

    def restore(self, arrays: Arrays) -> Self:
        own = {name: arrays[name] for name in ("source", "seed") if name in arrays}
        self.seed = int(own.get("seed", 0))  # runs from before the seed was given lack it
        weights = {name: value for name, value in arrays.items() if name not in own}
        self._model = SASRec(seed=self.seed).restore(weights)
        self._source = arrays["source"]
        return self
