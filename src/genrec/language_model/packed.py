"""Linear layers with weights packed once in oneDNN's layout, for inference on a CPU.

torch multiplies float32 with MKL, which does not use AVX-512 on AMD processors, and it repacks
bfloat16 weights in every call. Packed weights measured 2.3 times as fast in float32 and 1.3 times
in bfloat16 there (docs/decisions/0004-search.md), at the same precision. The operators are those
that torch's own compiler uses when it freezes a model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

PACKED = (torch.float32, torch.bfloat16)
"""Types of weights that are packed."""


class PackedLinear(nn.Module):
    """A linear layer for inference, with the weight in oneDNN's layout."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self.weight, self.bias, "none", [], ""
        )
        return outputs

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Save the plain weight, as the original linear layer would."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight.to_dense()


def pack_linear(module: nn.Module) -> None:
    """Replace the linear layers inside a module by packed ones, where the machine supports it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and _can_be_packed(child):
                setattr(parent, name, PackedLinear(child))


def _can_be_packed(linear: nn.Linear) -> bool:
    weight = linear.weight
    if weight.device.type != "cpu" or weight.dtype not in PACKED:
        return False
    return weight.dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
