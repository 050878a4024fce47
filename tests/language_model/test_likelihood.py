from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_dataset
from genrec import GenRec, Histories
from genrec.language_model.decisions import choices
from genrec.language_model.prior_mass import cumulative_mass, log_mass
from genrec.language_model.residual import segment_log_softmax
from genrec.language_model.trie import ROOT, build_trie


@given(st.lists(st.lists(st.floats(-50, 50), min_size=1, max_size=6), min_size=1, max_size=8))
def test_segment_log_softmax_is_log_softmax_of_each_segment(segments: list[list[float]]) -> None:
    flat = torch.tensor([value for segment in segments for value in segment])
    index = torch.tensor([n for n, segment in enumerate(segments) for _ in segment])
    expected = torch.cat([torch.tensor(segment).log_softmax(0) for segment in segments])
    torch.testing.assert_close(segment_log_softmax(flat, index, len(segments)), expected)


def test_mass_of_a_child_is_the_sum_over_its_items() -> None:
    trie = build_trie([[1, 2, 0], [2, 0], [1, 3, 0]])
    q = np.array([[0.2, 0.5, 0.3]])
    chosen = choices(trie, np.array([ROOT, 1]))
    mass = np.exp(log_mass(trie, cumulative_mass(trie, q), np.zeros(4, int), chosen.child))
    np.testing.assert_allclose(mass, [0.2 + 0.3, 0.5, 0.2, 0.3], rtol=1e-6)


@pytest.mark.parametrize("context_layers", [1, None])
@pytest.mark.parametrize("prior", ["none", "cooccurrence"])
@pytest.mark.parametrize("template", ["list", "instruction"])
def test_likelihood_of_each_item_is_what_search_says(
    tiny_backbone: str, prior: str, template: str, context_layers: int | None
) -> None:
    """Two routes to log p(item | history): one pass over prompt and title, and the tree search."""
    data = make_dataset()
    settings = {"prior": prior, "template": template, "context_layers": context_layers}
    model = GenRec(backbone=tiny_backbone, dtype="float32", **settings)
    model.build(data)
    histories = data.histories.select([0, 1])
    found = model.recommend_batch(histories, len(data.catalogue), exclude_seen=False)
    for row in range(2):
        repeated = Histories.from_lists([histories[row]] * 30)
        scores = model.log_likelihood(repeated, np.arange(30, dtype=np.int32))
        np.testing.assert_allclose(found.scores[row], scores[found.items[row]], atol=2e-4)
        assert np.exp(scores).sum() == pytest.approx(1, abs=1e-4)
