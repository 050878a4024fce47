"""log p(item | history) over the title trie, and the training loss made of it.

At a decision node only its children are possible, so the probability of a child is a softmax over
the children alone (masked softmax: arXiv 2504.04178). An item's probability is the product along
its path; over the catalogue the probabilities sum to one.

With a prior q the logit of a child is ``prior_weight * log mass + lm_weight * residual . W``: the
mass sums q over the leaves below the child, ``prior_weight`` is learned and starts at one, and the
residual is a low-rank projection of the hidden state that starts at zero. So training starts at the
prior, and the language model learns what the prior does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import nn

from genrec.arrays import Floats, Floats32, Ints, Ints32, Items
from genrec.backbone import Backbone
from genrec.shares import SparseSums
from genrec.trie import ROOT, Trie


@dataclass(frozen=True)
class Choices:
    """Children of several decision nodes, laid end to end.

    Attributes:
        child: position of each child in the trie's ``child_*`` arrays, shape [choices].
        decision: which of the nodes asked for each child belongs to, shape [choices].
        starts: where each node's children start, shape [decisions].
    """

    child: Ints
    decision: Ints
    starts: Ints


def choices(trie: Trie, nodes: Ints32) -> Choices:
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


def log_mass(trie: Trie, sums: Floats | SparseSums, rows: Ints, child: Ints) -> Floats32:
    """Log of the prior's mass below each child; ``rows`` says which row of ``sums`` it is under.

    Sparse sums leave out a factor, the same for all children of a decision: it makes no difference.
    """
    low, high = trie.child_low[child], trie.child_high[child]
    if isinstance(sums, SparseSums):
        mass = sums.between(rows, low, high)
    else:
        mass = sums[rows, high] - sums[rows, low]
    return cast(Floats32, np.log(np.maximum(mass, 1e-30)).astype(np.float32))


class Residual(nn.Module):
    """Low-rank projection of standardised hidden states, zero until it is trained.

    Hidden states are standardised apart at the root and inside titles: their mean there says
    which tokens are frequent, which the prior knows better.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, hidden: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden, rank, bias=False)
        self.up = nn.Linear(rank, hidden, bias=False)
        nn.init.normal_(self.down.weight, std=hidden**-0.5)
        nn.init.zeros_(self.up.weight)
        self.register_buffer("mean", torch.zeros(2, hidden))
        self.register_buffer("scale", torch.ones(2, hidden))

    def forward(self, hidden: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        """Shape [decisions, hidden], float32; ``inner`` is 1 inside a title, 0 at the root."""
        standard = (hidden.float() - self.mean[inner]) / self.scale[inner]
        return cast(torch.Tensor, self.up(self.down(standard)))

    @torch.no_grad()
    def calibrate(self, hidden: torch.Tensor, inner: torch.Tensor) -> None:
        """Take mean and scale from a sample of hidden states, shape [decisions, hidden]."""
        for kind in (0, 1):
            sample = hidden[inner == kind].float()
            if len(sample) > 1:
                self.mean[kind], self.scale[kind] = sample.mean(0), sample.std(0).clamp_min(1e-3)


class Temperature(nn.Module):
    """Softer decisions in training, as a softmax over few children has small gradients.

    The loss of logits z is that of ``z / value``, times ``value``. The adaptive value is that of
    arXiv 2504.04178: with normal logits, the one at which the right child of the root has on
    average the odds of ``ETA`` times the number of children; it follows the batches slowly.
    """

    ETA, FIRST, LOW, HIGH, PACE = 0.25, 1.5, 1.5, 5.0, 0.05
    value: torch.Tensor

    def __init__(self, value: float | Literal["adaptive"]) -> None:
        super().__init__()
        self.adaptive = value == "adaptive"
        self.register_buffer("value", torch.tensor(self.FIRST if value == "adaptive" else value))

    @torch.no_grad()
    def follow(self, logits: torch.Tensor, targets: Targets, inner: torch.Tensor) -> None:
        """Move towards the value for this batch's decisions at the root; ``inner`` marks others."""
        if not self.adaptive:
            return
        decision = torch.from_numpy(targets.choices.decision).to(logits.device)
        right = logits[torch.from_numpy(targets.target).to(logits.device)][inner == 0]
        offered = logits[(inner == 0)[decision]]
        gap, variance = right.mean() - offered.mean(), offered.var()
        level = max(1e-6, math.log(self.ETA * len(offered) / len(right)))
        root = (gap**2 - 2 * level * variance).clamp_min(0).sqrt()
        wanted = ((gap + root) / (2 * level)).clamp(self.LOW, self.HIGH)
        self.value.lerp_(wanted.to(self.value.device), self.PACE)


class CatalogueLikelihood(nn.Module):
    """The language model's hidden states read as a distribution over a catalogue."""

    accepts_loss_kwargs = True  # tells HF Trainer to pass the number of targets in the whole step

    def __init__(
        self,
        backbone: Backbone,
        trie: Trie,
        *,
        has_prior: bool,
        rank: int = 32,
        lm_weight: float = 1.0,
        temperature: float | Literal["adaptive"] = 1.0,
    ) -> None:
        """Read a backbone over a trie.

        Args:
            rank: of the residual beside a prior.
            temperature: divides the logits in training (see :class:`Temperature`).
            lm_weight: factor of the residual outside of training. Below one it shrinks what the
                language model says beside the prior, which ranks better than it estimates.
        """
        super().__init__()
        self.backbone = backbone
        self.language_model = backbone.model  # registers the parameters with torch
        self.trie = trie
        self.lm_weight = lm_weight
        self.prior_weight: nn.Parameter | None = None
        self.residual: Residual | None = None
        self.temperature = None if temperature == 1.0 else Temperature(temperature)
        self.row_norm: torch.Tensor
        if has_prior:
            weight = backbone.output_weight
            self.prior_weight = nn.Parameter(torch.ones((), device=weight.device))
            self.residual = Residual(weight.shape[1], rank).to(weight.device)
            tokens = torch.from_numpy(np.unique(trie.child_token)).to(weight.device)
            # Kept with the weights: a catalogue that grows later must not change their scale.
            self.register_buffer("row_norm", weight.detach()[tokens].float().norm(dim=1).mean())

    def child_log_probs(
        self, hidden: torch.Tensor, chosen: Choices, prior: Floats32 | None
    ) -> torch.Tensor:
        """Log-probability of each child given its parent, shape [choices], float32."""
        decision = torch.from_numpy(chosen.decision).to(hidden.device)
        logits = self.child_logits(hidden, chosen, prior)
        return segment_log_softmax(logits, decision, len(hidden))

    def child_logits(
        self, hidden: torch.Tensor, chosen: Choices, prior: Floats32 | None
    ) -> torch.Tensor:
        """Logit of each child, shape [choices], float32.

        Args:
            hidden: hidden state at each decision node's last token, shape [decisions, hidden].
            prior: log mass of each child, shape [choices], if the model has a prior.
        """
        device = hidden.device
        residual = self.residual
        if residual is not None:
            factor = (1.0 if self.training else self.lm_weight) / self.row_norm
            hidden = factor * residual(hidden, self.is_inner(chosen))
        tokens, column = np.unique(self.trie.child_token[chosen.child], return_inverse=True)
        rows = self.backbone.output_weight[torch.from_numpy(tokens).to(device)]
        dense = (hidden.float() @ rows.float().T).float()  # autocast would leave it in float16
        decision = torch.from_numpy(chosen.decision).to(device)
        logits = dense[decision, torch.from_numpy(column).to(device)]
        if self.prior_weight is not None:
            assert prior is not None
            logits = logits + self.prior_weight * torch.from_numpy(prior).to(device)
        return logits

    def is_inner(self, chosen: Choices) -> torch.Tensor:
        """1 for each decision inside a title, 0 for those at its start, shape [decisions]."""
        nodes = self.trie.child_parent[chosen.child[chosen.starts]]
        return torch.from_numpy((nodes != ROOT).astype(np.int64)).to(self.backbone.device)

    @torch.no_grad()
    def calibrate(self, input_ids: torch.Tensor, targets: Targets) -> None:
        """Standardise the residual's input on a sample batch (see :meth:`Residual.calibrate`)."""
        if self.residual is not None:
            hidden = self.backbone.hidden(input_ids.to(self.backbone.device), use_cache=False)
            states = decision_states(hidden, targets)
            self.residual.calibrate(states, self.is_inner(targets.choices))

    def trained(self) -> dict[str, torch.Tensor]:
        """What training changes, by name."""
        changing = {
            name: tensor.detach()
            for name, tensor in self.named_parameters()
            if tensor.requires_grad
        }
        if self.temperature is not None:
            changing["temperature.value"] = self.temperature.value
        return {name: tensor.contiguous() for name, tensor in changing.items()}

    def head(self) -> dict[str, torch.Tensor]:
        """What belongs to the model beside backbone and adapter."""
        both = (*self.named_parameters(), *self.named_buffers())
        return {k: v.detach() for k, v in both if not k.startswith("language_model.")}

    def forward(
        self,
        input_ids: torch.Tensor,
        targets: Targets | None,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Training loss of a right-padded batch, in nats per title (or per token).

        Args:
            targets: titles to predict; ``None`` trains on the tokens of ``labels`` instead, each
                against the whole vocabulary, as the paper did.
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
            total = -title_log_probs(self, hidden, targets, self.temperature).sum()
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
    """Decisions on the way to each target title.

    Args:
        items: target items, shape [titles].
        row, start: batch row and position of each title's first token, shape [titles].
        sums: cumulative prior mass for each title, shape [titles, items + 1] or sparse.
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
    """Hidden state at each decision's last token, shape [decisions, hidden]."""
    row, position = torch.from_numpy(targets.row), torch.from_numpy(targets.position)
    return hidden[row.to(hidden.device), position.to(hidden.device)]


def title_log_probs(
    model: CatalogueLikelihood,
    hidden: torch.Tensor,
    targets: Targets,
    temperature: Temperature | None = None,
) -> torch.Tensor:
    """Log-probability of each target title, shape [titles].

    Args:
        hidden: final hidden states of the padded batch, shape [rows, tokens, hidden].
        temperature: of training; the result is then no log-probability but its softer stand-in.
    """
    device = hidden.device
    states = decision_states(hidden, targets)
    logits = model.child_logits(states, targets.choices, targets.prior)
    soft: torch.Tensor | float = 1.0
    if temperature is not None:
        temperature.follow(logits, targets, model.is_inner(targets.choices))
        soft = temperature.value.clone()
    decision = torch.from_numpy(targets.choices.decision).to(device)
    log_probs = soft * segment_log_softmax(logits / soft, decision, len(states))
    right = log_probs[torch.from_numpy(targets.target).to(device)]
    example = torch.from_numpy(targets.example).to(device)
    return torch.zeros(targets.titles, device=device).index_add(0, example, right)
