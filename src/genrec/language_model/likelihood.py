"""log p(item | history) over the title trie, and the training loss derived from it.

At a decision node only its children are possible. The probability of a child is therefore a softmax
over the children alone (masked softmax: arXiv 2504.04178). An item's probability is the product
along its path, and the probabilities of the catalogue sum to one.

With a prior q, the logit of a child is ``prior_weight * log mass + lm_weight * residual . W``. The
mass sums q over the leaves below the child. ``prior_weight`` is learned and starts at one. The
residual is a low-rank projection of the hidden state and starts at zero. Training thus starts at
the prior, and the language model learns what the prior does not capture.
"""

from __future__ import annotations

from copy import copy
from typing import Literal

import numpy as np
import torch
from torch import nn

from genrec.arrays import Floats32
from genrec.language_model.backbone import Backbone
from genrec.language_model.decisions import Choices, Targets, distinct_tokens
from genrec.language_model.layouts import Layout, Sequences
from genrec.language_model.residual import Residual, Temperature, segment_log_softmax
from genrec.language_model.trie import ROOT, Trie


class CatalogueLikelihood(nn.Module):
    """The language model's hidden states as a distribution over a catalogue."""

    accepts_loss_kwargs = True  # tells HF Trainer to pass the number of targets in the whole step

    def __init__(
        self,
        layout: Layout,
        *,
        has_prior: bool,
        rank: int = 32,
        lm_weight: float = 1.0,
        temperature: float | Literal["adaptive"] = 1.0,
    ) -> None:
        """Make a distribution of a layout's hidden states.

        Args:
            layout: the language model, the title trie and the positions that are run.
            has_prior: whether a prior's mass enters the logits.
            rank: rank of the residual, which exists only beside a prior.
            lm_weight: factor of the residual at inference. A factor below one shrinks the language
                model's contribution beside the prior, because it ranks better than it estimates.
            temperature: divides the logits in training (see :class:`Temperature`).
        """
        super().__init__()
        self.layout = layout
        self.language_model = self.backbone.model  # registers the parameters with torch
        self.lm_weight = lm_weight
        self.prior_weight: nn.Parameter | None = None
        self.residual: Residual | None = None
        self.temperature = None if temperature == 1.0 else Temperature(temperature)
        self.row_norm: torch.Tensor
        if has_prior:
            weight = self.backbone.output_weight
            self.prior_weight = nn.Parameter(torch.ones((), device=weight.device))
            self.residual = Residual(weight.shape[1], rank).to(weight.device)
            tokens = torch.from_numpy(np.unique(self.trie.child_token)).to(weight.device)
            # Saved with the weights, so that a catalogue that grows later keeps their scale.
            self.register_buffer("row_norm", weight.detach()[tokens].float().norm(dim=1).mean())

    def over(self, layout: Layout) -> CatalogueLikelihood:
        """Return a model with the same weights over another trie."""
        other = copy(self)
        other.layout = layout
        return other

    @property
    def backbone(self) -> Backbone:
        """The language model."""
        return self.layout.backbone

    @property
    def trie(self) -> Trie:
        """The items that can be recommended."""
        return self.layout.trie

    def child_log_probs(
        self, hidden: torch.Tensor, chosen: Choices, prior: Floats32 | None
    ) -> torch.Tensor:
        """Return the log-probability of each child given its parent, shape [choices], float32."""
        decision = torch.from_numpy(chosen.decision).to(hidden.device)
        logits = self.child_logits(hidden, chosen, prior)
        return segment_log_softmax(logits, decision, len(hidden))

    def child_logits(
        self, hidden: torch.Tensor, chosen: Choices, prior: Floats32 | None
    ) -> torch.Tensor:
        """Return the logit of each child.

        Args:
            hidden: hidden state at each decision node's last token, shape [decisions, hidden].
            chosen: the children at each decision.
            prior: log mass of each child, shape [choices], if the model has a prior.

        Returns:
            Shape [choices], float32.
        """
        factor = 1.0 if self.training else self.lm_weight
        logits = self.lm_logits(hidden, chosen, factor)
        if self.prior_weight is not None:
            assert prior is not None
            logits = logits + self.prior_weight * torch.from_numpy(prior).to(hidden.device)
        return logits

    def lm_logits(self, hidden: torch.Tensor, chosen: Choices, factor: float = 1.0) -> torch.Tensor:
        """Return the language model's part of the logit of each child, without the prior's.

        Args:
            hidden: hidden state at each decision node's last token, shape [decisions, hidden].
            chosen: the children at each decision.
            factor: factor of the residual; without a prior there is none.

        Returns:
            Shape [choices], float32.
        """
        device = hidden.device
        tokens, column = distinct_tokens(self.trie, chosen)
        rows = self.backbone.output_weight[torch.from_numpy(tokens).to(device)].float()
        if self.residual is not None:
            reduced = self.residual.reduced(hidden, self.is_inner(chosen))
            hidden, rows = factor / self.row_norm * reduced, self.residual.reduced_rows(rows)
        dense = (hidden.float() @ rows.T).float()  # autocast may return float16
        decision = torch.from_numpy(chosen.decision).to(device)
        return dense[decision, torch.from_numpy(column).to(device)]

    def is_inner(self, chosen: Choices) -> torch.Tensor:
        """Return 1 for decisions inside a title and 0 for those at its start, shape [decisions]."""
        nodes = self.trie.child_parent[chosen.child[chosen.starts]]
        return torch.from_numpy((nodes != ROOT).astype(np.int64)).to(self.backbone.device)

    @torch.no_grad()
    def calibrate(self, sequences: Sequences, targets: Targets) -> None:
        """Standardise the residual's input on a sample batch (see :meth:`Residual.calibrate`)."""
        if self.residual is not None:
            states = self.decision_states(sequences)
            self.residual.calibrate(states, self.is_inner(targets.choices))

    def decision_states(self, sequences: Sequences) -> torch.Tensor:
        """Return the hidden state that predicts each decision, shape [decisions, hidden]."""
        hidden = self.layout.hidden(
            sequences.ids,
            positions=sequences.positions,
            visible=sequences.visible,
            rows=sequences.rows,
        )
        row, position = torch.from_numpy(sequences.row), torch.from_numpy(sequences.position)
        return hidden[row.to(hidden.device), position.to(hidden.device)]

    def trained(self) -> dict[str, torch.Tensor]:
        """Return the tensors that training changes, by name."""
        changing = {
            name: tensor.detach()
            for name, tensor in self.named_parameters()
            if tensor.requires_grad
        }
        if self.temperature is not None:
            changing["temperature.value"] = self.temperature.value
        return {name: tensor.contiguous() for name, tensor in changing.items()}

    def head(self) -> dict[str, torch.Tensor]:
        """Return the model's own tensors, without backbone and adapter, by name."""
        both = (*self.named_parameters(), *self.named_buffers())
        return {k: v.detach() for k, v in both if not k.startswith("language_model.")}

    def forward(
        self,
        sequences: Sequences,
        targets: Targets | None,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the training loss of a batch, in nats per title (or per token).

        Args:
            sequences: the positions of the batch.
            targets: titles to predict. ``None`` trains on the tokens of ``labels`` instead, each
                against the whole vocabulary, as in the paper.
            labels: next token at each position, -100 where there is none, shape of
                ``sequences.ids``. With ``targets`` only its number of entries matters (one per
                title).
            num_items_in_batch: titles (or tokens) in the optimiser step that this batch belongs to.

        Returns:
            The loss under the key ``"loss"``, as transformers' Trainer expects.
        """
        if targets is None:
            hidden = self.layout.hidden(sequences.ids)
            weight = self.backbone.output_weight
            wanted = labels != -100
            logits = (hidden[wanted].to(weight.dtype) @ weight.T).float()
            total = nn.functional.cross_entropy(logits, labels[wanted], reduction="sum")
        else:
            states = self.decision_states(sequences)
            total = -title_log_probs(self, states, targets, self.temperature).sum()
        count = num_items_in_batch if num_items_in_batch is not None else (labels != -100).sum()
        return {"loss": total / count}


def title_log_probs(
    model: CatalogueLikelihood,
    states: torch.Tensor,
    targets: Targets,
    temperature: Temperature | None = None,
) -> torch.Tensor:
    """Return the log-probability of each target title, shape [titles].

    Args:
        model: the catalogue likelihood.
        states: the hidden state that predicts each decision, shape [decisions, hidden].
        targets: the titles to predict.
        temperature: training temperature. With it, the result is a softened training objective and
            not a log-probability.
    """
    device = states.device
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
