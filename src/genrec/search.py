"""Exact top-k of the whole catalogue: best-first search over the trie with tree attention.

Log-probabilities only fall along a path, so a node's score bounds everything below it. Open nodes
are expanded best-first until the k-th best item found beats the best open node; the answer is then
the exact top-k under the model (best-first beam search: arXiv 2007.03909). All nodes of a round, of
all rows of a batch, go through the language model in one pass: their edge tokens are appended to
the prompt's KV cache as extra columns, and a 4-D mask lets each token see its prompt and its own
ancestors only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from genrec.likelihood import CatalogueLikelihood, choices, cumulative_mass, log_mass
from genrec.trie import LEAF, ROOT, Trie

Array = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

WIDTH = 16
"""Most nodes of one row that a round expands; a pass over 16 tokens costs little more than one."""
TOKEN_BUDGET = 4096
"""Most prompt tokens, padding included, that one batch holds."""


@dataclass
class Row:
    """Search state of one history.

    Attributes:
        sums: cumulative prior mass in leaf order, shape [items + 1], or ``None``.
        admitted: how many of the first ``n`` leaves may be recommended, shape [items + 1].
        prompt_length: tokens of the prompt.
        items, scores: best items so far, best first, at most k.
        open_child, open_score, open_parent: nodes seen but not expanded; the parent is an index
            into ``columns``.
        columns: for every expanded node, the cache columns from the root to it.
    """

    trie: Trie
    k: int
    prompt_length: int
    sums: Floats | None
    admitted: Array
    items: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    scores: Floats = field(default_factory=lambda: np.empty(0))
    open_child: Array = field(default_factory=lambda: np.empty(0, np.int64))
    open_score: Floats = field(default_factory=lambda: np.empty(0))
    open_parent: Array = field(default_factory=lambda: np.empty(0, np.int64))
    columns: list[Array] = field(default_factory=lambda: [np.empty(0, np.int64)])

    def expand(self, child: Array, scores: Floats, parent: int) -> None:
        """Take in a node's children: items into the best list, inner nodes into the open list."""
        low, high = self.trie.child_low[child], self.trie.child_high[child]
        wanted = self.admitted[high] > self.admitted[low]
        child, scores, low = child[wanted], scores[wanted], low[wanted]
        leaf = self.trie.child_node[child] == LEAF
        self._keep_best(self.trie.items[low[leaf]], scores[leaf])
        inner = ~leaf
        self.open_child = np.append(self.open_child, child[inner])
        self.open_score = np.append(self.open_score, scores[inner])
        self.open_parent = np.append(self.open_parent, np.full(int(inner.sum()), parent))

    def take(self, width: int) -> list[tuple[int, float, int]]:
        """Remove the best open nodes that can still matter: (child, score, parent) of each."""
        if len(self.items) == self.k:
            self._keep_open(self.open_score >= self.scores[-1])
        order = np.argsort(-self.open_score, kind="stable")
        best, rest = order[:width], order[width:]
        taken = [
            (int(self.open_child[i]), float(self.open_score[i]), int(self.open_parent[i]))
            for i in best
        ]
        self._keep_open(rest)
        return taken

    def _keep_open(self, which: npt.NDArray[np.generic]) -> None:
        self.open_child = self.open_child[which]
        self.open_score = self.open_score[which]
        self.open_parent = self.open_parent[which]

    def _keep_best(self, items: npt.NDArray[np.int32], scores: Floats) -> None:
        items, scores = np.append(self.items, items), np.append(self.scores, scores)
        order = np.lexsort((items, -scores))[: self.k]  # ties: the lower item index first
        self.items, self.scores = items[order], scores[order]


@dataclass(frozen=True)
class Found:
    """Exact top-k of each row.

    Attributes:
        items: item indices, best first, shape [rows, k], padded with -1.
        log_probs: log p(item | history), shape [rows, k], padded with -inf.
        rounds: passes after the prompt pass.
        tokens: tokens run in them, padding not counted.
    """

    items: npt.NDArray[np.int32]
    log_probs: Floats
    rounds: int
    tokens: int


@torch.inference_mode()
def search(
    model: CatalogueLikelihood,
    prompts: Sequence[Sequence[int]],
    k: int,
    *,
    probabilities: Floats | None = None,
    allowed: Mask | None = None,
    width: int = WIDTH,
) -> Found:
    """Find the k most probable items for each prompt, over the whole catalogue, exactly.

    Args:
        prompts: prompt tokens of each row, lengths may differ.
        probabilities: the prior q for each row, shape [rows, items], if the model has a prior.
        allowed: items that may be recommended, shape [rows, items]; all if ``None``.
    """
    rows = _start(model.trie, prompts, k, probabilities, allowed)
    rounds = tokens = 0
    for batch in _batches([row.prompt_length for row in rows]):
        done = _search_batch(model, [rows[i] for i in batch], [prompts[i] for i in batch], width)
        rounds, tokens = max(rounds, done[0]), tokens + done[1]
    items = np.full((len(rows), k), -1, np.int32)
    log_probs = np.full((len(rows), k), -np.inf)
    for i, row in enumerate(rows):
        items[i, : len(row.items)], log_probs[i, : len(row.items)] = row.items, row.scores
    return Found(items, log_probs, rounds, tokens)


