"""The data of studies: held-out positions, changes of the data, and measures of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_dataset
from genrec import GenRec
from genrec.collaborative.words import item_facts
from genrec.config import Config
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.errors import DataError
from genrec.model.fitting import untrained_ranker
from genrec.studies.bounds import Rates, count_flops, layer_bytes, request_bound, target_bound
from genrec.studies.data import drawn, hold_out_positions
from genrec.studies.other_titles import TITLES
from genrec.studies.richness import richness_facts, title_richness
from genrec.studies.synthetic import synthetic_titles
from genrec.studies.views import apply_views

DATA = make_dataset(users=60)


def rated(data: Dataset = DATA) -> Dataset:
    ratings = np.random.default_rng(0).choice([1, 3, 4, 5], size=len(data.histories.items))
    return replace(data, histories=replace(data.histories, ratings=ratings.astype(np.float32)))


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    positions=st.integers(1, 4),
)
def test_held_out_positions_are_the_last_before_the_test_item(
    lengths: list[int], positions: int
) -> None:
    rows = [list(range(length)) for length in lengths]
    data = Dataset("d", DATA.catalogue, Histories.from_lists(rows))
    expected = [
        (row[:place], row[place])
        for row in rows
        for place in range(max(2, len(row) - 1 - positions), len(row) - 1)
    ]
    if not expected:
        with pytest.raises(DataError):
            hold_out_positions(data, positions)
        return
    split = hold_out_positions(data, positions)
    found = zip(split.valid.histories, split.valid.targets, strict=True)
    assert [(history.tolist(), target) for history, target in found] == expected
    trained = [history.tolist() for history in split.train.histories]
    for row, kept in zip(rows, trained, strict=True):
        held = max(0, min(positions, len(row) - 3))
        assert kept == (row[: len(row) - 1 - held] if len(row) > 2 else row)


def test_liked_targets_and_draws() -> None:
    data = rated()
    split, every = hold_out_positions(data, 3, liked=True), hold_out_positions(data, 3)
    assert 0 < len(split.valid) < len(every.valid)
    histories = data.histories
    for user, history, target in zip(
        split.valid.histories.user_ids, split.valid.histories, split.valid.targets, strict=True
    ):
        row = histories.user_ids.index(user)
        assert histories[row][len(history)] == target
        assert histories.ratings_of(row)[len(history)] >= 4
    small, large = drawn(every.valid, 10), drawn(every.valid, 30)
    assert set(small.rows) <= set(large.rows)
    assert small.holdout.targets.tolist() == every.valid.targets[small.rows].tolist()
    with pytest.raises(DataError, match="has no ratings"):
        hold_out_positions(DATA, 3, liked=True)


def test_views_change_what_they_say_and_no_targets() -> None:
    split = hold_out_positions(rated(), 2)
    for views in (["titles=permuted"], ["users=0.5"], ["history=shuffled"], ["history=liked"]):
        other = apply_views(split, views, 0)
        assert other.valid.targets.tolist() == split.valid.targets.tolist()
        assert len(other.valid.histories) == len(split.valid.histories)
    half = apply_views(split, ["users=0.5"], 0).train.histories
    assert len(half) == len(split.train.histories) // 2
    liked = apply_views(split, ["history=liked"], 0).train.histories
    assert (liked.ratings >= 4).all()
    assert len(liked.items) == (split.train.histories.ratings >= 4).sum()
    mixed = apply_views(split, ["history=shuffled"], 0).train.histories
    assert sorted(mixed.ratings) == sorted(split.train.histories.ratings)
    assert (mixed.ratings != split.train.histories.ratings).any()
    assert mixed.items.tolist() == split.train.histories.items.tolist()


def test_words_are_those_of_the_target_and_metadata_can_be_lost() -> None:
    split = hold_out_positions(DATA, 1)
    asked = apply_views(split, ["words=one"], 0).valid
    genres = DATA.catalogue.metadata["genre"]
    for words, target in zip(asked.histories.words, asked.targets, strict=True):
        assert words in item_facts(DATA.catalogue)[target].split()
        assert genres[int(target)] in item_facts(DATA.catalogue)[target]
    other = apply_views(split, ["words=one", "metadata=0.5"], 0)
    missing = other.train.catalogue.metadata["genre"].null_count()
    assert 5 < missing < 25
    assert other.valid.histories.words == asked.histories.words
    assert other.valid.catalogue is other.train.catalogue


@pytest.mark.parametrize("form", [name for name in TITLES if name != "metadata"])
def test_other_titles_are_distinct_and_reproducible(form: str) -> None:
    found = TITLES[form](DATA, 3)
    assert len(set(found)) == len(found) == len(DATA.catalogue)
    assert found == TITLES[form](DATA, 3)
    if form in ("real", "permuted"):
        assert sorted(found) == sorted(DATA.catalogue.titles)
    if form == "semantic":
        assert all(len(title.split()) == 4 for title in found)


def test_metadata_in_titles() -> None:
    catalogue = Catalogue(
        ["1", "2", "3"],
        ["A", "B", "C"],
        pl.DataFrame({"genres": ["x|y", None, "z"], "category": ["T > U > V > W", "T", None]}),
    )
    data = Dataset("d", catalogue, Histories.from_lists([[0, 1, 2]]))
    assert TITLES["metadata"](data, 0) == ["A [x, y; V, W]", "B [T]", "C [z]"]
    codes = pl.DataFrame({"category": [7, None, 9]})
    coded = replace(data, catalogue=Catalogue(["1", "2", "3"], ["A", "B", "C"], codes))
    assert TITLES["metadata"](coded, 0) == ["A [7]", "B", "C [9]"]
    bare = Dataset("d", Catalogue(["1"], ["A"], pl.DataFrame()), Histories.from_lists([[0]]))
    with pytest.raises(DataError, match="has no metadata for titles"):
        TITLES["metadata"](bare, 0)


def test_richness_tells_telling_titles_from_permuted_ones() -> None:
    titles = [f"{word} {number}" for word in ("red", "blue", "green") for number in range(10)]
    rng = np.random.default_rng(0)
    rows = [(10 * (user % 3) + rng.permutation(10)).tolist() for user in range(60)]
    ids = [str(item) for item in range(30)]
    data = Dataset("d", Catalogue(ids, titles, pl.DataFrame()), Histories.from_lists(rows))
    assert 0.75 < title_richness(data, titles) < 0.9  # a third of the others is like it too
    permuted = TITLES["permuted"](data, 0)
    assert abs(title_richness(data, permuted) - 0.5) < 0.15
    facts = richness_facts(hold_out_positions(data, 1))["title_richness"]
    assert facts["real"] > facts["permuted"]


def test_synthetic_titles_are_distinct_words_of_the_catalogue() -> None:
    found = synthetic_titles(DATA.catalogue.titles, 500, np.random.default_rng(0))
    words = {word for title in DATA.catalogue.titles for word in title.split()}
    assert len(set(found)) == len(found) == 500
    assert {word for title in found for word in title.split()} <= words


def test_bounds_follow_from_the_weights_and_the_rates(tiny_backbone: str) -> None:
    split = hold_out_positions(DATA, 1)
    model = GenRec(tiny_backbone, prior="none", dtype="float32", context_layers=None)
    ranker = model.build(split.train).ranker
    linear = 2 * 4 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64)  # layers, bytes, projections
    assert layer_bytes(ranker.backbone, None) == linear
    assert layer_bytes(ranker.backbone, 1) == linear // 2
    one = split.valid.histories.select([0])
    ranker.search(one, 10)  # computes the template, which all requests share
    flops = count_flops(lambda: ranker.search(one, 10))
    positions = len(ranker.prompt(one[0])) - len(ranker.prompts.prefixes[0])
    assert flops > 2 * positions * linear / 4  # at least the projections of the prompt
    assert request_bound(ranker, one, 10, Rates(1.0, 1e30)) == flops
    assert request_bound(ranker, one, 10, Rates(1e30, 1.0)) == linear
    config = Config.create(backbone=tiny_backbone, prior="none", dtype="float32")
    untrained = untrained_ranker(config, split.train)
    assert target_bound(untrained, split, Rates(1.0, 1e30)) > linear / 2  # per target
