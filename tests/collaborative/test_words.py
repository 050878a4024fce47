"""Words of a wish: exact over the catalogue, and without words nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from alike import assert_same_lists
from conftest import make_dataset
from genrec import GenRec, GenRecError, Histories, leave_last_out
from genrec.arrays import Floats32
from genrec.collaborative.words import (
    DOUBT,
    FIRST_WEIGHT,
    MOST_LETTERS,
    POWER,
    WordIndex,
    checked_words,
    fit_weight,
    item_facts,
    stems,
    with_words,
)
from genrec.data.catalogue import Catalogue
from genrec.data.dataset import Dataset
from genrec.language_model.backbone import load_backbone

FILMS = Catalogue(
    ["1", "2", "3", "4"],
    ["Trains and Boats (1994)", "The Sad Clown (1953)", "Funny Nights (1998)", "War (2001)"],
    pl.DataFrame({"genres": ["Children's|Comedy", "Drama", "Comedy|Romance", "Action"]}),
)


def shares(words: str) -> dict[str, float]:
    (found,) = WordIndex(FILMS).likeness([words])
    return dict(zip(FILMS.item_ids, found.tolist(), strict=True))


def test_words_meet_titles_metadata_and_decades() -> None:
    for words, best in (
        ("a comedy about a train", "1"),
        ("something sad", "2"),
        ("a romance or comedy from the nineties", "3"),
        ("fifties drama", "2"),
        ("the 50s", "2"),
        ("for children", "1"),
        ("wars", "4"),
    ):
        found = shares(words)
        assert max(found, key=lambda item: found[item]) == best, words
        assert 0 < found[best] <= 1 + 1e-9
    assert set(shares("zebra").values()) == {0.0}
    assert shares("the of a") == shares("")
    # The item with most of the known words has 1; unknown words do not count.
    assert shares("sad comedy zebra") == {"1": 1, "2": 1, "3": 1, "4": 0}
    assert shares("a funny comedy from the nineties") == pytest.approx(
        {"1": 2 / 3, "2": 0, "3": 1, "4": 0}
    )
    index = WordIndex(FILMS)
    assert index.known("A funny COMEDY for zebras") == ["funny", "comedy"]
    assert index.known("zebra") == []
    assert stems("Children's comedies, classes & bus rides") == "children comedy classe bus ride"


def planted(words: Sequence[str]) -> Floats32:
    """Vectors in which some words lie on the same axis."""
    axes = {"comedy": 0, "funny": 0, "hilarious": 0, "drama": 1, "sad": 1, "storm": 2}
    vectors = np.zeros((len(words), 3), np.float32)
    for row, word in enumerate(words):
        if word in axes:
            vectors[row, axes[word]] = 1
    return vectors


def test_rare_words_stand_for_related_words_that_many_items_hold() -> None:
    genres = ["Comedy"] * 10 + ["Drama"] * 10 + ["War", "War"]
    titles = [f"Film {row}" for row in range(21)] + ["Funny Storm"]
    many = Catalogue(list("abcdefghijklmnopqrstuv"), titles, pl.DataFrame({"genre": genres}))
    index = WordIndex(many, planted)
    assert index.related("a FUNNY, sad storm of zebras; comedy") == {
        "funny": "comedy",
        "sad": "drama",
    }
    assert index.known("hilarious zebras") == ["hilarious"]
    (found,) = index.likeness(["hilarious"])
    assert found.tolist() == [1.0] * 10 + [0.0] * 12
    (found,) = index.likeness(["funny storm"])  # "Funny Storm" holds both words, comedies one
    assert found.tolist() == [0.5] * 10 + [0.0] * 11 + [1.0]
    (found,) = index.likeness(["funny, hilarious comedy or sad"])  # two meanings
    assert found.tolist() == [1.0] * 20 + [0.0] + [1.0]
    many.titles[:2] = ["Funny One", "Funny Two"]  # comedies, counted once all the same
    found = WordIndex(many, planted).likeness(["funny"])[0]
    assert found.tolist() == [1.0] * 10 + [0.0] * 11 + [1.0]
    assert WordIndex(many).related("funny") == {}
    assert WordIndex(FILMS, planted).related("hilarious") == {}  # no word is held by many
    empty = Catalogue(["1"], ["..."], pl.DataFrame())
    assert WordIndex(empty, planted).related("funny") == {}


def test_word_vectors_bring_words_of_like_meaning_together(tiny_backbone: str) -> None:
    backbone = load_backbone(tiny_backbone, dtype="float32")
    tokenizer, weight = backbone.tokenizer, backbone.causal_lm.get_input_embeddings().weight
    whole = [token for token in tokenizer.get_vocab() if token.startswith("\u0120")]  # " word"
    words = [token[1:] for token in whole if token[1:].isalpha()][:3]
    ids = [tokenizer(f" {word}", add_special_tokens=False).input_ids[0] for word in words]
    with torch.no_grad():
        weight[ids[1]] = weight[ids[0]] + 0.1 * weight[ids[2]]
    vectors = backbone.word_vectors([*words, "unbelievablylongword"])
    assert np.linalg.norm(vectors, axis=1).tolist() == pytest.approx([1, 1, 1, 0], abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.9 > vectors[0] @ vectors[2]


def test_facts_never_hold_the_title() -> None:
    assert item_facts(FILMS) == [
        "Children's Comedy 1990s 90s nineties",
        "Drama 1950s 50s fifties",
        "Comedy Romance 1990s 90s nineties",
        "Action 2000s 00s",
    ]
    bare = Catalogue(["1"], ["Trains"], pl.DataFrame())
    assert item_facts(bare) == [""]
    assert WordIndex(bare).likeness(["trains"])[0, 0] == pytest.approx(1)


def test_distributions_follow_their_definition() -> None:
    rng = np.random.default_rng(0)
    q, likeness = rng.dirichlet(np.ones(5), size=3), rng.random((3, 5))
    found = with_words(q, likeness, 2.0)
    odds = q * np.exp(2 * likeness**POWER)
    expected = (1 - DOUBT) * odds / odds.sum(axis=1, keepdims=True) + DOUBT * q
    np.testing.assert_allclose(found, expected)
    # Words that are like nothing change nothing.
    np.testing.assert_allclose(with_words(q, np.zeros((3, 5)), 2.0), q)


def test_the_weight_is_the_likeliest_one() -> None:
    rng = np.random.default_rng(0)
    q, likeness = rng.dirichlet(np.ones(6), size=400), rng.random((400, 6))
    true = with_words(q, likeness, 3.0)
    targets = [int(rng.choice(6, p=row)) for row in true]
    assert fit_weight(q, likeness, targets) == pytest.approx(3.0, abs=0.8)
    unlike = rng.permutation(likeness)
    assert fit_weight(q, unlike, [int(rng.choice(6, p=row)) for row in q]) < 0.5


def test_long_words_are_refused_and_empty_ones_are_none() -> None:
    assert checked_words("  ") is None
    assert checked_words(None) is None
    assert checked_words("x" * MOST_LETTERS) == "x" * MOST_LETTERS
    with pytest.raises(GenRecError, match=r"at most 1,000 characters, got 1,001"):
        checked_words("x" * (MOST_LETTERS + 1))


DATA = make_dataset()


@pytest.fixture(scope="module", params=[None, 1])
def model(request: pytest.FixtureRequest, tiny_backbone: str) -> GenRec:
    settings: dict[str, Any] = {"context_layers": request.param}
    return GenRec(tiny_backbone, dtype="float32", prior="transitions", **settings).build(DATA)


def test_search_with_words_is_exact_and_sums_to_one(model: GenRec) -> None:
    words = ["green garden", "odd", "zebra"]
    rows = DATA.histories.select([0, 1, 2])
    asked = Histories.from_lists([row.tolist() for row in rows], words=words)
    every = np.arange(30, dtype=np.int32)
    found = model.recommend_batch(asked, 30, exclude_seen=False)
    for row in range(3):
        repeated = asked.select([row] * 30)
        scores = model.log_likelihood(repeated, every)
        assert np.exp(scores).sum() == pytest.approx(1, abs=1e-4)
        np.testing.assert_allclose(found.scores[row], np.sort(scores)[::-1], atol=2e-4)
        alone = model.recommend_batch(asked.select([row]), 30, exclude_seen=False)
        np.testing.assert_allclose(alone.scores[0], found.scores[row], atol=2e-4)
    titles = [DATA.catalogue.titles[item] for item in found.items[0, :3]]
    plain = model.recommend_batch(rows.select([0]), 30, exclude_seen=False)
    ranks = [plain.items[0].tolist().index(item) for item in found.items[0, :3]]
    assert any("Green" in title or "Garden" in title for title in titles)
    assert ranks != [0, 1, 2]


def test_without_words_nothing_changes_to_the_last_digit(model: GenRec) -> None:
    rows = DATA.histories.select(range(4))
    lists = [row.tolist() for row in rows]
    expected = model.recommend_batch(Histories.from_lists(lists), 5)
    for words in (None, [None] * 4, [None, "", None, None]):
        found = model.recommend_batch(Histories.from_lists(lists, words=words), 5)
        assert found.items.tolist() == expected.items.tolist()
        assert found.scores.tolist() == expected.scores.tolist()
    # In a batch, a row without words is not touched by the words of others.
    mixed = model.recommend_batch(
        Histories.from_lists(lists, words=["green", None, "red", None]), 5
    )
    assert mixed.items[1].tolist() == expected.items[1].tolist()
    np.testing.assert_allclose(mixed.scores[[1, 3]], expected.scores[[1, 3]], atol=1e-5)


def test_words_alone_sessions_effects_and_filters(model: GenRec) -> None:
    titles = DATA.catalogue.titles
    best = model.recommend([], 3, words="storm")[0]
    assert "Storm" in best.title
    session = model.session(titles[:2])
    expected = [each.title for each in model.recommend(titles[:2], 5, words="red moon")]
    assert [each.title for each in session.recommend(5, words="red moon")] == expected
    plain = [each.title for each in model.recommend(titles[:2], 5)]
    assert [each.title for each in session.recommend(5)] == plain
    (effect,) = model.words_effects(titles[:2], [expected[0]], "red moon")
    with_, without = (
        model.log_likelihood(
            Histories.from_lists([[0, 1]], words=words), np.array([titles.index(expected[0])])
        )[0]
        for words in (["red moon"], None)
    )
    assert effect == pytest.approx(with_ - without, abs=1e-6)
    mask = model.catalogue.mask(where="genre = 'odd'")
    odd = model.recommend(titles[:2], 5, words="red moon", candidates=mask)
    assert all(mask[titles.index(each.title)] for each in odd)
    assert model.explain(titles[:2], expected[:1], words="red moon") != []
    assert model.known_words("Red zebra") == ["red"]


def test_new_items_are_found_by_words_at_once(tiny_backbone: str) -> None:
    model = GenRec(tiny_backbone, dtype="float32", prior="transitions").build(DATA)
    model.add_items(["Zebra Crossing (1987)"])
    assert model.recommend([], 1, words="zebras from the eighties")[0].title.startswith("Zebra")


def test_a_model_without_a_prior_cannot_hear_words(tiny_backbone: str) -> None:
    model = GenRec(tiny_backbone, dtype="float32", prior="none").build(DATA)
    with pytest.raises(GenRecError, match="words need a prior"):
        model.recommend(DATA.catalogue.titles[:2], words="green")
    assert model.recommend(DATA.catalogue.titles[:2], words="  ")


def test_training_fits_the_weight_and_a_saved_run_keeps_it(
    tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    split = leave_last_out(DATA)
    settings: dict[str, Any] = {"dtype": "float32", "prior": "transitions", "batch_size": 8}
    model = GenRec(tiny_backbone, **settings).fit(split.train, split.valid, epochs=0.2)
    weight = model.ranker.words_weight
    assert weight == model.ranker.config.words_weight != FIRST_WEIGHT
    folder = tmp_path_factory.mktemp("words") / "run"
    model.save_pretrained(folder)
    loaded = GenRec.from_pretrained(folder)
    assert loaded.ranker.words_weight == weight
    rows = Histories.from_lists([[1, 2, 3]], words=["odd storm"])
    assert_same_lists(loaded.recommend_batch(rows, 5), model.recommend_batch(rows, 5))
    fixed = GenRec(tiny_backbone, words_weight=0.5, **settings)
    assert fixed.fit(split.train, split.valid, epochs=0.2).ranker.words_weight == 0.5
    bare = Dataset(
        "bare",
        Catalogue(DATA.catalogue.item_ids, [f"T{n}" for n in range(30)], pl.DataFrame()),
        DATA.histories,
    )
    split = leave_last_out(bare)  # no metadata and no years: nothing to ask with
    plain = GenRec(tiny_backbone, **settings).fit(split.train, split.valid, epochs=0.2)
    assert plain.ranker.words_weight == FIRST_WEIGHT
