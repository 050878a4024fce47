"""Titles read once, against the definition: plain passes over states, no trie, cache or mask."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from alike import assert_same_lists
from brute import title_log_prob
from conftest import TINY, make_dataset, make_titles, save_tokenizer
from genrec import GenRec, GenRecError, Histories, leave_last_out
from genrec.data.dataset import Dataset
from genrec.language_model import title_states
from genrec.language_model.decisions import locate_targets
from genrec.language_model.layouts import Supervised
from genrec.language_model.likelihood import title_log_probs

LAYERS = 4
DATA = make_dataset()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random four-layer LLaMA."""
    folder = tmp_path_factory.mktemp("four-layers")
    save_tokenizer(folder)
    torch.manual_seed(1)
    config = LlamaConfig(**{**TINY, "num_hidden_layers": LAYERS})
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def build(backbone: str, prior: str = "none", **changes: Any) -> GenRec:
    model = GenRec(backbone=backbone, prior=prior, dtype="float32", **changes).build(DATA)
    residual = model.ranker.likelihood.residual
    if residual is not None:
        torch.nn.init.normal_(residual.up.weight)  # as if it had been trained
    return model


@torch.no_grad()
def lower_states(model: GenRec, tokens: list[int], n: int) -> torch.Tensor:
    """States of the template and some tokens after it, below the last n layers."""
    device = model.ranker.backbone.device
    ids = torch.tensor([model.ranker.prompts.prefixes[0] + tokens], device=device)
    output = model.ranker.backbone.causal_lm.model(ids, output_hidden_states=True)
    return output.hidden_states[LAYERS - n][0]


@torch.no_grad()
def upper(
    model: GenRec,
    states: torch.Tensor,
    n: int,
    visible: np.ndarray | None = None,
    places: list[int] | None = None,
) -> torch.Tensor:
    """Final hidden states: the last n layers one by one, causal (or masked) and uncached."""
    decoder, size = model.ranker.backbone.causal_lm.model, len(states)
    visible = np.tri(size, dtype=bool) if visible is None else visible
    mask = torch.zeros(size, size).masked_fill(~torch.from_numpy(visible), -1e30)[None, None]
    mask = mask.to(states.device)
    positions = torch.tensor([places or list(range(size))], device=states.device)
    hidden = states[None]
    rotary = decoder.rotary_emb(hidden, positions)
    for layer in decoder.layers[LAYERS - n :]:
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
    return decoder.norm(hidden)[0]


def prompt_states(
    model: GenRec, history: list[int], n: int, levels: list[int] | None = None
) -> torch.Tensor:
    """The prefix, the ends of the titles and of their ratings, the suffix, each read alone."""
    prompts, length = model.ranker.prompts, len(model.ranker.prompts.prefixes[0])
    texts = []
    for place, item in enumerate(history):
        texts.append([prompts.titles[item].tolist()])
        if prompts.ratings is not None:
            level = 0 if levels is None else levels[place]
            texts[-1].append(prompts.ratings.tokens[level].tolist())
    if prompts.newest_first:
        texts.reverse()
    ends = [lower_states(model, text, n)[-1:] for item in texts for text in item]
    suffix = lower_states(model, prompts.suffix, n)[length:]
    return torch.cat([lower_states(model, [], n), *ends, suffix])


def brute_force(
    model: GenRec, history: list[int], target: int, n: int, levels: list[int] | None = None
) -> float:
    """log p(target | history) from one plain causal pass for each decision."""
    prompt, q = prompt_states(model, history, n, levels), prior_of(model, history)

    def state(beginning: list[int]) -> torch.Tensor:
        own = [lower_states(model, beginning, n)[-1:]] if beginning else []
        return upper(model, torch.cat([prompt, *own]), n)[-1]

    return title_log_prob(model, target, state, q)


