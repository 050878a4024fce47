"""Explanations: the change of an item's log-probability when one history item is hidden.

The prompt's keys and values are computed once. One pass then runs the prompt's last position and
the title's positions again, for every requested item and every hidden part. A mask hides the
columns of the hidden title from these copies. What later titles took over from the hidden one
remains; the benchmark compares the result with prompts that never contained it. The prior is
recomputed without the hidden item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from genrec.arrays import Floats, Ints, Items, Mask
from genrec.language_model.decisions import locate_targets
from genrec.language_model.layouts import Layout
from genrec.language_model.likelihood import CatalogueLikelihood, title_log_probs
from genrec.search.key_values import KeyValues

Span = tuple[int, int]
"""First column of a part of the prompt, and its end, exclusive."""


@torch.inference_mode()
def hidden_log_probs(
    model: CatalogueLikelihood,
    known: KeyValues,
    spans: Sequence[Span],
    items: Items,
    sums: Floats | None,
) -> Floats:
    """Return log p of each item with each part of the prompt hidden.

    Args:
        model: the catalogue likelihood.
        known: keys and values of the whole prompt.
        spans: first and last column (exclusive) of each hidden part; an empty span hides nothing.
        items: items to score.
        sums: cumulative prior mass for each span, shape [spans, leaves + 1]; ``None`` without a
            prior.

    Returns:
        Shape [spans, items].
    """
    layout, length = model.layout, len(known.ids)
    paths = [layout.path(item) for item in items] * len(spans)
    copies = [
        _copy(layout, length, span, len(ids)) for span in spans for ids, _ in paths[: len(items)]
    ]
    starts = np.cumsum([0, *(len(copy.places) for copy in copies)])
    wide = int(starts[-1])
    visible = np.zeros((1, 1, wide, length + wide), bool)
    for (first, last), copy in zip(pairwise(starts), copies, strict=True):
        visible[0, 0, first:last, :length] = copy.sees
        visible[0, 0, first:last, length + first : length + last] = copy.inside
    ids = [
        np.append(known.ids[copy.places[0]], ids)
        for copy, (ids, _) in zip(copies, paths, strict=True)
    ]
    hidden = layout.hidden(
        torch.from_numpy(np.concatenate(ids))[None],
        positions=torch.from_numpy(np.concatenate([copy.places for copy in copies]))[None],
        visible=torch.from_numpy(visible),
        cache=known.cache(),
    )
    rows = None if sums is None else np.repeat(sums, len(items), axis=0)
    targets = locate_targets(model.trie, np.tile(items, len(spans)), rows)
    predictor = [start + 1 + at for start, (_, at) in zip(starts, paths, strict=False)]
    states = hidden[0, torch.from_numpy(np.concatenate(predictor)).to(hidden.device)]
    log_probs = title_log_probs(model, states, targets).cpu().double().numpy()
    return log_probs.reshape(len(spans), len(items))


@dataclass(frozen=True)
class _Copy:
    """The positions that are run again for one hidden part and one item.

    Attributes:
        places: place of each in the prompt; the first is the prompt's last position.
        sees: which of the prompt's columns they see, shape [length].
        inside: which of each other they see, shape [positions, positions].
    """

    places: Ints
    sees: Mask
    inside: Mask


def _copy(layout: Layout, length: int, span: Span, count: int) -> _Copy:
    """Describe a prompt's last position and the ``count`` positions of a title after it."""
    last, inside = length - 1, np.tri(count + 1, dtype=bool)
    places = last + np.arange(count + 1)
    if not layout.sees_path:
        inside = np.eye(count + 1, dtype=bool)
        inside[:, 0] = True
        places = np.minimum(places, length)
        if span[1] == length:  # the last position is the hidden title: the one before predicts
            last = places[0] = span[0] - 1
    sees = np.arange(length) < last
    sees[slice(*span)] = False
    return _Copy(places, sees, inside)
