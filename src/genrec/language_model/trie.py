"""Radix trie over title tokens, stored as flat arrays.

The trie has only *decision nodes*: the beginning of all titles, and places where at least two
titles diverge. Chains of forced tokens are edges. In string indexing this is the tree of LCP
(longest common prefix) intervals over the sorted titles. It is built by one sort and vectorised
splits, level by level and without recursion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genrec.arrays import Integers, Ints, Ints32, Items, rows_and_places
from genrec.errors import DataError, RunError
from genrec.files import map_array_folder, write_array_folder
from genrec.language_model.titles import TitleTokens

ROOT = 0
"""Index of the root node, at which titles begin. It has one child if all begin alike: what a node
means does not change when items come or go."""
LEAF = -1
"""Marks an edge that ends at an item instead of a decision node."""


@dataclass(frozen=True)
class Trie:
    """The trie of the items that can be recommended.

    Items are leaves: leaf ``l`` is item ``items[l]``. Every node covers a contiguous range of
    leaves.

    Attributes:
        titles: title tokens of the whole catalogue, including items outside the trie.
        items: item index of each leaf, shape [leaves].
        leaf_of: leaf of each item, shape [items]; -1 for items that cannot be recommended.
        depth: number of tokens shared by all titles below a node, shape [nodes].
        child_offsets: children of node ``v`` are ``child_offsets[v]:child_offsets[v + 1]``; shape
            [nodes + 1].
        child_token: first token of the edge to each child, shape [children].
        child_low: first leaf below each child, shape [children].
        child_high: end of the leaves below each child, exclusive, shape [children].
        child_node: decision node at the end of the edge, or ``LEAF``, shape [children].
        child_parent: node that each child belongs to, shape [children].
        path: children chosen on the way to each leaf, root first, in one flat array.
        path_offsets: start of each leaf's path in ``path``, shape [leaves + 1].
    """

    titles: TitleTokens
    items: Ints32
    leaf_of: Ints32
    depth: Ints32
    child_offsets: Ints
    child_token: Ints32
    child_low: Ints32
    child_high: Ints32
    child_node: Ints32
    child_parent: Ints32
    path: Ints32
    path_offsets: Ints

    def __len__(self) -> int:
        return len(self.items)

    def children(self, node: int) -> slice:
        """Return the positions of a node's children in the ``child_*`` arrays."""
        return slice(int(self.child_offsets[node]), int(self.child_offsets[node + 1]))

    def edge(self, child: int) -> Ints32:
        """Return the tokens from a child's parent to the decision node below it (never a leaf)."""
        parent, node = self.child_parent[child], self.child_node[child]
        title = self.titles[self.items[self.child_low[child]]]
        return title[self.depth[parent] : self.depth[node]]

    def decisions(self, item: int) -> Ints32:
        """Return the children chosen on the way to an item, root first."""
        leaf = self.leaf_of[item]
        return self.path[self.path_offsets[leaf] : self.path_offsets[leaf + 1]]

    def paths(self, items: Items) -> tuple[Ints, Ints32]:
        """Return the decisions of several items, one after the other.

        Args:
            items: items of the trie.

        Returns:
            For each decision the place of its item in ``items``, and the child chosen; both of
            shape [decisions].
        """
        leaf = self.leaf_of[items]
        owner, step = rows_and_places(np.diff(self.path_offsets)[leaf])
        return owner, self.path[self.path_offsets[leaf][owner] + step]

    def save(self, folder: Path) -> None:
        """Write one ``.npy`` file per array into a new folder."""
        write_array_folder(folder, self._arrays())

    @classmethod
    def load(cls, folder: Path) -> Trie:
        """Memory-map a trie that :meth:`save` wrote; pages are read when they are needed.

        Raises:
            RunError: an array is missing or damaged.
        """
        try:
            arrays = map_array_folder(folder)
            titles = TitleTokens(arrays["tokens"], arrays["offsets"])
            trie = cls(titles, **{name: arrays[name] for name in _ARRAYS})
        except (OSError, KeyError) as error:
            raise RunError(
                f"{folder} holds no readable trie ({error}). Train the run again."
            ) from None
        if trie.depth[ROOT] > 0:  # older versions left out what all titles begin with
            raise RunError(f"{folder} is of an older version of GenRec. Train the run again.")
        return trie

    def _arrays(self) -> dict[str, Integers]:
        arrays: dict[str, Integers] = {name: getattr(self, name) for name in _ARRAYS}
        return arrays | {"tokens": self.titles.tokens, "offsets": self.titles.offsets}


_ARRAYS = tuple(field.name for field in fields(Trie) if field.name != "titles")


def build_trie(
    titles: TitleTokens | Sequence[Sequence[int]], items: npt.ArrayLike | None = None
) -> Trie:
    """Build the trie of closed titles.

    Args:
        titles: title tokens of the whole catalogue, each closed by the end token.
        items: items that can be recommended; all if ``None``.

    Raises:
        DataError: there is no item, or two titles have the same tokens.
    """
    if not isinstance(titles, TitleTokens):
        titles = TitleTokens.from_lists(titles)
    chosen = np.arange(len(titles)) if items is None else np.asarray(items, np.int64)
    if not len(chosen):
        raise DataError("The catalogue is empty. Add at least one item that can be recommended.")
    order = _sorted(titles, chosen)
    shared = _shared_prefixes(titles, order)
    return _assemble(titles, order, _split(shared, len(order)))


def same_nodes(trie: Trie, larger: Trie) -> Ints:
    """Return the node of a larger trie at which each node's titles also diverge, shape [nodes].

    Args:
        trie: a trie over some of the larger trie's titles.
        larger: the other trie.
    """
    node, child = larger.paths(trie.items[trie.child_low[trie.child_offsets[:-1]]])
    other = larger.child_parent[child]
    found: Ints = other[larger.depth[other] == trie.depth[node]].astype(np.int64)
    return found


