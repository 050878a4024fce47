"""log p(item | history) over the title trie, and the training loss made of it.

At a decision node only its children are possible, so the probability of a child is a softmax over
the children alone (masked softmax: arXiv 2504.04178). An item's probability is the product along
its path; over the catalogue the probabilities sum to one.

With a prior q the logit of a child is ``lm_weight * (hidden . W) + prior_weight * log mass(child)``
where mass sums q over the leaves below the child. ``prior_weight`` is learned and starts at one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from genrec.backbone import Backbone
from genrec.trie import Trie

Array = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choices:
    """Children of several decision nodes, laid end to end.

    Attributes:
        child: position of each child in the trie's ``child_*`` arrays, shape [choices].
        decision: which of the nodes asked for each child belongs to, shape [choices].
        starts: where each node's children start, shape [decisions].
    """

    child: Array
    decision: Array
    starts: Array


def choices(trie: Trie, nodes: npt.NDArray[np.int32]) -> Choices:
    """All children of each node in ``nodes``, in order."""
    first = trie.child_offsets[nodes]
    counts = trie.child_offsets[nodes + 1] - first
    starts = np.cumsum(counts) - counts
    decision = np.repeat(np.arange(len(nodes)), counts)
    child = np.arange(counts.sum()) - starts[decision] + first[decision]
    return Choices(child, decision, starts)


def cumulative_mass(trie: Trie, probabilities: Floats) -> Floats:
    """Prefix sums of item probabilities in leaf order, shape [rows, items + 1]."""
    sums = np.zeros((len(probabilities), len(trie) + 1))
    np.cumsum(probabilities[:, trie.items], axis=1, out=sums[:, 1:])
    return sums


def log_mass(trie: Trie, sums: Floats, rows: Array, child: Array) -> npt.NDArray[np.float32]:
    """Log of the prior's mass below each child; ``rows`` says which row of ``sums`` it is under."""
    mass = sums[rows, trie.child_high[child]] - sums[rows, trie.child_low[child]]
    return cast(npt.NDArray[np.float32], np.log(np.maximum(mass, 1e-30)).astype(np.float32))


class CatalogueLikelihood(nn.Module):
    """The language model's hidden states read as a distribution over a catalogue."""

    accepts_loss_kwargs = True  # tells HF Trainer to pass the number of targets in the whole step

    def __init__(
        self, backbone: Backbone, trie: Trie, *, lm_weight: float, has_prior: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.language_model = backbone.model  # registers the parameters with torch
        self.trie = trie
        self.lm_weight = lm_weight if has_prior else 1.0
        initial = torch.ones((), device=backbone.device)
        self.prior_weight = nn.Parameter(initial) if has_prior else None

    def child_log_probs(
        self, hidden: torch.Tensor, chosen: Choices, prior: npt.NDArray[np.float32] | None
    ) -> torch.Tensor:
        """Log-probability of each child given its parent, shape [choices], float32.

        Args:
            hidden: hidden state at each decision node's last token, shape [decisions, hidden].
            prior: log mass of each child, shape [choices], if the model has a prior.
        """
        device = hidden.device
        tokens, column = np.unique(self.trie.child_token[chosen.child], return_inverse=True)
        rows = self.backbone.output_weight[torch.from_numpy(tokens).to(device)]
        dense = (hidden.to(rows.dtype) @ rows.T).float()
        decision = torch.from_numpy(chosen.decision).to(device)
        logits = self.lm_weight * dense[decision, torch.from_numpy(column).to(device)]
        if self.prior_weight is not None:
            assert prior is not None
            logits = logits + self.prior_weight * torch.from_numpy(prior).to(device)
        return segment_log_softmax(logits, decision, len(hidden))

    def forward(
        self,
        input_ids: torch.Tensor,
        targets: Targets | None,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Training loss of a right-padded batch, in nats per title (or per token).

        Args:
            targets: titles to predict; ``None`` trains on all tokens of ``labels`` instead, as
                the paper did.
            labels: next token at each position, -100 where none, shape of ``input_ids``; with
                ``targets`` only its count matters (one entry per title).
            num_items_in_batch: titles (tokens) in the optimiser step this batch is a part of.
        """
        hidden = self.backbone.hidden(input_ids, use_cache=False)
        if targets is None:
            weight = self.backbone.output_weight
            wanted = labels != -100
            logits = (hidden[wanted].to(weight.dtype) @ weight.T).float()
            total = nn.functional.cross_entropy(logits, labels[wanted], reduction="sum")
        else:
            total = -title_log_probs(self, hidden, targets).sum()
        count = num_items_in_batch if num_items_in_batch is not None else (labels != -100).sum()
        return {"loss": total / count}


def segment_log_softmax(logits: torch.Tensor, segment: torch.Tensor, segments: int) -> torch.Tensor:
    """Log-softmax within each segment of a flat tensor; ``segment`` gives each entry's segment."""
    with torch.no_grad():
        top = torch.full((segments,), -torch.inf, device=logits.device)
        top = top.scatter_reduce(0, segment, logits, "amax")[segment]
    total = torch.zeros(segments, device=logits.device).index_add(0, segment, (logits - top).exp())
    return logits - top - total.log()[segment]


@dataclass(frozen=True)
class Targets:
    """Where in a padded batch which children have to be predicted.

    Attributes:
        row, position: hidden state of each decision, shape [decisions].
        choices: the children at each decision.
        target: the right child of each decision as an index into ``choices.child``.
        example: which title each decision belongs to, shape [decisions].
        prior: log mass of each choice, or ``None``.
        titles: number of titles to predict.
    """

    row: Array
    position: Array
    choices: Choices
    target: Array
    example: Array
    prior: npt.NDArray[np.float32] | None
    titles: int


def locate_targets(
    trie: Trie, items: npt.NDArray[np.int32], row: Array, start: Array, sums: Floats | None
) -> Targets:
    """Decisions on the way to each target title.

    Args:
        items: target items, shape [titles].
        row, start: batch row and position of each title's first token, shape [titles].
        sums: cumulative prior mass for each title, shape [titles, items + 1].
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


def title_log_probs(
    model: CatalogueLikelihood, hidden: torch.Tensor, targets: Targets
) -> torch.Tensor:
    """Log-probability of each target title, shape [titles].

    Args:
        hidden: final hidden states of the padded batch, shape [rows, tokens, hidden].
    """
    device = hidden.device
    row, position = torch.from_numpy(targets.row), torch.from_numpy(targets.position)
    at_decisions = hidden[row.to(device), position.to(device)]
    log_probs = model.child_log_probs(at_decisions, targets.choices, targets.prior)
    right = log_probs[torch.from_numpy(targets.target).to(device)]
    example = torch.from_numpy(targets.example).to(device)
    return torch.zeros(targets.titles, device=device).index_add(0, example, right)
