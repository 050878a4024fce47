"""Best-first state of one search over the trie: which nodes to run next, what was found so far.

Log-probabilities only fall along a path, so a node's score bounds everything below it (best-first
beam search: arXiv 2007.03909). A pass of the language model over fifty tokens costs little more
than one over five, so passes are what counts: with a prior, the search is first played out as if
the prior alone were the model, and every node that it would open is run in the same pass. The
scores that come back are the language model's; a wrong guess costs tokens or a further pass, never
a wrong answer.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from genrec.arrays import Floats, Ints, Ints32, Items
from genrec.language_model.trie import LEAF, ROOT, Trie


@dataclass(frozen=True)
class SearchOptions:
    """How much one pass may guess.

    Attributes:
        tokens: most tokens of guessed or opened nodes that one row adds to a pass.
        margin: nats below the foreseen k-th best item down to which nodes are run too. Where rows
            share a pass, another pass is cheap and a wasted token is not: the margin is zero.
        beam: keep only that many nodes a level, which bounds the work and gives up exactness.
    """

    tokens: int = 96
    margin: float = 0.1
    beam: int | None = None


@dataclass(frozen=True)
class Slot:
    """A node that was run; ``child`` leads to it (-1: the root) from slot ``parent``."""

    node: int
    child: int
    parent: int


class Frontier:
    """What one row knows.

    Attributes:
        items, scores: best items so far, best first, at most k; scores are log-probabilities.
        slots: the nodes run so far, parents first; the root is slot 0.
        fresh: index of the first slot whose scores are not in yet.
    """

    def __init__(self, trie: Trie, k: int, sums: Floats | None, candidates_before: Ints32) -> None:
        """Start at the root.

        Args:
            sums: cumulative prior mass in leaf order, shape [items + 1], or ``None``.
            candidates_before: how many of the first ``n`` leaves may be recommended, shape
                [items + 1].
        """
        self.trie, self.k, self.sums, self.candidates_before = trie, k, sums, candidates_before
        self.items, self.scores = np.empty(0, np.int32), np.empty(0)
        self.slots = [Slot(ROOT, -1, -1)]
        self.slot_scores = [0.0]
        self.fresh = 0
        self._child, self._parent = np.empty(0, np.int64), np.empty(0, np.int64)
        self._score = np.empty(0)

    @property
    def done(self) -> bool:
        """Whether no node that was not run can hold a better item, and no scores are awaited."""
        return self.fresh == len(self.slots) and not (self._score >= self._bound()).any()

    def plan(self, options: SearchOptions) -> None:
        """Choose the nodes of the next pass; they become slots, from ``fresh`` on."""
        if options.beam is not None:
            self._plan_beam(options.beam)
        else:
            self._plan_best_first(options)

    def _plan_best_first(self, options: SearchOptions) -> None:
        foreseen = self.scores
        heap = self._openings(options.tokens)
        if not self.fresh and self.sums is not None:
            foreseen = self._foresee(heap, 0, ROOT, 0.0, foreseen, options.margin)
        heapq.heapify(heap)
        room, taken = options.tokens, set()
        while heap:
            negative, child, parent, place = heapq.heappop(heap)
            if len(foreseen) == self.k and -negative < foreseen[-1] - options.margin:
                break
            room -= self._edge_length(child)
            if room < 0 and len(self.slots) > self.fresh:
                break
            node, slot = int(self.trie.child_node[child]), len(self.slots)
            self.slots.append(Slot(node, child, parent))
            self.slot_scores.append(-negative)
            taken.add(place)
            if self.sums is not None:
                foreseen = self._foresee(heap, slot, node, -negative, foreseen, options.margin)
        self._drop([place for place in taken if place >= 0])

    def expand(self, child: Ints, starts: Ints, log_probs: Floats) -> None:
        """Take in what the fresh slots' children cost.

        Args:
            child: children of the fresh slots, end to end.
            starts: where each fresh slot's children start.
            log_probs: of each child given its node.
        """
        trie = self.trie
        opened = np.ones(len(child), bool)
        for index in range(self.fresh, len(self.slots)):
            slot = self.slots[index]
            if slot.parent >= self.fresh:  # it was run before its score was known
                place = starts[slot.parent - self.fresh] + slot.child
                place -= trie.child_offsets[self.slots[slot.parent].node]
                opened[place] = False
                score = self.slot_scores[slot.parent] + float(log_probs[place])
                self.slot_scores[index] = score
        sizes = np.diff(np.append(starts, len(child)))
        parent = np.repeat(np.arange(self.fresh, len(self.slots)), sizes)
        scores = np.repeat(self.slot_scores[self.fresh :], sizes) + log_probs
        leaf = trie.child_node[child] == LEAF
        candidate = (
            self.candidates_before[trie.child_high[child]]
            > self.candidates_before[trie.child_low[child]]
        )
        found, opened = leaf & candidate, opened & ~leaf & candidate
        self._keep_best(trie.items[trie.child_low[child[found]]], scores[found])
        self._child = np.append(self._child, child[opened])
        self._score = np.append(self._score, scores[opened])
        self._parent = np.append(self._parent, parent[opened])
        self.fresh = len(self.slots)

    def _bound(self) -> float:
        return float(self.scores[-1]) if len(self.scores) == self.k else -np.inf

    def _openings(self, most: int) -> list[tuple[float, int, int, int]]:
        """The best open nodes that can still matter: (-score, child, parent slot, place)."""
        self._drop(np.flatnonzero(self._score < self._bound()))
        places = np.argsort(-self._score, kind="stable")[:most]
        return [
            (-float(self._score[i]), int(self._child[i]), int(self._parent[i]), int(i))
            for i in places
        ]

    def _plan_beam(self, beam: int) -> None:
        for negative, child, parent, _ in self._openings(beam):
            self.slots.append(Slot(int(self.trie.child_node[child]), child, parent))
            self.slot_scores.append(-negative)
        self._drop(np.arange(len(self._score)))

    def _foresee(
        self,
        heap: list[tuple[float, int, int, int]],
        slot: int,
        node: int,
        score: float,
        foreseen: Floats,
        margin: float,
    ) -> Floats:
        """Push a node's inner children by the prior's word, and count its leaves as if found."""
        assert self.sums is not None
        trie, where = self.trie, self.trie.children(node)
        low, high = trie.child_low[where], trie.child_high[where]
        mass = self.sums[high] - self.sums[low]
        scores = score + np.log(np.maximum(mass / mass.sum(), 1e-30))
        candidate = self.candidates_before[high] > self.candidates_before[low]
        leaf = trie.child_node[where] == LEAF
        foreseen = np.sort(np.append(foreseen, scores[leaf & candidate]))[::-1][: self.k]
        bound = foreseen[-1] - margin if len(foreseen) == self.k else -np.inf
        for place in np.flatnonzero(candidate & ~leaf & (scores >= bound)):
            heapq.heappush(heap, (-float(scores[place]), where.start + int(place), slot, -1))
        return foreseen

    def _edge_length(self, child: int) -> int:
        trie = self.trie
        return int(trie.depth[trie.child_node[child]] - trie.depth[trie.child_parent[child]])

    def _drop(self, places: Ints | list[int]) -> None:
        self._child = np.delete(self._child, places)
        self._score = np.delete(self._score, places)
        self._parent = np.delete(self._parent, places)

    def _keep_best(self, items: Items, scores: Floats) -> None:
        items, scores = np.append(self.items, items), np.append(self.scores, scores)
        order = np.lexsort((items, -scores))[: self.k]  # ties: the lower item index first
        self.items, self.scores = items[order], scores[order]
