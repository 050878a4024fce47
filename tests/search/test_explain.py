"""Explanations against a plain forward pass in which a mask hides one history item."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brute import title_log_prob
from conftest import make_dataset
from genrec import GenRec, GenRecError, Histories

DATA = make_dataset()


@pytest.fixture(scope="module", params=["none", "transitions"])
def model(request: pytest.FixtureRequest, tiny_backbone: str) -> GenRec:
    model = GenRec(
        backbone=tiny_backbone, prior=request.param, dtype="float32", context_layers=None
    ).build(DATA)
    residual = model.ranker.likelihood.residual
    if residual is not None:
        torch.nn.init.normal_(residual.up.weight)  # as if it had been trained
    return model


@torch.no_grad()
def with_hidden(model: GenRec, history: list[int], target: int, place: int) -> float:
    """log p(target) by definition: prompt and title in one pass, one history item masked."""
    prompts, length = model.ranker.prompts, len(model.ranker.prompts.prefixes[0])
    lengths = prompts.titles.lengths[history]
    start = length + int(lengths[:place].sum())
    prompt = prompts.encode(np.array(history, np.int32))
    title = prompts.titles[target].tolist()
    ids = [*prompt, *prompt[-1:], *title]  # the last token once more, in a copy that sees less
    n = len(prompt)
    visible = np.tri(len(ids), dtype=bool)
    visible[n:, n - 1] = False
    visible[n:, start : start + lengths[place]] = False
    positions = [*range(n), *range(n - 1, n + len(title))]
    mask = torch.where(torch.from_numpy(visible), 0.0, torch.finfo(torch.float32).min)[None, None]
    device = model.ranker.backbone.device
    states = model.ranker.backbone.hidden(
        torch.tensor([ids], device=device),
        attention_mask=mask.to(device),
        position_ids=torch.tensor([positions], device=device),
    )[0, n:]
    q = None
    if model.ranker.prior is not None:
        rest = [item for i, item in enumerate(history) if i != place]
        q = model.ranker.prior.probabilities(Histories.from_lists([rest]))[0]
    return title_log_prob(model, target, lambda beginning: states[len(beginning)], q)


def test_effects_equal_masked_forward_passes(model: GenRec) -> None:
    history, targets = [3, 8, 1, 22], [5, 17]
    titles = DATA.catalogue.titles
    found = model.explain([titles[i] for i in history], [titles[i] for i in targets])
    for target, influences in zip(targets, found, strict=True):
        wanted = np.array([target], np.int32)
        whole = model.log_likelihood(Histories.from_lists([history]), wanted)[0]
        effects = {each.title: each.effect for each in influences}
        for place, item in enumerate(history):
            expected = whole - with_hidden(model, history, target, place)
            assert effects[titles[item]] == pytest.approx(expected, abs=2e-4)
        sizes = [abs(each.effect) for each in influences]
        assert sizes == sorted(sizes, reverse=True)


def test_sessions_explain_the_same(model: GenRec) -> None:
    session = model.session(DATA.catalogue.titles[:5])
    best = session.recommend(1)[0].title
    expected = model.explain(session.history, [best])[0]
    for found, other in zip(session.explain(best), expected, strict=True):
        assert found.title == other.title
        assert found.effect == pytest.approx(other.effect, abs=1e-4)


def test_nothing_to_explain_and_wrong_names(model: GenRec) -> None:
    title = DATA.catalogue.titles[0]
    assert model.explain([], [title]) == [[]]
    assert model.explain([title], []) == []
    with pytest.raises(GenRecError, match="No Such Film"):
        model.explain([title], ["No Such Film"])
