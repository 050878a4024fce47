"""Late fusion: weights fitted on validation users, experts that join after training, refits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_dataset
from genrec import GenRec, evaluate
from genrec.collaborative.pool import PooledPrior
from genrec.config import Config
from genrec.data.dataset import Dataset
from genrec.data.splits import Split, before_test, leave_last_out
from genrec.errors import ConfigError, DataError, RunError
from genrec.model import fusing
from genrec.model.fusing import fit_lm_weight
from genrec.workflows.fuse import fuse_run
from genrec.workflows.named_models import model_spec
from genrec.workflows.runs import evaluate_run, train_run

SMALL = {"dtype": "float32", "lora_rank": 4, "epochs": 0.5}


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(make_dataset(users=60))


@pytest.fixture(scope="module")
def model(tiny_backbone: str, split: Split) -> Iterator[GenRec]:
    """A model whose language model stays, however little so few users can show."""
    experts = ("transitions", "text", "popularity")
    settings = {**SMALL, "experts": experts, "epochs": 2.0, "learning_rate": 1e-2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusing, "SIGMAS", -np.inf)
        yield GenRec(tiny_backbone, **settings).fit(split.train, split.valid, progress=False)


@pytest.mark.parametrize(("effect", "kept"), [(1.0, True), (0.0, False), (-1.0, False)])
def test_a_language_model_without_a_certain_gain_is_left_out(
    tiny_backbone: str,
    split: Split,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    effect: float,
    kept: bool,
) -> None:
    """Two hundred users choose among five items; the residual speaks for the right one, or not."""
    rng = np.random.default_rng(0)
    right = 5 * np.arange(200) + rng.integers(5, size=200)
    residual = rng.normal(size=1000).astype(np.float32)
    residual[right] += effect
    prior = rng.normal(size=1000).astype(np.float32)
    parts = fusing._Parts(prior, residual, 5 * np.arange(200), right, np.arange(200))
    monkeypatch.setattr(fusing, "_parts", lambda ranker, sample: parts)
    built = GenRec(tiny_backbone, prior="popularity").build(split.train).ranker
    with caplog.at_level("INFO", logger="genrec"):
        found = fit_lm_weight(built, split.valid, Config.create())
    assert (found.likelihood.lm_weight > 0) is kept
    assert ("is left out; lm_weight=1 would keep it" in caplog.text) is not kept


def test_the_weights_are_the_best_on_validation_users(model: GenRec, split: Split) -> None:
    ranker = model.ranker
    assert ranker.config.experts == ("transitions", "text", "popularity")
    weight = float(ranker.likelihood.prior_weight.detach())  # type: ignore[union-attr]
    factor = ranker.config.lm_weight
    assert isinstance(factor, float)
    assert ranker.likelihood.lm_weight == factor

    def loss(prior_weight: float, lm_weight: float) -> float:
        fixed = fit_lm_weight(ranker, split.valid, ranker.config)
        assert fixed is ranker  # a number stays
        likelihood = ranker.likelihood.over(ranker.layout)
        likelihood.lm_weight = lm_weight
        likelihood.prior_weight.data.fill_(prior_weight)  # type: ignore[union-attr]
        found = replace(ranker, likelihood=likelihood)
        nll = -found.log_likelihood(split.valid.histories, split.valid.targets).mean()
        likelihood.prior_weight.data.fill_(weight)  # type: ignore[union-attr]
        away = (prior_weight - 1) ** 2 + (lm_weight - 1) ** 2
        return float(nll) + away / len(split.valid)

    best = loss(weight, factor)
    for step in (0.05, -0.05):
        assert best < loss(weight + step, factor)
        if factor + step >= 0:
            assert best < loss(weight, factor + step)


def test_a_number_is_kept_as_the_weight(tiny_backbone: str, split: Split) -> None:
    fixed = GenRec(tiny_backbone, **SMALL, lm_weight=0.5).fit(
        split.train, split.valid, progress=False
    )
    assert fixed.ranker.likelihood.lm_weight == 0.5


def test_an_expert_that_cannot_forget_joins_after_training(
    tiny_backbone: str, split: Split, tmp_path: Path
) -> None:
    names = ("transitions", "text", "sasrec")
    model = GenRec(tiny_backbone, **SMALL, experts=names)
    model.fit(split.train, split.valid, progress=False)
    prior = model.ranker.prior
    assert isinstance(prior, PooledPrior)
    assert [expert.name for expert in prior.experts] == list(names)
    model.save_pretrained(tmp_path / "run")
    loaded = GenRec.from_pretrained(tmp_path / "run")
    expected = model.log_likelihood(split.test.histories, split.test.targets)
    found = loaded.log_likelihood(split.test.histories, split.test.targets)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert loaded.ranker.config.experts == names


def test_nothing_to_train_beside_is_refused(tiny_backbone: str, split: Split) -> None:
    with pytest.raises(ConfigError, match=r"experts=sasrec would show.*add at least one expert"):
        GenRec(tiny_backbone, **SMALL, experts="sasrec").build(split.train)


@pytest.mark.parametrize("experts", ["transitions,sasrec", "text", "svd"])
def test_experts_need_the_pool_before_anything_is_trained(
    tiny_backbone: str, split: Split, experts: str
) -> None:
    model = GenRec(tiny_backbone, **SMALL, prior="transitions", experts=experts)
    with pytest.raises(ConfigError, match=r"parts of the pooled prior, but the prior is trans"):
        model.fit(split.train, split.valid)
    assert model.training is None


def test_fuse_needs_the_same_catalogue_and_usable_targets(model: GenRec, split: Split) -> None:
    grown = GenRec(config=model.config)
    grown._adopt(model.ranker, dict(model.info))
    grown.add_items(["Something New"])
    with pytest.raises(DataError, match="another catalogue"):
        grown.fuse(split.train, split.valid, experts=["text"])
    seen = replace(split.valid, targets=np.array([row[0] for row in split.valid.histories]))
    with pytest.raises(DataError, match="no weights can be fitted"):
        model.fuse(split.train, seen)


def test_what_joins_late_needs_validation_users(tiny_backbone: str, split: Split) -> None:
    model = GenRec(tiny_backbone, **SMALL, experts="transitions,sasrec")
    with pytest.raises(ConfigError, match=r"sasrec joins .* call fit\(train, valid=…\)"):
        model.fit(split.train)


def test_fuse_changes_experts_without_training(model: GenRec, split: Split) -> None:
    adapter = model.ranker.backbone
    fused = GenRec(config=model.config)
    fused._adopt(model.ranker, model.info)
    fused.fuse(split.train, split.valid, experts=["transitions", "ease"])
    assert fused.ranker.words_weight != model.ranker.words_weight  # fitted to the new prior
    prior = fused.ranker.prior
    assert isinstance(prior, PooledPrior)
    assert [expert.name for expert in prior.experts] == ["transitions", "ease"]
    assert fused.ranker.backbone is adapter
    assert model.ranker.config.experts == ("transitions", "text", "popularity")


def test_fuse_needs_a_pool(tiny_backbone: str, split: Split) -> None:
    model = GenRec(tiny_backbone, dtype="float32", prior="popularity").build(split.train)
    with pytest.raises(ConfigError, match=r"prior=popularity; train it with prior=pooled"):
        model.fuse(split.train, split.valid, experts=["text"])


def test_a_refit_keeps_the_weights(model: GenRec, split: Split) -> None:
    served = GenRec(config=model.config)
    served._adopt(model.ranker, model.info)
    served.refit_prior(before_test(split))
    old, new = model.ranker.prior, served.ranker.prior
    assert isinstance(old, PooledPrior)
    assert isinstance(new, PooledPrior)
    np.testing.assert_array_equal(new.weights.base, old.weights.base)
    assert new.item_counts.sum() == old.item_counts.sum() + len(split.valid)
    assert served.info["data"]["fitted"] == "train+valid"
    assert model.info["data"].get("fitted", "train") == "train"
    other = make_dataset(items=20)
    with pytest.raises(DataError, match="another catalogue"):
        served.refit_prior(Dataset("other", other.catalogue, other.histories))


def test_a_run_is_fused_and_refitted_once(
    tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(users=60).save(tmp_path / "data")
    settings = {**SMALL, "backbone": tiny_backbone, "experts": ("transitions",)}
    train_run(str(tmp_path / "data"), tmp_path / "run", settings)
    out = tmp_path / "served"
    model = fuse_run(tmp_path / "run", out, experts=["transitions", "text"], train_on="train+valid")
    assert model.ranker.config.experts == ("transitions", "text")
    assert {each.name for each in evaluate_run(out)} >= {"pooled", "genrec"}
    facts = json.loads((out / "genrec.json").read_text())["prior"]
    assert list(facts["weights"]) == ["transitions", "titles", "metadata"]
    before = model_spec(str(tmp_path / "run")).identity(None, 0)
    fuse_run(tmp_path / "run", tmp_path / "run", experts=["transitions", "popularity"])
    assert model_spec(str(tmp_path / "run")).identity(None, 0) != before
    assert "valid_log_likelihood" not in GenRec.from_pretrained(tmp_path / "run").info
    interrupted = tmp_path / "interrupted" / "checkpoints" / "checkpoint-3"
    interrupted.mkdir(parents=True)
    (interrupted / "trainer_state.json").write_text("{}")
    (interrupted.parent / "run.json").write_text("{}")
    with pytest.raises(RunError, match="interrupted run, but a fused run replaces them"):
        fuse_run(tmp_path / "run", tmp_path / "interrupted")
    assert interrupted.exists()
    metrics, notes = (out / "metrics.json").read_text(), list[str]()
    assert "Items of the user's own history are left out" in (out / "README.md").read_text()

    def evaluated(*arguments: Any, **how: Any) -> Any:
        (out / "config.yaml").write_text((out / "config.yaml").read_text() + "\n")
        return evaluate(*arguments, **how)

    monkeypatch.setattr("genrec.workflows.runs.evaluate", evaluated)
    evaluate_run(out, say=notes.append)  # meanwhile another run came into the folder
    assert any("holds another model by now" in note for note in notes)
    assert (out / "metrics.json").read_text() == metrics
    with pytest.raises(RunError, match="has learned from the validation targets already"):
        fuse_run(out, out)
    with pytest.raises(ConfigError, match=r"train_on is 'all'"):
        fuse_run(tmp_path / "run", out, train_on="all")
    target = Dataset.load(tmp_path / "data").histories[0][-1]
    served = GenRec.from_pretrained(out)
    served.remove_items([served.catalogue.item_ids[target]], by="id")
    served.save_pretrained(out)
    monkeypatch.setattr("genrec.workflows.runs.evaluate_baselines", lambda *_, **__: 1 / 0)
    with pytest.raises(DataError, match="was removed from the catalogue"):  # before the work
        evaluate_run(out, nll=True)
