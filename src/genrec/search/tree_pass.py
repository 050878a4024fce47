"""One pass of the language model: new prompt tokens and trie nodes of all rows at once.

The nodes' edge tokens are appended to the prompt's key-value cache as extra columns, and a 4-D
mask lets each token see its prompt and its own ancestors only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache

from genrec.arrays import Ints, Ints32, Mask
from genrec.language_model.decisions import choices
from genrec.language_model.likelihood import CatalogueLikelihood
from genrec.language_model.prior_mass import log_mass
from genrec.search.frontier import Frontier
from genrec.search.key_values import KeyValues, cache_of


@dataclass
class Row:
    """One history in a batch.

    Attributes:
        prompt: its tokens, the edge to the trie's root included.
        known: keys and values computed earlier; ``reused`` of its first tokens are taken over.
        context: cache columns of the prompt.
        paths: for each slot of the frontier, the cache columns from the root to its node.
    """

    prompt: list[int]
    frontier: Frontier
    known: KeyValues | None
    reused: int
    context: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    paths: list[Ints] = field(default_factory=lambda: [np.empty(0, np.int64)])


def load_cache(rows: list[Row], device: torch.device) -> DynamicCache:
    """One cache for the rows' reused tokens, right-padded to the longest of them."""
    longest = max(row.reused for row in rows)
    for row in rows:
        row.context = np.arange(row.reused)
    if not longest:
        return DynamicCache()
    known = [row.known for row in rows if row.known is not None]
    if len(rows) == 1:
        return known[0].cache(longest)
    return cache_of(
        [
            (_join(rows, longest, number, 0), _join(rows, longest, number, 1))
            for number in range(len(known[0].layers))
        ]
    )


def _join(rows: list[Row], longest: int, layer: int, part: int) -> torch.Tensor:
    """Keys (part 0) or values (1) that the rows take over, shape [rows, heads, longest, size]."""
    like = next(row.known.layers[layer][part] for row in rows if row.known is not None)
    joined = like.new_zeros(len(rows), like.shape[1], longest, like.shape[3])
    for place, row in enumerate(rows):
        if row.known is not None:
            joined[place, :, : row.reused] = row.known.layers[layer][part][0, :, : row.reused]
    return joined


def take_out(cache: DynamicCache, row: Row, place: int) -> KeyValues:
    """A copy of the keys and values of a row's prompt, in the order of its tokens."""
    columns = torch.from_numpy(row.context)
    last = len(row.context)
    alone = row.context[-1] == last - 1  # its columns lie side by side: slices are faster

    def copy(part: torch.Tensor) -> torch.Tensor:
        own = part[place : place + 1]
        return own[:, :, :last].clone() if alone else own.index_select(2, columns.to(part.device))

    return KeyValues(row.prompt, [(copy(layer[0]), copy(layer[1])) for layer in cache])


def run_pass(model: CatalogueLikelihood, rows: list[Row], cache: DynamicCache) -> int:
    """Run the fresh slots of all rows, and at first what is new of their prompts; expand them."""
    trie, past = model.trie, cache.get_seq_length()
    edges = [
        [trie.edge(slot.child) for slot in row.frontier.slots[max(row.frontier.fresh, 1) :]]
        for row in rows
    ]
    news = [row.prompt[len(row.context) :] for row in rows]
    sizes = [len(new) + sum(map(len, edge)) for new, edge in zip(news, edges, strict=True)]
    wide = max(sizes)
    ids, positions = np.zeros((2, len(rows), wide), np.int64)
    visible = np.zeros((len(rows), 1, wide, past + wide), bool)
    where = []
    for i, (row, new) in enumerate(zip(rows, news, strict=True)):
        visible[i, :, sizes[i] :, 0] = True  # padding must see something: softmax needs a column
        _lay_out(row, new, edges[i], past, ids[i], positions[i], visible[i, 0])
        fresh = row.paths[row.frontier.fresh :]
        where += [(i, (path[-1] if len(path) else row.context[-1]) - past) for path in fresh]
    hidden = run_tree(model, ids, positions, visible, cache)
    _expand(model, hidden[tuple(torch.tensor(where, device=hidden.device).T)], rows)
    return sum(sizes) - sum(map(len, news))


def _lay_out(
    row: Row,
    new: list[int],
    edges: list[Ints32],
    past: int,
    ids: Ints,
    positions: Ints,
    visible: Mask,
) -> None:
    """Put a row's new prompt tokens and its edges into the pass, one after the other."""
    end = len(new)
    if new:
        ids[:end] = new
        positions[:end] = len(row.context) + np.arange(end)
        visible[:end, row.context] = True
        visible[:end, past : past + end] = np.tri(end, dtype=bool)
        row.context = np.append(row.context, np.arange(past, past + end))
    slots = row.frontier.slots[len(row.paths) :]
    visible[end : end + sum(map(len, edges)), row.context] = True
    for slot, edge in zip(slots, edges, strict=True):
        begin, end = end, end + len(edge)
        before = row.paths[slot.parent]
        ids[begin:end] = edge
        positions[begin:end] = len(row.prompt) + len(before) + np.arange(len(edge))
        visible[begin:end, before] = True
        visible[begin:end, past + begin : past + end] = np.tri(len(edge), dtype=bool)
        row.paths.append(np.append(before, np.arange(past + begin, past + end)))


def run_tree(
    model: CatalogueLikelihood, ids: Ints, positions: Ints, visible: Mask, cache: DynamicCache
) -> torch.Tensor:
    """Hidden states of tokens that each see what the mask says; the cache grows by them.

    Args:
        ids, positions: shape [rows, tokens].
        visible: which columns each token sees, shape [rows, 1, tokens, cached + tokens].

    Returns:
        Shape [rows, tokens, hidden].
    """
    device, dtype = model.backbone.device, model.backbone.output_weight.dtype
    mask = torch.full(visible.shape, torch.finfo(dtype).min, dtype=dtype)
    mask.masked_fill_(torch.from_numpy(visible), 0.0)
    return model.backbone.hidden(
        torch.from_numpy(ids).to(device),
        position_ids=torch.from_numpy(positions).to(device),
        attention_mask=mask.to(device),
        past_key_values=cache,
        use_cache=True,
    )


def _expand(model: CatalogueLikelihood, hidden: torch.Tensor, rows: list[Row]) -> None:
    """Score the children of all fresh slots, one hidden state each, and hand them to their rows."""
    trie = model.trie
    fresh = [row.frontier.slots[row.frontier.fresh :] for row in rows]
    chosen = choices(trie, np.array([slot.node for slots in fresh for slot in slots]))
    ends = np.cumsum([len(slots) for slots in fresh])
    prior = None
    if rows[0].frontier.sums is not None:
        sums = np.stack([row.frontier.sums for row in rows if row.frontier.sums is not None])
        owner = np.searchsorted(ends, chosen.decision, side="right")
        prior = log_mass(trie, sums, owner, chosen.child)
    log_probs = model.child_log_probs(hidden, chosen, prior).cpu().double().numpy()
    bounds = np.append(chosen.starts, len(chosen.child))
    for row, slots, end in zip(rows, fresh, ends, strict=True):
        first = end - len(slots)
        part = slice(bounds[first], bounds[end])
        starts = chosen.starts[first:end] - bounds[first]
        row.frontier.expand(chosen.child[part], starts, log_probs[part])
