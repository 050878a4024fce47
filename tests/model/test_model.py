from __future__ import annotations

import inspect
import json
import os
import random
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load
from transformers import AutoModelForCausalLM, AutoTokenizer

import genrec
from alike import assert_same_lists, assert_same_recommendations
from conftest import make_dataset
from genrec import Config, GenRec, GenRecError, Histories, leave_last_out
from genrec.config import Settings
from genrec.data.dataset import Dataset
from genrec.data.splits import Holdout, Split
from genrec.model import saving
from genrec.model.fitting import evaluate_step
from genrec.model.model_card import model_card
from genrec.search import free_beams

SMALL = {"dtype": "float32", "lora_rank": 4, "microbatch_size": 8, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(make_dataset())


@pytest.fixture(scope="module", params=["none", "popularity", "cooccurrence", "pooled"])
def fitted(request: pytest.FixtureRequest, tiny_backbone: str, split: Split) -> GenRec:
    model = GenRec(backbone=tiny_backbone, prior=request.param, **SMALL)
    return model.fit(split.train, epochs=1, progress=False)


def test_recommendations_are_distinct_unseen_and_sorted(fitted: GenRec, split: Split) -> None:
    history = [split.train.catalogue.titles[n] for n in split.test.histories[0]]
    found = fitted.recommend(history, k=7)
    assert [item.rank for item in found] == [1, 2, 3, 4, 5, 6, 7]
    titles = [item.title for item in found]
    assert len(set(titles)) == 7
    assert not set(titles) & set(history)
    probabilities = [item.probability for item in found]
    assert probabilities == sorted(probabilities, reverse=True)


def test_probabilities_sum_to_one_over_the_catalogue(fitted: GenRec) -> None:
    found = fitted.recommend([fitted.catalogue.titles[0]], k=1000, exclude_seen=False)
    assert len(found) == len(fitted.catalogue)
    assert sum(item.probability for item in found) == pytest.approx(1, abs=1e-3)


def test_empty_history_is_answered(fitted: GenRec) -> None:
    assert len(fitted.recommend([], k=3)) == 3


def test_saved_loaded_and_merged_recommend_the_same(
    fitted: GenRec, split: Split, tmp_path: Path
) -> None:
    fitted.save_pretrained(tmp_path / "run")
    expected = fitted.recommend_batch(split.test.histories, 5)
    loaded = GenRec.from_pretrained(tmp_path / "run")
    found = loaded.recommend_batch(split.test.histories, 5)
    assert_same_lists(found, expected)
    base = AutoModelForCausalLM.from_pretrained(fitted.config.backbone)
    adapted = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter")
    loaded.ranker.backbone.model = adapted.merge_and_unload().eval()
    merged = loaded.recommend_batch(split.test.histories, 5)
    assert_same_lists(merged, expected)


def test_saved_and_loaded_are_the_same_in_bfloat16_too(
    tiny_backbone: str, split: Split, tmp_path: Path
) -> None:
    model = GenRec(backbone=tiny_backbone, **{**SMALL, "dtype": "bfloat16"})
    model.fit(split.train, epochs=1, progress=False).save_pretrained(tmp_path)
    expected = model.recommend_batch(split.test.histories, 5)
    loaded = GenRec.from_pretrained(tmp_path, dtype="bfloat16")  # a slow machine would take float32
    assert_same_lists(loaded.recommend_batch(split.test.histories, 5), expected, atol=0.05)


def test_lora_on_the_last_layers_only(tiny_backbone: str, split: Split) -> None:
    model = GenRec(backbone=tiny_backbone, trained_layers=1, **SMALL)
    model.fit(split.train, epochs=0.2, progress=False)
    weights = load(model.ranker.backbone.adapter_files["adapter_model.safetensors"])
    adapted = [name for name in weights if "lora_A" in name]
    assert len(adapted) == 7  # the linear modules of a LLaMA layer
    assert all(".layers.1." in name for name in adapted)


def test_fitting_again_starts_afresh(tiny_backbone: str, split: Split) -> None:
    model = GenRec(backbone=tiny_backbone, prior="none", **SMALL)
    first = model.fit(split.train, split.valid, epochs=1, progress=False).info[
        "valid_log_likelihood"
    ]
    again = model.fit(split.train, split.valid, epochs=1, progress=False).info[
        "valid_log_likelihood"
    ]
    assert first == pytest.approx(again, abs=1e-4)


def test_untrained_model_recommends_with_the_backbone_alone(
    tiny_backbone: str, split: Split, tmp_path: Path
) -> None:
    model = GenRec(name="genrec-untrained", backbone=tiny_backbone, prior="none", dtype="float32")
    model.build(split.train)
    model.save_pretrained(tmp_path)
    assert not (tmp_path / "adapter").exists()
    loaded = GenRec.from_pretrained(tmp_path)
    assert loaded.name == "genrec-untrained"
    history = [model.catalogue.item_ids[3]]
    assert_same_recommendations(loaded.recommend(history, 4), model.recommend(history, 4))


def test_wrong_input_is_named(tiny_backbone: str, split: Split) -> None:
    with pytest.raises(GenRecError, match="not fitted yet: call fit"):
        GenRec(backbone=tiny_backbone).recommend(["x"])
    model = GenRec(backbone=tiny_backbone, prior="none", dtype="float32").build(split.train)
    with pytest.raises(GenRecError, match="No Such Film"):
        model.recommend(["No Such Film"])
    with pytest.raises(GenRecError, match="k must be at least 1, got 0"):
        model.recommend([], k=0)
    nobody = Histories.from_lists([])
    with pytest.raises(GenRecError, match="k must be at least 1, got 0"):
        model.recommend_batch(nobody, k=0)
    assert model.recommend_batch(nobody, k=3).items.shape == (0, 3)
    with pytest.raises(GenRecError, match="nowhere"):
        GenRec(backbone="nowhere").build(split.train)
    with pytest.raises(GenRecError, match="layers=9"):
        GenRec(backbone=tiny_backbone, layers=9).build(split.train)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("genrec.json", "not a run folder"),
        ("adapter", "adapter_config.json is missing"),
        ("adapter/adapter_model.safetensors", r"adapter_model\.safetensors is missing"),
        ("prior", "no readable prior"),
        ("prior/kind.npy", "no readable prior"),
        ("prior/counts.npy", "no readable prior"),
        ("head.safetensors", r"head\.safetensors"),
        ("catalogue.parquet", "catalogue.parquet"),
        ("index", "no readable trie"),
        ("index/titles.parquet", r"titles\.parquet"),
        ("config.yaml", "damaged run folder"),
    ],
)
def test_incomplete_run_folders(
    tiny_backbone: str, split: Split, tmp_path: Path, missing: str, message: str
) -> None:
    model = GenRec(backbone=tiny_backbone, **SMALL).fit(split.train, epochs=0.2, progress=False)
    model.save_pretrained(tmp_path)
    path = tmp_path / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(GenRecError, match=message):
        GenRec.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("prior.npz", b"PK\x03\x04 cut off", "no readable prior"),
        ("prior/counts.npy", b"\x93NUMPY", "no readable prior"),
        ("head.safetensors", b"cut off", r"head\.safetensors"),
        ("adapter/adapter_model.safetensors", b"cut off", "not an adapter"),
        ("config.yaml", b"", "damaged"),
        ("genrec.json", b"[]", "damaged"),
        ("catalogue.parquet", b"PAR1", r"catalogue\.parquet"),
        ("index/child_token.npy", b"\x93NUMPY", "no readable trie"),
        ("index/titles.parquet", b"PAR1", r"titles\.parquet"),
    ],
)
def test_damaged_run_folders(
    tiny_backbone: str, split: Split, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    model = GenRec(backbone=tiny_backbone, **SMALL).fit(split.train, epochs=0.2, progress=False)
    model.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GenRecError, match=message):
        GenRec.from_pretrained(tmp_path)


