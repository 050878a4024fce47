"""A session answers what the model answers for the same history, and costs bounded memory."""

from __future__ import annotations

import numpy as np
import pytest

from alike import assert_same_recommendations
from conftest import make_dataset
from genrec import GenRec, GenRecError, Histories, Session
from genrec.search.key_values import KeyValues

TITLES = make_dataset().catalogue.titles


@pytest.fixture(
    scope="module", params=[("none", None), ("none", 1), ("transitions", None), ("transitions", 1)]
)
def model(request: pytest.FixtureRequest, tiny_backbone: str) -> GenRec:
    prior, context_layers = request.param
    model = GenRec(
        backbone=tiny_backbone,
        prior=prior,
        dtype="float32",
        history_length=8,
        context_layers=context_layers,
    )
    return model.build(make_dataset())


def assert_same(session: Session, model: GenRec, k: int = 6) -> None:
    assert_same_recommendations(session.recommend(k), model.recommend(session.history, k))


@pytest.mark.parametrize("seed", range(6))
def test_any_clicks_give_what_starting_from_scratch_gives(model: GenRec, seed: int) -> None:
    rng = np.random.default_rng(seed)
    session = model.session([TITLES[i] for i in rng.integers(30, size=rng.integers(0, 6))])
    for _ in range(14):  # grows beyond the eight items that a prompt shows
        if session.history and rng.random() < 0.25:
            session.remove(str(rng.choice(session.history)))
        else:
            session.add(TITLES[rng.integers(30)])
        if rng.random() < 0.7:
            assert_same(session, model)
    session.close()


def test_a_click_runs_what_is_new_only(model: GenRec, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    layout = model.ranker.layout
    hidden = layout.hidden
    monkeypatch.setattr(
        layout, "hidden", lambda ids, **rest: runs.append(ids.shape[1]) or hidden(ids, **rest)
    )
    session = model.session(TITLES[:6])
    first = session.recommend(3)
    whole = max(runs)
    runs.clear()
    session.add(TITLES[6])
    session.recommend(3)
    new = int(layout.prompts.titles.lengths[6])
    guessed = model.ranker.search(histories_of(session.history, model), 3).tokens
    assert whole >= 6 * new
    assert runs[0] <= new + guessed
    assert session.recommend(3) != first


def histories_of(history: list[str], model: GenRec) -> Histories:
    return Histories.from_lists([[model.catalogue.index_of(title) for title in history]])


def test_memory_is_bounded_and_the_least_recently_used_goes_first(tiny_backbone: str) -> None:
    model = GenRec(backbone=tiny_backbone, prior="none", dtype="float32", context_layers=None)
    model.build(make_dataset())
    one = model.session(TITLES[:5])
    one.recommend(3)
    size = model._store.currsize
    # two layers, two heads of eight float32 each, keys and values: 256 bytes a token
    assert size == 256 * len(model._store[one._key].ids)
    model._store = None
    model.session_bytes = 3 * size
    sessions = [model.session(TITLES[n : n + 5]) for n in range(8)]
    for session in sessions:
        assert_same(session, model)
        assert model._store.currsize <= 3 * size
    assert sessions[-1]._key in model._store
    assert sessions[0]._key not in model._store
    assert_same(sessions[0], model)  # dropped and computed again
    for session in sessions:
        session.close()
    assert model._store.currsize == 0


def test_a_session_too_large_for_the_store_still_answers(tiny_backbone: str) -> None:
    model = GenRec(backbone=tiny_backbone, prior="none", dtype="float32").build(make_dataset())
    model.session_bytes = 10
    session = model.session(TITLES[:5])
    assert_same(session, model)
    assert model._store.currsize == 0


def test_sessions_follow_the_catalogue(tiny_backbone: str) -> None:
    model = GenRec(backbone=tiny_backbone, prior="transitions", dtype="float32").build(
        make_dataset()
    )
    session = model.session(TITLES[:5])
    best = session.recommend(1)[0].title
    model.remove_items([best])
    model.add_items(["Violet Harbour"])
    session.add("Violet Harbour")
    assert_same(session, model, k=40)
    assert best not in [each.title for each in session.recommend(40)]


def test_filters_and_seen_items(model: GenRec) -> None:
    session = model.session(TITLES[:3])
    candidates = model.catalogue.mask(where="genre = 'odd'")
    found = session.recommend(50, candidates=candidates)
    assert {each.title for each in found} == set(TITLES[1::2]) - set(TITLES[:3])
    assert len(session.recommend(50, exclude_seen=False)) == 30


def test_wrong_use_is_named(model: GenRec, tiny_backbone: str) -> None:
    session = model.session()
    with pytest.raises(GenRecError, match="No Such Film"):
        session.add("No Such Film")
    with pytest.raises(GenRecError, match="not in this session's history"):
        session.remove(TITLES[0])
    with pytest.raises(GenRecError, match="k must be at least 1"):
        session.recommend(0)
    paper = GenRec(backbone=tiny_backbone, recipe="paper", max_tokens=512, dtype="float32")
    with pytest.raises(GenRecError, match="decoding=exact"):
        paper.build(make_dataset()).session()
    for how in ({"words": "odd"}, {"exact": False}):
        with pytest.raises(GenRecError, match="decoding=exact"):
            paper.recommend([TITLES[0]], **how)


def test_shared_counts_equal_first_tokens_but_never_all() -> None:
    known = KeyValues([1, 2, 3], [])
    assert known.shared([1, 2, 4, 5]) == 2
    assert known.shared([1, 2, 3]) == 2
    assert known.shared([1, 2, 3, 4]) == 3
    assert known.shared([9]) == 0
    assert known.shared([7, 2]) == 0


def test_a_session_keeps_the_weights_it_was_opened_with(tiny_backbone: str) -> None:
    """Another fit neither changes its answers nor gives it keys and values of other weights."""
    settings = {"lora_rank": 4, "learning_rate": 1e-2, "dtype": "float32", "microbatch_size": 8}
    model = GenRec(tiny_backbone, prior="none", **settings)
    model.fit(make_dataset(), epochs=1, progress=False)
    session = model.session(TITLES[:4])
    before = session.recommend(6)
    model.fit(make_dataset(seed=3), epochs=4, progress=False)
    assert_same_recommendations(session.recommend(6), before)
    session.add(TITLES[5])
    session.remove(TITLES[5])
    assert_same_recommendations(session.recommend(6), before)
    assert_same(model.session(TITLES[:4]), model)


def test_ratings_of_a_session_may_be_an_array(model: GenRec) -> None:
    titles = model.catalogue.titles[:2]
    session = model.session(titles, ratings=np.array([5.0, 4.0]))  # type: ignore[arg-type]
    assert session.history == titles
