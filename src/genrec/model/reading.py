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
MICROBATCH_OF_TOKENS = 8
"""Most windows of a forward pass in which every token is a position."""
MICROBATCH_OF_TITLES = 16
"""Most windows of a forward pass in which every title is one position, so that a pass is short."""


def for_layers(config: Config, layers: int) -> Config:
    """Return the settings with what ``auto`` stands for on a backbone with a number of layers.

    ``context_layers`` becomes :data:`CONTEXT_LAYERS`, but at most half of the layers, and ``None``
    where a setting needs every token of the history. ``microbatch_size`` becomes a divisor of the
    batch size.
    """
    context = config.context_layers
    if context == "auto":
        reads_tokens = config.reads_tokens or layers < 2
        context = None if reads_tokens else min(CONTEXT_LAYERS, layers // 2)
    size = config.microbatch_size
    if size == "auto":
        most = MICROBATCH_OF_TOKENS if context is None else MICROBATCH_OF_TITLES
        size = max(size for size in range(1, most + 1) if config.batch_size % size == 0)
    return config.model_copy(update={"context_layers": context, "microbatch_size": size})


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
