"""Studies: every question runs, resumes and says what its numbers are."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from conftest import make_dataset
from genrec import GenRecError, metrics
from genrec.cli.app import main
from genrec.data.dataset import Dataset
from genrec.errors import ConfigError, DataError
from genrec.report.plots import Point, curves, dots
from genrec.studies.bounds import Rates
from genrec.studies.measure import Measured, measure_arm, peak_memory
from genrec.studies.page import draw, verdict
from genrec.studies.registry import STUDIES, study_named
from genrec.studies.result import StudyResult, summarise
from genrec.studies.runner import ARMS, NO_TIME, STUDY, run_study
from genrec.studies.study import Arm, StudyConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A prepared data set with ratings."""
    data = make_dataset(users=60)
    drawn = np.random.default_rng(0).choice([1, 2, 4, 5], size=len(data.histories.items))
    histories = replace(data.histories, ratings=drawn.astype(np.float32))
    path = tmp_path_factory.mktemp("data") / "walks"
    replace(data, histories=histories).save(path)
    return str(path)


@pytest.fixture
def config(folder: str, tiny_backbone: str) -> StudyConfig:
    settings = {"backbone": tiny_backbone, "dtype": "float32"}
    return StudyConfig(folder, targets=20, users=12, settings=settings)


LEFT_OUT = ("120,000 items", "1,000,000 items", "10,000 items")
"""Arms that are too large for a test."""


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_measures_its_arms_and_resumes(
    name: str, config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_named(name)
    monkeypatch.setattr("genrec.studies.random_backbone.cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr("genrec.studies.measure.machine_rates", lambda dtype: Rates(1e9, 1e9))
    arms = [arm.name for arm in study.arms(split_of(config, study.liked))]
    assert len(set(arms)) == len(arms)
    config = replace(config, arms=tuple(arm for arm in arms if arm not in LEFT_OUT))
    found = run_study(name, config, tmp_path / "out", measure=measure_arm)
    for each in found.entries:
        assert ("nll" in each.means) != each.arm.filtered
        assert all(low <= mean <= high for mean, low, high in each.means.values())
        assert 0 <= each.means["NDCG@10"][0] <= each.means["HR@10"][0] <= 1
        if each.arm.model == "genrec" and each.arm.effort:
            assert each.values["targets"] > 0
            assert each.values["parameters"] > 0
    firsts = {each.arm.group: each for each in reversed(found.entries)}
    for each in found.entries:
        compared = study.paired and each is not firsts[each.arm.group]
        assert bool(each.differences) == compared
    # What the tiny model cannot do is said, and nothing else is missing.
    reasons = ("no chat format", "layers=", "layers)", "no token for separator", "max_tokens")
    assert set(found.skipped) | {each.arm.name for each in found.entries} == set(config.arms)
    assert all(any(part in reason for part in reasons) for reason in found.skipped.values())
    assert json.loads((tmp_path / "out" / STUDY).read_text()) == json.loads(
        json.dumps(found.to_json())
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(each.arm.name in page.replace("&#39;", "'") for each in found.entries)
    drawn = [plot for plot in study.plots if draw(plot, found.entries)]
    assert drawn
    for plot in drawn:
        ET.parse(tmp_path / "out" / "plots" / f"{plot.name}.svg")
    again = run_study(
        name,
        replace(config, arms=tuple(each.arm.name for each in found.entries)),
        tmp_path / "out",
        measure=lambda *_: pytest.fail("an arm was measured again"),
    )
    assert [each.means for each in again.entries] == [each.means for each in found.entries]


def split_of(config: StudyConfig, liked: bool) -> Any:
    from genrec.studies.measure import study_split

    return study_split(config, liked=liked)


def fake(**changes: Any) -> Callable[..., Measured]:
    """A measurement that takes no time and says it took a minute."""

    def measure(arm: Arm, study: Any, config: StudyConfig, seed: int) -> Measured:
        rows = np.arange(12)
        arrays = {
            "row": rows,
            "user": rows // 2,
            "count": rows,
            "rank": np.where(rows % 3, 0, 1 + seed).astype(np.int32),
            "items": np.tile(np.arange(10, dtype=np.int32), (12, 1)),
            "nll": rows / 10 + len(arm.name) + seed,
        }
        return Measured(arrays, {"seconds": 60.0, **changes})

    return measure


def test_a_budget_skips_arms_and_the_next_call_continues(
    config: StudyConfig, tmp_path: Path
) -> None:
    said: list[str] = []
    first = run_study("titles", config, tmp_path, minutes=0.5, say=said.append, measure=fake())
    assert [each.arm.name for each in first.entries] == ["titles as they are"]
    assert set(first.skipped.values()) == {NO_TIME}
    assert "11 arms: no time left in the budget" in said[-1]
    more = run_study("titles", config, tmp_path, minutes=1.5, measure=fake(seconds=30.0))
    assert len(more.entries) == 12
    assert more.skipped == {}


def test_other_settings_and_damaged_files_are_measured_again(
    config: StudyConfig, tmp_path: Path
) -> None:
    only = replace(config, arms=("titles as they are",))
    for change, again in (({}, 1), ({}, 0), ({"targets": 30}, 1), ({"seeds": 2}, 2)):
        only, calls = replace(only, **change), []

        def measure(*arguments: Any, calls: list[Any] = calls) -> Measured:
            calls.append(arguments)
            return fake()(*arguments)

        found = run_study("titles", only, tmp_path, measure=measure)
        assert len(calls) == (again if change != {"seeds": 2} else 1)
    assert found.entries[0].seeds == 2
    expected = np.mean(np.arange(12) / 10) + len("titles as they are") + 0.5
    assert found.entries[0].means["nll"][0] == pytest.approx(expected)
    (tmp_path / ARMS / "titles-as-they-are-0.npz").write_bytes(b"damaged")
    again_found = run_study("titles", only, tmp_path, measure=fake())
    assert again_found.entries[0].means == found.entries[0].means


def test_gains_are_paired_by_target_and_intervals_are_over_users() -> None:
    arms = [Arm("one", "g"), Arm("two", "g")]
    rows = np.arange(8)
    arrays = {"row": rows, "user": rows // 2, "count": rows + 2, "rank": np.ones(8, np.int32)}
    lists = np.zeros((8, 10), np.int32)
    one = Measured({**arrays, "items": lists, "nll": 1.0 * rows}, {"seconds": 1.0})
    some = {name: values[2:] for name, values in one.arrays.items()}  # an arm on fewer targets
    two = Measured({**some, "nll": some["nll"] - 0.5, "rank": np.zeros(6, np.int32)}, {})
    first, second = summarise(arms, {"one": [one], "two": [two]})
    assert first.means["nll"][0] == pytest.approx(np.arange(8).mean())
    low, high = metrics.bootstrap_interval(1.0 * rows, 0, owner=rows // 2)
    assert first.means["nll"][1:] == (low, high)
    assert second.differences["nll"] == pytest.approx((0.5, 0.5, 0.5))
    assert second.differences["HR@10"] == pytest.approx((-1, -1, -1))
    assert second.slices == {"1 to 9 times": pytest.approx(np.mean(np.arange(2, 8) - 0.5))}
    assert first.differences == {}
    assert summarise(arms, {"two": [two]}, paired=False)[0].differences == {}
    assert [verdict(1, 0.5, 2), verdict(-1, -2, -0.5), verdict(0, -1, 1)] == [
        *("better", "worse", "not distinguishable")
    ]


def test_lists_hold_no_rated_item_that_only_liked_histories_hide(config: StudyConfig) -> None:
    study = study_named("signals")
    split = split_of(config, liked=True)
    (arm,) = (arm for arm in study.arms(split) if arm.name == "liked titles only")
    found = measure_arm(replace(arm, effort=0), study, config, 0)
    for row, items in zip(found.arrays["row"], found.arrays["items"], strict=True):
        history = set(split.valid.histories[row].tolist())
        assert not history & set(items.tolist())


def test_wrong_names_and_folders_are_named(config: StudyConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no study 'title'\. Did you mean 'titles'\?"):
        study_named("title")
    with pytest.raises(ConfigError, match=r"no arm 'x'\. Use some of 'titles as they are'; "):
        run_study("titles", replace(config, arms=("x",)), tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty and holds no study"):
        run_study("titles", config, tmp_path)
    wrong = replace(config, settings={"lora_rank": 0}, arms=("titles as they are",))
    with pytest.raises(ConfigError, match=r"^setting 'lora_rank'"):
        run_study("titles", wrong, tmp_path / "out", measure=measure_arm)
    unfit = replace(wrong, settings={"backbone": "nowhere/at/all"})
    with pytest.raises(ConfigError, match=r"could be measured\. titles as they are: .*nowhere"):
        run_study("titles", unfit, tmp_path / "out", measure=measure_arm)


def test_data_without_ratings_are_refused(tiny_backbone: str, tmp_path: Path) -> None:
    make_dataset().save(tmp_path / "plain")
    with pytest.raises(GenRecError, match="has no ratings"):
        run_study("signals", StudyConfig(str(tmp_path / "plain")), tmp_path / "out")


def test_the_command_measures_in_a_process_of_its_own(
    folder: str, tiny_backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["study", "titles", "--dataset", folder, "--targets", "20", "--users", "10"]
    command += ["--set", f"backbone={tiny_backbone}", "--set", "dtype=float32", "--json"]
    command += ["--out", str(tmp_path / "out"), "--arm", "titles as they are"]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert not stopped.value.code
    found = json.loads(capsys.readouterr().out)
    (arm,) = found["arms"]
    assert arm["values"]["train_peak_mb"] > 50
    assert found["config"]["targets"] == 20
    assert found["data"]["fingerprint"] == Dataset.load(folder).fingerprint
    with pytest.raises(SystemExit) as stopped:
        main(["study", "title"])
    assert stopped.value.code == 2
    assert "Did you mean 'titles'" in capsys.readouterr().err


def test_an_arm_ends_with_the_command_that_started_it() -> None:
    script = "import os, time; from genrec.studies.runner import _end_with; parent = os.getpid();"
    script += "child = os.fork(); child or _end_with(parent); print(child, flush=True);"
    script += "time.sleep(600)"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        child = psutil.Process(int(running.stdout.readline()))
        time.sleep(1.5)
        assert child.is_running()
        running.kill()
    assert psutil.wait_procs([child], timeout=20)[1] == []


def test_peak_memory_is_that_of_the_stage() -> None:
    values: dict[str, float] = {}
    with peak_memory(values, "before"):
        pass
    with peak_memory(values, "during"):
        held = np.ones(200 * 2**20 // 8)
    assert held.sum() > 0
    assert 150 < values["during_peak_mb"] - values["before_peak_mb"] < 300


def test_plots_escape_names_and_hold_every_row() -> None:
    rows = [("a & <b>", 0.1, -0.2, 0.3), ("c", -0.05, -0.1, 0.0)]
    texts = [part.text for part in ET.fromstring(dots("T<", rows, zero=True)).iter()]
    assert {"T<", "a & <b>", "c", "+0.1 [−0.2, 0.3]"} <= set(texts)
    points = [Point(10.0**n, n, n - 0.5, n + 0.5) for n in range(4)]
    drawn = curves("T", {"s": points, "t": points[:1]}, x_label="items", y_label="ms")
    texts = [part.text for part in ET.fromstring(drawn).iter()]
    assert {"s", "t", "1", "10", "100", "1000"} <= set(texts)
    assert "items, logarithmic; vertical: ms" in texts


def test_results_are_frozen(config: StudyConfig, tmp_path: Path) -> None:
    found = run_study("titles", config, tmp_path, measure=fake())
    assert isinstance(found, StudyResult)
    with pytest.raises(AttributeError):
        found.entries = []  # type: ignore[misc]
