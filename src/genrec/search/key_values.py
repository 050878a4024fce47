"""Keys and values of prompts that were read before, and the caches made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from genrec.language_model.likelihood import CatalogueLikelihood


@dataclass(frozen=True)
class KeyValues:
    """Keys and values of a prompt's tokens, which the next prompt with the same start need not run.

    Attributes:
        tokens: the tokens, in order.
        layers: keys and values of each layer, each of shape [1, heads, tokens, head size].
    """

    tokens: list[int]
    layers: list[tuple[torch.Tensor, torch.Tensor]]

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(part.untyped_storage().nbytes() for layer in self.layers for part in layer)

    def cache(self, first: int | None = None) -> DynamicCache:
        """A cache of the first tokens (all if ``None``); what it takes in is not kept here."""
        return cache_of(
            [(keys[:, :, :first], values[:, :, :first]) for keys, values in self.layers]
        )

    def shared(self, prompt: Sequence[int]) -> int:
        """How many first tokens a prompt has in common; its last token always has to be run."""
        most = min(len(self.tokens), len(prompt) - 1)
        same = np.equal(self.tokens[:most], prompt[:most])
        return most if same.all() else int(same.argmin())


def read_prompt(
    model: CatalogueLikelihood, tokens: list[int], known: KeyValues | None = None
) -> KeyValues:
    """Keys and values of a prompt or of the part that prompts have in common."""
    reused = known.shared(tokens) if known else 0
    cache = known.cache(reused) if known and reused else DynamicCache()
    input_ids = torch.tensor([tokens[reused:]], device=model.backbone.device)
    with torch.inference_mode():
        model.backbone.hidden(input_ids, past_key_values=cache, use_cache=True)
    return KeyValues(tokens, [(layer[0], layer[1]) for layer in cache])


def cache_of(layers: list[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    """A cache that starts with these tensors, which its constructor would copy first."""
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache
