"""How a configuration reads a catalogue: prompts, title states and the layout of positions."""

from __future__ import annotations

from typing import Any

from genrec.config import Config
from genrec.language_model.backbone import Backbone
from genrec.language_model.layouts import Layout, TitleLayout, TokenLayout
from genrec.language_model.prompts import Prompts, build_prompts, end_token
from genrec.language_model.split import SplitBackbone
from genrec.language_model.title_index import TitleIndex
from genrec.language_model.title_states import TitleStates

CONTEXT_LAYERS = 6
"""Layers that see the history by default (docs/decisions/0013-titles-read-once.md)."""


def context_layers(config: Config, layers: int) -> int | None:
    """Resolve ``context_layers="auto"`` for a backbone with a number of layers.

    It stands for :data:`CONTEXT_LAYERS`, but at most half of the layers, and for ``None`` where a
    setting needs every token of the history.
    """
    if config.context_layers != "auto":
        return config.context_layers
    if config.reads_tokens or layers < 2:
        return None
    return min(CONTEXT_LAYERS, layers // 2)


def make_prompts(config: Config, backbone: Backbone, index: TitleIndex) -> Prompts:
    """Return the template and the title tokens of a catalogue."""
    return build_prompts(backbone.tokenizer, index.titles, config)


def make_layout(
    backbone: Backbone, index: TitleIndex, prompts: Prompts, states: TitleStates | None
) -> Layout:
    """Return the layout of positions: one for each title if there are title states."""
    if states is None:
        return TokenLayout(backbone, index.trie, prompts)
    return TitleLayout(index.trie, states)


def make_states(config: Config, backbone: Backbone, index: TitleIndex) -> TitleStates | None:
    """Return an empty table of title states, or ``None`` if all layers read all tokens.

    Raises:
        BackboneError: the backbone has too few layers for ``context_layers``.
    """
    if not isinstance(config.context_layers, int):
        return None
    split = SplitBackbone(backbone, config.context_layers)
    return TitleStates(split, make_prompts(config, backbone, index), index.whole_trie())


def title_settings(config: Config, backbone: Backbone) -> dict[str, Any]:
    """Return the arguments of :meth:`TitleIndex.build` that shorten and terminate titles."""
    end = end_token(backbone.tokenizer, config.separator)
    return {"form": config.titles, "limit": config.title_tokens, "end": end}
