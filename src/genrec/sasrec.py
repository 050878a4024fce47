"""SASRec: a small causal transformer over item ids, trained with a softmax over all items.

Source: arXiv 1808.09781; the full softmax in the place of sampled negatives follows
arXiv 2309.07602, which found it to be much of what later models gained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from genrec.histories import Histories

Floats = npt.NDArray[np.float64]

WIDTH, HEADS, LAYERS, DROPOUT = 64, 2, 2, 0.3
LENGTH = 50
"""Most recent items that are read."""
BATCH, RATE = 128, 1e-3
MOST_EPOCHS, PATIENCE = 80, 6


class Sasrec:
    """Scores of all items after a history, in log-odds; see :class:`genrec.crossfit.Scorer`."""

    epochs: int = MOST_EPOCHS

    def fit(
        self, histories: Histories, n_items: int, loss: Callable[[Self], float] | None = None
    ) -> Self:
        """Train for ``epochs``, or until ``loss`` of itself, asked each epoch, stops falling."""
        with torch.random.fork_rng(devices=[]):  # whoever calls has a seed of their own
            torch.manual_seed(0)
            return self._fit(histories, n_items, loss)

    def _fit(
        self, histories: Histories, n_items: int, loss: Callable[[Self], float] | None
    ) -> Self:
        self.network = _Network(n_items)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE)
        ids, lengths = _sequences(histories, LENGTH + 1)
        best, kept = np.inf, self.network.state_dict()
        for epoch in range(1, self.epochs + 1):
            self._train_epoch(ids, lengths, optimizer)
            if loss is None:
                continue
            if (found := loss(self)) < best:
                best, at = found, epoch
                kept = {key: value.clone() for key, value in self.network.state_dict().items()}
            elif epoch - at >= PATIENCE:
                break
        if loss is not None:
            self.network.load_state_dict(kept)
            self.epochs = at
        return self

    def _train_epoch(
        self, ids: torch.Tensor, lengths: torch.Tensor, optimizer: torch.optim.Optimizer
    ) -> None:
        self.network.train()
        for rows in torch.split(torch.randperm(len(ids)), BATCH):
            states = self.network(ids[rows, :-1], lengths[rows] - 1)
            wanted = ids[rows, 1:] - 1  # padding becomes -1
            loss = nn.functional.cross_entropy(
                self.network.logits(states[wanted >= 0]), wanted[wanted >= 0]
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    @torch.inference_mode()
    def scores(self, histories: Histories) -> Floats:
        """Shape [rows, items]."""
        self.network.eval()
        parts = []
        for start in range(0, max(1, len(histories)), BATCH):
            rows = np.arange(start, min(start + BATCH, len(histories)))
            ids, lengths = _sequences(histories.select(rows), LENGTH)
            states = self.network(ids, lengths)
            parts.append(self.network.logits(states[torch.arange(len(ids)), lengths - 1]))
        return cast(Floats, torch.cat(parts).double().numpy())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The weights, by name."""
        return {name: value.numpy() for name, value in self.network.state_dict().items()}

    def restore(self, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        """Inverse of :meth:`arrays`."""
        self.network = _Network(len(arrays["items.weight"]) - 1)
        self.network.load_state_dict({k: torch.from_numpy(v) for k, v in arrays.items()})
        return self


class _Network(nn.Module):
    def __init__(self, n_items: int) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, WIDTH, padding_idx=0)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, DROPOUT, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH)
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """States after each place, shape [rows, places, width]; rows are padded on the right.

        A place is counted from its row's end, so that a row's states do not depend on the others.
        """
        length = ids.shape[1]
        age = (lengths[:, None] - 1 - torch.arange(length)).clamp_min(0)
        states = self.items(ids) * WIDTH**0.5 + self.places(age)
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        return cast(torch.Tensor, self.norm(self.layers(self.dropout(states), mask=causal)))

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Of all items, shape [states, items]."""
        return states @ self.items.weight[1:].T


def _sequences(histories: Histories, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ends of the histories: ids from 1, zeros on the right, and lengths, at least 1."""
    lengths = np.clip(histories.lengths, 1, most)
    table = np.zeros((len(histories), max(2, int(lengths.max(initial=0)))), np.int64)
    for row, history in enumerate(histories):
        table[row, : len(history[-most:])] = history[-most:] + 1
    return torch.from_numpy(table), torch.from_numpy(lengths)
