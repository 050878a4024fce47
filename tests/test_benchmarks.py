"""The benchmark scripts run; what they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import make_dataset

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_trie_benchmark_prints_one_json_object() -> None:
    command = [sys.executable, str(BENCHMARKS / "trie.py"), "--items", "3000", "--json"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert result["items"] == 3000
    assert result["decision_nodes"] > 100


def test_prior_benchmark_times_both_forms() -> None:
    command = [sys.executable, str(BENCHMARKS / "prior.py"), "--items", "500", "--json"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    ratio = result["dense_milliseconds"] / result["sparse_milliseconds"]
    assert result["dense_to_sparse"] == ratio


def test_training_benchmark_compares_two_recipes(tiny_backbone: str, tmp_path: Path) -> None:
    make_dataset(users=60).save(tmp_path / "data")
    command = [sys.executable, str(BENCHMARKS / "training.py"), "--minutes", "0.02", "--json"]
    command += ["--backbone", tiny_backbone, "--data", str(tmp_path / "data")]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    ratio = result["ours_items_per_second"] / result["paper_items_per_second"]
    assert result["items_per_second_ratio"] == ratio
    assert 0 < result["matmul_peak_share"] < 1
    assert result["paper_tokens_per_item"] > 3 * result["ours_tokens_per_item"]
