"""Dry runs of the accelerator's queue: a tiny model, little data, a CPU."""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import pytest

from conftest import make_dataset

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "gpu"))
import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    make_dataset(users=60).save(folder / "walks")
    return folder


@pytest.mark.parametrize(
    ("entry", "extra"),
    [
        ("G1", ["--no-tests"]),
        ("G2", ["--users", "20", "--batches", "1"]),
        ("G3", ["--users", "20"]),
        ("G4", ["--batch", "1", "2", "--beams", "2"]),
        ("G5", ["--targets", "20", "--users", "8", "--study", "titles", "--set", "dtype=float32"]),
        ("G6", ["--share", "0.0005", "--titles", "120"]),
    ],
)
def test_each_entry_of_the_queue_ends_with_a_table(
    entry: str,
    extra: list[str],
    where: Path,
    tiny_backbone: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = [entry, "--data", str(where / "walks"), "--backbone", tiny_backbone]
    arguments += ["--out", str(where / "out"), "--work", str(where / "work"), "--minutes", "0.01"]
    run.main([*arguments, *extra])
    found = json.loads((where / "out" / f"{entry}.json").read_text())
    assert found["device"] == "cpu"
    assert found["rows"]
    assert all(row.get("pass", True) for row in found["rows"])
    if entry == "G2":  # the benchmark of training is a part of it
        speed = found["rows"][0]
        ratio = speed["ours_items_per_second"] / speed["paper_items_per_second"]
        assert speed["items_per_second_ratio"] == pytest.approx(ratio)
        assert 0 < speed["matmul_peak_share"] < 1
        assert speed["paper_tokens_per_item"] > 3 * speed["ours_tokens_per_item"]
        assert len(found["rows"][1]["gain_over_pooled"]["nats"]) == 3
    if entry in ("G2", "G3"):
        assert all(0 <= row["genrec"][0] <= 1 for row in found["rows"] if "genrec" in row)
        archives = list((where / "out").glob("walks-default-*.tar.gz"))
        assert len(archives) == 1
        with tarfile.open(archives[0]) as tar:
            names = {Path(name).name for name in tar.getnames()}
        assert {"metrics.json", "adapter_model.safetensors"} <= names
    if entry == "G3":
        names = [row["name"].removeprefix("walks-").rpartition("-")[0] for row in found["rows"]]
        assert names == ["whole-history", "no-prior", "paper"]
    if entry == "G4":
        names = [row["name"] for row in found["rows"]]
        assert names == ["search, default", "search, whole-history"]
        assert all(each["ratio_to_floor"] > 0 for row in found["rows"] for each in row["batches"])
    if entry == "G6":
        assert found["rows"][1]["states_gb"] > 0
    if entry == "G5":
        assert (where / "out" / "study-titles.tar.gz").is_file()
