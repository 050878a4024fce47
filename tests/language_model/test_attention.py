"""A flat batch of histories gives the states and gradients of its histories one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_dataset
from genrec.config import Config
from genrec.language_model import backbone as backbones
from genrec.language_model.attention import Rows
from genrec.language_model.layouts import Supervised
from genrec.model.fitting import untrained_ranker
from language_model.test_architectures import WORKING, random_backbone


def test_rows_hold_the_shared_positions_and_their_own() -> None:
    owner = np.array([-1, -1, 1, 1, 1, 0])
    rows = Rows.of(owner)
    assert rows.taken.tolist() == [[0, 1, 5, -1, -1], [0, 1, 2, 3, 4]]
    assert rows.taken.flatten()[rows.place].tolist() == list(range(len(owner)))


def test_rows_split_and_join_any_state() -> None:
    rows = Rows.of(np.array([-1, 0, 0, 2, -1]))
    states = torch.randn(1, 3, 5, 4)  # heads, positions, size
    split = rows.split(states)
    assert split.shape == (3, 3, 4, 4)
    torch.testing.assert_close(rows.join(split.transpose(1, 2)), states.transpose(1, 2))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", WORKING)
def test_a_batch_is_its_histories_one_by_one(
    name: str, attention: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "_attention", lambda *_: {"attn_implementation": attention})
    folder = random_backbone(tmp_path / "backbone", WORKING[name])
    settings = {"prior": "none", "dtype": "float32", "context_layers": 1, "max_tokens": 512}
    ranker = untrained_ranker(Config.create(backbone=folder, **settings), make_dataset())
    parts = [Supervised(np.arange(n, dtype=np.int32), n) for n in (1, 7, 3)]
    for weight in ranker.backbone.blocks[-1].parameters():
        weight.requires_grad_(True)

    def states_and_gradients(batches: list[list[Supervised]]) -> tuple[torch.Tensor, list[Any]]:
        ranker.backbone.causal_lm.zero_grad()
        states = torch.cat(
            [ranker.likelihood.decision_states(ranker.layout.sequences(batch)) for batch in batches]
        )
        (states**2).sum().backward()
        return states, [weight.grad for weight in ranker.backbone.blocks[-1].parameters()]

    together, gradients = states_and_gradients([parts])
    alone, expected = states_and_gradients([[part] for part in parts])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradients, expected, atol=1e-3, rtol=1e-3)
