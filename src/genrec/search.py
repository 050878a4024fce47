"""Exact top-k of the whole catalogue: best-first search over the trie with tree attention.

Which nodes to run is for :mod:`genrec.frontier` to say; here they are run. All nodes of a pass, of
all rows of a batch, go through the language model at once: their edge tokens are appended to the
prompt's key-value cache as extra columns, and a 4-D mask lets each token see its prompt and its own
ancestors only. The first pass holds what is new of the prompt and the nodes guessed from the prior;
with a good prior it is the only one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from genrec.arrays import Floats, Ints, Ints32, Items, Mask
from genrec.frontier import Effort, Frontier
from genrec.likelihood import CatalogueLikelihood, choices, cumulative_mass, log_mass
from genrec.trie import Trie

TOKEN_BUDGET = {"cpu": 1024, "cuda": 32_768}
"""Most prompt tokens, padding and cached ones included, that one batch holds; 4096 elsewhere. A
CPU is slower beyond a thousand: the activations of a layer no longer fit into its cache."""


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
        return _cache_of(
            [(keys[:, :, :first], values[:, :, :first]) for keys, values in self.layers]
        )

    def shared(self, prompt: Sequence[int]) -> int:
        """How many first tokens a prompt has in common; its last token always has to be run."""
        most = min(len(self.tokens), len(prompt) - 1)
        same = np.equal(self.tokens[:most], prompt[:most])
        return most if same.all() else int(same.argmin())


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


@dataclass(frozen=True)
class Found:
    """Top-k of each row.

    Attributes:
        items: item indices, best first, shape [rows, k], padded with -1.
        log_probs: log p(item | history), shape [rows, k], padded with -inf.
        rounds: passes after the first one.
        tokens: tokens run for nodes, padding and prompts not counted.
        key_values: of each row's prompt, if they were to be kept.
    """

    items: Items
    log_probs: Floats
    rounds: int
    tokens: int
    key_values: list[KeyValues]


@torch.inference_mode()
def search(
    model: CatalogueLikelihood,
    prompts: Sequence[Sequence[int]],
    k: int,
    *,
    probabilities: Floats | None = None,
    allowed: Mask | None = None,
    known: Sequence[KeyValues | None] | None = None,
    keep: bool = False,
    effort: Effort | None = None,
) -> Found:
    """Find the k most probable items for each prompt, over the whole catalogue.

    Args:
        prompts: prompt tokens of each row, lengths may differ.
        probabilities: the prior q for each row, shape [rows, items], if the model has a prior.
        allowed: items that may be recommended, shape [rows, items]; all if ``None``.
        known: keys and values of an earlier prompt for each row; what it shares is not run again.
        keep: return the prompts' keys and values.
        effort: exact whatever its tokens and margin, but not with a beam.
    """
    rows = _start(model.trie, prompts, k, probabilities, allowed, known)
    rounds = tokens = 0
    kept: list[KeyValues] = [KeyValues([], [])] * (len(rows) if keep else 0)
    budget = TOKEN_BUDGET.get(model.backbone.device.type, 4096)
    for batch in _batches([len(row.prompt) for row in rows], budget):
        chosen = effort or Effort(margin=Effort.margin if len(batch) == 1 else 0.0)
        done = _search_batch(model, [rows[i] for i in batch], chosen, keep)
        rounds, tokens = max(rounds, done[0]), tokens + done[1]
        for i, key_values in zip(batch, done[2], strict=False):
            kept[i] = key_values
    items = np.full((len(rows), k), -1, np.int32)
    log_probs = np.full((len(rows), k), -np.inf)
    for i, row in enumerate(rows):
        found = row.frontier
        items[i, : len(found.items)], log_probs[i, : len(found.items)] = found.items, found.scores
    return Found(items, log_probs, rounds, tokens, kept)


def _start(
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    k: int,
    probabilities: Floats | None,
    allowed: Mask | None,
    known: Sequence[KeyValues | None] | None,
) -> list[Row]:
    sums = None if probabilities is None else cumulative_mass(trie, probabilities)
    everything = np.arange(len(trie) + 1, dtype=np.int32)
    rows = []
    for i, prompt in enumerate(prompts):
        admitted = everything
        if allowed is not None:
            admitted = np.zeros_like(everything)
            np.cumsum(allowed[i, trie.items], out=admitted[1:])
        frontier = Frontier(trie, k, None if sums is None else sums[i], admitted)
        whole, before = [*prompt, *trie.root_edge().tolist()], known[i] if known else None
        rows.append(Row(whole, frontier, before, before.shared(whole) if before else 0))
    return rows


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group rows of similar length so that no batch holds more tokens than the budget."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _search_batch(
    model: CatalogueLikelihood, rows: list[Row], effort: Effort, keep: bool
) -> tuple[int, int, list[KeyValues]]:
    cache = _load_cache(rows, model.backbone.device)
    kept: list[KeyValues] = []
    rounds, tokens = -1, 0
    while rows:
        for row in rows:
            row.frontier.plan(effort)
        tokens += _run_pass(model, rows, cache)
        rounds += 1
        if keep and not kept:
            kept = [_take_out(cache, row, place) for place, row in enumerate(rows)]
        active = [place for place, row in enumerate(rows) if not row.frontier.done]
        if 0 < len(active) < len(rows):
            cache.batch_select_indices(torch.tensor(active, device=model.backbone.device))
        rows = [rows[place] for place in active]
    return rounds, tokens, kept


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


def _load_cache(rows: list[Row], device: torch.device) -> DynamicCache:
    """One cache for the rows' reused tokens, right-padded to the longest of them."""
    longest = max(row.reused for row in rows)
    for row in rows:
        row.context = np.arange(row.reused)
    if not longest:
        return DynamicCache()
    known = [row.known for row in rows if row.known is not None]
    if len(rows) == 1:
        return known[0].cache(longest)
    return _cache_of(
        [
            (_join(rows, longest, number, 0), _join(rows, longest, number, 1))
            for number in range(len(known[0].layers))
        ]
    )


def _cache_of(layers: list[tuple[torch.Tensor, torch.Tensor]]) -> DynamicCache:
    """A cache that starts with these tensors, which its constructor would copy first."""
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _join(rows: list[Row], longest: int, layer: int, part: int) -> torch.Tensor:
    """Keys (part 0) or values (1) that the rows take over, shape [rows, heads, longest, size]."""
    like = next(row.known.layers[layer][part] for row in rows if row.known is not None)
    joined = like.new_zeros(len(rows), like.shape[1], longest, like.shape[3])
    for place, row in enumerate(rows):
        if row.known is not None:
            joined[place, :, : row.reused] = row.known.layers[layer][part][0, :, : row.reused]
    return joined


def _take_out(cache: DynamicCache, row: Row, place: int) -> KeyValues:
    """A copy of the keys and values of a row's prompt, in the order of its tokens."""
    columns = torch.from_numpy(row.context)
    last = len(row.context)
    alone = row.context[-1] == last - 1  # its columns lie side by side: slices are faster

    def copy(part: torch.Tensor) -> torch.Tensor:
        own = part[place : place + 1]
        return own[:, :, :last].clone() if alone else own.index_select(2, columns.to(part.device))

    return KeyValues(row.prompt, [(copy(layer[0]), copy(layer[1])) for layer in cache])


def _run_pass(model: CatalogueLikelihood, rows: list[Row], cache: DynamicCache) -> int:
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
