from __future__ import annotations

import torch

from genrec.config import Config
from genrec.language_model.adapters import make_trainable
from genrec.language_model.backbone import Backbone, load_backbone


def adapted(folder: str, dtype: str) -> Backbone:
    """A backbone in ``dtype`` whose LoRA already changes its outputs."""
    backbone = load_backbone(folder, dtype=dtype, device=torch.device("cpu"))
    torch.manual_seed(0)
    make_trainable(backbone, Config.create(lora_rank=4, lora_dropout=0.0))
    for name, weight in backbone.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return backbone


def test_lora_multiplies_in_the_backbones_type_and_learns_in_float32(tiny_backbone: str) -> None:
    short, wide = (adapted(tiny_backbone, dtype) for dtype in ("bfloat16", "float32"))
    products: list[torch.Tensor] = []
    for name, module in short.model.named_modules():
        if name.endswith(("lora_A.default", "lora_B.default")):
            module.register_forward_hook(lambda _, __, output: products.append(output))
    tokens = torch.arange(1, 13).reshape(2, 6)
    for backbone in (short, wide):
        backbone.hidden(tokens, use_cache=False)[..., 0].float().sum().backward()
    gradients = [
        [weight.grad for weight in backbone.model.parameters() if weight.requires_grad]
        for backbone in (short, wide)
    ]
    assert len(products) == len(gradients[0]) == 2 * 7 * 2  # A and B of 7 modules in 2 layers
    assert {product.dtype for product in products} == {torch.bfloat16}
    for one, other in zip(*gradients, strict=True):
        assert isinstance(one, torch.Tensor)
        assert isinstance(other, torch.Tensor)
        assert one.dtype == torch.float32
        assert torch.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.95
