"""The benchmark scripts run; what they measure is not judged here.

The benchmark of training runs as a part of the accelerator's queue, see test_gpu_scripts.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_trie_benchmark_prints_one_json_object() -> None:
    command = [sys.executable, str(BENCHMARKS / "trie.py"), "--items", "3000", "--json"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert result["items"] == 3000
    assert result["decision_nodes"] > 100


def test_prior_benchmark_times_both_forms() -> None:
    command = [sys.executable, str(BENCHMARKS / "prior.py"), "--json"]
    command += ["--items", "500", "--users", "400"]
    result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    ratio = result["dense_milliseconds"] / result["sparse_milliseconds"]
    assert result["dense_to_sparse"] == pytest.approx(ratio)


def test_prepare_benchmark_measures_steps_and_projects_them() -> None:
    command = [sys.executable, str(BENCHMARKS / "prepare.py"), "--json", "--rows"]
    command += ["3000", "4000", "5000"]
    *sizes, projected = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)[
        "sizes"
    ]
    assert [found["rows"] for found in sizes] == [3000, 4000, 5000]
    assert all(found["prepare_within_limits"] for found in sizes)
    assert projected["prepare_csv_seconds_measured"] == sizes[2]["prepare_csv_seconds"]
