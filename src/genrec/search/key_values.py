"""Keys and values of earlier prompts, and caches built from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from genrec.language_model.caches import cache_of
from genrec.language_model.likelihood import CatalogueLikelihood


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of a prompt's positions; a later prompt with the same prefix reuses them.

    Attributes:
        ids: ids of the positions, in order (see :mod:`genrec.language_model.layouts`).
        layers: keys and values of each layer, each of shape [1, heads, positions, head size].
    """

    ids: list[int]
    layers: list[tuple[torch.Tensor, torch.Tensor]]

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(part.untyped_storage().nbytes() for layer in self.layers for part in layer)

    def cache(self, first: int | None = None) -> DynamicCache:
        """Return a cache of the first positions (all if ``None``).

        Positions that are added to the cache do not change this object.
        """
        return cache_of(
            [(keys[:, :, :first], values[:, :, :first]) for keys, values in self.layers]
        )

    def shared(self, prompt: Sequence[int]) -> int:
        """Return the length of the common prefix with a prompt, without the prompt's last position.

        The last position must always be run, because its hidden state is needed.
        """
        most = min(len(self.ids), len(prompt) - 1)
        same = np.equal(self.ids[:most], prompt[:most])
        return most if same.all() else int(same.argmin())


def read_prompt(
    model: CatalogueLikelihood, ids: list[int], known: KeyValues | None = None
) -> KeyValues:
    """Compute the keys and values of a prompt, or of the part that several prompts share.

    Args:
        model: the catalogue likelihood.
        ids: the prompt.
        known: cached keys and values of an earlier prompt; shared positions are not run again.
    """
    reused = known.shared(ids) if known else 0
    cache = known.cache(reused) if known and reused else DynamicCache()
    with torch.inference_mode():
        model.layout.hidden(torch.tensor([ids[reused:]]), cache=cache)
    return KeyValues(ids, [(layer[0], layer[1]) for layer in cache])
