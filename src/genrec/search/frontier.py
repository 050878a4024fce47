"""The frontier: best-first state of one row's search over the trie.

It holds the best items found so far and chooses which nodes to run next. Log-probabilities only
fall along a path, so a node's score bounds everything below it (best-first beam search: arXiv
2007.03909). A pass of the language model over fifty tokens costs little more than one over five, so
the number of passes matters most. With a prior, the search is therefore simulated first, as if
the prior alone were the model, and every node that it would open runs in the same pass. The scores
of the pass are the language model's. A wrong prediction costs tokens or a further pass, but never
changes the result.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from genrec.arrays import Floats, Ints, Ints32, Items
from genrec.language_model.trie import LEAF, ROOT, Trie


@dataclass(frozen=True)
class SearchOptions:
    """How many nodes one pass may run ahead of the search.

    Attributes:
        tokens: most positions of predicted or opened nodes that one row adds to a pass.
        margin: nodes are also run down to this many nats below the predicted k-th best item. It is
            zero where rows share a pass: there, another pass is cheap and wasted tokens are not.
        beam: keep only this many nodes per level. This bounds the work and gives up exactness.
    """

    tokens: int = 96
    margin: float = 0.1
    beam: int | None = None


@dataclass(frozen=True)
class Slot:
    """A node that was run.

    Attributes:
        node: index of the node in the trie.
        child: child through which the node is reached; -1 for the root.
        parent: slot of its parent node; -1 for the root.
    """

    node: int
    child: int
    parent: int


class Frontier:
    """Search state of one row.

    Attributes:
        items: best items so far, best first, at most k.
        scores: log-probabilities of these items.
        slots: the nodes run so far, parents first; the root is slot 0.
        fresh: index of the first slot whose children have no scores yet.
    """

    def __init__(
        self,
        trie: Trie,
        k: int,
        sums: Floats | None,
        candidates_before: Ints32,
        edge_length: Callable[[int], int],
    ) -> None:
        """Start at the root.

        Args:
            trie: the title trie.
            k: number of items to find.
            sums: cumulative prior mass in leaf order, shape [leaves + 1], or ``None``.
            candidates_before: number of candidates among the first ``n`` leaves, for each ``n``,
                shape [leaves + 1].
            edge_length: returns the number of positions that the node below a child adds.
        """
        self.trie, self.k, self.sums, self.candidates_before = trie, k, sums, candidates_before
        self.edge_length = edge_length
        self.items, self.scores = np.empty(0, np.int32), np.empty(0)
        self.slots = [Slot(ROOT, -1, -1)]
        self.slot_scores = [0.0]
        self.fresh = 0
        self._child, self._parent = np.empty(0, np.int64), np.empty(0, np.int64)
        self._score = np.empty(0)

    @property
    def done(self) -> bool:
        """Whether all slots have scores and no node that was not run can hold a better item."""
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
            room -= self.edge_length(child)
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
        """Add the scores of the fresh slots' children.

        Args:
            child: children of the fresh slots, concatenated.
            starts: start of each fresh slot's children.
            log_probs: log-probability of each child given its node.
        """
        trie = self.trie
        opened = np.ones(len(child), bool)
        for index in range(self.fresh, len(self.slots)):
            slot = self.slots[index]
            if slot.parent >= self.fresh:  # predicted: it was run before its score was known
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
        """Return the best relevant open nodes, as (-score, child, parent slot, place)."""
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
        """Simulate the opening of a node with the prior's scores.

        Its inner children are pushed onto the heap. Its leaves enter the predicted scores.

        Returns:
            The predicted scores of the best k items, best first.
        """
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

    def _drop(self, places: Ints | list[int]) -> None:
        self._child = np.delete(self._child, places)
        self._score = np.delete(self._score, places)
        self._parent = np.delete(self._parent, places)

    def _keep_best(self, items: Items, scores: Floats) -> None:
        items, scores = np.append(self.items, items), np.append(self.scores, scores)
        order = np.lexsort((items, -scores))[: self.k]  # ties go to the lower item index
        self.items, self.scores = items[order], scores[order]
