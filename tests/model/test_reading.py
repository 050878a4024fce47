"""What ``auto`` stands for on a backbone with some number of layers."""

from __future__ import annotations

from typing import Any

import pytest

from genrec.config import Config
from genrec.model.reading import for_layers


@pytest.mark.parametrize(
    ("settings", "layers", "context", "microbatch"),
    [
        ({}, 30, 6, 16),
        ({}, 4, 2, 16),
        ({}, 1, None, 8),
        ({"context_layers": None}, 30, None, 8),
        ({"context_layers": 3}, 30, 3, 16),
        ({"batch_size": 24}, 30, 6, 12),
        ({"batch_size": 64}, 30, 6, 16),
        ({"batch_size": 7}, 30, 6, 7),
        ({"microbatch_size": 4}, 30, 6, 4),
        ({"recipe": "paper"}, 30, None, 4),
    ],
)
def test_auto(settings: dict[str, Any], layers: int, context: int | None, microbatch: int) -> None:
    found = for_layers(Config.create(**settings), layers)
    assert (found.context_layers, found.microbatch_size) == (context, microbatch)
