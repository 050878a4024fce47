"""The backbone in two parts: lower layers that read titles one by one, and context layers above.

Both parts share the backbone's modules, so adapters, merged weights and devices stay the same.
(Lower layers apart, upper layers together: DeFormer, arXiv 2005.00697.)
"""

from __future__ import annotations

from copy import copy
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache

from genrec.errors import BackboneError
from genrec.language_model.backbone import Backbone


class SplitBackbone:
    """A backbone whose last ``context_layers`` layers run apart from those below."""

    def __init__(self, backbone: Backbone, context_layers: int) -> None:
        """Split a backbone.

        Args:
            backbone: the language model.
            context_layers: number of layers of the upper part; at least one, and at least one stays
                below.

        Raises:
            BackboneError: the backbone has too few layers.
        """
        blocks = list(backbone.blocks)
        if context_layers >= len(blocks):
            raise BackboneError(
                f"context_layers={context_layers} leaves no layer of backbone {backbone.name!r} to "
                f"read the titles. Set it to {len(blocks) - 1} or less, or to null to run all "
                f"{len(blocks)} layers over the whole history."
            )
        self.backbone, self.context_layers = backbone, context_layers
        self.lower_layers = len(blocks) - context_layers
        skipped = [_Skip() for _ in range(self.lower_layers - 1)]
        self._given = _Given()
        self._lower = _with_layers(backbone, blocks[: self.lower_layers])
        for name, _ in backbone.final_norms:
            setattr(self._lower, name, nn.Identity())
        # Some decoders choose masks by a layer's place in the list, so the places must stay.
        upper = [self._given, *skipped, *blocks[self.lower_layers :]]
        self._upper = _with_layers(backbone, upper)

    def lower(self, input_ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Return the states of tokens after the lower layers, shape [rows, tokens, hidden]."""
        with self.backbone.mixed_precision():
            output = self._lower(input_ids=input_ids, **inputs)
        return cast(torch.Tensor, output.last_hidden_state)

    def upper(
        self, states: torch.Tensor, *, past_key_values: DynamicCache | None = None, **inputs: Any
    ) -> torch.Tensor:
        """Return the final hidden states of positions.

        Args:
            states: states after the lower layers, shape [rows, positions, hidden].
            past_key_values: keys and values of earlier positions in the context layers; it grows.
            inputs: further arguments of the decoder.

        Returns:
            Shape [rows, positions, hidden].
        """
        if past_key_values is not None:
            inputs |= {"past_key_values": _Shifted(past_key_values, self.lower_layers)}
        self._given.states = states
        with self.backbone.mixed_precision():
            output = self._upper(
                inputs_embeds=states, use_cache=past_key_values is not None, **inputs
            )
        return cast(torch.Tensor, output.last_hidden_state)


class _Given(nn.Module):
    """Takes the place of the first layer and returns given states, whatever was embedded."""

    states: torch.Tensor

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        return self.states


class _Skip(nn.Module):
    """Takes the place of a layer that does not run."""

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden


class _Shifted(DynamicCache):
    """A cache of the context layers alone, for layers that count from the bottom of the model."""

    def __init__(self, cache: DynamicCache, shift: int) -> None:
        super().__init__()
        self.layers, self.shift = cache.layers, shift

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return super().update(key_states, value_states, layer_idx - self.shift)


def _with_layers(backbone: Backbone, layers: list[nn.Module]) -> Any:
    """Return a decoder with other layers that shares everything else with the backbone's."""
    decoder = copy(backbone.causal_lm.get_decoder())
    decoder._modules = dict(decoder._modules)
    setattr(decoder, backbone.blocks_name, nn.ModuleList(layers))
    return decoder
