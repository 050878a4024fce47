"""Decisions: the children that compete at a trie node, and where a batch's targets need them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

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


@dataclass(frozen=True)
class Targets:
    """The decisions to predict in a padded batch, and their positions.

    Attributes:
        row: batch row of each decision, shape [decisions].
        position: token position whose hidden state predicts each decision, shape [decisions].
        choices: the children at each decision.
        target: the correct child of each decision, as an index into ``choices.child``.
        example: target title that each decision belongs to, shape [decisions].
        prior: log of the prior's mass of each choice, shape [choices], or ``None``.
        titles: number of target titles.
    """

    row: Ints
    position: Ints
    choices: Choices
    target: Ints
    example: Ints
    prior: Floats32 | None
    titles: int


def locate_targets(
    trie: Trie,
    items: Items,
    row: Ints,
    start: Ints,
    sums: Floats | SparseSums | None,
) -> Targets:
    """Find the decisions on the way to each target title.

    Args:
        trie: the title trie.
        items: target items, shape [titles].
        row: batch row of each target title, shape [titles].
        start: position of each title's first token, shape [titles].
        sums: cumulative prior mass for each title, shape [titles, leaves + 1] or sparse; ``None``
            without a prior.
    """
    leaf = trie.leaf_of[items]
    counts = np.diff(trie.path_offsets)[leaf]
    example = np.repeat(np.arange(len(items)), counts)
    step = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    right = trie.path[trie.path_offsets[leaf][example] + step]
    node = trie.child_parent[right]
    options = choices(trie, node)
    prior = None if sums is None else log_mass(trie, sums, example[options.decision], options.child)
    return Targets(
        row=row[example],
        position=start[example] + trie.depth[node] - 1,
        choices=options,
        target=options.starts + right - trie.child_offsets[node],
        example=example,
        prior=prior,
        titles=len(items),
    )


def decision_states(hidden: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Return the hidden state at each decision's last token, shape [decisions, hidden]."""
    row, position = torch.from_numpy(targets.row), torch.from_numpy(targets.position)
    return hidden[row.to(hidden.device), position.to(hidden.device)]
