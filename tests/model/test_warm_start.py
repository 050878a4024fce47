"""Warm start: training that begins with the weights of an earlier run or of a published adapter."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alike import assert_same_lists
from conftest import make_dataset
from genrec import GenRec
from genrec.data.splits import Split, leave_last_out
from genrec.errors import ConfigError, GenRecError, RunError

SMALL: dict[str, Any] = {"dtype": "float32", "lora_rank": 4, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def split() -> Split:
    return leave_last_out(make_dataset(users=60))


@pytest.fixture(scope="module", params=["pooled", "none", "full"])
def trained(
    request: pytest.FixtureRequest,
    tiny_backbone: str,
    split: Split,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[GenRec, str]:
    full = {"tuning": "full", "prior": "none", "learning_rate": 1e-3}
    kept = {"prior": request.param, "lm_weight": 1.0}  # auto leaves out what so little can show
    settings = SMALL | (full if request.param == "full" else kept)
    model = GenRec(tiny_backbone, **settings).fit(
        split.train, split.valid, epochs=1, progress=False
    )
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return model, str(folder)


def again(model: GenRec, folder: str, **settings: Any) -> GenRec:
    given = model.config.model_dump(exclude={"init_from", "epochs"})
    return GenRec(**given | {"init_from": folder, **settings})


def test_without_epochs_the_weights_are_used_as_they_are(
    trained: tuple[GenRec, str], split: Split, tmp_path: Path
) -> None:
    model, folder = trained
    found = again(model, folder, epochs=0).fit(split.train, split.valid, progress=False)
    expected = model.recommend_batch(split.test.histories, 5)
    assert_same_lists(found.recommend_batch(split.test.histories, 5), expected, atol=1e-4)
    before, after = found.info["valid_log_likelihood"]
    assert after == pytest.approx(model.info["valid_log_likelihood"][1], abs=1e-3)
    assert before == pytest.approx(after, abs=0.1)  # the weights of the parts are fitted in between
    assert found.info["training"]["steps"] == 0
    found.save_pretrained(tmp_path)
    loaded = GenRec.from_pretrained(tmp_path)
    assert_same_lists(loaded.recommend_batch(split.test.histories, 5), expected, atol=1e-4)


def test_training_continues_from_the_weights(trained: tuple[GenRec, str], split: Split) -> None:
    model, folder = trained
    found = again(model, folder, epochs=0.5).fit(split.train, split.valid, progress=False)
    start = found.info["valid_log_likelihood"][0]
    untrained, reached = model.info["valid_log_likelihood"]
    assert abs(start - reached) < abs(start - untrained)
    assert found.info["training"]["steps"] > 0


def test_other_data_and_items_do_not_matter(
    trained: tuple[GenRec, str], split: Split, tmp_path: Path
) -> None:
    model, folder = trained
    other = leave_last_out(make_dataset(users=20, items=17))
    found = again(model, folder, epochs=0).fit(other.train, other.valid, progress=False)
    assert len(found.catalogue) == 17
    ranked = found.recommend_batch(other.test.histories, 17, exclude_seen=False)
    assert np.exp(ranked.scores).sum(axis=1) == pytest.approx(1, abs=1e-3)


@pytest.fixture
def run(tiny_backbone: str, split: Split, tmp_path: Path) -> str:
    model = GenRec(tiny_backbone, **SMALL).fit(split.train, epochs=0.2, progress=False)
    model.save_pretrained(tmp_path / "run")
    return str(tmp_path / "run")


def test_a_published_adapter_needs_no_catalogue(
    tiny_backbone: str, split: Split, run: str, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(Path(run) / "adapter", adapter)
    shutil.copy(Path(run) / "head.safetensors", adapter)
    settings = (Path(run) / "config.yaml").read_text().splitlines()
    older = [line for line in settings if not line.startswith("separator")]  # it had its default
    (adapter / "config.yaml").write_text("\n".join(older))
    lists = [
        GenRec(tiny_backbone, **SMALL, init_from=str(folder), epochs=0)
        .fit(split.train, split.valid, progress=False)
        .recommend_batch(split.test.histories, 5)
        for folder in (run, adapter)
    ]
    assert_same_lists(*lists)


def test_the_weight_of_the_language_model_is_the_earlier_one_or_the_given_one(
    tiny_backbone: str, split: Split, run: str, tmp_path: Path
) -> None:
    earlier = GenRec(tiny_backbone, **SMALL, init_from=run, lm_weight=0.3, epochs=0)
    earlier.fit(split.train, split.valid, progress=False).save_pretrained(tmp_path / "again")
    assert earlier.ranker.likelihood.lm_weight == 0.3
    found = GenRec(tiny_backbone, **SMALL, init_from=str(tmp_path / "again"), epochs=0)
    ranker = found.fit(split.train, progress=False).ranker  # no validation users to fit it on
    assert ranker.likelihood.lm_weight == ranker.config.lm_weight == 0.3


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lora_rank": 8}, ConfigError, "other settings; set lora_rank=4"),
        ({"template": "plain", "lora_alpha": 8}, ConfigError, "set template=list, lora_alpha=32"),
        ({"prior": "none"}, ConfigError, "set prior=pooled"),
        ({"tuning": "full"}, RunError, "no weights of its own in backbone/"),
        ({"init_from": "nowhere"}, RunError, "nowhere/config.yaml: no settings can be read"),
        ({"init_from": None, "prior": "none"}, ConfigError, "needs a prior or init_from"),
        ({"epochs": -1}, ConfigError, "epochs"),
        ({"minutes": 5.0}, ConfigError, "epochs=0 trains nothing, so leave minutes out"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tiny_backbone: str,
    split: Split,
    run: str,
    settings: dict[str, Any],
    error: type[GenRecError],
    message: str,
) -> None:
    given = {**SMALL, "init_from": run, "epochs": 0, **settings}
    with pytest.raises(error, match=message):
        GenRec(tiny_backbone, **given).fit(split.train, progress=False)


def test_the_start_is_noted_and_not_repeated(
    tiny_backbone: str, split: Split, run: str, tmp_path: Path
) -> None:
    model = GenRec(tiny_backbone, **SMALL, init_from=run, epochs=0)
    model.fit(split.train, progress=False).save_pretrained(tmp_path / "again")
    assert run not in (tmp_path / "again" / "config.yaml").read_text()
    assert "from the weights of run" in (tmp_path / "again" / "README.md").read_text()
    loaded = GenRec.from_pretrained(tmp_path / "again")
    assert (loaded.config.init_from, loaded.config.epochs) == (None, None)
    with pytest.raises(ConfigError, match="call fit with epochs=0"):
        model.build(split.train)


def test_checkpoints_of_an_interrupted_run_are_not_given_up(
    tiny_backbone: str, split: Split, run: str, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoints" / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text("{}")
    model = GenRec(tiny_backbone, **SMALL, init_from=run, epochs=0)
    with pytest.raises(RunError, match="epochs=0 trains nothing"):
        model.fit(split.train, output=tmp_path, progress=False)
    assert checkpoint.exists()


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "head.safetensors"])
def test_missing_weights_are_named_before_the_prior_is_fitted(
    tiny_backbone: str, split: Split, run: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(run) / name).unlink()
    monkeypatch.setattr("genrec.model.fitting.fit_prior", None)
    with pytest.raises(RunError, match=f"{name} is missing; give init_from"):
        GenRec(tiny_backbone, **SMALL, init_from=run, epochs=0).fit(split.train, progress=False)


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "head.safetensors"])
def test_damaged_weights_are_named(tiny_backbone: str, split: Split, run: str, name: str) -> None:
    (Path(run) / name).write_bytes(b"broken")
    model = GenRec(tiny_backbone, **SMALL, init_from=run, epochs=0)
    with pytest.raises(RunError, match=name):
        model.fit(split.train, progress=False)
