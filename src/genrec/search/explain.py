"""Explanations: the change of an item's log-probability when one history item is hidden.

The prompt's keys and values are computed once. One tree pass then runs the prompt's last token and
the title again, for every requested item and every hidden part. A mask hides the columns of the
hidden title from these copies. What later titles took over from the hidden one remains; the
benchmark compares the result with prompts that never contained it. The prior is recomputed without
the hidden item.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from genrec.arrays import Floats, Items
from genrec.language_model.decisions import locate_targets
from genrec.language_model.likelihood import CatalogueLikelihood, title_log_probs
from genrec.search.key_values import KeyValues
from genrec.search.tree_pass import run_tree

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
    trie, length = model.trie, len(known.tokens)
    copies = [
        np.append(known.tokens[-1], trie.titles[item][: _deepest(model, item)])
        for _ in spans
        for item in items
    ]
    starts = np.cumsum([0, *map(len, copies)])
    ids = np.concatenate(copies).astype(np.int64)[None]
    positions = np.concatenate([np.arange(len(copy)) for copy in copies])[None] + length - 1
    visible = np.zeros((1, 1, ids.shape[1], length + ids.shape[1]), bool)
    visible[..., : length - 1] = True  # each copy runs the last token again
    for number, (first, last) in enumerate(pairwise(starts)):
        hidden_from, hidden_to = spans[number // len(items)]
        visible[0, 0, first:last, hidden_from:hidden_to] = False
        visible[0, 0, first:last, length + first : length + last] = np.tri(last - first, dtype=bool)
    hidden = run_tree(model, ids, positions, visible, known.cache())
    targets = np.tile(items, len(spans))
    rows = None if sums is None else np.repeat(sums, len(items), axis=0)
    located = locate_targets(trie, targets, np.zeros(len(targets), np.int64), starts[:-1] + 1, rows)
    log_probs = title_log_probs(model, hidden, located).cpu().double().numpy()
    return log_probs.reshape(len(spans), len(items))


def _deepest(model: CatalogueLikelihood, item: int) -> int:
    """Return the number of tokens of a title up to its last decision."""
    trie = model.trie
    return int(trie.depth[trie.child_parent[trie.decisions(item)[-1]]])