def test_a_folder_with_other_things_is_left_alone(
    tiny_backbone: str, split: Split, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("mine")
    model = GenRec(backbone=tiny_backbone, prior="none").build(split.train)
    for place in (tmp_path, tmp_path / "README.md"):
        with pytest.raises(GenRecError, match="choose a"):
            model.save_pretrained(place)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_project_with_folders_named_like_those_of_a_run_is_left_alone(
    tiny_backbone: str, split: Split, tmp_path: Path
) -> None:
    for name in ("logs/a", "checkpoints/weights.pt", "index/data.txt", "README.md", "config.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    model = GenRec(backbone=tiny_backbone, prior="none").build(split.train)
    with pytest.raises(GenRecError, match="not a run folder; choose another folder"):
        model.save_pretrained(tmp_path)
    (tmp_path / "train.log").write_text("of an interrupted training")
    (tmp_path / "code.py").write_text("mine")
    with pytest.raises(GenRecError, match="not a run folder; choose another folder"):
        model.save_pretrained(tmp_path)
    (tmp_path / "code.py").unlink()
    model.save_pretrained(tmp_path)


@pytest.mark.parametrize("moves", [0, 3, 8, 12])
def test_an_interrupted_save_leaves_the_older_run(
    tiny_backbone: str,
    split: Split,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moves: int,
) -> None:
    model = GenRec(backbone=tiny_backbone, prior="popularity").build(split.train)
    model.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("card\n\n## Notes\n\nof mine\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    model.remove_items(["i3"], by="id")
    move, left = os.replace, iter(range(moves))

    def interrupted(source: Path, target: Path) -> None:
        if tmp_path in (source.parent, target.parent) and next(left, None) is None:
            monkeypatch.setattr(saving.os, "replace", move)
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(saving.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text().endswith("\n## Notes\n\nof mine\n")


def test_other_weights_under_the_same_name_are_noticed(
    tiny_backbone: str, split: Split, tmp_path: Path
) -> None:
    shutil.copytree(tiny_backbone, tmp_path / "backbone")
    model = GenRec(backbone=str(tmp_path / "backbone"), prior="none").build(split.train)
    model.save_pretrained(tmp_path / "run")
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "backbone")
    other.lm_head.weight.data += 1
    other.save_pretrained(tmp_path / "backbone")
    with pytest.raises(GenRecError, match="other weights"):
        GenRec.from_pretrained(tmp_path / "run")


def test_a_run_cut_off_in_training_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(GenRecError, match="interrupted; run the same `genrec train`"):
        GenRec.from_pretrained(tmp_path)


def test_run_of_another_format(tiny_backbone: str, split: Split, tmp_path: Path) -> None:
    GenRec(backbone=tiny_backbone, prior="none").build(split.train).save_pretrained(tmp_path)
    info = json.loads((tmp_path / "genrec.json").read_text())
    (tmp_path / "genrec.json").write_text(json.dumps({**info, "format": 99}))
    with pytest.raises(GenRecError, match="run format 99"):
        GenRec.from_pretrained(tmp_path)


def test_histories_longer_than_the_context(tiny_backbone: str, split: Split) -> None:
    model = GenRec(
        backbone=tiny_backbone, prior="none", max_tokens=80, history_length=500, dtype="float32"
    ).build(split.train)
    rng = np.random.default_rng(0)
    top = model.recommend_batch(Histories.from_lists([rng.integers(30, size=300)]), 5)
    assert top.items.shape == (1, 5)


def test_public_names_are_pinned() -> None:
    assert genrec.__all__ == [
        "Catalogue",
        "Config",
        "Dataset",
        "Evaluation",
        "GenRec",
        "GenRecError",
        "Histories",
        "NotFittedError",
        "Recommendation",
        "Recommender",
        "Session",
        "Split",
        "__version__",
        "baselines",
        "compare",
        "evaluate",
        "leave_last_out",
        "load_dataset",
        "read_interactions",
        "splits",
    ]
    assert all(getattr(genrec, name) is not None for name in genrec.__all__)


def by_brute_force(model: GenRec, history: list[int], k: int, allowed: np.ndarray) -> list[int]:
    """Every allowed item scored by a plain forward pass of its own."""
    items = np.flatnonzero(allowed).astype(np.int32)
    scores = model.log_likelihood(Histories.from_lists([history] * len(items)), items)
    return items[np.argsort(-scores, kind="stable")][:k].tolist()


def test_any_filter_equals_brute_force_under_that_filter(fitted: GenRec) -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):
        history = rng.integers(30, size=rng.integers(0, 9)).tolist()
        candidates = rng.random(30) < rng.choice([0.05, 0.3, 0.9])
        found = fitted.recommend_batch(Histories.from_lists([history]), 5, candidates=candidates)
        candidates[history] = False
        expected = by_brute_force(fitted, history, 5, candidates)
        assert found.items[0][found.items[0] >= 0].tolist() == expected


def test_each_row_of_many_may_have_its_own_candidates(
    fitted: GenRec, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = Histories.from_lists([[1], [2, 3], [4], [], [5]])
    candidates = np.random.default_rng(0).random((5, 30)) < 0.4
    together = fitted.recommend_batch(histories, 4, candidates=candidates)
    monkeypatch.setattr("genrec.recommender.DENSE_CELLS", 2 * 30)  # two rows in a batch
    assert_same_lists(fitted.recommend_batch(histories, 4, candidates=candidates), together)
    with pytest.raises(GenRecError, match="shape"):
        fitted.recommend_batch(histories, 4, candidates=candidates[:3])


class EveryText(dict[tuple[int, ...], int]):
    """Takes every text for a title of its own."""

    def get(self, text: Any, default: Any = None) -> int:
        return hash(text)


def test_prompts_that_are_continued_together_have_the_beams_of_each(
    tiny_backbone: str, split: Split
) -> None:
    model = GenRec(tiny_backbone, recipe="paper", max_tokens=512, dtype="float32")
    ranker = model.build(split.train).ranker
    lengths = (1, 4, 2)
    prompts = [ranker.prompt(np.arange(length, dtype=np.int32)) for length in lengths]
    titles: Any = SimpleNamespace(end=ranker.prompts.end, by_title=EveryText())
    together = free_beams.beam_titles(ranker.backbone, titles, prompts, 3)
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = free_beams.beam_titles(ranker.backbone, titles, [prompt], 3)
        assert [text for text, _ in found] == [text for text, _ in alone]
        scores = [[score for _, score in each] for each in (found, alone)]
        np.testing.assert_allclose(*scores, rtol=1e-3)


def test_removed_items_do_not_come_back_as_free_beams(
    fitted: GenRec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(free_beams, "beam_titles", lambda *_: [[(3, -1.0), (4, -2.0)]])
    whole = fitted.ranker.without_items([3])
    beams = replace(whole, config=whole.config.model_copy(update={"decoding": "beam"}))
    found = beams.recommend_batch(Histories.from_lists([[1]]), 2, exclude_seen=False)
    assert found.items.tolist() == [[4, -1]]


def test_metadata_of_new_items_may_come_from_pandas(tiny_backbone: str) -> None:
    data = make_dataset()
    years = pl.DataFrame({"year": [1990] * len(data.catalogue)})
    whole = replace(data, catalogue=replace(data.catalogue, metadata=years))
    model = GenRec(tiny_backbone, prior="none", dtype="float32").build(whole)
    model.add_items(["A new film"], metadata=pd.DataFrame({"year": [1979]}))
    assert model.catalogue.metadata["year"].to_list()[-2:] == [1990, 1979]


def test_adding_no_items_changes_nothing(fitted: GenRec) -> None:
    before = fitted.ranker
    fitted.add_items([])
    assert fitted.ranker is before


def test_filter_of_another_catalogue_is_refused(fitted: GenRec) -> None:
    with pytest.raises(GenRecError, match=r"shape \(3,\).*catalogue.mask"):
        fitted.recommend([], candidates=np.ones(3, bool))


def test_a_wide_beam_finds_what_the_exact_search_finds(fitted: GenRec, split: Split) -> None:
    exact = fitted.recommend_batch(split.test.histories, 5)
    wide = fitted.recommend_batch(split.test.histories, 5, exact=False, width=30)
    assert_same_lists(wide, exact)
    narrow = fitted.recommend_batch(split.test.histories, 5, exact=False, width=1)
    assert (narrow.scores <= exact.scores + 1e-5).all()
    with pytest.raises(GenRecError, match="width must be at least 1"):
        fitted.recommend([], exact=False, width=0)


def test_what_is_not_fitted_is_not_saved(tmp_path: Path) -> None:
    for save in (GenRec().save_pretrained, GenRec().export):
        with pytest.raises(GenRecError, match="not fitted yet: call fit"):
            save(tmp_path / "run")


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_an_exported_model_is_a_plain_one(
    tiny_backbone: str, split: Split, tuning: str, tmp_path: Path
) -> None:
    """Plain transformers gives the title probabilities that the run gives."""
    model = GenRec(backbone=tiny_backbone, prior="none", tuning=tuning, **SMALL)
    model.fit(split.train, epochs=1, progress=False)
    model.export(tmp_path / "plain")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plain")
    titles = model.catalogue.titles[:3]
    prompt = model.prompt_text(titles)
    assert prompt.count("\n") == 1 + len(titles)
    with torch.inference_mode():
        ids = torch.tensor([tokenizer.encode(prompt)])
        logits = plain(ids).logits[0, -1]
        backbone = model.ranker.backbone
        hidden = backbone.hidden(ids.to(backbone.device))[0, -1]
    own = (hidden @ backbone.output_weight.T).cpu()
    torch.testing.assert_close(logits, own, atol=1e-4, rtol=1e-4)
    with pytest.raises(GenRecError, match="Choose a new folder"):
        model.export(tmp_path / "plain")


def test_fit_leaves_the_settings_as_they_were_given(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What "auto" became stands beside them, so that a larger catalogue fits afterwards."""
    monkeypatch.setattr("genrec.collaborative.registry.MAX_POOLED_ITEMS", 30)
    model = GenRec(tiny_backbone, lora_rank=4)
    given = model.config
    model.fit(make_dataset(), minutes=0.01, progress=False)
    assert model.config == given
    assert (model.config.prior, model.config.minutes) == ("auto", None)
    assert (model.ranker.config.prior, model.ranker.config.minutes) == ("pooled", 0.01)
    model.fit(make_dataset(items=40), epochs=0.2, progress=False)
    assert model.ranker.config.prior == "transitions"
    assert len(model.catalogue) == 40


def test_fitting_draws_from_nobodys_random_state(tiny_backbone: str, split: Split) -> None:
    def draw() -> tuple[float, float, float]:
        legacy = float(np.random.rand())  # noqa: NPY002 (what others may draw from)
        return random.random(), legacy, float(torch.rand(1))

    def seed() -> None:
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002
        torch.manual_seed(7)

    seed()
    expected = draw()
    seed()
    GenRec(backbone=tiny_backbone, prior="none", **SMALL).fit(
        split.train, epochs=0.2, progress=False
    )
    assert draw() == expected


def test_settings_of_editors_are_those_of_the_configuration() -> None:
    assert set(Settings.__annotations__) | {"backbone"} == set(Config.model_fields)
    assert set(Config.model_fields) <= set(inspect.signature(GenRec).parameters)
    with pytest.raises(GenRecError, match="not both"):
        GenRec("smollm2-135m", config=Config())


def test_files_of_a_run_and_of_an_export_follow_the_umask(
    tiny_backbone: str, split: Split, tmp_path: Path
) -> None:
    """A service under another user must be able to read them."""
    model = GenRec(backbone=tiny_backbone, prior="popularity", **SMALL)
    model.fit(split.train, epochs=0.2, progress=False)
    before = os.umask(0o027)
    try:
        model.save_pretrained(tmp_path / "run")
        model.export(tmp_path / "plain")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"head.safetensors", "model.safetensors"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


def test_the_card_has_the_hubs_metadata(tiny_backbone: str, split: Split, tmp_path: Path) -> None:
    model = GenRec(backbone=tiny_backbone, prior="none", dtype="float32").build(split.train)
    model.save_pretrained(tmp_path)
    block = yaml.safe_load((tmp_path / "README.md").read_text().split("---\n")[1])
    assert block["library_name"] == "genrec"
    assert block["datasets"] == ["walks"]
    entry = {"genrec": {"HR@10": 0.25, "NDCG@10": 0.125, "users": 4}}
    config = model.ranker.config.model_copy(update={"backbone": "smollm2-135m"})
    card = model_card(model.info, config, model.catalogue, entry)
    block = yaml.safe_load(card.split("---\n")[1])
    assert block["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    result = block["model-index"][0]["results"][0]
    assert result["metrics"][1] == {"type": "ndcg@10", "value": 0.125}
    assert "| genrec | 0.2500 | 0.1250 | 4 |" in card


@pytest.mark.parametrize("repeats", [False, True])
def test_lists_hold_the_history_if_people_repeat_items(tiny_backbone: str, repeats: bool) -> None:
    data = make_dataset()
    rows = data.histories
    items = [np.tile(row[:2], 4) for row in rows] if repeats else [np.unique(row) for row in rows]
    histories = Histories.from_lists([row.tolist() for row in items])
    model = GenRec(tiny_backbone, prior="none", dtype="float32")
    model.build(Dataset("songs", data.catalogue, histories))
    assert model.excludes_seen is not repeats
    seen = data.catalogue.titles[:2]
    for found in (model.recommend(seen, k=1000), model.session(seen).recommend(1000)):
        assert (seen[0] in [each.title for each in found]) is repeats
        assert seen[0] not in [each.title for each in model.recommend(seen, exclude_seen=True)]


def test_an_evaluation_step_may_count_repeats(tiny_backbone: str) -> None:
    data = make_dataset()
    model = GenRec(tiny_backbone, prior="popularity", dtype="float32").build(data)
    targets = np.argsort(-np.bincount(data.histories.items))[:1].astype(np.int32)
    valid = Holdout("valid", Histories.from_lists([targets.tolist()]), targets, data.catalogue)
    assert evaluate_step(model.ranker, valid)["NDCG@10"] == 0
    assert evaluate_step(model.ranker, valid, exclude_seen=False)["NDCG@10"] > 0
