"""SASRec: a small causal transformer over item ids, trained with a softmax over all items.

Source: arXiv 1808.09781. The full softmax replaces sampled negatives, following arXiv 2309.07602,
which found that it accounts for much of what later models gained. For a large catalogue, each
step's softmax covers its targets and a uniform sample of the other items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, cast

import numpy as np
import torch
from torch import nn

from genrec.arrays import Arrays, Floats, Ints, Items, rows_and_places
from genrec.data.histories import Histories

LENGTH_GROUPS = 4
"""Number of parts, by length, into which a step's sequences are divided."""


SCORED = 128
"""Number of histories that are scored at once."""


@dataclass(frozen=True)
class SASRecConfig:
    """Size and training settings of the transformer; :class:`.SASRec` has the defaults."""

    width: int
    """Dimension of embeddings and hidden states."""
    heads: int
    layers: int
    dropout: float
    length: int
    """Number of most recent items that the model reads."""
    negatives: int
    """Items sampled for each step's softmax; 0 uses all items."""
    batch: int
    """Sequences per step."""
    rate: float
    """Learning rate of AdamW."""
    weight_decay: float
    patience: int
    """Epochs without a lower loss after which training stops."""
    seed: int


class SASRecScorer:
    """Scores all items after a history with logits."""

    epochs: int = 80
    """Most training epochs; early stopping replaces it by the best epoch's number."""

    def __init__(self, config: SASRecConfig) -> None:
        self.config = config

    def fit(
        self, histories: Histories, n_items: int, loss: Callable[[Self], float] | None = None
    ) -> Self:
        """Train for ``epochs``, or until ``loss`` stops falling.

        Args:
            histories: the training histories.
            n_items: size of the catalogue.
            loss: evaluates this scorer after each epoch. The best epoch's weights are kept, and
                ``epochs`` becomes that epoch's number.

        Returns:
            The scorer itself.
        """
        with torch.random.fork_rng(devices=[]):  # leaves the caller's random state unchanged
            torch.manual_seed(self.config.seed)
            return self._fit(histories, n_items, loss)

    def _fit(
        self, histories: Histories, n_items: int, loss: Callable[[Self], float] | None
    ) -> Self:
        config = self.config
        self.network = _Network(n_items, config)
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.rate, weight_decay=config.weight_decay
        )
        best, at, kept = np.inf, 0, self.network.state_dict()
        for epoch in range(1, self.epochs + 1):
            self._train_epoch(histories, optimizer)
            if loss is None:
                continue
            if (found := loss(self)) < best:
                best, at = found, epoch
                kept = {key: value.clone() for key, value in self.network.state_dict().items()}
            elif epoch - at >= config.patience:
                break
        if loss is not None:
            self.network.load_state_dict(kept)
            self.epochs = at
        return self

    def _train_epoch(self, histories: Histories, optimizer: torch.optim.Optimizer) -> None:
        self.network.train()
        starts, lengths = self._windows(histories)
        for rows in torch.split(torch.randperm(len(starts)), self.config.batch):
            parts = self._parts(rows.numpy(), lengths)
            if not parts:
                continue
            optimizer.zero_grad()
            for part, share in parts:
                ids = _table(histories.items, starts[part], lengths[part])
                loss = share * self._loss(ids, torch.from_numpy(lengths[part]))
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def _windows(self, histories: Histories) -> tuple[Ints, Ints]:
        """Return the start and length of each sequence of an epoch.

        Each sequence has one item more than the model reads, as its last target.
        """
        return _cut_at_random(histories, self.config.length + 1)

    def _parts(self, rows: Ints, lengths: Ints) -> list[tuple[Ints, float]]:
        """Divide a step's sequences into parts of similar length.

        The longest sequence of a part determines the part's cost.

        Returns:
            The rows of each part and its share of the step's targets.
        """
        rows = rows[lengths[rows] > 1]  # a sequence of one item has no target
        targets = lengths[rows] - 1
        order = np.argsort(targets, kind="stable")
        parts = np.array_split(order, LENGTH_GROUPS)  # the last ones are empty if rows are few
        return [(rows[p], float(targets[p].sum() / targets.sum())) for p in parts if len(p)]

    def _loss(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        states = self.network(ids[:, :-1], lengths - 1)
        wanted = ids[:, 1:] - 1  # targets; padding becomes -1
        states, wanted = states[wanted >= 0], wanted[wanted >= 0]
        if not self.config.negatives:
            return nn.functional.cross_entropy(self.network.logits(states), wanted)
        return self.network.sampled_loss(states, wanted, self.config.negatives)

    @torch.inference_mode()
    def scores(self, histories: Histories) -> Floats:
        """Return logits of all items, shape [rows, items]."""
        self.network.eval()
        parts = []
        kept = np.minimum(histories.lengths, self.config.length)
        for start in range(0, max(1, len(histories)), SCORED):
            rows = slice(start, start + SCORED)
            ids = _table(histories.items, histories.offsets[1:][rows] - kept[rows], kept[rows])
            lengths = torch.from_numpy(kept[rows]).clamp_min(1)
            states = self.network(ids, lengths)
            parts.append(self.network.logits(states[torch.arange(len(ids)), lengths - 1]))
        return cast(Floats, torch.cat(parts).double().numpy())

    def arrays(self) -> Arrays:
        """Return the network's weights by name."""
        return {name: value.numpy() for name, value in self.network.state_dict().items()}

    def restore(self, arrays: Arrays) -> Self:
        """Load the weights that :meth:`arrays` returned."""
        self.network = _Network(len(arrays["items.weight"]) - 1, self.config)
        self.network.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()})
        return self


