"""What a comparison must not do: handicap a model, favour one, or miss a leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import genrec
from conftest import make_dataset
from genrec import GenRec, leave_last_out
from genrec.baselines import Popularity
from genrec.baselines.p5 import P5
from genrec.baselines.p5_settings import P5Settings
from genrec.collaborative.pool import Pooled
from genrec.collaborative.registry import fit_prior
from genrec.collaborative.sasrec import SASRec
from genrec.data.dataset import Dataset
from genrec.data.histories import Histories
from genrec.data.splits import before_test
from genrec.errors import ConfigError, DataError
from genrec.evaluation.comparison import Comparison
from genrec.model.saving import LOCK
from genrec.workflows.compare import run_comparison
from genrec.workflows.fuse import fuse_run
from genrec.workflows.plan import ComparisonConfig
from genrec.workflows.runs import evaluate_run, train_run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "walks"
    make_dataset(users=80).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def run(dataset: str, tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "trained"
    train_run(dataset, out, {"backbone": tiny_backbone, "epochs": 1.0})
    return out


def checks(comparison: Comparison, name: str) -> set[str]:
    (entry,) = (each for each in comparison.entries if each.name == name)
    return {finding.check for finding in entry.findings}


def test_genrec_is_weighed_before_it_learns_the_validation_items(
    dataset: str, tiny_backbone: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"backbone": tiny_backbone, "patience": 3, "epochs": 1}
    plan = ComparisonConfig(("pooled", "genrec"), settings=settings, minutes=1)
    found = run_comparison(dataset, plan, tmp_path)
    assert [entry.name for entry in found.entries] == ["pooled", "genrec"]
    assert not found.failures
    model = GenRec.from_pretrained(tmp_path / "runs" / "genrec-seed0")
    assert model.ranker.config.lm_weight != "auto"
    assert model.info["data"]["fitted"] == "train+valid"
    split = leave_last_out(Dataset.load(dataset))
    assert model.item_counts is not None
    assert model.item_counts.sum() == len(before_test(split).histories.items)


def test_weights_are_not_fitted_on_targets_that_the_prior_knows(dataset: str, run: Path) -> None:
    split = leave_last_out(Dataset.load(dataset))
    known = before_test(split)
    model = GenRec.from_pretrained(run)
    with pytest.raises(DataError, match="these training data hold the validation targets already"):
        model.fuse(known, split.valid)
    with pytest.raises(DataError, match="these training data hold the validation targets already"):
        GenRec(model.config.backbone).fit(known, split.valid)
    model.refit_prior(known)
    with pytest.raises(DataError, match="hold the validation targets already"):
        model.fuse(split.train, split.valid)
    with pytest.raises(DataError, match="hold the validation targets already"):
        model.fit_words_weight(split.valid)


def test_a_run_that_is_compared_on_its_validation_targets_is_marked(
    dataset: str, run: Path, tmp_path: Path
) -> None:
    plan = ComparisonConfig((str(run), "pooled"), evaluate_on="valid", train_on="train")
    found = run_comparison(dataset, plan, tmp_path / "valid")
    assert "fitted on these targets" in checks(found, "trained")
    assert "fitted on these targets" not in checks(found, "pooled")
    plan = ComparisonConfig((str(run), "pooled"), train_on="train")
    found = run_comparison(dataset, plan, tmp_path / "test")
    assert "fitted on these targets" not in checks(found, "trained")


def test_a_run_that_knows_more_than_the_others_is_marked(
    dataset: str, run: Path, tmp_path: Path
) -> None:
    fuse_run(run, tmp_path / "served", train_on="train+valid")
    plan = ComparisonConfig((str(tmp_path / "served"), "popularity"), train_on="train")
    found = run_comparison(dataset, plan, tmp_path / "out")
    assert checks(found, "served") == {"fitted on more data"}
    split = leave_last_out(Dataset.load(dataset))
    more = genrec.compare([Popularity().fit(before_test(split)), Pooled()], split)
    assert checks(more, "popularity") == {"fitted on more data"}


def test_python_finds_the_leak_of_item_numbers_too() -> None:
    order = np.random.default_rng(0).permutation(60)  # the items' own numbers say nothing
    rows = order[(np.arange(60)[:, None] + np.arange(8)) % 60]
    catalogue = make_dataset(users=80, items=60).catalogue
    data = Dataset("walks", catalogue, Histories.from_lists(rows.tolist()))
    split = leave_last_out(data)
    settings = P5Settings(minutes=0.01, seed=0)
    found = genrec.compare([P5("sequential", data.histories, settings)], split)
    assert "id order" in checks(found, "p5-sequential")


def test_a_model_with_new_items_can_be_evaluated_and_compared(
    dataset: str, run: Path, tmp_path: Path
) -> None:
    model = GenRec.from_pretrained(run)
    model.add_items(["A new item", "Another new item"])
    split = leave_last_out(Dataset.load(dataset))
    assert genrec.evaluate(model, split.test, k=30).counts["invalid"] == 0
    assert not genrec.compare([model], split).entries[0].findings
    model.save_pretrained(tmp_path)
    assert evaluate_run(tmp_path)[-1].counts["invalid"] == 0


def test_beams_have_no_likelihood(dataset: str, tiny_backbone: str, tmp_path: Path) -> None:
    settings = {"backbone": tiny_backbone, "epochs": 1}
    plan = ComparisonConfig(
        ("genrec-paper", "popularity"), nll=True, users=5, settings=settings, minutes=0.01
    )
    found = run_comparison(dataset, plan, tmp_path)
    nll = {entry.name: entry.evaluation.nll for entry in found.entries}
    assert nll["genrec-paper"] is None
    assert nll["popularity"] is not None


def test_a_baseline_from_a_file_can_be_evaluated(dataset: str, tmp_path: Path) -> None:
    split = leave_last_out(Dataset.load(dataset))
    fitted = Popularity().fit(split.train)
    genrec.baselines.save_baseline(fitted, tmp_path / "popularity.npz")
    loaded = genrec.baselines.load_baseline(tmp_path / "popularity.npz")
    wanted = genrec.evaluate(fitted, split.test).metrics
    assert genrec.evaluate(loaded, split.test).metrics == wanted
    assert not genrec.compare([loaded], split).entries[0].findings


def test_lists_are_the_same_in_blocks(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    split = leave_last_out(Dataset.load(dataset))
    model = Pooled().fit(split.train, split.valid)
    whole = model.recommend_batch(split.test.histories, 5)
    likelihood = model.log_likelihood(split.test.histories, split.test.targets)
    monkeypatch.setattr("genrec.recommender.DENSE_CELLS", 100)
    parts = model.recommend_batch(split.test.histories, 5)
    np.testing.assert_array_equal(whole.items, parts.items)
    found = model.log_likelihood(split.test.histories, split.test.targets)
    np.testing.assert_allclose(found, likelihood, rtol=1e-9)
    none = split.test.histories.select(np.arange(0))
    assert model.recommend_batch(none, 5).items.shape == (0, 5)


def test_gains_of_a_pool_are_of_the_last_fit(dataset: str) -> None:
    data = Dataset.load(dataset)
    model = Pooled()
    split = leave_last_out(data)
    model.fit(split.train, split.valid)
    assert model._prior.gains
    few = leave_last_out(make_dataset(users=12))
    model.fit(few.train, few.valid)
    assert not model._prior.gains


@pytest.mark.parametrize(
    "setting", [{"dropout": 1.0}, {"dropout": float("nan")}, {"rate": 0.0}, {"weight_decay": -1.0}]
)
def test_settings_of_sasrec_are_checked(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        SASRec(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["popularity-recent", "trend"])
def test_data_without_interactions_are_no_error(name: str) -> None:
    catalogue = make_dataset().catalogue
    empty = Dataset("empty", catalogue, Histories.from_lists([[], []]))
    model = genrec.baselines.make_baseline(name).fit(empty)
    assert model.recommend_batch(empty.histories, 3).items.shape == (2, 3)


def test_another_title_is_another_catalogue(dataset: str, run: Path) -> None:
    data = Dataset.load(dataset)
    titles = [*data.catalogue.titles[1:], "Something else"]
    other = type(data.catalogue)(data.catalogue.item_ids, titles, data.catalogue.metadata)
    model = GenRec.from_pretrained(run)
    with pytest.raises(DataError, match="has another catalogue than the model"):
        model.refit_prior(Dataset(data.name, other, data.histories))
    assert fit_prior("none", data) is None
    assert not (run / LOCK).is_dir()


def test_a_run_without_training_ranks_as_its_pool(
    dataset: str, tiny_backbone: str, tmp_path: Path
) -> None:
    model = train_run(dataset, tmp_path / "pool", {"backbone": tiny_backbone, "epochs": 0.0})
    split = leave_last_out(Dataset.load(dataset))
    pool = Pooled().fit(split.train, split.valid)
    found = model.recommend_batch(split.test.histories, 5)
    wanted = pool.recommend_batch(split.test.histories, 5)
    np.testing.assert_array_equal(found.items, wanted.items)
    loaded = GenRec.from_pretrained(tmp_path / "pool")
    assert loaded.info["training"]["targets"] == 0
    np.testing.assert_array_equal(
        loaded.recommend_batch(split.test.histories, 5).items, found.items
    )
    with pytest.raises(ConfigError, match="needs a prior or init_from"):
        GenRec(tiny_backbone, prior="none", epochs=0)