def _sorted(titles: TitleTokens, items: Ints) -> Ints:
    """Return items in the order of their tokens.

    Three tokens at a time form one key. Only items whose keys are equal so far are sorted further.
    """
    order, run = items.copy(), np.zeros(len(items), np.int64)
    open_places, depth = np.arange(len(items)), 0
    while len(open_places):
        rows, runs = order[open_places], run[open_places]
        key = _key(titles, rows, depth)
        if not (key >= 0).any():  # the rest are equal titles, which _shared_prefixes reports
            break
        by_key = np.lexsort((key, runs))
        order[open_places], key = rows[by_key], key[by_key]
        first = np.append(True, (key[1:] != key[:-1]) | (runs[1:] != runs[:-1]))
        sizes = np.diff(np.append(np.flatnonzero(first), len(first)))
        run[open_places] = np.repeat(open_places[first], sizes)
        open_places = open_places[np.repeat(sizes > 1, sizes)]
        depth += 3
    return order


def _key(titles: TitleTokens, rows: Ints, depth: int) -> Ints:
    """Return tokens ``depth`` to ``depth + 2`` of each title as one number; -1 after its end."""
    key = np.zeros(len(rows), np.int64)
    start, left = titles.offsets[rows] + depth, titles.lengths[rows] - depth
    last = len(titles.tokens) - 1
    for place in range(3):
        token = titles.tokens[np.minimum(start + place, last)].astype(np.int64) + 1
        key = key << 21 | np.where(left > place, token, 0)
    return np.where(left > 0, key, -1)


def _shared_prefixes(titles: TitleTokens, order: Ints) -> Ints:
    """Return the length of the common prefix of each leaf and the next, shape [leaves - 1]."""
    start, lengths = titles.offsets[order], titles.lengths[order]
    shortest = np.minimum(lengths[1:], lengths[:-1])
    shared, alike, depth = np.zeros(len(order) - 1, np.int64), np.arange(len(order) - 1), 0
    while len(alike):
        if (over := alike[shortest[alike] == depth]).size:
            pair = sorted((int(order[over[0]]), int(order[over[0] + 1])))
            raise DataError(
                f"Items {pair[0]} and {pair[1]} have the same title tokens, or one title is a "
                "prefix of the other. Titles must be unique after tokenisation and closed by the "
                "end token."
            )
        same = titles.tokens[start[alike] + depth] == titles.tokens[start[alike + 1] + depth]
        alike, depth = alike[same], depth + 1
        shared[alike] = depth
    return shared


@dataclass(frozen=True)
class _Level:
    """The decision nodes of one level of the trie and their children, in leaf order.

    Attributes:
        depth: number of tokens shared below each node, shape [nodes].
        owner: node of each child, as an index within the level, shape [children].
        low: first leaf below each child, shape [children].
        high: end of the leaves below each child, exclusive, shape [children].
    """

    depth: Ints
    owner: Ints
    low: Ints
    high: Ints


def _split(shared: Ints, leaves: int) -> list[_Level]:
    """Split leaf ranges where neighbouring leaves first differ, level by level."""
    shared = np.append(shared, np.iinfo(np.int64).max)  # reduceat needs a valid last index
    low, high = np.array([0]), np.array([leaves])
    levels: list[_Level] = []
    while len(low):
        level = _split_level(shared, low, high, root=not levels)
        levels.append(level)
        inner = level.high - level.low > 1
        low, high = level.low[inner], level.high[inner]
    return levels


def _split_level(shared: Ints, low: Ints, high: Ints, *, root: bool) -> _Level:
    bounds = np.stack([low, high - 1], axis=1).ravel()
    depth = np.zeros(1, np.int64) if root else np.minimum.reduceat(shared, bounds)[::2]
    owner, place = rows_and_places(high - low - 1)
    inside = low[owner] + place
    cut = shared[inside] == depth[owner]
    starts = np.concatenate([low, inside[cut] + 1])
    owners = np.concatenate([np.arange(len(low)), owner[cut]])
    order = np.lexsort((starts, owners))
    starts, owners = starts[order], owners[order]
    ends = np.append(starts[1:], high[-1])
    last = np.append(owners[1:] != owners[:-1], True)
    ends[last] = high
    return _Level(depth, owners, starts, ends)


def _assemble(titles: TitleTokens, order: Ints, levels: list[_Level]) -> Trie:
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
    path, path_offsets = _paths(low, high, len(order))
    leaf_of = np.full(len(titles), -1, np.int32)
    leaf_of[order] = np.arange(len(order), dtype=np.int32)
    return Trie(
        titles=titles,
        items=order.astype(np.int32),
        leaf_of=leaf_of,
        depth=depth.astype(np.int32),
        child_offsets=np.searchsorted(parent, np.arange(len(depth) + 1)),
        child_token=titles.tokens[titles.offsets[order[low]] + depth[parent]],
        child_low=low.astype(np.int32),
        child_high=high.astype(np.int32),
        child_node=np.concatenate(nodes).astype(np.int32),
        child_parent=parent.astype(np.int32),
        path=path,
        path_offsets=path_offsets,
    )


def _paths(low: Ints, high: Ints, leaves: int) -> tuple[Ints32, Ints]:
    """Return for every leaf the children whose range holds it.

    Levels come in order of depth, so the children of each leaf are ordered from the root.
    """
    child, place = rows_and_places(high - low)
    leaf = low[child] + place
    order = np.argsort(leaf, kind="stable")
    counts = np.bincount(leaf, minlength=leaves)
    return child[order].astype(np.int32), np.concatenate([[0], np.cumsum(counts)])