def _start(
    trie: Trie,
    prompts: Sequence[Sequence[int]],
    k: int,
    probabilities: Floats | None,
    allowed: Mask | None,
) -> list[Row]:
    sums = None if probabilities is None else cumulative_mass(trie, probabilities)
    admitted = np.tile(np.arange(len(trie) + 1), (len(prompts), 1))
    if allowed is not None:
        admitted[:, 1:] = np.cumsum(allowed[:, trie.items], axis=1)
    root = len(trie.root_edge())
    return [
        Row(trie, k, len(prompt) + root, None if sums is None else sums[i], admitted[i])
        for i, prompt in enumerate(prompts)
    ]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Group rows of similar length so that no batch holds more than the token budget."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > TOKEN_BUDGET:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _search_batch(
    model: CatalogueLikelihood, rows: list[Row], prompts: list[Sequence[int]], width: int
) -> tuple[int, int]:
    cache = DynamicCache()
    hidden = _prompt_pass(model, rows, prompts, cache)
    _score(model, hidden, [(row, ROOT, 0.0, 0) for row in rows])
    rounds = tokens = 0
    while True:
        taken = [row.take(width) for row in rows]
        active = [i for i, nodes in enumerate(taken) if nodes]
        if not active:
            return rounds, tokens
        if len(active) < len(rows):
            cache.batch_select_indices(torch.tensor(active, device=hidden.device))
            rows, taken = [rows[i] for i in active], [taken[i] for i in active]
        tokens += _tree_pass(model, rows, taken, cache)
        rounds += 1


def _prompt_pass(
    model: CatalogueLikelihood,
    rows: list[Row],
    prompts: list[Sequence[int]],
    cache: DynamicCache,
) -> torch.Tensor:
    """Fill the cache; padding comes last, where causal attention never looks. Returns [rows, h]."""
    device, root = model.backbone.device, model.trie.root_edge()
    ids = np.zeros((len(rows), max(row.prompt_length for row in rows)), np.int64)
    for i, prompt in enumerate(prompts):
        ids[i, : rows[i].prompt_length] = [*prompt, *root]
    input_ids = torch.from_numpy(ids).to(device)
    hidden = model.backbone.hidden(input_ids, past_key_values=cache, use_cache=True)
    last = torch.tensor([row.prompt_length - 1 for row in rows], device=device)
    return hidden[torch.arange(len(rows), device=device), last]


def _score(
    model: CatalogueLikelihood,
    hidden: torch.Tensor,
    nodes: list[tuple[Row, int, float, int]],
) -> None:
    """Expand nodes, given as (row, node, its score, its index in the row's columns)."""
    trie = model.trie
    chosen = choices(trie, np.array([node for _, node, _, _ in nodes]))
    prior = None
    if nodes[0][0].sums is not None:
        sums = np.stack([row.sums for row, _, _, _ in nodes if row.sums is not None])
        prior = log_mass(trie, sums, chosen.decision, chosen.child)
    log_probs = model.child_log_probs(hidden, chosen, prior).cpu().double().numpy()
    ends = np.append(chosen.starts[1:], len(chosen.child))
    for (row, _, score, index), start, end in zip(nodes, chosen.starts, ends, strict=True):
        row.expand(chosen.child[start:end], score + log_probs[start:end], index)


def _tree_pass(
    model: CatalogueLikelihood,
    rows: list[Row],
    taken: list[list[tuple[int, float, int]]],
    cache: DynamicCache,
) -> int:
    """Run the edges of the taken nodes of all rows in one pass and expand those nodes."""
    trie, past = model.trie, cache.get_seq_length()
    edges = [[trie.edge(child) for child, _, _ in nodes] for nodes in taken]
    wide = max(sum(map(len, row_edges)) for row_edges in edges)
    ids, positions = np.zeros((2, len(rows), wide), np.int64)
    visible = np.zeros((len(rows), 1, wide, past + wide), bool)
    visible[:, :, :, 0] = True  # padding must see something, or its softmax is undefined
    nodes, where = [], []
    for i, row in enumerate(rows):
        visible[i, 0, :, : row.prompt_length] = True
        end = 0
        for (child, score, parent), edge in zip(taken[i], edges[i], strict=True):
            begin, end = end, end + len(edge)
            before = row.columns[parent]
            ids[i, begin:end] = edge
            positions[i, begin:end] = row.prompt_length + len(before) + np.arange(len(edge))
            visible[i, 0, begin:end, before] = True
            visible[i, 0, begin:end, past + begin : past + end] = np.tri(len(edge), dtype=bool)
            row.columns.append(np.append(before, np.arange(past + begin, past + end)))
            nodes.append((row, int(trie.child_node[child]), score, len(row.columns) - 1))
            where.append((i, end - 1))
    hidden = _run(model, ids, positions, visible, cache)
    _score(model, hidden[tuple(torch.tensor(where, device=hidden.device).T)], nodes)
    return sum(len(edge) for row_edges in edges for edge in row_edges)


def _run(
    model: CatalogueLikelihood, ids: Array, positions: Array, visible: Mask, cache: DynamicCache
) -> torch.Tensor:
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
