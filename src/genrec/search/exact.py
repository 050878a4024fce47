"""Exact top-k over the whole catalogue: best-first search over the trie with tree attention.

:mod:`genrec.search.frontier` chooses which nodes to run, and :mod:`genrec.search.tree_pass` runs
them. The first pass holds the uncached part of the prompt and the nodes predicted from the prior.
With a good prior it is the only pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from genrec.arrays import Floats, Items, Mask
from genrec.language_model.layouts import Layout
from genrec.language_model.likelihood import CatalogueLikelihood
from genrec.language_model.prior_mass import cumulative_mass
from genrec.search.frontier import Frontier, SearchOptions
from genrec.search.key_values import KeyValues
from genrec.search.tree_pass import Row, load_cache, run_pass, take_out

TOKEN_BUDGET = {"cpu": 1024, "cuda": 32_768}
"""Most prompt positions in one batch, including padding and cached ones; 4096 on other devices.

A CPU gets slower beyond about a thousand, because a layer's activations no longer fit into its
cache.
"""


@dataclass(frozen=True)
class SearchResult:
    """Top-k items of each row.

    Attributes:
        items: item indices, best first, shape [rows, k], padded with -1.
        log_probs: log p(item | history), shape [rows, k], padded with -inf.
        rounds: number of passes after the first one.
        tokens: number of positions run for nodes, without padding and prompts.
        key_values: keys and values of each row's prompt if requested, else empty.
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
    candidates: Mask | None = None,
    known: Sequence[KeyValues | None] | None = None,
    keep: bool = False,
    options: SearchOptions | None = None,
) -> SearchResult:
    """Find the k most probable items for each prompt, over the whole catalogue.

    Args:
        model: the catalogue likelihood.
        prompts: ids of each row's prompt; lengths may differ.
        k: length of the lists.
        probabilities: the prior q for each row, shape [rows, items], if the model has a prior.
        candidates: items that may be recommended, shape [rows, items]; all if ``None``.
        known: cached keys and values of an earlier prompt for each row; shared positions are not
            run again.
        keep: return the prompts' keys and values.
        options: size of a pass. The result is exact for any ``tokens`` and ``margin``, but not with
            a ``beam``.
    """
    rows = _start(model.layout, prompts, k, probabilities, candidates, known)
    rounds = tokens = 0
    kept: list[KeyValues] = [KeyValues([], [])] * (len(rows) if keep else 0)
    budget = TOKEN_BUDGET.get(model.backbone.device.type, 4096)
    for batch in _batches([len(row.prompt) for row in rows], budget):
        chosen = options or SearchOptions(margin=SearchOptions.margin if len(batch) == 1 else 0.0)
        done = _search_batch(model, [rows[i] for i in batch], chosen, keep)
        rounds, tokens = max(rounds, done[0]), tokens + done[1]
        for i, key_values in zip(batch, done[2], strict=False):
            kept[i] = key_values
    items = np.full((len(rows), k), -1, np.int32)
    log_probs = np.full((len(rows), k), -np.inf)
    for i, row in enumerate(rows):
        found = row.frontier
        items[i, : len(found.items)], log_probs[i, : len(found.items)] = found.items, found.scores
    return SearchResult(items, log_probs, rounds, tokens, kept)


def _start(
    layout: Layout,
    prompts: Sequence[Sequence[int]],
    k: int,
    probabilities: Floats | None,
    candidates: Mask | None,
    known: Sequence[KeyValues | None] | None,
) -> list[Row]:
    trie = layout.trie
    sums = None if probabilities is None else cumulative_mass(trie, probabilities)
    everything = np.arange(len(trie) + 1, dtype=np.int32)
    rows = []
    for i, prompt in enumerate(prompts):
        candidates_before = everything
        if candidates is not None:
            candidates_before = np.zeros_like(everything)
            np.cumsum(candidates[i, trie.items], out=candidates_before[1:])
        mass = None if sums is None else sums[i]
        frontier = Frontier(trie, k, mass, candidates_before, layout.edge_length)
        before = known[i] if known else None
        reused = before.shared(prompt) if before else 0
        rows.append(Row(list(prompt), frontier, before, reused))
    return rows


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group rows of similar length so that no batch exceeds the token budget."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _search_batch(
    model: CatalogueLikelihood, rows: list[Row], options: SearchOptions, keep: bool
) -> tuple[int, int, list[KeyValues]]:
    cache = load_cache(rows, model.backbone.device)
    kept: list[KeyValues] = []
    rounds, tokens = -1, 0
    while rows:
        for row in rows:
            row.frontier.plan(options)
        tokens += run_pass(model, rows, cache)
        rounds += 1
        if keep and not kept:
            kept = [take_out(cache, row, place) for place, row in enumerate(rows)]
        active = [place for place, row in enumerate(rows) if not row.frontier.done]
        if 0 < len(active) < len(rows):
            cache.batch_select_indices(torch.tensor(active, device=model.backbone.device))
        rows = [rows[place] for place in active]
    return rounds, tokens, kept