class _Network(nn.Module):
    def __init__(self, n_items: int, config: SASRecConfig) -> None:
        super().__init__()
        width, dropout = config.width, config.dropout
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.places = nn.Embedding(config.length, width)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, dropout, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the hidden state at each position, shape [rows, positions, width].

        Rows are padded on the right. Positions are counted from the end of each row, so that a
        row's states do not depend on the other rows.
        """
        length = ids.shape[1]
        age = (lengths[:, None] - 1 - torch.arange(length)).clamp_min(0)
        states = self.items(ids) * self.items.embedding_dim**0.5 + self.places(age)
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        return cast(torch.Tensor, self.norm(self.layers(self.dropout(states), mask=causal)))

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return logits of all items, shape [states, items]."""
        return states @ self.items.weight[1:].T

    def sampled_loss(self, states: torch.Tensor, wanted: torch.Tensor, count: int) -> torch.Tensor:
        """Return the cross-entropy of the targets against ``count`` sampled items.

        All states share the sample. Each sampled item stands for an equal share of the catalogue,
        so that the sum over the sample equals the sum over all items in expectation.
        """
        n_items = self.items.num_embeddings - 1
        drawn = torch.randint(n_items, (count,))
        target = (states * self.items(wanted + 1)).sum(1, keepdim=True)
        others = states @ self.items(drawn + 1).T + np.log((n_items - 1) / count)
        others = others.masked_fill(drawn == wanted[:, None], -torch.inf)
        right = torch.zeros(len(states), dtype=torch.long)
        return nn.functional.cross_entropy(torch.cat([target, others], dim=1), right)


def _cut_at_random(histories: Histories, most: int) -> tuple[Ints, Ints]:
    """Cut histories into sequences of at most ``most`` items.

    Every item except a history's first is a target in exactly one sequence. The first cut is at
    a random place, so that no item always has a short context.

    Returns:
        The start of each sequence in ``histories.items``, and its length.
    """
    step, lengths = most - 1, histories.lengths
    free = np.where(lengths > most, step, 1)
    shift = (torch.rand(len(histories)).numpy() * free).astype(np.int64)
    pieces = np.maximum(1, -(-(lengths - 1 + shift) // step))
    row, number = rows_and_places(pieces)
    start = np.maximum(0, number * step - shift[row])
    stop = np.minimum(lengths[row], (number + 1) * step - shift[row] + 1)
    return histories.offsets[row] + start, stop - start


def _table(items: Items, starts: Ints, lengths: Ints) -> torch.Tensor:
    """Return sequences as rows of ids from 1, padded on the right with zeros."""
    place = np.arange(max(2, int(lengths.max(initial=0))))
    inside = place < lengths[:, None]
    table = np.zeros(inside.shape, np.int64)
    table[inside] = items[(starts[:, None] + place)[inside]] + 1
    return torch.from_numpy(table)
