"""The language model's part of a child's logit (a low-rank residual), and training temperature."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import nn

from genrec.language_model.decisions import Targets


class Residual(nn.Module):
    """Low-rank projection of standardised hidden states; it is zero until trained.

    Hidden states are standardised separately at the root and inside titles. Their mean there
    encodes which tokens are frequent, and the prior estimates that better.
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
        """Project hidden states.

        Args:
            hidden: shape [decisions, hidden].
            inner: 1 inside a title, 0 at the root, shape [decisions].

        Returns:
            Shape [decisions, hidden], float32.
        """
        return cast(torch.Tensor, self.up(self.reduced(hidden, inner)))

    def reduced(self, hidden: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        """Return the projection before it is brought up again, shape [decisions, rank].

        Its products with :meth:`reduced_rows` are those of :meth:`forward` with the rows, and take
        the rank's share of the arithmetic.
        """
        standard = (hidden.float() - self.mean[inner]) / self.scale[inner]
        return cast(torch.Tensor, self.down(standard))

    def reduced_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows of the output weights, shape [rows, hidden], as [rows, rank]."""
        return rows @ self.up.weight

    @torch.no_grad()
    def calibrate(self, hidden: torch.Tensor, inner: torch.Tensor) -> None:
        """Estimate mean and scale from a sample of hidden states.

        Args:
            hidden: shape [decisions, hidden].
            inner: 1 inside a title, 0 at the root, shape [decisions].
        """
        for kind in (0, 1):
            sample = hidden[inner == kind].float()
            if len(sample) > 1:
                self.mean[kind], self.scale[kind] = sample.mean(0), sample.std(0).clamp_min(1e-3)


class Temperature(nn.Module):
    """Softens decisions in training, because a softmax over few children has small gradients.

    The loss of logits z becomes that of ``z / value``, times ``value``. The adaptive value follows
    arXiv 2504.04178. For normally distributed logits, it is the value at which the correct child of
    the root has on average the odds of ``ETA`` times the number of children. It is a moving average
    over batches.
    """

    ETA, FIRST, LOW, HIGH, PACE = 0.25, 1.5, 1.5, 5.0, 0.05
    value: torch.Tensor

    def __init__(self, value: float | Literal["adaptive"]) -> None:
        super().__init__()
        self.adaptive = value == "adaptive"
        self.register_buffer("value", torch.tensor(self.FIRST if value == "adaptive" else value))

    @torch.no_grad()
    def follow(self, logits: torch.Tensor, targets: Targets, inner: torch.Tensor) -> None:
        """Move the value towards the optimum for this batch's decisions at the root.

        Args:
            logits: logits of all choices, shape [choices].
            targets: the batch's decisions.
            inner: 1 inside a title, 0 at the root, shape [decisions].
        """
        if not self.adaptive:
            return
        decision = torch.from_numpy(targets.choices.decision).to(logits.device)
        right = logits[torch.from_numpy(targets.target).to(logits.device)][inner == 0]
        offered = logits[(inner == 0)[decision]]
        if len(offered) == len(right):  # all titles begin alike, so nothing is decided there
            return
        gap, variance = right.mean() - offered.mean(), offered.var()
        level = max(1e-6, math.log(self.ETA * len(offered) / len(right)))
        root = (gap**2 - 2 * level * variance).clamp_min(0).sqrt()
        wanted = ((gap + root) / (2 * level)).clamp(self.LOW, self.HIGH)
        self.value.lerp_(wanted.to(self.value.device), self.PACE)


def segment_log_softmax(logits: torch.Tensor, segment: torch.Tensor, segments: int) -> torch.Tensor:
    """Return the log-softmax within each segment of a flat tensor.

    Args:
        logits: shape [entries].
        segment: segment of each entry, shape [entries].
        segments: number of segments.
    """
    with torch.no_grad():
        top = torch.full((segments,), -torch.inf, device=logits.device)
        top = top.scatter_reduce(0, segment, logits, "amax")[segment]
    total = torch.zeros(segments, device=logits.device).index_add(0, segment, (logits - top).exp())
    return logits - top - total.log()[segment]
