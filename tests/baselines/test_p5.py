"""P5: numbers, their pieces, exact scores, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from alike import assert_same_lists
from conftest import make_dataset
from genrec import Histories, evaluate, leave_last_out
from genrec.baselines import Popularity
from genrec.baselines.p5 import P5
from genrec.baselines.p5_network import IdTree, closed
from genrec.baselines.p5_settings import P5Settings, number_items
from genrec.data.splits import Split
from genrec.errors import BackboneError, ConfigError, DataError
from genrec.recommender import TopK

TINY = P5Settings(d_model=32, layers=1, batch=32, epochs=2, seed=1)


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random T5 and a tokenizer that cuts words into one or two characters."""
    folder = str(tmp_path_factory.mktemp("tiny-t5"))
    characters = "▁abcdefghijklmnopqrstuvwxyz_0123456789"
    names = ["<pad>", "</s>", "<unk>", *characters, *(f"{n:02}" for n in range(100))]
    pieces = [(name, -2.0 - (len(name) == 1)) for name in names]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = T5Config(
        vocab_size=len(names),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(make_dataset())


@pytest.fixture(scope="module")
def tiny(split: Split) -> P5:
    return P5("sequential", settings=TINY).fit(split.train)


# Three users; item 4 is in nobody's training history, 0 in nobody's history at all.
WHOLE = Histories.from_lists([[3, 1, 5], [1, 6, 4], [2, 3, 7]])
TRAIN = Histories.from_lists([[3], [1, 6], [2, 3]])


def test_numbers_follow_the_first_appearance_in_a_walk_through_the_whole_sequences() -> None:
    numbers = number_items(WHOLE, 8, "sequential", seed=0)
    assert [int(numbers[item]) for item in (3, 1, 5, 6, 4, 2, 7, 0)] == list(range(8))


def test_the_whole_log_numbers_a_new_held_out_item_one_above_its_history() -> None:
    numbers = number_items(WHOLE, 8, "sequential", seed=0)
    leaked = [numbers[row[-1]] == max(numbers[row[:-1]]) + 1 for row in WHOLE]
    assert leaked == [True, True, True]  # the numbers are 2 after 1, 4 after 3 and 6 after 5


def test_training_histories_alone_leave_the_other_numbers_to_chance() -> None:
    drawn = [number_items(TRAIN, 8, "sequential", seed) for seed in range(20)]
    for numbers in drawn:
        assert [int(numbers[item]) for item in (3, 1, 6, 2)] == [0, 1, 2, 3]
        assert sorted(numbers) == list(range(8))
    assert len({int(numbers[4]) for numbers in drawn}) > 1


def test_shuffled_numbers_do_not_depend_on_the_order() -> None:
    numbers = number_items(WHOLE, 8, "shuffled", seed=3)
    assert sorted(numbers) == list(range(8))
    assert numbers.tolist() == number_items(TRAIN, 8, "shuffled", seed=3).tolist()
    assert numbers.tolist() != number_items(WHOLE, 8, "shuffled", seed=4).tolist()


def test_an_order_of_another_catalogue_is_refused(split: Split) -> None:
    with pytest.raises(DataError, match="outside the catalogue"):
        P5("sequential", Histories.from_lists([[30]]), TINY).fit(split.train)


def test_no_items_pieces_begin_anothers(tiny: P5) -> None:
    ids = tiny._tree.ids
    assert len(set(ids)) == 30
    assert not any(a != b and b[: len(a)] == a for a in ids for b in ids)


def test_a_word_that_begins_another_is_closed() -> None:
    assert closed([(5,), (5, 6), (7,)], end=1) == [(5, 1), (5, 6), (7,)]


def test_the_trees_nodes_are_the_proper_beginnings_and_see_their_ancestors() -> None:
    tree = IdTree([(5, 1), (5, 6, 8), (7,)], start=0)
    assert tree.token.tolist() == [0, 5, 6]
    assert tree.sees.tolist() == [[True, False, False], [True, True, False], [True, True, True]]


def brute_force(model: P5, histories: Histories, row: int) -> list[float]:
    """Each item's log-probability from a pass of its own, its pieces given as labels."""
    found = []
    for pieces in model._tree.ids:
        batch = [(*model._question(histories, row), pieces)]
        with torch.inference_mode():
            loss = model._network.loss(*model._tensors(batch))
        found.append(-float(loss) * len(pieces))
    return found


def test_scores_in_one_pass_equal_a_pass_for_each_item(tiny: P5, split: Split) -> None:
    histories = split.test.histories.select([0, 1, 2])
    scores = tiny.scores(histories)
    for row in range(3):
        np.testing.assert_allclose(scores[row], brute_force(tiny, histories, row), atol=1e-4)


def test_ids_of_unequal_length_are_scored_exactly(split: Split) -> None:
    model = P5("shuffled", settings=TINY).fit(split.train)
    model._tree = IdTree(
        closed([(*word[: 1 + n % 2], 9 + n) for n, word in enumerate(model._words)]), 0
    )
    histories = split.test.histories.select([4])
    np.testing.assert_allclose(
        model.scores(histories)[0], brute_force(model, histories, 0), atol=1e-4
    )


def test_a_pretrained_t5_brings_its_own_pieces_and_is_scored_exactly(
    tiny_t5: str, split: Split
) -> None:
    settings = replace(TINY, backbone=tiny_t5, epochs=1)
    model = P5("sequential", settings=settings).fit(split.train, split.valid)
    assert {len(word) for word in model._words} == {3}  # "▁", "10", "01"
    histories = split.test.histories.select([3])
    oracle = brute_force(model, histories, 0)
    np.testing.assert_allclose(model.scores(histories)[0], oracle, atol=1e-4)
    again = P5().restore(model.arrays())
    np.testing.assert_allclose(again.scores(histories), model.scores(histories), atol=1e-4)


def test_probabilities_of_all_items_sum_to_at_most_one(tiny: P5, split: Split) -> None:
    mass = np.exp(tiny.scores(split.test.histories)).sum(axis=1)
    assert (mass <= 1 + 1e-4).all()


def test_the_default_contract_holds(tiny: P5, split: Split) -> None:
    histories = split.test.histories
    top = tiny.recommend_batch(histories, 30)
    for history, items in zip(histories, top.items, strict=True):
        known = items[items >= 0].tolist()
        assert sorted(known) == sorted(set(range(30)) - set(history.tolist()))
    alone = tiny.recommend_batch(histories.select([7]), 5)
    assert_same_lists(alone, TopK(top.items[7:8, :5], top.scores[7:8, :5]))
    assert (tiny.recommend_batch(Histories.from_lists([[]]), 3).items >= 0).all()


def test_only_a_known_user_is_named_in_the_prompt(tiny: P5, split: Split) -> None:
    history = split.train.histories.select([0])
    stranger = replace(history, user_ids=["nobody"])
    user = tiny._pieces("user_1")
    assert tuple(tiny._question(history, 0)[0][2 : 2 + len(user)]) == user  # "what will user_1"
    assert user[0] not in tiny._question(stranger, 0)[0]


def test_words_are_counted_from_the_end(tiny: P5) -> None:
    pieces, words = tiny._prompt("continue the list {items}", "", np.array([3, 4]))
    assert len(tiny._words[3]) == len(tiny._words[4]) == 2
    assert words == [5, 4, 3, 2, 2, 1, 1, 0]
    assert pieces[3:] == [*tiny._words[3], *tiny._words[4], tiny._pieces.end]


@pytest.mark.slow
def test_it_learns_what_follows_what(split: Split) -> None:
    settings = P5Settings(d_model=64, layers=1, batch=16, epochs=16, learning_rate=3e-3)
    model = P5("sequential", settings=settings).fit(split.train, split.valid)
    popular = Popularity().fit(split.train)
    reached = evaluate(model, split.test, bootstrap=0).metrics["HR@5"]
    assert reached > evaluate(popular, split.test, bootstrap=0).metrics["HR@5"] + 0.1


def test_equal_seeds_give_equal_models(tiny: P5, split: Split) -> None:
    again = P5("sequential", settings=TINY).fit(split.train)
    histories = split.test.histories
    np.testing.assert_allclose(again.scores(histories), tiny.scores(histories), atol=1e-4)


def test_a_saved_model_gives_the_same_scores(tiny: P5, split: Split, tmp_path: object) -> None:
    path = f"{tmp_path}/p5.npz"
    np.savez(path, **tiny.arrays())
    with np.load(path, allow_pickle=False) as arrays:
        again = P5("shuffled").restore(dict(arrays))
    assert again.name == "p5-sequential"
    assert again.settings == tiny.settings
    histories = split.test.histories
    np.testing.assert_allclose(again.scores(histories), tiny.scores(histories), atol=1e-4)


def test_the_budget_in_minutes_ends_training(split: Split) -> None:
    endless = P5Settings(d_model=32, layers=1, epochs=10**6, minutes=0.02)
    assert P5("shuffled", settings=endless).fit(split.train).name == "p5-shuffled"


def test_the_note_says_what_it_is() -> None:
    assert P5().note == "from scratch, d_model 64, 2 + 2 layers"
    assert P5(settings=P5Settings(backbone="t5-small")).note == "pretrained t5-small"


@pytest.mark.parametrize("wrong", [{"d_model": 50}, {"last": 0}, {"minutes": 0}, {"copying": 1.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="P5:"):
        P5Settings(**wrong)  # type: ignore[arg-type]


def test_an_unknown_indexing_is_refused() -> None:
    with pytest.raises(ConfigError, match="'sequential' or 'shuffled'"):
        P5("random")  # type: ignore[arg-type]


def test_a_folder_without_a_t5_is_refused(split: Split, tmp_path: object) -> None:
    model = P5(settings=P5Settings(backbone=str(tmp_path)))
    with pytest.raises(BackboneError, match="T5"):
        model.fit(split.train)


def test_histories_of_one_item_teach_nothing(split: Split) -> None:
    short = replace(split.train, histories=Histories.from_lists([[1], [2]]))
    with pytest.raises(DataError, match="nothing to learn"):
        P5(settings=TINY).fit(short)
