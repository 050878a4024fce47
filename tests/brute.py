"""The log-probability of a title from its definition, without a trie."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from genrec import GenRec


@torch.no_grad()
def title_log_prob(
    model: GenRec,
    target: int,
    state_after: Callable[[list[int]], torch.Tensor],
    q: np.ndarray | None,
) -> float:
    """Sum, over a title's tokens, the log-softmax over the tokens that some title has there.

    Args:
        model: the model, whose residual and prior weight enter the logits.
        target: item index of the title.
        state_after: returns the final hidden state after the first tokens of the title.
        q: the prior's probability of each item, if the model has a prior.
    """
    closed = [title.tolist() for title in model.ranker.prompts.titles]
    likelihood, title, total = model.ranker.likelihood, closed[target], 0.0
    device = likelihood.backbone.device
    for depth, token in enumerate(title):
        below = [i for i in range(len(closed)) if closed[i][:depth] == title[:depth]]
        options = sorted({closed[i][depth] for i in below})
        if len(options) == 1:
            continue
        state = state_after(title[:depth]).cpu()
        if likelihood.residual is not None:
            inner = torch.tensor([int(depth > 0)], device=device)
            factor = likelihood.lm_weight / likelihood.row_norm
            state = (factor * likelihood.residual(state[None].to(device), inner)[0]).cpu()
        logits = likelihood.backbone.output_weight[options].cpu() @ state
        if q is not None:
            mass = [sum(q[i] for i in below if closed[i][depth] == t) for t in options]
            logits = logits + torch.tensor(np.log(mass), dtype=torch.float32)
        total += float(logits.log_softmax(0)[options.index(token)])
    return total