def prior_of(model: GenRec, history: list[int]) -> np.ndarray | None:
    if model.ranker.prior is None:
        return None
    return model.ranker.prior.probabilities(Histories.from_lists([history]))[0]


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    history=st.lists(st.integers(0, 29), max_size=7),
    n=st.integers(1, LAYERS - 1),
    prior=st.sampled_from(["none", "cooccurrence"]),
    template=st.sampled_from(["list", "instruction"]),
    k=st.integers(1, 30),
    exclude_seen=st.booleans(),
)
def test_exact_top_k_equals_brute_force(
    backbone: str,
    history: list[int],
    n: int,
    prior: str,
    template: str,
    k: int,
    exclude_seen: bool,
) -> None:
    model = build(backbone, prior, template=template, context_layers=n)
    truth = np.array([brute_force(model, history, item, n) for item in range(30)])
    assert np.exp(truth).sum() == pytest.approx(1, abs=1e-4)
    repeated = Histories.from_lists([history] * 30)
    scores = model.log_likelihood(repeated, np.arange(30, dtype=np.int32))
    np.testing.assert_allclose(scores, truth, atol=2e-4)
    rows = Histories.from_lists([history, history[:1], []])
    found = model.recommend_batch(rows, k, exclude_seen=exclude_seen)
    if exclude_seen:
        truth[history] = -np.inf
    count = int(min(k, np.isfinite(truth).sum()))
    listed = found.items[0, :count]
    assert (found.items[0, count:] == -1).all()
    assert len(set(listed.tolist())) == count
    np.testing.assert_allclose(found.scores[0, :count], np.sort(truth)[::-1][:count], atol=2e-4)
    np.testing.assert_allclose(found.scores[0, :count], truth[listed], atol=2e-4)


@pytest.mark.parametrize("prior", ["none", "transitions"])
@pytest.mark.parametrize("history", [[3, 8, 1, 22], [7]])
def test_effects_equal_passes_in_which_a_mask_hides_an_item(
    backbone: str, prior: str, history: list[int]
) -> None:
    model, target, n = build(backbone, prior, context_layers=2), 5, 2
    titles = DATA.catalogue.titles
    (found,) = model.explain([titles[i] for i in history], [titles[target]])
    effects = {each.title: each.effect for each in found}
    whole = brute_force(model, history, target, n)
    prompt = prompt_states(model, history, n)
    first, length = len(prompt) - len(history), len(prompt)
    for place, item in enumerate(history):
        last = length - 1 if place < len(history) - 1 else length - 2
        visible = np.tri(length + 2, dtype=bool)
        visible[length:, [first + place, length - 1, last]] = False  # the copy replaces the last
        places = [*range(length), last, length]

        def state(
            beginning: list[int],
            last: int = last,
            visible: np.ndarray = visible,
            places: list[int] = places,
        ) -> torch.Tensor:
            own = lower_states(model, beginning, n)[-1:]
            copies = torch.cat([prompt, prompt[last : last + 1], own])
            return upper(model, copies, n, visible, places)[-1 if beginning else -2]

        rest = [other for other in history if other != item]
        hidden = title_log_prob(model, target, state, prior_of(model, rest))
        assert effects[titles[item]] == pytest.approx(whole - hidden, abs=2e-4)


@pytest.mark.parametrize("prior", ["none", "cooccurrence"])
def test_an_item_added_later_is_one_that_was_there_before(backbone: str, prior: str) -> None:
    titles = [title for title in make_titles(60, 1) if title not in DATA.catalogue.titles][:6]
    model = build(backbone, prior, context_layers=2)
    session = model.session(DATA.catalogue.titles[:4])
    session.recommend(3)
    for title in titles:  # each may split edges of the trie
        model.add_items([title])
    model.remove_items(DATA.catalogue.titles[10:14])
    history = [0, 1, 2, 31]
    for item in (4, 20, 30, 35):
        one = model.log_likelihood(Histories.from_lists([history]), np.array([item], np.int32))
        kept = [i for i in range(36) if not 10 <= i < 14]
        many = model.log_likelihood(
            Histories.from_lists([history] * len(kept)), np.array(kept, np.int32)
        )
        assert np.exp(many).sum() == pytest.approx(1, abs=1e-4)
        assert one[0] == pytest.approx(many[kept.index(item)], abs=1e-4)
    states = model.ranker.states
    fresh = title_states.TitleStates(states.split, model.ranker.prompts, states.trie)
    fresh.read()
    np.testing.assert_allclose(states.table, fresh.table, rtol=1e-3, atol=1e-3)
    session.add(titles[0])
    expected = model.recommend(session.history, 5)
    assert [each.title for each in session.recommend(5)] == [each.title for each in expected]
    model.restore_items(DATA.catalogue.titles[10:14])
    assert model.ranker.index.offered.all()


