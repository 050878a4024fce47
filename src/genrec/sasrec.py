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
        torch.manual_seed(0)
        self.network = _Network(n_items)
        optimizer = torch.optim.Adam(self.network.parameters(), lr=RATE)
        sequences = _sequences(histories)
        best, kept = np.inf, self.network.state_dict()
        for epoch in range(1, self.epochs + 1):
            self._train_epoch(sequences, optimizer)
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

    def _train_epoch(self, sequences: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        self.network.train()
        for rows in torch.split(torch.randperm(len(sequences)), BATCH):
            batch = sequences[rows]
            logits = self.network(batch[:, :-1])
            wanted = batch[:, 1:] - 1  # places before a history's start become -1
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1), wanted.flatten(), ignore_index=-1
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    @torch.inference_mode()
    def scores(self, histories: Histories) -> Floats:
        """Shape [rows, items]."""
        self.network.eval()
        parts = [
            self.network(_sequences(histories.select(rows), LENGTH))[:, -1]
            for rows in np.array_split(np.arange(len(histories)), -(-len(histories) // BATCH))
        ]
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

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits of all items after each place, shape [rows, places, items]; 0 pads on the left."""
        length = ids.shape[1]
        states = self.items(ids) * WIDTH**0.5 + self.places.weight[-length:]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        states = self.layers(self.dropout(states), mask=causal)
        return cast(torch.Tensor, self.norm(states) @ self.items.weight[1:].T)


def _sequences(histories: Histories, most: int = LENGTH + 1) -> torch.Tensor:
    """The ends of the histories, ids from 1, zeros on the left, shape [rows, length]."""
    length = min(most, max(2, int(histories.lengths.max(initial=0))))
    table = np.zeros((len(histories), length), np.int64)
    for row, history in enumerate(histories):
        if len(history):
            table[row, -len(history[-length:]) :] = history[-length:] + 1
    return torch.from_numpy(table)
