"""Decisions: the children that compete at a trie node, and where a batch's targets need them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.arrays import Floats, Floats32, Ints, Ints32, Items
from genrec.language_model.prior_mass import SparseSums, log_mass
from genrec.language_model.trie import Trie


@dataclass(frozen=True)
class Choices:
    """Children of several decision nodes, concatenated.

    Attributes:
        child: position of each child in the trie's ``child_*`` arrays, shape [choices].
        decision: index of the requested node that each child belongs to, shape [choices].
        starts: start of each node's children, shape [decisions].
    """

    child: Ints
    decision: Ints
    starts: Ints


def choices(trie: Trie, nodes: Ints32) -> Choices:
    """Return all children of each node in ``nodes``, in order."""
    first = trie.child_offsets[nodes]
    counts = trie.child_offsets[nodes + 1] - first
    starts = np.cumsum(counts) - counts
    decision = np.repeat(np.arange(len(nodes)), counts)
    child = np.arange(counts.sum()) - starts[decision] + first[decision]
    return Choices(child, decision, starts)


def distinct_tokens(trie: Trie, chosen: Choices) -> tuple[Ints32, Ints]:
    """Return the distinct first tokens of the children, and the place of each child's among them.

    Many decisions of a batch are those of one node, the root above all, so tokens are compared
    once for each node.
    """
    nodes, again = np.unique(trie.child_parent[chosen.child[chosen.starts]], return_inverse=True)
    once = choices(trie, nodes)
    tokens, place = np.unique(trie.child_token[once.child], return_inverse=True)
    shift = once.starts[again] - chosen.starts
    return tokens, place[np.arange(len(chosen.child)) + shift[chosen.decision]]


@dataclass(frozen=True)
class Targets:
    """The decisions to predict: for each target title, those on the way to it, root first.

    Attributes:
        choices: the children at each decision.
        target: the correct child of each decision, as an index into ``choices.child``.
        example: target title that each decision belongs to, shape [decisions].
        prior: log of the prior's mass of each choice, shape [choices], or ``None``.
        titles: number of target titles.
    """

    choices: Choices
    target: Ints
    example: Ints
    prior: Floats32 | None
    titles: int


def locate_targets(trie: Trie, items: Items, sums: Floats | SparseSums | None) -> Targets:
    """Find the decisions on the way to each target title.

    Args:
        trie: the title trie.
        items: target items, shape [titles].
        sums: cumulative prior mass for each title, shape [titles, leaves + 1] or sparse; ``None``
            without a prior.
    """
    example, right = trie.paths(items)
    node = trie.child_parent[right]
    options = choices(trie, node)
    prior = None if sums is None else log_mass(trie, sums, example[options.decision], options.child)
    return Targets(
        choices=options,
        target=options.starts + right - trie.child_offsets[node],
        example=example,
        prior=prior,
        titles=len(items),
    )
