"""Attention within rows of a flat batch: many short histories that share one sequence.

All other parts of a layer treat every position by itself, so a flat batch needs no padding. Only
attention depends on which positions belong together. Computed over the whole batch at once, it
would compare the positions of different histories, too, and then mask them.

(Sequences of different lengths in one batch without padding, with attention within each: "packing",
as in FlashAttention's interface for variable lengths, arXiv 2205.14135.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from genrec.arrays import Ints, rows_and_places

Attention = Callable[..., tuple[torch.Tensor, torch.Tensor | None]]
"""Returns [rows, positions, heads, size], and the attention weights if it has computed them."""
PREFIX = "rows-of-"
"""Prefix of the names under which transformers knows these attention functions."""


@dataclass(frozen=True)
class Rows:
    """Positions of a flat batch, in rows for attention.

    Attributes:
        taken: the position at each place of each row, int64 [rows, places]; -1 pads. A position may
            stand in several rows.
        place: the place, counted over all rows, whose output is that of each position, int64
            [positions].
    """

    taken: torch.Tensor
    place: torch.Tensor

    @classmethod
    def of(cls, owner: Ints) -> Self:
        """Make one row for each owner.

        Args:
            owner: number of each position's row, shape [positions]; a position of -1 stands at the
                beginning of all rows.
        """
        shared, own = np.flatnonzero(owner < 0), np.flatnonzero(owner >= 0)
        own = own[np.argsort(owner[own], kind="stable")]
        lengths = np.bincount(owner[own], minlength=1)
        row, column = rows_and_places(lengths)
        column += len(shared)
        taken = np.full((len(lengths), len(shared) + lengths.max()), -1)
        taken[:, : len(shared)], taken[row, column] = shared, own
        place = np.empty(len(owner), np.int64)
        place[shared], place[own] = np.arange(len(shared)), row * taken.shape[1] + column
        return cls(torch.from_numpy(taken), torch.from_numpy(place))

    def to(self, device: torch.device) -> Rows:
        """Return the rows on a device."""
        return Rows(self.taken.to(device), self.place.to(device))

    def split(self, states: torch.Tensor) -> torch.Tensor:
        """Return [1, heads, positions, size] as [rows, heads, places, size]."""
        flat = states[0].transpose(0, 1).index_select(0, self.taken.clamp(min=0).flatten())
        return flat.view(*self.taken.shape, *flat.shape[1:]).transpose(1, 2)

    def together(self, visible: torch.Tensor) -> torch.Tensor:
        """Return which positions see which, [1, 1, positions, positions], for all rows at once.

        Args:
            visible: places that each place sees, bool [rows, 1, places, places].
        """
        whole = torch.zeros(2 * [len(self.place)], dtype=torch.bool)
        for taken, seen in zip(self.taken, visible[:, 0], strict=True):
            there = taken >= 0
            whole[taken[there][:, None], taken[there]] = seen[there][:, there]
        return whole[None, None]

    def join(self, output: torch.Tensor) -> torch.Tensor:
        """Return [rows, places, heads, size] as [1, positions, heads, size]."""
        return output.flatten(0, 1).index_select(0, self.place)[None]


def attend_in_rows(model: PreTrainedModel) -> None:
    """Let the model's attention accept :class:`Rows` as the argument ``rows`` of its decoder.

    Without that argument the model computes what it computed before. Model families whose attention
    cannot be replaced stay as they are.
    """
    name = model.config._attn_implementation
    if model._supports_attention_backend and name in ("eager", "sdpa"):
        AttentionInterface.register(PREFIX + name, partial(_attention, name))
        AttentionMaskInterface.register(PREFIX + name, ALL_MASK_ATTENTION_FUNCTIONS[name])
        model.set_attn_implementation(PREFIX + name)


def attends_in_rows(model: PreTrainedModel) -> bool:
    """Return whether :func:`attend_in_rows` has changed the model."""
    return str(model.config._attn_implementation).startswith(PREFIX)


def _attention(
    name: str,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    rows: Rows | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    # Each model family has its own plain attention, in the module of its layers.
    plain = sys.modules[type(module).__module__].eager_attention_forward
    attention: Attention = ALL_ATTENTION_FUNCTIONS.get_interface(name, plain)
    if rows is None:
        return attention(module, query, key, value, mask, **settings)
    parts = (rows.split(states) for states in (query, key, value))
    output, weights = attention(module, *parts, mask, **settings)
    return rows.join(output), weights
