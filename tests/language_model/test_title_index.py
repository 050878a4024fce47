"""Titles come and go without training: what is added later is as if it had always been there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alike import assert_same_lists, assert_same_recommendations
from conftest import make_dataset
from genrec import GenRec, GenRecError, Histories
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.language_model.trie import Trie, build_trie

SETTINGS: dict[str, Any] = {"dtype": "float32", "titles": "display"}


def first_items(data: Dataset, count: int) -> Dataset:
    """The same log as if only the first items existed."""
    rows = [[item for item in row if item < count] for row in data.histories]
    return Dataset("part", data.catalogue.subset(range(count)), Histories.from_lists(rows))


@pytest.mark.parametrize("prior", ["none", "popularity"])
def test_an_added_item_is_as_if_it_had_been_there(tiny_backbone: str, prior: str) -> None:
    data = make_dataset()
    whole = GenRec(backbone=tiny_backbone, prior=prior, **SETTINGS).build(first_items(data, 30))
    grown = GenRec(backbone=tiny_backbone, prior=prior, **SETTINGS).build(first_items(data, 27))
    new = data.catalogue.subset(range(27, 30))
    grown.add_items(new.titles, new.item_ids, metadata=new.metadata)
    if prior != "none":  # the counts differ, and with them the prior; give both the same
        grown._ranker = replace(grown.ranker, prior=whole.ranker.prior)
        grown.ranker.likelihood.row_norm.copy_(whole.ranker.likelihood.row_norm)
    histories = Histories.from_lists([[0, 5], [], [28, 3]])
    expected, found = whole.recommend_batch(histories, 30), grown.recommend_batch(histories, 30)
    assert_same_lists(found, expected)


@pytest.mark.parametrize("prior", ["none", "popularity"])
@pytest.mark.parametrize("context_layers", [None, 1])
def test_titles_that_begin_alike_keep_their_odds_when_others_come_and_go(
    tiny_backbone: str, prior: str, context_layers: int | None
) -> None:
    """A shop of one brand gets another one and gives it up again."""
    titles = [f"Red {word}" for word in ("Moon", "Sun", "River", "Stone", "Night")]
    catalogue = Catalogue(list("abcde"), titles, pl.DataFrame())
    data = Dataset("reds", catalogue, Histories.from_lists([[0, 1, 2], [3, 4, 1], [2, 0]]))
    model = GenRec(
        tiny_backbone, prior=prior, context_layers=context_layers, trained_layers=1, **SETTINGS
    ).build(data)
    residual = model.ranker.likelihood.residual
    if residual is not None:  # as if it were trained
        torch.manual_seed(0)
        with torch.no_grad():
            residual.up.weight.normal_(std=0.1)
            residual.mean[1].normal_()
    histories, targets = Histories.from_lists([[4]] * 5), np.arange(5, dtype=np.int32)
    before = model.log_likelihood(histories, targets)
    assert np.exp(before).sum() == pytest.approx(1, abs=1e-5)
    model.add_items(["Garden Moon"], ["new"])
    grown = model.log_likelihood(histories, targets)
    np.testing.assert_allclose(grown - np.logaddexp.reduce(grown), before, atol=1e-4)
    top = model.recommend_batch(histories.select([0]), 6, exclude_seen=False)
    assert np.exp(top.scores).sum() == pytest.approx(1, abs=1e-5)
    model.remove_items(["new"], by="id")
    np.testing.assert_allclose(model.log_likelihood(histories, targets), before, atol=1e-4)


@pytest.mark.parametrize("prior", ["none", "transitions"])
def test_new_items_are_recommended_and_saved(
    tiny_backbone: str, tmp_path: Path, prior: str
) -> None:
    data = make_dataset()
    model = GenRec(backbone=tiny_backbone, prior=prior, **SETTINGS).build(data)
    before = [model.ranker.prompts.titles[item].tolist() for item in range(30)]
    model.add_items(["Red Garden of Tin", "Violet"], like=[data.catalogue.titles[4], None])
    assert [model.ranker.prompts.titles[item].tolist() for item in range(30)] == before
    assert model.recommend([], k=1, candidates=model.catalogue.mask(allow=["Violet"]))[0].rank == 1
    assert len(model.recommend(["Violet", data.catalogue.titles[4]], k=100)) == 30
    model.remove_items([data.catalogue.titles[0], "Violet"])
    model.save_pretrained(tmp_path / "run")
    loaded = GenRec.from_pretrained(tmp_path / "run")
    assert loaded.catalogue.titles[30:] == ["Red Garden of Tin", "Violet"]
    history = ["Violet", data.catalogue.titles[7]]  # a removed item may stand in a history
    assert_same_recommendations(loaded.recommend(history, 100), model.recommend(history, 100))
    loaded.save_pretrained(tmp_path / "run")  # over the files that it has mapped
    again = GenRec.from_pretrained(tmp_path / "run").recommend(history, 100)
    assert_same_recommendations(again, model.recommend(history, 100))


def test_removed_items_are_gone_until_restored(tiny_backbone: str) -> None:
    data = make_dataset()
    model = GenRec(backbone=tiny_backbone, prior="transitions", **SETTINGS).build(data)
    histories = Histories.from_lists([[1, 2]])
    whole = model.recommend_batch(histories, 30, exclude_seen=False)
    best, second = whole.items[0, :2].tolist()
    model.remove_items([data.catalogue.titles[best]])
    rest = model.recommend_batch(histories, 30, exclude_seen=False)
    assert rest.items[0, 0] == second
    assert rest.items[0, -1] == -1
    assert np.exp(rest.scores).sum() == pytest.approx(1, abs=1e-4)  # over what is left
    with pytest.raises(GenRecError, match="was removed"):
        model.log_likelihood(histories, np.array([best], np.int32))
    with pytest.raises(GenRecError, match="At least one item must stay"):
        model.remove_items(data.catalogue.titles)
    model.restore_items([data.catalogue.titles[best]])
    assert_same_lists(model.recommend_batch(histories, 30, exclude_seen=False), whole)


def test_wrong_new_items_change_nothing(tiny_backbone: str) -> None:
    data = make_dataset()
    model = GenRec(backbone=tiny_backbone, prior="transitions", **SETTINGS).build(data)
    for titles, options, message in (
        ([data.catalogue.titles[3]], {}, "taken"),
        (["New"], {"like": ["No Such Film"]}, "No Such Film"),
        (["New"], {"like": []}, "one entry"),
        (["New"], {"item_ids": ["i3"]}, "taken"),
    ):
        with pytest.raises(GenRecError, match=message):
            model.add_items(titles, **options)
    assert len(model.catalogue) == len(model.ranker.index.texts) == 30


@settings(max_examples=30, deadline=None)
@given(
    titles=st.lists(
        st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple),
        min_size=2,
        max_size=30,
        unique=True,
    ),
    seed=st.integers(0, 99),
)
def test_a_trie_of_some_items_is_the_trie_of_those_items(
    titles: list[tuple[int, ...]], seed: int
) -> None:
    closed = [[*title, 0] for title in titles]
    items = np.flatnonzero(np.random.default_rng(seed).random(len(titles)) < 0.6)
    if not len(items):
        return
    part, alone = build_trie(closed, items), build_trie([closed[item] for item in items])
    assert part.items.tolist() == items[alone.items].tolist()
    for name in ("depth", "child_token", "child_low", "child_high", "child_node", "path"):
        np.testing.assert_array_equal(getattr(part, name), getattr(alone, name))
    assert (part.leaf_of >= 0).sum() == len(items)


def test_saved_tries_are_mapped_not_read(tmp_path: Path) -> None:
    trie = build_trie([[1, 2, 0], [1, 3, 0], [2, 0]])
    trie.save(tmp_path / "trie")
    mapped = Trie.load(tmp_path / "trie")
    assert isinstance(mapped.child_token, np.memmap)
    np.testing.assert_array_equal(mapped.path, trie.path)
    np.testing.assert_array_equal(mapped.titles.tokens, trie.titles.tokens)
