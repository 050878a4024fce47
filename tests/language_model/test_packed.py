from __future__ import annotations

import pytest
import torch
from torch import nn

from genrec.language_model.packed import PackedLinear, pack_linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_packed_layers_compute_what_linear_layers_compute(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 80, bias=bias), nn.ReLU(), nn.Linear(80, 16, bias=bias))
    model.to(dtype)
    inputs = [torch.randn(2, n, 48, dtype=dtype) for n in (1, 7, 100)]
    with torch.inference_mode():
        expected = [model(each) for each in inputs]
        pack_linear(model)
        found = [model(each) for each in inputs]
    able = torch.backends.mkldnn.is_available()
    if dtype == torch.bfloat16:  # without AVX-512 oneDNN only emulates it
        able = able and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert isinstance(model[0], PackedLinear) == able
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_other_types_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.float64))
    pack_linear(model)
    assert isinstance(model[0], nn.Linear)
