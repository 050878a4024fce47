"""Checks that a backbone meets the assumptions of search and likelihood."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from genrec.errors import BackboneError
from genrec.language_model.backbone import Backbone
from genrec.language_model.split import SplitBackbone


@torch.inference_mode()
def check_architecture(backbone: Backbone, max_tokens: int, longest: int) -> None:
    """Check the assumptions of search and likelihood by running the backbone on a small input.

    Args:
        backbone: the loaded backbone.
        max_tokens: most tokens in a prompt.
        longest: tokens of the longest title.

    Raises:
        BackboneError: the logits are more than a projection of the hidden states, the backbone
            ignores a 4-D attention mask, or its context does not cover a prompt of ``max_tokens``
            tokens plus the longest title.
    """
    kind = type(backbone.causal_lm).__name__
    reach = _reach(backbone.causal_lm)
    if reach is not None and reach < max_tokens + longest:
        raise BackboneError(
            f"Backbone {backbone.name!r} ({kind}) sees only {reach} tokens back. "
            f"Set max_tokens={max(0, reach - longest)} or less."
        )
    device, weight = backbone.device, backbone.output_weight
    branches = torch.tensor([[1, 2, 3], [1, 2, 4]], device=device)
    hidden = backbone.hidden(branches, use_cache=False)
    logits = backbone.causal_lm(branches, use_cache=False).logits
    if not _close(hidden.to(weight.dtype) @ weight.T, logits):
        raise BackboneError(
            f"Backbone {backbone.name!r} ({kind}) changes its logits after the projection "
            "(a bias, a scale or a soft cap), which GenRec's likelihood does not support. Choose "
            "another architecture (Llama, Qwen, Mistral, …)."
        )
    visible = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]], device=device)
    mask = torch.zeros(1, 1, 4, 4, dtype=weight.dtype, device=device)
    mask.masked_fill_(visible == 0, torch.finfo(weight.dtype).min)
    try:
        tree = backbone.hidden(
            torch.tensor([[1, 2, 3, 4]], device=device),
            position_ids=torch.tensor([[0, 1, 2, 2]], device=device),
            attention_mask=mask,
            use_cache=False,
        )
        works = _close(tree[0, 2:], hidden[:, 2])
    except (TypeError, ValueError, RuntimeError, IndexError):
        works = False
    if not works:
        raise BackboneError(
            f"Backbone {backbone.name!r} ({kind}) does not work with 4-D attention masks, "
            "which the exact search needs. Choose another architecture (Llama, Qwen, Mistral, …)."
        )


@torch.inference_mode()
def check_split(split: SplitBackbone) -> None:
    """Check that the lower and the upper layers, one after the other, are the whole backbone.

    Raises:
        BackboneError: they are not.
    """
    backbone = split.backbone
    tokens = torch.tensor([[1, 2, 3]], device=backbone.device)
    try:
        found = split.upper(split.lower(tokens, use_cache=False))
        works = _close(found, backbone.hidden(tokens, use_cache=False))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        works = False
    if not works:
        kind = type(backbone.causal_lm).__name__
        raise BackboneError(
            f"Backbone {backbone.name!r} ({kind}) cannot be run in two parts, which "
            f"context_layers={split.context_layers} needs. Set context_layers=null."
        )


def _reach(model: PreTrainedModel) -> int | None:
    """Return the tokens that a sliding window or learned positions cover; ``None`` if unlimited."""
    config, found = model.config, [getattr(model.config, "sliding_window", None)]
    tables = [m for m in model.get_decoder().modules() if isinstance(m, nn.Embedding)]
    if len(tables) > 1:  # a second embedding table holds learned positions
        found.append(getattr(config, "max_position_embeddings", None))
    return min((limit for limit in found if limit is not None), default=None)


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    scale = expected.float().abs().max()
    error = (found.float() - expected.float()).abs().max()
    return bool(error <= scale * (1e-3 if expected.dtype == torch.float32 else 0.1))
