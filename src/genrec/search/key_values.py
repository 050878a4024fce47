"""Keys and values of earlier prompts, and caches built from them."""

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
    """Keys and values of a prompt's tokens; a later prompt with the same prefix reuses them.

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
        """Return a cache of the first tokens (all if ``None``).

        Tokens that are added to the cache do not change this object.
        """
        return cache_of(
            [(keys[:, :, :first], values[:, :, :first]) for keys, values in self.layers]
        )

    def shared(self, prompt: Sequence[int]) -> int:
        """Return the length of the common prefix with a prompt, without the prompt's last token.

        The last token must always be run, because its hidden state is needed.
        """
        most = min(len(self.tokens), len(prompt) - 1)
        same = np.equal(self.tokens[:most], prompt[:most])
        return most if same.all() else int(same.argmin())


def read_prompt(
    model: CatalogueLikelihood, tokens: list[int], known: KeyValues | None = None
) -> KeyValues:
    """Compute the keys and values of a prompt, or of the part that several prompts share.

    Args:
        model: the catalogue likelihood.
        tokens: the prompt.
        known: cached keys and values of an earlier prompt; shared tokens are not run again.
    """
    reused = known.shared(tokens) if known else 0
    cache = known.cache(reused) if known and reused else DynamicCache()
    input_ids = torch.tensor([tokens[reused:]], device=model.backbone.device)
    with torch.inference_mode():
        model.backbone.hidden(input_ids, past_key_values=cache, use_cache=True)
    return KeyValues(tokens, [(layer[0], layer[1]) for layer in cache])


def cache_of(layers: list[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    """Build a cache on these tensors; DynamicCache's constructor would copy them first."""
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache
