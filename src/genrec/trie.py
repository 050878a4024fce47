"""Radix trie over title tokens, as flat arrays in depth-first order.

Only *decision nodes* exist: places where at least two titles part. Chains of forced tokens are
edges. In the language of string indexing it is the tree of LCP intervals over the sorted titles,
so it is built by one sort and vectorised splits, without recursion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from genrec.errors import DataError

Ints = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
ROOT = 0
LEAF = -1


@dataclass(frozen=True)
class Trie:
    """Items are leaves; leaf ``l`` is item ``items[l]``; every node owns a contiguous leaf range.

    Attributes:
        items: item index of each leaf, shape [items].
        leaf_of: leaf of each item, shape [items].
        tokens: title tokens in leaf order, each title closed by the end token, flat.
        offsets: where each leaf's tokens start in ``tokens``, shape [items + 1].
        depth: tokens shared by everything below a node, shape [nodes].
        child_offsets: children of node ``v`` are ``child_offsets[v]:child_offsets[v + 1]``.
        child_token: first token of the edge to each child, shape [children].
        child_low, child_high: leaf range below each child, shape [children].
        child_node: the decision node at the end of the edge, or ``LEAF``.
        child_parent: the node each child belongs to, shape [children].
        path: children chosen on the way to each leaf, flat, root first.
        path_offsets: where each leaf's path starts in ``path``, shape [items + 1].
    """

    items: Ints
    leaf_of: Ints
    tokens: Ints
    offsets: Offsets
    depth: Ints
    child_offsets: Offsets
    child_token: Ints
    child_low: Ints
    child_high: Ints
    child_node: Ints
    child_parent: Ints
    path: Ints
    path_offsets: Offsets

    def __len__(self) -> int:
        return len(self.items)

    def children(self, node: int) -> slice:
        """Positions of a node's children in the ``child_*`` arrays."""
        return slice(int(self.child_offsets[node]), int(self.child_offsets[node + 1]))

    def edge(self, child: int) -> Ints:
        """Tokens that lead from a child's parent to the decision node below it (never a leaf)."""
        start = self.offsets[self.child_low[child]]
        parent, node = self.child_parent[child], self.child_node[child]
        return self.tokens[start + self.depth[parent] : start + self.depth[node]]

    def decisions(self, item: int) -> Ints:
        """Children chosen on the way to an item, root first."""
        leaf = self.leaf_of[item]
        return self.path[self.path_offsets[leaf] : self.path_offsets[leaf + 1]]

    def root_edge(self) -> Ints:
        """Tokens that every title starts with (usually none)."""
        return self.tokens[: self.depth[ROOT]]


def build_trie(titles: Sequence[Sequence[int]]) -> Trie:
    """Build the trie of token sequences, each already closed by the end token.

    Raises:
        DataError: no title, or two titles with the same tokens.
    """
    if not titles:
        raise DataError("The catalogue is empty: there is nothing to recommend.")
    table, lengths = _pad(titles)
    items = np.lexsort(table.T[::-1]).astype(np.int32)
    table, lengths = table[items], lengths[items]
    shared = _shared_prefixes(table, lengths, items)
    tokens = table[np.arange(table.shape[1]) < lengths[:, None]]
    levels = _split(shared, len(titles))
    return _assemble(items, tokens, lengths, table, levels)


def _pad(titles: Sequence[Sequence[int]]) -> tuple[Ints, Offsets]:
    lengths = np.fromiter(map(len, titles), np.int64, len(titles))
    table = np.full((len(titles), int(lengths.max())), -1, np.int32)
    flat = np.fromiter((t for title in titles for t in title), np.int32, int(lengths.sum()))
    table[np.arange(table.shape[1]) < lengths[:, None]] = flat
    return table, lengths


def _shared_prefixes(table: Ints, lengths: Offsets, items: Ints) -> Offsets:
    """Length of the common prefix of each leaf and the next, shape [items - 1]."""
    differs = table[1:] != table[:-1]
    same = ~differs.any(axis=1)
    shared = np.where(same, table.shape[1], differs.argmax(axis=1))
    closed = shared >= np.minimum(lengths[1:], lengths[:-1])
    if closed.any():
        first = int(np.flatnonzero(closed)[0])
        pair = sorted((int(items[first]), int(items[first + 1])))
        raise DataError(
            f"Items {pair[0]} and {pair[1]} have the same title tokens, or one title is a prefix "
            "of the other: titles must be unique after tokenisation and closed by the end token."
        )
    return cast(Offsets, shared)


@dataclass(frozen=True)
class _Level:
    """The decision nodes of one radix level and their children, in leaf order."""

    depth: Offsets
    owner: Offsets  # child -> node within the level
    low: Offsets
    high: Offsets


def _split(shared: Offsets, leaves: int) -> list[_Level]:
    """Split leaf ranges where neighbours part first, level by level."""
    shared = np.append(shared, np.iinfo(np.int64).max)  # reduceat needs a valid last index
    low, high = np.array([0]), np.array([leaves])
    levels = []
    while len(low):
        level = _split_level(shared, low, high)
        levels.append(level)
        inner = level.high - level.low > 1
        low, high = level.low[inner], level.high[inner]
    return levels


def _split_level(shared: Offsets, low: Offsets, high: Offsets) -> _Level:
    bounds = np.stack([low, high - 1], axis=1).ravel()
    depth = np.minimum.reduceat(shared, bounds)[::2]
    if len(low) == 1 and high[0] - low[0] == 1:
        depth = np.zeros(1, np.int64)  # a catalogue of one item: nothing is shared or decided
    sizes = high - low - 1
    owner = np.repeat(np.arange(len(low)), sizes)
    inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes) + low[owner]
    cut = shared[inside] == depth[owner]
    starts = np.concatenate([low, inside[cut] + 1])
    owners = np.concatenate([np.arange(len(low)), owner[cut]])
    order = np.lexsort((starts, owners))
    starts, owners = starts[order], owners[order]
    ends = np.append(starts[1:], high[-1])
    last = np.append(owners[1:] != owners[:-1], True)
    ends[last] = high
    return _Level(depth, owners, starts, ends)


def _assemble(
    items: Ints, tokens: Ints, lengths: Offsets, table: Ints, levels: list[_Level]
) -> Trie:
    first_node = np.cumsum([0, *(len(level.depth) for level in levels)])
    parents, nodes = [], []
    for number, level in enumerate(levels):
        parents.append(level.owner + first_node[number])
        inner = level.high - level.low > 1
        nodes.append(np.where(inner, first_node[number + 1] + np.cumsum(inner) - 1, LEAF))
    parent = np.concatenate(parents)
    depth = np.concatenate([level.depth for level in levels])
    low = np.concatenate([level.low for level in levels])
    high = np.concatenate([level.high for level in levels])
    path, path_offsets = _paths(low, high, len(items))
    leaf_of = np.empty(len(items), np.int32)
    leaf_of[items] = np.arange(len(items), dtype=np.int32)
    return Trie(
        items=items,
        leaf_of=leaf_of,
        tokens=tokens,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        depth=depth.astype(np.int32),
        child_offsets=np.searchsorted(parent, np.arange(len(depth) + 1)),
        child_token=table[low, depth[parent]],
        child_low=low.astype(np.int32),
        child_high=high.astype(np.int32),
        child_node=np.concatenate(nodes).astype(np.int32),
        child_parent=parent.astype(np.int32),
        path=path,
        path_offsets=path_offsets,
    )


def _paths(low: Offsets, high: Offsets, leaves: int) -> tuple[Ints, Offsets]:
    """For every leaf the children whose range holds it; levels come in order of depth."""
    sizes = high - low
    child = np.repeat(np.arange(len(low)), sizes)
    leaf = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes) + low[child]
    order = np.argsort(leaf, kind="stable")
    counts = np.bincount(leaf, minlength=leaves)
    return child[order].astype(np.int32), np.concatenate([[0], np.cumsum(counts)])
