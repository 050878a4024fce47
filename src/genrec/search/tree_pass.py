"""One pass of the language model over new positions of the prompts and trie nodes of all rows.

The nodes' positions are appended to the prompt's key-value cache as further columns. A 4-D mask
limits each to its prompt and, where the layout says so, to its own ancestors (tree attention).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache

from genrec.arrays import Ints, Mask
from genrec.language_model.caches import cache_of
from genrec.language_model.decisions import choices
from genrec.language_model.likelihood import CatalogueLikelihood
from genrec.language_model.prior_mass import log_mass
from genrec.search.frontier import Frontier
from genrec.search.key_values import KeyValues


@dataclass
class Row:
    """One history in a batch.

    Attributes:
        prompt: ids of the prompt.
        frontier: the row's search state.
        known: cached keys and values of an earlier prompt.
        reused: number of first positions of ``known`` that are reused.
        context: cache columns of the prompt.
        paths: cache columns from the root to the node of each slot of the frontier.
    """

    prompt: list[int]
    frontier: Frontier
    known: KeyValues | None
    reused: int
    context: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    paths: list[Ints] = field(default_factory=lambda: [np.empty(0, np.int64)])


def load_cache(rows: list[Row], device: torch.device) -> DynamicCache:
    """Build one cache of the rows' reused positions, right-padded to the longest of them."""
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
    """Return the rows' reused keys (part 0) or values (1), shape [rows, heads, longest, size]."""
    like = next(row.known.layers[layer][part] for row in rows if row.known is not None)
    joined = like.new_zeros(len(rows), like.shape[1], longest, like.shape[3])
    for place, row in enumerate(rows):
        if row.known is not None:
            joined[place, :, : row.reused] = row.known.layers[layer][part][0, :, : row.reused]
    return joined


def take_out(cache: DynamicCache, row: Row, place: int) -> KeyValues:
    """Copy the keys and values of a row's prompt out of the cache, in order."""
    columns = torch.from_numpy(row.context)
    last = len(row.context)
    alone = row.context[-1] == last - 1  # adjacent columns: slicing is faster than index_select

    def copy(part: torch.Tensor) -> torch.Tensor:
        own = part[place : place + 1]
        return own[:, :, :last].clone() if alone else own.index_select(2, columns.to(part.device))

    return KeyValues(row.prompt, [(copy(layer[0]), copy(layer[1])) for layer in cache])


def run_pass(model: CatalogueLikelihood, rows: list[Row], cache: DynamicCache) -> int:
    """Run the fresh slots of all rows, and new positions of prompts, then expand the frontiers.

    Returns:
        Number of positions run for nodes, without padding and prompts.
    """
    layout, past = model.layout, cache.get_seq_length()
    edges = [
        [layout.edge(slot.child) for slot in row.frontier.slots[max(row.frontier.fresh, 1) :]]
        for row in rows
    ]
    news = [row.prompt[len(row.context) :] for row in rows]
    sizes = [len(new) + sum(map(len, edge)) for new, edge in zip(news, edges, strict=True)]
    wide = max(sizes)
    ids, positions = np.zeros((2, len(rows), wide), np.int64)
    visible = np.zeros((len(rows), 1, wide, past + wide), bool)
    where = []
    for i, (row, new) in enumerate(zip(rows, news, strict=True)):
        visible[i, :, sizes[i] :, 0] = True  # the softmax of padding needs one column
        places = ids[i], positions[i], visible[i, 0]
        _lay_out(row, new, edges[i], past, *places, sees_path=layout.sees_path)
        fresh = row.paths[row.frontier.fresh :]
        where += [(i, (path[-1] if len(path) else row.context[-1]) - past) for path in fresh]
    hidden = layout.hidden(
        torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        visible=torch.from_numpy(visible),
        cache=cache,
    )
    _expand(model, hidden[tuple(torch.tensor(where, device=hidden.device).T)], rows)
    return sum(sizes) - sum(map(len, news))


def _lay_out(
    row: Row,
    new: list[int],
    edges: list[Ints],
    past: int,
    ids: Ints,
    positions: Ints,
    visible: Mask,
    *,
    sees_path: bool,
) -> None:
    """Write a row's new positions and its edges into the arrays of the pass."""
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
        before = row.paths[slot.parent] if sees_path else row.paths[0]
        ids[begin:end] = edge
        positions[begin:end] = len(row.prompt) + len(before) + np.arange(len(edge))
        visible[begin:end, before] = True
        visible[begin:end, past + begin : past + end] = np.tri(len(edge), dtype=bool)
        row.paths.append(np.append(before, np.arange(past + begin, past + end)))


def _expand(model: CatalogueLikelihood, hidden: torch.Tensor, rows: list[Row]) -> None:
    """Score the children of all fresh slots and pass the scores to their rows' frontiers.

    Args:
        model: the catalogue likelihood.
        hidden: one hidden state per fresh slot, shape [slots, hidden].
        rows: the rows of the pass.
    """
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