def test_a_large_catalogue_is_read_when_it_is_needed(
    backbone: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = build(backbone, context_layers=2)
    monkeypatch.setattr(title_states, "LAZY_ITEMS", 10)
    model = build(backbone, context_layers=2)
    assert not model.ranker.states.known.any()
    histories = DATA.histories.select([0, 1])
    assert_same_lists(model.recommend_batch(histories, 4), expected.recommend_batch(histories, 4))
    assert 0 < model.ranker.states.known.sum() < len(model.ranker.states.known)
    model.save_pretrained(tmp_path / "run")
    loaded = GenRec.from_pretrained(tmp_path / "run")
    assert_same_lists(loaded.recommend_batch(histories, 4), expected.recommend_batch(histories, 4))


def test_a_second_run_maps_the_states_of_the_first(
    backbone: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(title_states, "cache_dir", lambda: tmp_path)
    first = build(backbone, context_layers=2)
    (file,) = (tmp_path / "title-states").iterdir()
    monkeypatch.setattr(
        title_states.TitleStates, "read", lambda *_: pytest.fail("the titles were read again")
    )
    assert torch.equal(
        build(backbone, context_layers=2).ranker.states.table, first.ranker.states.table
    )
    monkeypatch.undo()
    monkeypatch.setattr(title_states, "cache_dir", lambda: tmp_path)
    file.write_bytes(b"damaged")
    again = build(backbone, context_layers=2).ranker.states
    np.testing.assert_allclose(again.table, first.ranker.states.table, rtol=1e-3, atol=1e-3)


def test_the_cache_keeps_what_was_used_last(
    backbone: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(title_states, "cache_dir", lambda: tmp_path)
    folder = tmp_path / "title-states"
    build(backbone, context_layers=2)
    (first,) = folder.iterdir()
    size = first.stat().st_size
    monkeypatch.setattr(title_states, "CACHED_BYTES", int(2.5 * size))
    build(backbone, context_layers=1)
    (second,) = set(folder.iterdir()) - {first}
    for file, age in ((first, 20), (second, 10)):
        os.utime(file, (time.time() - age, time.time() - age))
    build(backbone, context_layers=2)  # uses the first one again
    build(backbone, context_layers=3)
    assert first.exists()
    assert not second.exists()
    assert len(list(folder.iterdir())) == 2


def test_training_leaves_the_layers_below_as_they_were_read(backbone: str, tmp_path: Path) -> None:
    split = leave_last_out(DATA)
    settings = {"tuning": "full", "trained_layers": None, "context_layers": 2, "batch_size": 8}
    model = GenRec(backbone=backbone, prior="none", dtype="float32", **settings)
    model.fit(split.train, epochs=1, progress=False)
    states = model.ranker.states
    fresh = title_states.TitleStates(states.split, model.ranker.prompts, states.trie)
    fresh.read()
    np.testing.assert_allclose(states.table, fresh.table, rtol=1e-3, atol=1e-3)
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "title_states.safetensors").write_bytes(b"damaged")
    with pytest.raises(GenRecError, match=r"title_states\.safetensors cannot be read"):
        GenRec.from_pretrained(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_layers": LAYERS}, f"Set it to {LAYERS - 1} or less"),
        ({"context_layers": 0}, "at least 1"),
        ({"context_layers": 2, "loss": "all-tokens"}, "set context_layers=null"),
        ({"context_layers": 2, "decoding": "beam"}, "set context_layers=null"),
    ],
)
def test_context_layers_that_cannot_work_are_refused(
    backbone: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(GenRecError, match=message):
        build(backbone, **changes)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    history=st.lists(st.integers(0, 29), max_size=6),
    rated=st.lists(st.sampled_from([None, 1.0, 2.0, 4.6]), min_size=6, max_size=6),
    order=st.sampled_from(["oldest-first", "newest-first"]),
    template=st.sampled_from(["list", "plain", "one-instruction"]),
    ratings=st.sampled_from(["none", (1.0, 2.0, 5.0)]),
)
def test_every_form_of_the_prompt_equals_brute_force(
    backbone: str,
    history: list[int],
    rated: list[float | None],
    order: str,
    template: str,
    ratings: Any,
) -> None:
    said, n = rated[: len(history)], 2
    model = GenRec(
        backbone,
        prior="none",
        dtype="float32",
        context_layers=n,
        history_order=order,
        template=template,
        ratings=ratings,
    ).build(with_ratings(DATA))
    levels = [0 if each is None else {1.0: 1, 2.0: 2, 4.6: 3}[each] for each in said]
    truth = np.array([brute_force(model, history, item, n, levels) for item in range(30)])
    assert np.exp(truth).sum() == pytest.approx(1, abs=1e-4)
    rows = Histories.from_lists([history] * 30, [said] * 30)
    scores = model.log_likelihood(rows, np.arange(30, dtype=np.int32))
    np.testing.assert_allclose(scores, truth, atol=2e-4)
    found = model.recommend_batch(rows.select([0]), 5, exclude_seen=False)
    np.testing.assert_allclose(found.scores[0], np.sort(truth)[::-1][:5], atol=2e-4)


def with_ratings(data: Dataset) -> Dataset:
    """The data with ratings of 1, 2 and 5."""
    drawn = np.random.default_rng(0).choice([1, 2, 5], size=len(data.histories.items))
    return replace(data, histories=replace(data.histories, ratings=drawn.astype(np.float32)))


FORMS: list[dict[str, Any]] = [
    {"ratings": "auto"},
    {"ratings": "auto", "context_layers": None},
    {"template": "numbered", "ratings": "auto"},
    {"template": "numbered"},
    {"history_order": "newest-first", "ratings": "auto"},
    {"history_order": "newest-first", "context_layers": None},
    {"template": "one-instruction", "context_layers": None, "ratings": "auto"},
]


@pytest.mark.parametrize("settings", FORMS)
def test_training_scoring_sessions_and_explanations_share_one_prompt(
    backbone: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    split = leave_last_out(with_ratings(DATA))
    settings = {"prior": "none", "dtype": "float32", "batch_size": 8, **settings}
    model = GenRec(backbone, **settings).fit(split.train, epochs=1, progress=False)
    ranker, rows = model.ranker, split.valid.histories
    # One sequence with all targets of a history says what single targets say.
    items, ratings = rows[0][:5], rows.ratings_of(0)
    prompts = ranker.layout.prompts
    count = 4 if prompts.every_position else 1
    one = Supervised(items, count, levels=prompts.levels(ratings[:5], 5))
    states = ranker.likelihood.decision_states(ranker.layout.sequences([one]))
    located = locate_targets(ranker.index.trie, items[-count:], None)
    together = title_log_probs(ranker.likelihood, states, located).detach().cpu().numpy()
    places = range(5 - count, 5)
    alone = model.log_likelihood(rows.head([0] * count, np.array(places)), items[-count:])
    np.testing.assert_allclose(together, alone, atol=2e-4)
    # A session, a batch, a saved run and an explanation read the same prompt.
    titles = [DATA.catalogue.titles[item] for item in items]
    said = ratings[:5].tolist()
    listed = [each.title for each in model.recommend(titles, 5, ratings=said)]
    session = model.session(titles[:3], ratings=said[:3])
    session.recommend(2)
    for title, rating in zip(titles[3:], said[3:], strict=True):
        session.add(title, rating=rating)
    assert [each.title for each in session.recommend(5)] == listed
    (expected,) = model.explain(titles, listed[:1], ratings=said)
    effects = {each.title: each.effect for each in session.explain(listed[0])}
    assert effects == pytest.approx({each.title: each.effect for each in expected}, abs=1e-4)
    assert set(effects) == set(titles)
    model.save_pretrained(tmp_path / "run")
    loaded = GenRec.from_pretrained(tmp_path / "run")
    assert [each.title for each in loaded.recommend(titles, 5, ratings=said)] == listed
    assert loaded.prompt_text(titles, ratings=said) == model.prompt_text(titles, ratings=said)


def test_ratings_must_be_there_and_few(backbone: str) -> None:
    with pytest.raises(GenRecError, match="has no ratings; set ratings=none"):
        build(backbone, ratings="auto")
    data, drawn = with_ratings(DATA), np.arange(len(DATA.histories.items), dtype=np.float32)
    many = replace(data, histories=replace(data.histories, ratings=drawn))
    with pytest.raises(GenRecError, match=r"different ratings.*e\.g\. ratings=1,2,3,4,5"):
        GenRec(backbone, ratings="auto", prior="none").build(many)
    model = GenRec(backbone, ratings="1,5", prior="none", dtype="float32").build(data)
    with pytest.raises(GenRecError, match="one rating per item"):
        model.recommend(DATA.catalogue.titles[:2], ratings=[5])
    assert model.ranker.config.ratings == (1.0, 5.0)
