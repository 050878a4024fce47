"""Search against brute force: one plain forward pass for every title, no trie, no cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alike import assert_same_lists
from conftest import make_titles
from genrec.language_model.backbone import load_backbone
from genrec.language_model.layouts import TokenLayout
from genrec.language_model.likelihood import CatalogueLikelihood
from genrec.language_model.prompts import Prompts, end_token
from genrec.language_model.titles import tokenize_titles
from genrec.language_model.trie import build_trie
from genrec.recommender import TopK
from genrec.search.exact import search
from genrec.search.frontier import SearchOptions

Model = tuple[CatalogueLikelihood, list[list[int]]]


@pytest.fixture(scope="module")
def make_model(tiny_backbone: str) -> Callable[..., Model]:
    backbone = load_backbone(tiny_backbone, dtype="float32", device=torch.device("cpu"))

    def make(items: int, seed: int, has_prior: bool, stem: str = "") -> Model:
        titles = [stem + title for title in make_titles(items, seed)]
        end = end_token(backbone.tokenizer)
        closed = [title.tolist() for title in tokenize_titles(backbone.tokenizer, titles, end)]
        trie = build_trie(closed)
        prompts = Prompts(trie.titles, [[]], [], end, max_tokens=512)
        layout = TokenLayout(backbone, trie, prompts)
        model = CatalogueLikelihood(layout, has_prior=has_prior, rank=4, lm_weight=0.5)
        if model.residual is not None:
            torch.nn.init.normal_(model.residual.up.weight)  # as if it had been trained
        return model.eval(), closed

    return make


@torch.no_grad()
def brute_force(
    model: CatalogueLikelihood, closed: list[list[int]], prompt: list[int], prior: Any
) -> np.ndarray:
    """log p of every item from its definition: at each token, a softmax over what may follow."""
    scores = np.zeros(len(closed))
    weight = model.backbone.output_weight
    for item, title in enumerate(closed):
        hidden = model.backbone.hidden(torch.tensor([prompt + title]))[0]
        for depth, token in enumerate(title):
            below = [
                other for other in range(len(closed)) if closed[other][:depth] == title[:depth]
            ]
            options = sorted({closed[o][depth] for o in below})
            state = hidden[len(prompt) + depth - 1]
            if model.residual is not None:
                down, up = model.residual.down.weight, model.residual.up.weight
                state = up @ down @ state * model.lm_weight / model.row_norm
            logits = weight[options] @ state
            if prior is not None:
                mass = [sum(prior[o] for o in below if closed[o][depth] == t) for t in options]
                logits = logits + torch.tensor(np.log(mass), dtype=torch.float32)
            if len(options) > 1:
                scores[item] += float(logits.log_softmax(0)[options.index(token)])
    return scores


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    items=st.integers(1, 25),
    k=st.integers(1, 30),
    seed=st.integers(0, 1000),
    has_prior=st.booleans(),
    filtered=st.booleans(),
    stem=st.sampled_from(["", "The Red ", "A"]),
    width=st.integers(1, 40),
    margin=st.sampled_from([0.0, 0.25, 3.0]),
)
def test_exact_top_k_equals_brute_force(
    make_model: Callable[..., Model],
    items: int,
    k: int,
    seed: int,
    has_prior: bool,
    filtered: bool,
    stem: str,
    width: int,
    margin: float,
) -> None:
    rng = np.random.default_rng(seed)
    model, closed = make_model(items, seed, has_prior, stem)
    prompts = [rng.integers(1, 300, size=rng.integers(1, 40)).tolist() for _ in range(3)]
    prior = rng.dirichlet(np.full(items, 0.3), size=3) + 1e-6 if has_prior else None
    allowed = rng.random((3, items)) < 0.6 if filtered else None
    found = search(
        model,
        prompts,
        k,
        probabilities=prior,
        candidates=allowed,
        options=SearchOptions(width, margin),
    )
    for row, prompt in enumerate(prompts):
        truth = brute_force(model, closed, prompt, None if prior is None else prior[row])
        if allowed is not None:
            truth[~allowed[row]] = -np.inf
        count = int(min(k, np.isfinite(truth).sum()))
        listed = found.items[row, :count]
        assert (found.items[row, count:] == -1).all()
        assert len(set(listed.tolist())) == count
        np.testing.assert_allclose(found.log_probs[row, :count], truth[listed], atol=2e-4)
        np.testing.assert_allclose(np.sort(truth)[::-1][:count], truth[listed], atol=2e-4)


@pytest.mark.parametrize("has_prior", [False, True])
def test_probabilities_of_the_whole_catalogue_sum_to_one(
    make_model: Callable[..., Model], has_prior: bool
) -> None:
    model, _ = make_model(60, 3, has_prior)
    prior = np.full((1, 60), 1 / 60) if has_prior else None
    found = search(model, [[5, 6, 7]], 60, probabilities=prior)
    assert np.exp(found.log_probs).sum() == pytest.approx(1.0, abs=1e-5)


def test_batches_under_a_token_budget_give_what_single_rows_give(
    make_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = make_model(40, 5, False)
    prompts = [list(range(1, n)) for n in (3, 30, 9, 17, 2)]
    monkeypatch.setattr("genrec.search.exact.TOKEN_BUDGET", {"cpu": 40})
    together = search(model, prompts, 10)
    for row, prompt in enumerate(prompts):
        alone = search(model, [prompt], 10)
        assert_same_lists(
            TopK(together.items[row : row + 1], together.log_probs[row : row + 1]),
            TopK(alone.items, alone.log_probs),
        )


@pytest.mark.parametrize("has_prior", [False, True])
def test_rows_with_different_memories_share_a_batch(
    make_model: Callable[..., Model], has_prior: bool
) -> None:
    model, _ = make_model(40, 7, has_prior)
    rng = np.random.default_rng(7)
    prompts = [rng.integers(1, 300, size=n).tolist() for n in (25, 12, 18, 30)]
    prior = rng.dirichlet(np.full(40, 0.3), size=4) + 1e-6 if has_prior else None
    earlier = [prompts[0][:20], prompts[1][:3] + [9] * 9, prompts[2]]  # a start, part of one, all
    read = search(model, earlier, 5, probabilities=prior if prior is None else prior[:3], keep=True)
    assert [known.ids for known in read.key_values] == earlier
    expected = search(model, prompts, 10, probabilities=prior)
    found = search(
        model, prompts, 10, probabilities=prior, known=[*read.key_values, None], keep=True
    )
    assert_same_lists(TopK(found.items, found.log_probs), TopK(expected.items, expected.log_probs))
    assert [known.ids for known in found.key_values] == prompts  # and can be used in turn
    again = search(model, prompts, 10, probabilities=prior, known=found.key_values)
    assert_same_lists(TopK(again.items, again.log_probs), TopK(expected.items, expected.log_probs))


def test_nothing_allowed_finds_nothing(make_model: Callable[..., Model]) -> None:
    model, _ = make_model(10, 1, False)
    found = search(model, [[1, 2]], 3, candidates=np.zeros((1, 10), bool))
    assert found.items.tolist() == [[-1, -1, -1]]
    assert found.rounds == 0


def test_search_expands_only_what_can_matter(make_model: Callable[..., Model]) -> None:
    model, _ = make_model(100, 2, False)
    all_tokens = search(model, [[9]], 100, options=SearchOptions(1)).tokens
    assert search(model, [[9]], 1, options=SearchOptions(1)).tokens < all_tokens / 2
